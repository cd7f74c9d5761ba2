"""What is forgotten is gone from every file, and lists are those of a device that never knew it."""

import gc
import os
import weakref
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pocket import NOW, Clock, items, opened, pack, scores

from fedrec.embed.recommender import Recommender
from fedrec.errors import DataError, RunError

KEY = bytes(range(32))
HEALTH = "zz-fever-remedies-zz"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def where(folder, *words):
    """The files in which any of `words` can be read."""
    return [path.name for path, held in contents(folder).items() if any(word.encode() in held for word in words)]


def state(rec):
    """All that a list is made of, to the last bit."""
    standing = rec._person.session().standing
    return (scores(rec), standing.taste.views.tolist(), standing.taste.seen.tolist(), standing.embedding.tolist(),
            standing.bonus.tolist(), standing.blocked.tolist())  # fmt: skip


acts = st.tuples(
    st.sampled_from(["view", "like", "skip", "review", "search"]),
    st.sampled_from(["sea-1", "sea-2", "bread-1", "stars-4", "clocks-2"]),
    st.sampled_from(["", "a storm at sea", "pendulum"]),
    st.integers(0, 6),
)


def log(rec, act):
    kind, item, text, day = act
    words = text or ("harbour" if kind == "search" else "")
    return rec.log(kind, "" if kind == "search" else item, text=words, time=NOW + 86_400 * day)


@given(st.lists(st.tuples(acts, st.booleans()), min_size=1, max_size=5))
@settings(max_examples=8, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_device_that_forgot_is_one_that_never_knew(tmp_path_factory, done):
    place = tmp_path_factory.mktemp("two")
    with closing(opened(place / "forgot")) as forgot, closing(opened(place / "never")) as never:
        ids = [(log(forgot, act), keep) for act, keep in done]
        forgot.recommend(3)
        for change, keep in ids:
            assert keep or forgot.undo(change)
        for act, keep in done:
            if keep:
                log(never, act)
        assert state(forgot) == state(never)


@pytest.mark.parametrize("secret", [None, KEY], ids=["plain", "encrypted"])
def test_no_file_remembers(tmp_path, secret):
    folder = tmp_path / "me"
    with closing(opened(folder, secret=secret)) as rec:
        rec.log("search", text=f"{HEALTH} at night")
        rec.log("review", "sea-1", text=HEALTH)
        rec.tell(f"no {HEALTH}")
        for _ in range(200):
            rec.recommend(2)  # pages that name items of theirs
        rec.log("like", "sea-1")
        rec.log("like", "bread-1")
        assert bool(where(folder, HEALTH, "bread-1")) is (secret is None)
        assert rec.forget(everything=True) == 5
        assert where(folder, HEALTH, "bread-1", "sea-1") == []
        with closing(opened(tmp_path / "never")) as never:
            assert state(rec) == state(never)
    assert where(folder, HEALTH) == []


def test_pages_are_forgotten_even_if_they_were_never_written(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.log("like", "sea-1")
        page = rec.recommend(3)
        rec.forget(everything=True)
        rec.log("like", "bread-1")
        assert rec._person.shown(page.id) == ()
    assert where(tmp_path / "me", *(pick.item for pick in page)) == []


def test_a_page_that_an_app_holds_keeps_nothing_alive(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.log("search", text=HEALTH)
        page = rec.recommend(3)
        taste = weakref.ref(rec._person.session().standing.taste)
        assert taste()
        rec.forget(everything=True)
        gc.collect()
        assert taste() is None
        assert HEALTH not in str([cause for pick in page for cause in (*pick.why.causes, pick.why.sentence)])
        assert [cause.source for cause in page[0].why.causes] == ["popularity"]


def test_a_topic_goes_wherever_it_was(tmp_path):
    with closing(opened(tmp_path / "me")) as rec, closing(opened(tmp_path / "never")) as never:
        for one in (rec, never):
            one.log("like", "bread-1", time=NOW)
            one.log("search", text="a sourdough starter", time=NOW + 5)
        rec.log("like", "sea-1", time=NOW + 2)  # its tag
        rec.log("search", text="lodgings by the Sea", time=NOW + 3)
        rec.log("review", "stars-1", text="they shine on the sea", time=NOW + 4)
        rec.tell("more sea")
        page = rec.recommend(5)
        rec._person.flush()
        assert rec._person.shown(page.id)
        assert rec.forget(topic="sea") == 4
        assert state(rec) == state(never)
        assert rec.preferences == []
        assert rec.forget(topic="sea") == 0
        never.log("like", "bread-2", time=NOW + 6)
        rec.log("like", "bread-2", time=NOW + 6)
        assert rec._person.shown(page.id) == ()
        assert state(rec) == state(never)


def test_conditions_narrow_each_other(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.log("like", "sea-1", time=NOW)
        rec.log("like", "sea-1", time=NOW + 10)
        rec.log("like", "sea-2", time=NOW)
        assert rec.forget(item="sea-1", before=NOW + 5) == 1
        assert rec.forget(topic="sea", before=NOW + 5) == 1
        assert rec.forget(topic="bread", item="sea-1") == 0
        assert rec.forget(item="sea-1") == 1
        assert rec.recommend(1)[0].source == "popular"


def test_forgetting_keeps_consent_and_what_was_spent(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.consent.grant("contribute", max_epsilon=3.0)
        (tmp_path / "me" / "ledger.sqlite").write_bytes(b"whatever was spent")
        rec._person.store.set("spent.bytes", "1234")
        rec.log("like", "sea-1")
        rec.forget(everything=True)
        assert rec.consent.state().max_epsilon == 3.0
        assert rec._person.store.setting("spent.bytes") == "1234"
        assert (tmp_path / "me" / "ledger.sqlite").read_bytes() == b"whatever was spent"


@pytest.mark.parametrize("secret", [None, KEY], ids=["plain", "encrypted"])
def test_a_copy_comes_back_as_the_same_person(tmp_path, secret):
    with closing(opened(tmp_path / "me", secret=secret)) as rec:
        for item in ("sea-1", "bread-1"):
            rec.log("review", item, text="a storm", rating=0.75, dwell_s=12)
        rec.tell("more clocks, no stars")
        page = rec.recommend(3)
        rec.export(tmp_path / "me.zip")
        before = state(rec), rec.preferences
    assert os.stat(tmp_path / "me.zip").st_mode & 0o077 == 0
    with closing(Recommender.restore(tmp_path / "me.zip", tmp_path / "other", pack=pack(), clock=Clock())) as back:
        assert (state(back), back.preferences) == before
        assert back._person.shown(page.id) == tuple(pick.item for pick in page)
        assert back.undo()  # ids are the same: the last call is
        assert back.preferences == []


def test_a_copy_replaces_nobody(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.log("like", "sea-1")
        rec.export(tmp_path / "me.zip")
        before = items(rec)
    with pytest.raises(RunError, match="empty"):
        Recommender.restore(tmp_path / "me.zip", tmp_path / "me", pack=pack())
    (tmp_path / "no.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="export"):
        Recommender.restore(tmp_path / "no.zip", tmp_path / "third", pack=pack())
    with closing(opened(tmp_path / "me")) as rec, closing(opened(tmp_path / "third")) as third:
        assert items(rec) == before
        assert third.recommend(1)[0].source == "popular"
