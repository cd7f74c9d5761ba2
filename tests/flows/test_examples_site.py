"""The reader app joins a site, asks it for models, and says in words what did not work."""

import pytest
from shelf import published
from sites import make_site, open_door
from visitors import entered, forms, opened

from fedrec.deploy.invitation import Invitation
from fedrec.deploy.roster import Roster
from fedrec.device.packs import Packs


@pytest.fixture
def visitor(visitor):
    visitor.go("/privacy")
    return visitor


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site")


@pytest.fixture
def door(site):
    with open_door(site, None):
        yield site


def invited(site):
    with Roster(site.roster, site.spec.seats) as roster:
        (secret,) = roster.issue(1, seconds=3600)
    return Invitation(site.spec.url, site.id, secret).encode()


def targets(visitor):
    return [target for target, _, _ in forms(visitor.page)]


def test_joining_takes_a_seat_and_allows_nothing(room, visitor, door):
    assert "none joined" in visitor.page and "/sync" not in targets(visitor)
    words = invited(door)
    visitor.submit("/join", invitation=f" {words[:40]}\n{words[40:]} ")  # as a mail breaks it
    assert f"This device has joined {door.spec.url}." in visitor.page
    assert "/join" not in targets(visitor) and "/sync" in targets(visitor)
    assert not room.rec.consent.state().contribute and "/contribute" not in targets(visitor)
    assert room.rec.ledger.summary().bytes_sent == 0
    visitor.submit("/consent", "contribute", cap="")
    assert "/contribute" in targets(visitor)


@pytest.mark.parametrize("words", ["", "  ", "nothing of the kind", "x" * 4000, "torn", "taken"])
def test_an_invitation_that_is_none_is_explained(room, visitor, door, words):
    if words == "torn":
        words = invited(door)[:-3]
    elif words == "taken":
        words = Invitation(door.spec.url, door.id, "00" * 32).encode()
    answer = visitor.submit("/join", invitation=words)
    told = ("Paste the invitation", 200) if not words.strip() else ("That did not work", 422)
    assert told == (next(one for one in (told[0],) if one in answer.text), answer.status_code)
    assert "Traceback" not in answer.text and (len(words.strip()) < 9 or words.strip() not in answer.text)
    assert "none joined" in visitor.go("/privacy").text


def test_a_site_that_is_away_and_a_pause_are_said(room, visitor, site):
    answer = visitor.submit("/join", invitation=invited(site))
    assert answer.status_code == 422 and "out of reach" in answer.text
    visitor.go("/privacy")
    visitor.submit("/consent", "pause")
    visitor.submit("/join", invitation=invited(site))
    assert "end the pause first" in visitor.page and not (room.folder / "device.json").exists()


def test_a_newer_model_comes_when_it_is_asked_for(room, visitor, door):
    visitor._at(visitor.send("POST", "/sync", data={"token": room.keys.form, "back": "/privacy"}))
    assert "join a site first" in visitor.page
    visitor.submit("/join", invitation=invited(door))
    answer = visitor.submit("/sync")
    assert answer.status_code == 422 and "the site has what a device asks for" in answer.text  # nothing is published
    published(door.packs, [0], key=door.signing)
    room.rec.log("like", "b0001")  # which the next model does not have
    visitor.go("/privacy")
    visitor.submit("/sync")
    assert "A newer model has come." in visitor.page and "version 1, published" in visitor.page
    visitor.go("/")
    assert visitor.shelf() and set(visitor.shelf()) <= {f"book-{n}" for n in range(6)}
    assert visitor.go("/item?id=b0001").status_code == 404
    visitor.go("/privacy")
    visitor.submit("/sync")
    assert "There is no newer model" in visitor.page
    published(door.packs, [0, 1], key=door.signing)
    visitor.submit("/sync")
    assert "version 3, published" in visitor.page and room.rec.pack.version == 3


def test_a_model_that_somebody_else_signed_is_refused_and_the_one_in_use_stays(room, visitor, door, tmp_path):
    visitor.submit("/join", invitation=invited(door))
    published(door.packs, [0])
    digest = room.rec.pack.digest
    answer = visitor.submit("/sync")
    assert answer.status_code == 422 and "That did not work" in answer.text and "Traceback" not in answer.text
    assert room.rec.pack.digest == digest
    visitor.go("/")
    assert visitor.shelf()
    assert Packs(room.folder / "packs", door.signing.public_key()).refused


def test_what_was_taken_is_in_use_when_the_app_starts_again(room, visitor, door, reader_pack):
    visitor.submit("/join", invitation=invited(door))
    published(door.packs, [0], key=door.signing)
    visitor.submit("/sync")
    with opened(reader_pack, room.folder) as again:
        assert again.rec.pack.version == 1 and len(again.rec.catalogue) == 6
    (room.folder / "device.json").write_text("torn")
    with opened(reader_pack, room.folder) as torn:  # lists go on; the page says what is wrong where it matters
        assert torn.rec.pack.version == 0
        other = entered(torn)
        assert "none joined" in other.go("/privacy").text
