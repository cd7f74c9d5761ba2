"""The reader app does what its pages say, at once, and takes it back."""

import html
import re
import time
from urllib.parse import urlsplit

import pytest
from devices import Settlement
from visitors import SECRET, entered, forms, kept, opened

from fedrec import Recommender
from fedrec.deploy.folder import POLICY
from fedrec.device.member import Work
from fedrec.device.policy import Policy
from fedrec.device.store import Store
from fedrec.embed.contributor import partner
from fedrec.rounds.aggregate import Turn
from simulations.deployments.federation import ANY

SEARCH = "chess coffee jazz gardening"


def test_reading_moves_the_shelves_at_once_and_undo_takes_it_back(visitor):
    visitor.go("/")
    before = visitor.shelf()
    assert "To begin with" in visitor.page and len(before) == 9
    visitor.go(f"/item?id={before[0]}")
    visitor.submit("/read")
    assert "You are reading" in visitor.page
    undo = visitor.page
    visitor.go("/")
    assert before[0] not in visitor.shelf() and "For you" in visitor.page
    visitor.page = undo
    visitor.submit("/undo")
    assert "Undone, and erased." in visitor.page
    visitor.go("/")
    assert visitor.shelf() == before and "To begin with" in visitor.page


def test_what_is_read_is_said_to_be_from_its_shelf(room, visitor, monkeypatch):
    pages = []
    log = Recommender.log
    monkeypatch.setattr(Recommender, "log", lambda *said, **how: pages.append(how["page"]) or log(*said, **how))
    visitor.go("/")
    link = html.unescape(re.search(r'href="(/item\?[^"#]+)"', visitor.page)[1])
    visitor.go(link)
    visitor.submit("/read")
    assert (
        f"page={pages[0]}" in link and len(pages) == 1
    )  # a page that did not show the book is tried once more without


def test_no_book_is_on_two_shelves_and_some_are_there_because_of_one(room, visitor):
    visitor.go("/")
    for item in visitor.shelf()[:3]:
        room.rec.log("like", item)
    visitor.go("/")
    books = re.findall(r'<h3><a href="/item\?id=([^&"]+)', visitor.page)
    assert len(books) == len(set(books)) >= 20
    near = set(visitor.shelf("because0"))
    label = html.unescape(re.search("Because of “(.*?)”", visitor.page)[1])
    assert len(near) >= 3 and near <= room.library.near(label) < set(room.library.catalogue.ids)
    room.rec.forget(everything=True)
    room.rec.log("search", text=SEARCH)
    visitor.go("/")
    near = set(visitor.shelf("because0"))
    assert f"Because of “{SEARCH}”" in visitor.page and near <= {*room.library.search(SEARCH, 30)}
    newest = room.library.newest
    assert visitor.shelf("new") and set(visitor.shelf("new")) <= newest < set(room.library.catalogue.ids)


def test_thumbs_and_hiding(room, visitor):
    visitor.go("/")
    hidden = visitor.shelf()[0]
    visitor.submit("/feedback", "hide", hidden)
    assert "is hidden." in visitor.page and hidden not in re.findall(r'/item\?id=([^&#"]+)', visitor.page)
    visitor.go("/privacy")
    title = html.escape(room.library.book(hidden).title, quote=False)
    assert f"never “{title}”" in html.unescape(visitor.page) or f"never “{title}”" in visitor.page
    visitor.submit("/undo", changes=str(room.rec.preferences[0][0]))
    visitor.go("/")
    assert hidden in visitor.shelf()
    liked = visitor.shelf()[3]
    score = room.rec.explain(liked)
    visitor.submit("/feedback", "more_like_this", liked)
    assert sum(cause.value for cause in room.rec.explain(liked).causes) > sum(cause.value for cause in score.causes)


def test_what_is_told_is_listed_and_what_is_not_understood_is_said(room, visitor):
    visitor.go("/")
    visitor.submit("/tell", sentence="I like jazz but no coffee")
    assert "From now on:" in visitor.page and "more jazz" in visitor.page and "never coffee" in visitor.page
    tags = dict(zip(room.library.catalogue.ids, room.library.catalogue.tags, strict=True))
    coffee = [item for item in tags if "coffee" in tags[item]]
    assert coffee and not {*coffee} & {*re.findall(r'/item\?id=([^&#"]+)', visitor.page)}
    told = [fields["changes"] for target, fields, _ in forms(visitor.page) if target == "/undo"]
    assert sorted(told[0].split()) == sorted(told[1:]) and len(told) == 3  # the note's, and one for each wish
    visitor.submit("/undo", changes=told[1])
    assert len(room.rec.preferences) == 1
    visitor.submit("/undo", changes=told[0])
    assert room.rec.preferences == []
    visitor.go("/")
    visitor.submit("/tell", sentence="Ich mag keine Krimis, aber gerne Gedichte")
    assert "Nothing was taken from that." in visitor.page and "Not understood" in visitor.page
    visitor.submit("/tell", sentence="  ")
    assert "Write what you like" in visitor.page and kept(room) == 0


def test_a_search_finds_by_words_counts_and_is_forgotten(room, visitor):
    visitor.go("/")
    visitor.submit("/search", query="coffee")
    shown = visitor.shelf("found")
    assert shown and all("coffee" in room.library.catalogue.texts[room.library.catalogue.rows[item]] for item in shown)
    place, page = visitor.place, visitor.page
    assert "coffee" not in place
    visitor.go("/")
    assert "For you" in visitor.page
    visitor.page = page
    visitor.submit("/undo")
    assert kept(room) == 0
    assert visitor.go(urlsplit(place).path).status_code == 404
    visitor.submit("/search", query="qqqqq")
    assert "No book has a word of it" in visitor.page


def test_a_review_has_stars_or_words(room, visitor):
    visitor.go("/item?id=b0001")
    visitor.submit("/review")
    assert "Give stars, or write something." in visitor.page and kept(room) == 0
    scores = []
    for stars in ("1", "5"):
        visitor.submit("/review", stars=stars, text="")
        scores.append(sum(cause.value for cause in room.rec.explain("b0001").causes))
        assert "is kept" in visitor.page and kept(room) == 1
    assert scores[0] < scores[1]
    visitor.submit("/review", stars="4", text=SECRET)
    assert SECRET not in visitor.page and kept(room) == 1


def test_consent_and_pause(room, visitor):
    visitor.go("/privacy")
    assert not room.rec.consent.state().contribute
    visitor.submit("/consent", "contribute", cap="2.5")
    assert room.rec.consent.state().max_epsilon == 2.5 and "up to ε = 2.5" in visitor.page
    visitor.submit("/consent", "stop-contribute")
    assert not room.rec.consent.state().contribute
    for wrong in ("-1", "nan", "many"):
        assert visitor.submit("/consent", "contribute", cap=wrong).status_code == 422
        assert not room.rec.consent.state().contribute
        visitor.go("/privacy")
    visitor.submit("/consent", "pause")
    assert "Paused until" in visitor.page
    visitor.go("/item?id=b0001")
    visitor.submit("/read")
    assert "Nothing was kept" in visitor.page and kept(room) == 0
    visitor.go("/privacy")
    visitor.submit("/consent", "resume")
    visitor.submit("/consent", "stop-personalize")
    visitor.go("/")
    visitor.submit("/tell", sentence="I like jazz")
    assert "Nothing was kept" in visitor.page and kept(room) == 0


def test_taking_part_needs_consent_and_an_invitation(room, visitor):
    visitor.go("/privacy")
    assert "No update was made and no byte was sent." in visitor.page and "has joined no site" in visitor.page
    fields = {"token": room.keys.form, "back": "/privacy"}
    assert visitor._at(visitor.send("POST", "/contribute", data=fields)).status_code == 200
    assert "Taking part ended: no consent." in visitor.page
    visitor.submit("/consent", "contribute", cap="")
    assert "/contribute" not in [target for target, _, _ in forms(visitor.page)]
    visitor._at(visitor.send("POST", "/contribute", data=fields))
    assert "Taking part ended: not enrolled." in visitor.page
    assert room.rec.ledger.summary().bytes_sent == 0


@pytest.fixture
def seated(reader_pack, tmp_path):
    """The room of somebody whose device has a seat at a site, and the work that it is there for."""
    settled = Settlement(tmp_path, {"privacy": {"mode": "user-local", "noise": "test", "force": True, "epsilon": 50.0,
                                                "allow_large_epsilon": True}})  # fmt: skip
    home = settled.device(0, policy=ANY)
    with opened(reader_pack, home) as room:
        yield room, Work(settled.task)


def test_what_would_be_sent_and_what_was_given_is_shown(seated):
    room, work = seated
    visitor = entered(room)
    visitor.go("/privacy")
    shown = html.unescape(visitor.page)
    assert room.rec.ledger.preview().text() in shown and "No update was made and no byte was sent." in shown
    visitor.submit("/consent", "contribute", cap="")
    assert "Take part for half a minute" in visitor.page and "Join the site" not in visitor.page
    with (
        Store(room.folder / "events.sqlite") as store,
        partner(room.folder, store, room.rec.consent, work, policy=Policy.read(room.folder / POLICY)) as device,
    ):
        device.take_part(Turn(1), work.task.model.initial)
    visitor.go("/privacy")
    shown = html.unescape(visitor.page)
    given = room.rec.ledger.summary()
    assert given.rounds == 1 and "1 round</dd>" in shown and str(given.together[0].so_far) in shown
    assert all(f"<td>{step}</td>" in shown for step in ("enrolled", "reserved", "sealed"))
    room.rec.log("like", "b0001")
    visitor.submit("/forget", everything="yes")
    assert "erased" in visitor.page and "1 round</dd>" in visitor.page  # what was spent stays spent


def test_a_ledger_that_was_changed_keeps_nobody_from_erasing(seated):
    room, _ = seated
    (room.folder / "ledger.sqlite").write_bytes(b"no ledger")
    visitor = entered(room)
    assert visitor.go("/privacy").status_code == 200 and "P11" in visitor.page
    visitor.submit("/forget", everything="yes")
    assert "erased" in visitor.page and kept(room) == 0


def test_forgetting_by_book_topic_day_and_all(room, visitor):
    day = 86_400
    room.rec.log("click", "b0001", time=time.time() - 10 * day)
    room.rec.log("click", "b0002")
    room.rec.log("search", text="chess openings")
    visitor.go("/privacy")
    visitor.submit("/forget", before="soon")
    assert "Say what to forget." in visitor.page
    visitor.submit("/forget", before=time.strftime("%Y-%m-%d", time.localtime(time.time() - 2 * day)))
    assert "1 thing that you did or said is erased" in visitor.page
    visitor.submit("/forget", topic="chess openings")
    assert "is erased" in visitor.page or "are erased" in visitor.page
    visitor.go("/item?id=b0002")
    visitor.submit("/forget")
    visitor.submit("/search", query=SECRET)
    place = urlsplit(visitor.place).path
    visitor.go("/privacy")
    visitor.submit("/forget", everything="yes")
    assert visitor.go(place).status_code == 404
    assert kept(room) == 0
