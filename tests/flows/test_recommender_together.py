"""Several threads, processes, packs and accidents around one person."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import shelf
from pocket import NOW, build, catalogue, genres, items, opened, pack, scores

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.embed.asynchronous import AsyncRecommender
from fedrec.embed.recommender import Recommender
from fedrec.errors import DataError, SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_format import ITEMS
from fedrec.model.publish import publish

KEY = bytes(range(32))


def test_eight_threads(tmp_path):
    ids = catalogue().ids
    with closing(opened(tmp_path / "me")) as rec, closing(opened(tmp_path / "alone")) as alone:

        def work(number):
            for turn in range(5):
                item = ids[5 * number + turn]
                assert rec.log("click", item, time=NOW + 5 * number + turn)
                assert item not in items(rec, 40)
                assert rec.explain(item).causes

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        alone._person.store.append([Act(kind=Kind.CLICK, item=item, time=int(NOW) + n) for n, item in enumerate(ids)])
        assert scores(rec) == scores(alone)


def test_another_process_is_noticed(tmp_path):
    with closing(opened(tmp_path / "me")) as rec, closing(opened(tmp_path / "me")) as other:
        rec.log("like", "bread-1")
        assert items(rec) == items(other)
        other.log("like", "sea-1")
        other.log("like", "sea-2")
        assert set(genres(items(rec))) == {"sea"}
        assert rec.log("like", "sea-3") == 4
        assert scores(rec) == scores(other)
        rec.forget(topic="sea")
        assert set(genres(items(other))) == {"bread"}
        other.consent.withdraw("personalize")
        assert rec.recommend(1)[0].source == "popular"


def test_pages_are_not_written_after_another_process_forgot(tmp_path):
    with closing(opened(tmp_path / "me")) as rec, closing(opened(tmp_path / "me")) as other:
        rec.log("like", "sea-1")
        page = rec.recommend(3)
        other.forget(everything=True)
        rec.log("like", "bread-1")
        assert rec._person.shown(page.id) == ()


def test_a_list_waits_for_nobody_who_writes(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.log("like", "sea-1")
        with closing(sqlite3.connect(tmp_path / "me" / "events.sqlite", isolation_level=None)) as busy:
            busy.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            assert set(genres(items(rec))) == {"sea"}
            assert time.monotonic() - began < 5.0
            busy.execute("ROLLBACK")


def site(place, *seeds):
    """A folder of published packs."""
    for seed in seeds:
        publish(place, lambda folder, seed=seed: build(folder, seed=seed), shelf.KEY)
    return place


def test_a_new_pack_is_taken_while_the_app_is_open(tmp_path):
    packs, key = tmp_path / "site", shelf.KEY.public_key()
    with closing(opened(tmp_path / "me", key=key)) as rec:
        rec.log("like", "sea-1")
        rec.tell("no clocks")
        rec.stock(Catalogue(["new"], ["sailing"]))
        old = rec.recommend(3)
        before = scores(rec)
        assert rec.sync(site(packs, 1)).version == 1
        assert rec.sync(packs) is None
        assert rec.pack.version == 1
        assert scores(rec) != before
        assert "new" in items(rec, 60)
        assert set(genres(items(rec))) == {"sea"}
        assert "clocks" not in genres(items(rec, 40))
        assert old[0].why.causes  # of now, under the new pack
        with closing(opened(tmp_path / "me", key=key)) as other:
            site(packs, 2)
            other.sync(packs)
        assert rec.pack.version == 2
        assert items(rec)
    with closing(opened(tmp_path / "new", pack=None, key=key.public_bytes_raw().hex())) as rec:
        assert rec.sync(packs).version == 2
        assert items(rec)
    with pytest.raises(SpecError, match="64"):
        opened(tmp_path / "new", key="abc")


def test_the_newer_of_two_packs_is_used(tmp_path):
    key = shelf.KEY.public_key()
    packs = site(tmp_path / "site", 1, 2)
    with closing(opened(tmp_path / "me", pack=packs / "1", key=key)) as rec:
        assert rec.pack.version == 1
        rec.sync(packs)
        assert rec.pack.version == 2
    site(packs, 3)
    with closing(opened(tmp_path / "me", pack=packs / "3", key=key)) as rec:
        assert rec.pack.version == 3  # the app was updated, and brings a newer one
    broken = packs / "3" / ITEMS
    broken.write_bytes(broken.read_bytes()[:-1] + b"\x01")
    with closing(opened(tmp_path / "me", pack=packs / "3", key=key)) as rec:
        assert rec.pack.version == 2
    with pytest.raises(DataError):
        opened(tmp_path / "nobody", pack=packs / "3", key=key)
    with pytest.raises(DataError, match="signed by its site"):
        opened(tmp_path / "nobody", pack=packs / "2", key=shelf.STRANGER.public_key())


def test_a_damaged_file_is_moved_aside(tmp_path):
    folder = tmp_path / "me"
    with closing(opened(folder)) as rec:
        rec.log("search", text="private words about the sea")
    damaged = b"no database at all" * 500
    (folder / "events.sqlite").write_bytes(damaged)
    with closing(opened(folder)) as rec:
        (notice,) = rec.notices
        assert rec.recommend(1)[0].source == "popular"
        rec.log("like", "sea-1")
    (aside,) = (path for path in folder.glob("events.sqlite.damaged*") if not path.name.endswith("-journal"))
    assert aside.name in notice
    assert aside.read_bytes() == damaged
    with closing(opened(folder)) as rec:
        assert rec.notices == ()
        assert set(genres(items(rec))) == {"sea"}


def test_damage_inside_is_found_when_it_is_opened(tmp_path):
    folder = tmp_path / "me"
    with closing(opened(folder)) as rec:
        rec.log("search", text="private words about the sea")
    with closing(sqlite3.connect(folder / "events.sqlite", isolation_level=None)) as file:
        file.execute("UPDATE events SET kind = 99")
    with closing(opened(folder)) as rec:
        assert len(rec.notices) == 1
        assert rec.recommend(1)[0].source == "popular"


def test_a_wrong_secret_is_no_damage(tmp_path):
    folder = tmp_path / "me"
    with closing(opened(folder, secret=KEY)) as rec:
        rec.log("like", "sea-1")
        before = scores(rec)
    for secret in (None, KEY[::-1]):
        with pytest.raises(DataError, match="key"):
            opened(folder, secret=secret)
    with pytest.raises(SpecError, match="32 bytes"):
        opened(folder, secret=b"short")
    assert not list(folder.glob("*damaged*"))
    with closing(opened(folder, secret=KEY)) as rec:
        assert scores(rec) == before


def test_texts_that_cannot_be_read_do_not_stop_lists(tmp_path):
    build(tmp_path / "pack", encoder="tiny")
    with closing(opened(tmp_path / "me", pack=tmp_path / "pack")) as rec:
        rec.log("like", "sea-1")
        assert rec.notices == ()
        before = scores(rec)
        rec.log("search", text="my private harbour")
        assert len(items(rec)) == 5
        (notice,) = rec.notices
        assert "encoder" in notice
        assert "private" not in notice
        assert scores(rec).keys() == before.keys()


GOLDEN = Path(__file__).parents[2] / "client" / "golden" / "pack"


def test_a_transformer_beside_the_pack_reads_texts(tmp_path):
    pytest.importorskip("onnxruntime")
    with closing(opened(tmp_path / "me", pack=GOLDEN)) as rec:
        before = scores(rec)
        rec.log("search", text="a lighthouse at sea")
        assert scores(rec) != before
        assert rec.notices == ()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with closing(opened(tmp_path / "me", pack=GOLDEN)) as rec:
        rec.log("search", text="my private harbour")
        assert len(items(rec, 3)) == 3
        (notice,) = rec.notices
        assert 'pip install "fedrec[text]"' in notice
        assert "private" not in notice


def test_a_lost_file_of_packs_does_not_stop_lists(tmp_path):
    key = shelf.KEY.public_key()
    packs = site(tmp_path / "site", 1)
    build(tmp_path / "brought")
    with closing(opened(tmp_path / "me", pack=tmp_path / "brought", key=key)) as rec:
        rec.sync(packs)
        assert rec.pack.version == 1
        for path in (tmp_path / "me" / "packs" / "1" / ITEMS, tmp_path / "brought" / ITEMS):
            path.write_bytes(b"damaged")
        (tmp_path / "me" / "packs" / "packs.json").unlink()
        assert rec.pack.version == 1
        assert items(rec)
        assert "stays" in rec.notices[0]


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pocket import opened
rec = opened(sys.argv[2], pack=sys.argv[3])
number = 0
while True:
    number += 1
    print(rec.log("search", text=f"harbour {number}"), flush=True)
    rec.recommend(3)
    if number % 3 == 0:
        print(rec.feedback("sea-1", "more_like_this"), flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path, after):
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parents[1]), str(tmp_path / "me"), str(pack())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [process.stdout.readline() for _ in range(after)]
        time.sleep(0.003 * after)
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += process.stdout.read().split()
    with closing(opened(tmp_path / "me")) as rec:
        held = {*rec._person.store.columns().ids.tolist(), *(change for change, _ in rec.preferences)}
        assert rec.notices == ()
        assert {*map(int, acknowledged)} <= held
        assert len(held) <= len(acknowledged) + 2  # and what was under way
        assert items(rec)


async def _used(folder):
    async with await AsyncRecommender.open(folder, pack=pack()) as rec:
        changes = await asyncio.gather(*(rec.log("like", item) for item in ("sea-1", "sea-2", "sea-3")))
        page = await rec.recommend(3, diversity=0.1)
        await rec.feedback(page[0], "hide")
        told = await rec.tell("no bread")
        assert len(await rec.preferences()) == 1 + len(told.preferences)
        assert await rec.undo()
        reason = await rec.explain("sea-5")
        await rec.export(folder / "copy.zip")
        assert await rec.forget(item="sea-1") == 1
        return len({*changes}), [pick.item for pick in page], reason.sentence


def test_an_event_loop(tmp_path):
    changes, listed, sentence = asyncio.run(_used(tmp_path / "me"))
    assert changes == 3
    assert set(genres(listed)) == {"sea"}
    assert sentence.startswith("Because")
    with closing(Recommender.restore(tmp_path / "me" / "copy.zip", tmp_path / "two", pack=pack())) as rec:
        assert json.dumps(items(rec))


def test_the_two_faces_have_the_same_calls():
    public = {name for name in vars(Recommender) if not name.startswith("_")}
    ours = {name for name in vars(AsyncRecommender) if not name.startswith("_")}
    assert public - ours == {"restore", "notices", "pack", "consent", "ledger", "narrate", "stock"}
