"""What a round costs as the population grows, and as the cohort does: `python simulations/benchmarks/scaling.py`.

Every point is a private simulation in a process of its own (`point.py`) over one folder of people on disk, made by
`fedrec data shard` if it is not there: a million of them, or two thousand with `--quick`. Rounds are timed from the
second on. Writes `scaling.md` and `scaling.json` into simulations/results; with `--quick` into the work folder.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from measure import machine, over_people, watched
from tables import scaling_table
from workload import WARM_UP

HERE = Path(__file__).parent
MOST_ROUNDS = 11


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is varied. `beside` is the cohort while populations grow, `among` the population while cohorts do."""

    people: int = 1_000_000
    populations: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    beside: int = 500
    cohorts: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    among: int = 1_000_000
    encoder: str = "minilm"

    @property
    def points(self) -> list[tuple[int, int]]:
        """(population, cohort), each once."""
        wanted = [(each, self.beside) for each in self.populations] + [(self.among, each) for each in self.cohorts]
        return list(dict.fromkeys(wanted))


QUICK = Grid(people=2000, populations=(200, 2000), beside=50, cohorts=(20, 200), among=2000, encoder="hash")


@dataclass(frozen=True)
class Point:
    """What one simulation took."""

    population: int
    cohort: int
    seconds: list[float]
    opened: float
    peak: float  # MiB

    @property
    def median(self) -> float:
        """Seconds of a round."""
        return float(np.median(self.seconds))


def shards(folder: Path, people: int) -> Path:
    """People on disk, at most 16 × 64 × 4 distinct texts however many they are."""
    if not folder.exists():
        options = [f"--option={name}={value}" for name, value in {"users": people, "phrases": 4}.items()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        watched([sys.executable, "-m", "fedrec", "data", "shard", folder, *options], folder.with_suffix(".log"))
    return folder


def measured(people: Path, work: Path, at: tuple[int, int], encoder: str) -> Point:
    """One point. Small cohorts take more rounds, for their seconds are fewer."""
    clients, cohort = at
    out, rounds = work / f"point-{clients}-{cohort}.json", min(MOST_ROUNDS, max(3, 20_000 // cohort))
    options = {"clients": clients, "cohort": cohort, "rounds": rounds, "encoder": encoder}
    flags = [f"--{name}={value}" for name, value in options.items()]
    usage = watched([sys.executable, HERE / "point.py", people, out, *flags], out.with_suffix(".log"))
    found = json.loads(out.read_text())
    return Point(clients, cohort, found["seconds"][WARM_UP:], found["opened"], usage.peak)


def slope(sizes: Sequence[int], points: Sequence[Point]) -> float:
    """By how much log seconds grow with log size, by least squares: 0 is flat, 1 is linear."""
    logs = [math.log(point.median) for point in points]
    return float(np.polyfit(np.log(sizes), logs, 1)[0])


def line(points: Sequence[Point]) -> tuple[float, float]:
    """Seconds of a round = first + second × cohort, each point's relative error weighing the same."""
    cohorts, seconds = np.array([[point.cohort, point.median] for point in points]).T
    design = np.stack([1 / seconds, cohorts / seconds], axis=1)
    fixed, each = np.linalg.lstsq(design, np.ones(len(points)), rcond=None)[0]
    return float(fixed), float(each)


def main() -> None:
    """Measure, fit, write."""
    given = over_people(__doc__)
    grid, work = QUICK if given.quick else Grid(), given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    facts = machine()
    people = shards(given.people or work / f"people-{grid.people}", grid.people)
    found: dict[tuple[int, int], Point] = {}
    for at in grid.points:
        print(f"{at[0]:,} people, {at[1]:,} a round …", file=sys.stderr, flush=True)
        found[at] = measured(people, work, at, grid.encoder)
        print(f"  {found[at].median:.3f} s a round, {found[at].peak:,.0f} MiB", file=sys.stderr, flush=True)
    growing = [found[each, grid.beside] for each in grid.populations]
    widening = [found[grid.among, each] for each in grid.cohorts]
    fixed, each = line(widening)
    document = {
        "machine": facts, "grid": asdict(grid), "population": [asdict(point) for point in growing],
        "cohort": [asdict(point) for point in widening], "slope in the population": slope(grid.populations, growing),
        "slope in the cohort": slope(grid.cohorts, widening), "seconds a round": fixed, "seconds a client": each,
    }  # fmt: skip
    out = work if given.quick else given.out
    (out / "scaling.json").write_text(json.dumps(document, indent=2) + "\n")
    (out / "scaling.md").write_text(text := scaling_table(document))
    print(text)


if __name__ == "__main__":
    main()
