"""What an app waits for: `python simulations/benchmarks/embed.py [--pack FOLDER]`, on one core.

The pack in `--pack` (say, of `fedrec simulate simulations/movielens-100k.toml` after `fedrec export RUN/pack`), and two
that are made here of random words: as many items as MovieLens-100K has, and 50,000. A person has done `--events`
things, one in ten a search. `--processes` fresh processes one after the other import fedrec, open the person and make
one list: that is cold, with all files in the system's cache. One more opens, asks for lists, logs, and asks again.
Times are on the clock, which others on the machine share, and on the processor. `log` waits until the disk has the
event, so its time is mostly the disk's: what one change of the file costs is given beside it.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MOVIELENS, MANY = 1_682, 50_000
WORDS = 2_000
NOW = 1_700_000_000
ASKED = {
    "recommend(k=10)": "p50 < 5, p99 < 20; 50,000 items: p50 < 15",
    "log(search of 16 words) + recommend": "< 25",
    "cold: imports + open": "< 300",
}
COLD = ("cold: imports + open", "cold: the first list after it")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help="a pack of a trained model")
    parser.add_argument("--events", type=int, default=200, help="how much the person has done")
    parser.add_argument("--processes", type=int, default=11, help="fresh ones that open it")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--person", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps((opened if given.cold else measured)(given.measure, given.person)))
        return
    with tempfile.TemporaryDirectory() as place:
        packs = {"given": given.pack} if given.pack else {}
        for items in (MOVIELENS, MANY):
            packs[f"made, {items:,} items"] = made(items, Path(place) / f"{items}" / "pack")
        columns = {}
        for n, (name, pack) in enumerate(packs.items()):
            person = Path(place) / "people" / str(n)
            live(pack, person, given.events)
            columns[name] = whole([alone(pack, person, "--cold") for _ in range(given.processes)], alone(pack, person))
    show(columns)


def made(items: int, folder: Path) -> Path:
    """A pack of an untrained model over random words, so many items in vectors of 64."""
    from fedrec.model.catalogue import Catalogue
    from fedrec.model.pack import write_pack
    from fedrec.privacy.statement import statements
    from fedrec.randomness import stream
    from fedrec.spec import Plan
    from fedrec.task import Task

    rng = stream(0, "embed", items)
    texts = [" ".join(f"word{n}" for n in rng.zipf(1.2, 12) % WORDS) for _ in range(items)]
    tags = [(f"tag{n}",) for n in rng.integers(0, 20, items)]
    task = Task(Plan.of({"clients": 10, "model": {"encoder": "hash", "dim": 64}}),
                Catalogue([f"item-{n}" for n in range(items)], texts, tags=tags))  # fmt: skip
    write_pack(folder, task, task.model.initial, statements(None, simulated=True))
    return folder


def whole(cold: list[dict[str, Any]], warm: dict[str, Any]) -> dict[str, Any]:
    """A column: what the cold processes measured, and what the long one did."""
    times = {name: [one["times"][name] for one in cold] for name in COLD}
    resident = {f"cold, {name}": max(one["resident"][name] for one in cold) for name in cold[0]["resident"]}
    return warm | {"times": times | warm["times"], "resident": resident | warm["resident"]}


def alone(pack: Path, person: Path, *more: str) -> dict[str, Any]:
    """What a fresh process measures on one core."""
    core = {*list(os.sched_getaffinity(0))[:1]}
    command = [sys.executable, __file__, "--measure", str(pack), "--person", str(person), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False,
                          preexec_fn=lambda: os.sched_setaffinity(0, core))  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def live(pack: Path, person: Path, events: int) -> None:
    """Let somebody do something: what is popular, now and then a search."""
    from fedrec.device.act import Act
    from fedrec.device.event import Kind
    from fedrec.device.store import Store
    from fedrec.model.pack_files import read_pack
    from fedrec.randomness import stream

    catalogue, rng = read_pack(pack, None).catalogue, stream(0, "embed", "person")
    rows = rng.integers(0, len(catalogue), events)
    acts = [Act(kind=Kind.SEARCH, text=_words(catalogue.texts[row], 4), time=NOW + n) if n % 10 == 0
            else Act(kind=Kind.CLICK, item=catalogue.ids[row], time=NOW + n) for n, row in enumerate(rows)]  # fmt: skip
    person.mkdir(parents=True)
    with Store(person / "events.sqlite") as store:
        store.append(acts)


def measured(pack: Path, person: Path) -> dict[str, Any]:
    """In this process: how long everything takes, in ms."""
    rec: Any = None

    def again() -> None:
        nonlocal rec
        if rec:
            rec.close()
            rec = None  # an app that opens again has let go of the first
        rec = _open(pack, person)

    again()
    out = {"open": timed(again, 11)}
    rec.recommend(10)
    catalogue = rec._person.session().model.pack.catalogue
    items, texts = iter(catalogue.ids), _sixteen(catalogue.texts)
    out["recommend(k=10)"] = timed(lambda: rec.recommend(10), 300)
    out["… diversity=0.3, calibration=0.3"] = timed(lambda: rec.recommend(10, diversity=0.3, calibration=0.3), 100)
    out["… filter of one tag"] = timed(lambda: rec.recommend(10, filter={catalogue.tags[0][0]}), 100)
    out["log(click)"] = timed(lambda: rec.log("click", next(items)), 60)
    out["log(click) + recommend"] = timed(lambda: (rec.log("click", next(items)), rec.recommend(10)), 60)
    search = lambda: (rec.log("search", text=next(texts)), rec.recommend(10))
    out["log(search of 16 words) + recommend"] = timed(search, 60)
    out["an event on this disk"] = timed(lambda: rec._person.store.set("benchmark", str(time.time())), 60)
    out["page[0].why"] = timed(lambda: rec.recommend(10)[0].why, 20)
    said = f"more {catalogue.tags[0][0]}, no {max(catalogue.texts[-1].split(), key=len)}"
    rec.tell(said)
    out["tell"] = timed(lambda: rec.tell(said), 20)
    out["forget(item=…)"] = timed(lambda: rec.forget(item=next(items)), 10)
    rec.close()
    return {"times": out, "resident": _resident(), "notices": list(rec.notices)}


def opened(pack: Path, person: Path) -> dict[str, Any]:
    """In this process, which has imported nothing of fedrec yet: opening, and one list."""
    held: list[Any] = []
    first, second = timed(lambda: held.append(_open(pack, person)), 1), timed(lambda: held[0].recommend(10), 1)
    held[0].close()
    return {"times": dict(zip(COLD, (*first, *second), strict=True)), "resident": _resident()}


def _open(pack: Path, person: Path) -> Any:  # noqa: ANN401  (its module is what takes the time)
    import fedrec

    return fedrec.Recommender.open(person, pack=pack, clock=lambda: NOW + 10_000)


def timed(call: Callable[[], object], count: int) -> list[list[float]]:
    """Milliseconds of every call, on the clock and on the processor."""
    took = []
    for _ in range(count):
        began, busy = time.perf_counter(), time.process_time()
        call()
        took.append([1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - busy)])
    return took


def show(columns: dict[str, dict[str, Any]]) -> None:
    """A row for each thing, and a column for each pack."""
    from measure import machine
    from tables import table

    print("; ".join(f"{name} {value}" for name, value in machine().items()) + ".\n")
    rows = [
        [name, *(_cell(column["times"][name]) for column in columns.values()), ASKED.get(name, "")]
        for name in next(iter(columns.values()))["times"]
    ]
    for kind in next(iter(columns.values()))["resident"]:
        megabytes = (f"{column['resident'][kind]:.0f}" for column in columns.values())
        rows.append([f"resident, MiB: {kind}", *megabytes, "< 200"])
    units = "ms on the clock, p50 / p99, or the worst of few (on the processor, p50)"
    print("\n".join(table([units, *columns, "asked for"], rows)))
    for name, column in columns.items():
        print(*(f"\n{name}: {notice}" for notice in column["notices"]), sep="")


def _cell(times: list[list[float]]) -> str:
    import numpy as np

    clock, busy = np.array(times).T
    last = np.percentile(clock, 99) if len(clock) > 20 else clock.max()
    return f"{np.median(clock):.1f} / {last:.1f} ({np.median(busy):.1f})"


def _sixteen(texts: tuple[str, ...]) -> Iterator[str]:
    for n in range(10**6):
        yield _words(f"{texts[n % len(texts)]} {texts[(7 * n + 1) % len(texts)]} a b c d e f g h i j k l m n {n}", 16)


def _words(text: str, count: int) -> str:
    return " ".join(text.split()[:count])


def _resident() -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


if __name__ == "__main__":
    main()
