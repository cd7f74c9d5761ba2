"""What an app is told of its items, and which site vouches for its models."""

import asyncio
import json
import shutil
from contextlib import closing

import pytest
from pocket import catalogue, items, opened
from shelf import KEY, STRANGER, published
from sites import make_site, open_door

from fedrec.embed import person
from fedrec.embed.asynchronous import AsyncRecommender
from fedrec.embed.recommender import Recommender
from fedrec.embed.seat import Seat
from fedrec.errors import DataError, RunError
from fedrec.model.catalogue import Catalogue


@pytest.fixture
def shelf(tmp_path):
    published(tmp_path / "shelf", [0])
    return tmp_path / "shelf"


def seated(folder, *, server="https://127.0.0.1:9", key=KEY, authority=b"no authority"):
    """The folder as enrolment at a site with this key leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(authority)
    card = {"server": server, "roster_key": key.public_key().public_bytes_raw().hex()}
    (folder / "device.json").write_text(json.dumps(card))
    return folder


def test_an_app_is_told_what_it_may_list(tmp_path, shelf):
    with closing(opened(seated(tmp_path / "me"))) as rec:
        bundled, public = rec.catalogue, catalogue()
        assert (bundled.ids, bundled.texts, bundled.tags) == (public.ids, public.texts, public.tags)
        assert rec.catalogue is bundled  # so that what an app makes of it may be kept
        rec.stock(Catalogue(["new-1"], ["a comet over the harbour"]))
        assert rec.catalogue.ids == (*public.ids, "new-1") and set(items(rec, 50)) <= {*rec.catalogue.ids}
        rec.stock(Catalogue((), ()))
        assert rec.catalogue.ids == public.ids
        rec.sync(shelf)
        assert rec.catalogue.ids == tuple(f"book-{n}" for n in range(6))
        assert set(items(rec, 50)) == {*rec.catalogue.ids}
    with closing(Recommender.open(tmp_path / "nothing")) as rec:
        assert rec.catalogue is None

    async def asked():
        async with await AsyncRecommender.open(tmp_path / "me") as twin:
            return await twin.catalogue()

    assert asyncio.run(asked()).ids == tuple(f"book-{n}" for n in range(6))


def test_the_site_where_the_folder_has_its_seat_vouches_for_models(tmp_path, shelf):
    with closing(opened(tmp_path / "me")) as rec:
        with pytest.raises(RunError, match="a folder has a seat"):
            rec.sync()
        with pytest.raises(RunError, match="whose key is known"):
            rec.sync(shelf)
        seated(tmp_path / "me")  # while the app is open
        assert rec.sync(shelf).version == 1
        assert rec.pack.version == 1
    with closing(opened(tmp_path / "me")) as again:
        assert again.pack.version == 1
    with closing(opened(tmp_path / "other", key=STRANGER.public_key())) as rec:
        seated(tmp_path / "other")  # what the app says goes before
        with pytest.raises(DataError):
            rec.sync(shelf)


def test_its_door_is_asked_where_no_other_source_is_named(tmp_path):
    site = make_site(tmp_path / "site")
    published(site.packs, [0], key=site.signing)
    seated(tmp_path / "me", server=site.spec.url, key=site.signing, authority=site.ca)
    with open_door(site, None), closing(opened(tmp_path / "me")) as rec:
        assert rec.sync().version == 1
        assert rec.sync() is None
        assert rec.pack.version == 1


def test_an_app_that_brings_a_pack_of_another_site_goes_on_with_it(tmp_path, shelf):
    published(tmp_path / "theirs", [0, 1], key=STRANGER)
    seated(tmp_path / "me")
    with closing(opened(tmp_path / "me", pack=tmp_path / "theirs" / "2")) as rec:
        assert rec.pack.version == 2
        with pytest.raises(RunError, match="whose key is known"):
            rec.sync(shelf)
    shutil.copytree(shelf / "1", tmp_path / "ours")
    with closing(opened(tmp_path / "me", pack=tmp_path / "ours")) as rec:
        assert rec.pack.version == 1
        assert rec.sync(shelf).version == 1


@pytest.mark.parametrize("card", ["torn", "[]", "{}", '{"server": "x", "roster_key": "ab"}', '{"roster_key": 7}'])
def test_a_card_that_cannot_be_read_stops_no_list(tmp_path, card):
    seated(tmp_path / "me")
    (tmp_path / "me" / "device.json").write_text(card)
    with closing(opened(tmp_path / "me")) as rec:
        assert items(rec)
        with pytest.raises(DataError, match="what enrolment left"):
            rec.sync()
    with pytest.raises(DataError, match="what enrolment left"):
        Seat.of(tmp_path / "me")


def test_lists_do_not_read_the_card_again(tmp_path, monkeypatch):
    """Where nobody vouches there is nothing to keep, but for what the card looked like."""
    published(tmp_path / "theirs", [0], key=STRANGER)
    seated(tmp_path / "me")
    looks, looked = [], person.vouching
    monkeypatch.setattr(person, "vouching", lambda *rest: looks.append(rest) or looked(*rest))
    with closing(opened(tmp_path / "me", pack=tmp_path / "theirs" / "1")) as rec:
        for _ in range(3):
            assert rec.recommend(2)
        assert len(looks) == 1
        (tmp_path / "me" / "device.json").write_text("torn")
        assert rec.recommend(2) and len(looks) == 2
