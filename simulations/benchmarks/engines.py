"""Engines side by side on one workload: `python simulations/benchmarks/engines.py [--workload light]`.

Every engine runs in a process of its own under GNU time, one after the other, and all of them `--turns` times, because
machines are faster in one minute than in another; one that takes a minute a round runs once. Rounds of a turn are timed
from the second on. What peers compute is compared with a device's own round, and the run fails where they differ. pfl
has an environment of its own (`--pfl`), made when it is missing. Writes `engines.md` and `engines.json` into
simulations/results, or `engines-lora.*`; with `--quick` into the work folder, for there is nothing to learn from so
small a workload.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from floor import Floor, Rates
from measure import ROOT, machine, watched
from numpy.typing import NDArray
from pfl_peer import set_up
from tables import engines_table
from workload import WARM_UP, Size, Workload

HERE = Path(__file__).parent
# The default plan; one in which, as in most published comparisons, a client has little to compute; LoRA.
SIZES = {
    "default": Size(),
    "light": Size(cohort=500, items=200, dim=32, examples=16),
    "lora": Size(adapter="lora", cohort=200, items=100, rounds=2, text=0.0),
}
QUICK = Size(clients=60, cohort=12, items=80, rounds=3, encoder="hash")
QUICK_LORA = Size(clients=20, cohort=6, items=64, rounds=2, encoder="tiny", adapter="lora", dim=32)
STEP = 2e-5  # a client and coordinate: rounding to the grid stays below, another model, clip or client does not


@dataclass(frozen=True)
class Contender:
    """One row: a script beside this one, and its options.

    `together` is how many clients share one way of the catalogue through the text tower, 0 for a whole cohort; `batch`
    how many examples do, where there are no clients. `once`: it is so slow that more turns would tell nothing new.
    """

    name: str
    script: str
    options: tuple[str, ...] = ()
    together: int = 1
    batch: int = 0
    processes: int = 1
    once: bool = False

    def passes(self, facts: Mapping[str, float]) -> float:
        """How often the catalogue goes through the tower in a round."""
        if self.batch:
            return max(1.0, facts["cohort"] * facts["examples"] / self.batch)
        return facts["cohort"] / self.together if self.together else 1.0


Command = Sequence[str | Path]
MANY = ("--rounds", "21")  # of an engine whose rounds are short
STACKED = (
    Contender("fedrec stacked", "fedrec_engine.py", MANY, together=0),
    Contender("fedrec stacked, 2 processes", "fedrec_engine.py", (*MANY, "--processes", "2"), together=0),
    Contender("fedrec stacked, research noise", "fedrec_engine.py", (*MANY, "--noise", "research"), together=0),
)
RAY = Contender("fedrec ray, 2 shards", "fedrec_engine.py", ("--engine", "ray", "--nodes", "2"), together=0)
LORA = Contender("fedrec stacked", "fedrec_engine.py", ("--rounds", "4"), together=0)
LOOP = Contender("fedrec loop", "fedrec_engine.py", ("--engine", "loop"))
FLOWER = (
    Contender("Flower, Ray engine, 1 CPU a client", "flower_peer.py"),
    Contender("Flower, Ray engine, its defaults", "flower_peer.py", ("--cpus", "0"), once=True),
)
PFL = (
    Contender("pfl, 1 thread", "pfl_peer.py"),
    Contender("pfl, 2 threads", "pfl_peer.py", ("--threads", "2")),
    Contender("pfl, 2 processes", "pfl_peer.py", processes=2),
)
CENTRAL = tuple(
    Contender(f"central PyTorch loop, {name}", "central_peer.py", ("--batch", str(batch)), 0, batch)
    for name, batch in (("batch 64", 64), ("batch 256", 256), ("batch 1024", 1024), ("one batch", 0))
)
CONTENDERS = {"bottleneck": (*STACKED, RAY, LOOP, *FLOWER, *PFL, *CENTRAL), "lora": (LORA, LOOP, FLOWER[0])}


@dataclass(frozen=True)
class Measured:
    """One row's numbers. `difference` is the largest in the sum of clipped updates; None where nothing is clipped."""

    name: str
    turns: list[list[float]]  # seconds of each round of each turn
    cohort: int
    floor: float  # ms a client
    peak: float  # MiB, largest process
    tree: float  # MiB, all processes
    difference: float | None

    @property
    def rates(self) -> list[float]:
        """Clients a second in each turn, by its median round."""
        return [self.cohort / float(np.median(turn)) for turn in self.turns]

    @property
    def rate(self) -> float:
        """Clients a second, by the median of all rounds."""
        return self.cohort / float(np.median(np.concatenate(self.turns)))

    def then(self, later: Measured) -> Measured:
        """With a later turn of the same contender."""
        apart = [each.difference for each in (self, later) if each.difference is not None]
        return replace(
            self, turns=self.turns + later.turns, peak=max(self.peak, later.peak), tree=max(self.tree, later.tree),
            difference=max(apart, default=None),
        )  # fmt: skip


Measure = Callable[[Contender, Command], Measured]


def measured(contender: Contender, command: Command, folder: Path, rates: Rates) -> Measured:
    """Run one contender on the workload in `folder`."""
    out = folder / "-".join([Path(contender.script).stem, *contender.options, f"{contender.processes}.json"])
    usage = watched([*command, HERE / contender.script, folder, out, *contender.options], out.with_suffix(".log"))
    found, facts = json.loads(out.read_text()), json.loads((folder / "facts.json").read_text())
    floor = Floor.of(facts, contender.passes(facts)).milliseconds(rates)
    apart = difference(folder, found["clients"], out.with_suffix(".npy"))
    return Measured(
        contender.name, [found["seconds"][WARM_UP:]], int(facts["cohort"]), floor, usage.peak, usage.tree, apart
    )  # fmt: skip


def difference(folder: Path, clients: Sequence[int], made: Path) -> float | None:
    """How far a sum of clipped updates is from that of the same clients' own rounds; refuses another computation."""
    if not made.exists():
        return None
    total: NDArray[np.float64] = np.load(made)
    apart = float(np.abs(total - Workload.open(folder).total(clients)).max())
    if not apart <= STEP * len(clients):  # not a number is no agreement
        raise SystemExit(f"{made.stem} computes something else: its sum of updates is {apart:.1e} away")
    return apart


def interpreters(contenders: Sequence[Contender], environment: Path) -> Iterator[tuple[Contender, Command]]:
    """Each contender with what runs its script; the pfl environment is made when first needed."""
    made: Path | None = None
    for contender in contenders:
        python = Path(sys.executable)
        if contender.script == "pfl_peer.py":
            python = made = made or set_up(environment)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(contender.processes)]
        yield contender, [python, *(launch if contender.processes > 1 else [])]


def prepared(size: Size, folder: Path) -> dict[str, float]:
    """A fresh workload in `folder`; what its clients are like on average."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.npy"):
        leftover.unlink()
    options = [f"--{name}={value}" for name, value in asdict(size).items()]
    watched([sys.executable, HERE / "workload.py", folder, *options], folder / "workload.log")
    facts: dict[str, float] = json.loads((folder / "facts.json").read_text())
    return facts


def main() -> None:
    """Measure, compare, write."""
    given = _arguments()
    size: Size = given.size
    folder: Path = given.work.resolve() / f"{given.workload}{'-quick' if given.quick else ''}"
    here, facts = machine(), prepared(size, folder)
    rates = Rates.measured(facts, threads=len(os.sched_getaffinity(0)))
    wanted = lambda name: not given.only or any(part in name for part in given.only)
    chosen = [each for each in CONTENDERS[size.adapter] if wanted(each.name)]
    rows = in_turns(
        interpreters(chosen, given.pfl), given.turns, lambda each, command: measured(each, command, folder, rates)
    )
    document = {
        "machine": here, "workload": asdict(size) | facts, "rates": asdict(rates),
        "rows": [asdict(row) | {"clients a second": row.rate, "by turn": row.rates} for row in rows],
    }  # fmt: skip
    stem = "engines" if given.workload == "default" else f"engines-{given.workload}"
    _write(document, folder if given.quick else given.out, stem)


def in_turns(contenders: Iterable[tuple[Contender, Command]], turns: int, measure: Measure) -> list[Measured]:
    """Each of them in every turn, but for those that run once; a row for each."""
    rows: dict[str, Measured] = {}
    made = list(contenders)
    for turn in range(turns):
        for contender, command in made:
            if turn and contender.once:
                continue
            print(f"{contender.name} …", file=sys.stderr, flush=True)
            row = measure(contender, command)
            print(f"  {row.rate:,.1f} clients/s", file=sys.stderr, flush=True)
            rows[row.name] = rows[row.name].then(row) if turn else row
    return list(rows.values())


def _write(document: dict[str, Any], out: Path, stem: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = engines_table(document)
    (out / f"{stem}.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / f"{stem}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a workload of seconds, to see that everything runs")
    parser.add_argument("--workload", choices=tuple(SIZES), default="default")
    parser.add_argument("--only", action="append", metavar="PART", help="contenders whose name holds this; repeatable")
    parser.add_argument("--turns", type=int, default=2, help="how often a contender runs")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks", help="where the workload is kept")
    parser.add_argument("--pfl", type=Path, default=ROOT / "runs" / "benchmarks" / "pfl", help="pfl's environment")
    parser.add_argument("--out", type=Path, default=ROOT / "simulations" / "results")
    given = parser.parse_args()
    quick = QUICK_LORA if given.workload == "lora" else QUICK
    given.size = quick if given.quick else SIZES[given.workload]
    return given


if __name__ == "__main__":
    main()
