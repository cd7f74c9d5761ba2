"""A million events: nothing is lost, mixed up or left behind. What it takes: simulations/benchmarks/store.py."""

import numpy as np
import pytest
from persons import CANARY, KEY, memory
from pocket import NOW, Clock, catalogue, items, opened, pack

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed import portable, vault
from fedrec.embed.person import EVENTS
from fedrec.embed.recommender import Recommender
from fedrec.randomness import stream

pytestmark = pytest.mark.slow
COUNT = 1_000_000

EITHER = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])


@EITHER
def test_a_million_events(key):
    rng = stream(11, "volume")
    items, times = rng.integers(1000, size=COUNT), rng.integers(10**6, size=COUNT)
    with memory() as folder:
        store, _ = vault.opened(folder / "events", key=key)
        with store:
            store.append(
                Act(kind=Kind.RATE, item=f"i{item}", text=CANARY if item == 7 else "", rating=item / 1000, time=time)
                for item, time in zip(items.tolist(), times.tolist(), strict=True)
            )
            order = np.argsort(times, kind="stable")
            columns = store.columns()
            assert np.array_equal(columns.ids, order + 1) and np.array_equal(columns.times, times[order])
            assert np.array_equal(columns.ratings, (items[order] / 1000).astype(np.float32))
            assert columns.items == tuple(f"i{item}" for item in items[order].tolist())
            assert store.forget(item="i7") == (items == 7).sum() > 900
            assert CANARY.encode() not in (folder / "events").read_bytes()
            assert store.retain(newest=10**6, since=500_000) == ((items != 7) & (times < 500_000)).sum()
            portable.write(store, folder / "copy.zip")
            kept = store.columns()
        with Store(folder / "again") as again:
            portable.read(again, folder / "copy.zip")
            found = again.columns()
            assert np.array_equal(found.ids, kept.ids) and found.items == kept.items and len(again) == len(kept)
            again.check()


@EITHER
def test_an_app_whose_person_did_a_million_things(key):
    """It lists, forgets one item without a trace, and gives a copy of which another app makes the same list."""
    rng, ids = stream(12, "volume"), catalogue().ids
    chosen = rng.integers(8, 30, size=COUNT).tolist()  # of 40
    with memory() as folder:
        (folder / "me").mkdir()
        with Store(folder / "me" / EVENTS, key=key) as store:
            store.append(
                Act(kind=Kind.LIKE, item=ids[item], text=CANARY if item == 9 else "", time=int(NOW) - COUNT + n)
                for n, item in enumerate(chosen)
            )
        with opened(folder / "me", secret=key) as rec:
            unseen = {*ids[:8], *ids[30:]}
            assert set(items(rec, 40)) == unseen
            assert rec.forget(item=ids[9]) == chosen.count(9) > 40_000
            assert CANARY.encode() not in (folder / "me" / EVENTS).read_bytes()
            listed = items(rec, 40)
            assert set(listed) == unseen | {ids[9]}
            rec.export(folder / "copy.zip")
        with Recommender.restore(folder / "copy.zip", folder / "you", pack=pack(), secret=key, clock=Clock()) as again:
            assert items(again, 40) == listed
            assert again.forget(everything=True) == COUNT - chosen.count(9)
            assert again.recommend(1)[0].source == "popular"
