"""What a person with many events costs: `python simulations/benchmarks/store.py --events 10000 1000000`.

For each number of events, in a plain and in a sealed file under `--folder`, on whose disk most times depend: every
change is on it before the call returns, and forgetting writes the file anew. A fresh process each first calls the
store, and then an app's `Recommender` over a copy of it, with a pack that is made here. Times are on the clock, which
others on the machine share, and on the processor. Calls that a person makes one by one are medians of `--runs`, the
rest is measured once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed import portable, vault
from fedrec.embed.person import EVENTS
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.embed.recommender import Recommender
from fedrec.randomness import stream

_ITEMS, _CHOSEN = 1682, 1600
_SECRET = bytes(range(32))
_SPARE = Preference(polarity=Polarity.MORE, scope=Scope.TOPIC, about="tea", said="more about tea")


class Took(NamedTuple):
    """Seconds on the clock and on the processor."""

    clock: float
    busy: float


def main() -> None:
    """Print a table of all stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        folder, count, kind = given.measure
        print(json.dumps(measure(Path(folder), int(count), _SECRET if kind == "sealed" else None, given.runs)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place)
        _pack(folder)
        wanted = [(count, kind) for count in given.events for kind in ("plain", "sealed")]
        columns = {f"{count:,}, {kind}": _alone(folder, count, kind, given.runs) for count, kind in wanted}
    _show(columns)


def measure(folder: Path, count: int, secret: bytes | None, runs: int) -> dict[str, object]:
    """One person, from the first event to the last copy."""
    home, pack = folder / "me", folder / "pack"
    home.mkdir()
    rows = {f"store: {name}": took for name, took in of_store(home / EVENTS, count, secret, runs).items()}
    size, held = (home / EVENTS).stat().st_size / 1e6, resident()
    rows |= {f"app: {name}": took for name, took in of_app(home, pack, count, secret, runs).items()}
    return {"rows": rows, "MB of the file": size, "MiB after the store": held, "MiB, peak": resident("VmHWM")}


def of_store(path: Path, count: int, secret: bytes | None, runs: int) -> dict[str, Took]:
    """The store's calls, one after the other."""
    acts = list(person(count))
    with Store(path, key=secret) as store:
        rows = {"append all at once": seconds(lambda: store.append(acts))}
        rows["append one"] = median(lambda: store.append(acts[:1]), runs)
        rows["a preference"] = median(lambda: store.prefer(_SPARE), runs)
        rows["columns"] = median(store.columns, min(runs, 3))
        rows["undo one"] = median(lambda: store.undo(store.last_change()), min(runs, 3))
        rows["forget an item"] = seconds(lambda: store.forget(item="item-7"))
        rows["forget what is old"] = seconds(lambda: store.forget(before=count // 10))
        rows["export"] = seconds(lambda: portable.write(store, path.with_name("copy.zip")))
    rows["open and check all"] = seconds(lambda: vault.opened(path, key=secret)[0].close())
    with Store(path.with_name("again"), key=secret) as again:
        rows["bring a copy back"] = seconds(lambda: portable.read(again, path.with_name("copy.zip")))
    return rows


def of_app(home: Path, pack: Path, count: int, secret: bytes | None, runs: int) -> dict[str, Took]:
    """An app's calls on the same person. The lists after a change are those that a person waits for."""
    opened = partial(Recommender.open, home, pack=pack, secret=secret, clock=lambda: float(count))
    rows = {"open": seconds(lambda: opened().close())}
    with opened() as rec:
        rows["the first list"] = seconds(rec.recommend)
        rows["a list"] = median(rec.recommend, runs)
        rows["log, and a list"] = median(lambda: (rec.log("click", f"item-{_CHOSEN}"), rec.recommend()), min(runs, 3))
        rows["why"] = seconds(lambda: rec.recommend()[0].why)
        rows["undo, and a list"] = seconds(lambda: (rec.undo(), rec.recommend()))
        rows["forget an item, and a list"] = seconds(lambda: (rec.forget(item="item-8"), rec.recommend()))
        rows["forget a topic"] = seconds(lambda: rec.forget(topic="liked"))
        rows["export"] = seconds(lambda: rec.export(home / "copy.zip"))
    again = partial(Recommender.restore, home / "copy.zip", home / "another", pack=pack, secret=secret)
    rows["restore"] = seconds(lambda: again(clock=lambda: float(count)).close())
    return rows


def person(count: int) -> Iterator[Act]:
    """One event in ten has a text of some twelve words."""
    draws = stream(0, "benchmark").integers(_CHOSEN, size=count)
    for place, item in enumerate(draws.tolist()):
        text = "a dozen words or so that somebody wrote of something they liked" if place % 10 == 0 else ""
        yield Act(kind=Kind.CLICK, item=f"item-{item}", text=text, time=place)


def seconds(work: Callable[[], object]) -> Took:
    """How long one call took."""
    began, busy = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - began, time.process_time() - busy)


def median(work: Callable[[], object], runs: int) -> Took:
    """How long one of several calls took."""
    clock, busy = np.median([seconds(work) for _ in range(runs)], axis=0).tolist()
    return Took(clock, busy)


def resident(line: str = "VmRSS") -> float:
    """MiB of this process in memory: now or, as VmHWM, at most so far."""
    lines = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines() if ":" in row)
    return int(lines[line].split()[0]) / 1024


def _pack(folder: Path) -> None:
    from embed import made

    made(_ITEMS, folder / "pack")


def _alone(folder: Path, count: int, kind: str, runs: int) -> dict[str, object]:
    """What a fresh process measures."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "pack").symlink_to(folder / "pack")
        command = [sys.executable, __file__, "--runs", str(runs), "--measure", place, str(count), kind]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _show(columns: dict[str, dict[str, object]]) -> None:
    """A row for each call, and a column for each person."""
    from measure import machine
    from tables import table

    print("; ".join(f"{name} {value}" for name, value in machine().items()) + ".\n")
    first, *_ = columns.values()
    rows = [[name, *(_cell(Took(*column["rows"][name])) for column in columns.values())] for name in first["rows"]]
    rows += [[name, *(f"{column[name]:,.1f}" for column in columns.values())] for name in first if name != "rows"]
    print("\n".join(table(["s on the clock (on the processor) of events", *columns], rows)))


def _cell(took: Took) -> str:
    clock, busy = (f"{value:.4f}" if value < 0.1 else f"{value:.1f}" for value in took)
    return f"{clock} ({busy})"


if __name__ == "__main__":
    main()
