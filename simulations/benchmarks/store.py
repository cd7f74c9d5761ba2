"""What calls of a person's store cost: `python simulations/benchmarks/store.py --events 10000 1000000`.

For each number of events, in a plain and in a sealed file under `--folder`, on whose disk most times depend: every
change is on it before the call returns, and forgetting writes the file anew. Calls that a person makes one by one are
medians of `--runs`, the rest is measured once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed import portable, vault
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.randomness import stream

_ITEMS = 5000
_SPARE = Preference(polarity=Polarity.MORE, scope=Scope.TOPIC, about="tea", said="more about tea")


def main() -> None:
    """Print a table for each store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    for count in given.events:
        for key in (None, os.urandom(32)):
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                measure(Path(folder), count, key, given.runs)


def measure(folder: Path, count: int, key: bytes | None, runs: int) -> None:
    """One store, from its first event to its last copy."""
    path, acts = folder / "events", list(person(count))
    with Store(path, key=key) as store:
        rows = {"append all at once": seconds(lambda: store.append(acts))}
        rows["append one"] = median(lambda: store.append(acts[:1]), runs)
        rows["a preference"] = median(lambda: store.prefer(_SPARE), runs)
        rows["columns"] = median(store.columns, min(runs, 3))
        rows["undo one"] = median(lambda: store.undo(store.last_change()), min(runs, 3))
        rows["forget an item"] = seconds(lambda: store.forget(item="i7"))
        rows["forget what is old"] = seconds(lambda: store.forget(before=count // 10))
        rows["export"] = seconds(lambda: portable.write(store, folder / "copy.zip"))
    rows["open and check all"] = seconds(lambda: vault.opened(path, key=key)[0].close())
    with Store(folder / "again", key=key) as again:
        rows["bring a copy back"] = seconds(lambda: portable.read(again, folder / "copy.zip"))
    size = path.stat().st_size / 1e6
    print(f"{count:,} events, {'sealed' if key else 'plain'}, {size:.1f} MB")
    for name, took in rows.items():
        print(f"  {name:20} {1000 * took:12,.1f} ms")


def person(count: int) -> Iterator[Act]:
    """One event in ten has a text of some twelve words."""
    draws = stream(0, "benchmark").integers(_ITEMS, size=count)
    for place, item in enumerate(draws.tolist()):
        text = "a dozen words or so that somebody wrote of something they liked" if place % 10 == 0 else ""
        yield Act(kind=Kind.CLICK, item=f"i{item}", text=text, time=place)


def seconds(work: Callable[[], object]) -> float:
    """How long one call took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(work: Callable[[], object], runs: int) -> float:
    """How long one of several calls took."""
    return float(np.median([seconds(work) for _ in range(runs)]))


if __name__ == "__main__":
    main()
