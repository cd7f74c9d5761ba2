"""MovieLens people whom a model has never met: it is trained on the others, and they meet it one event at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.datasets.dataset import Dataset
from fedrec.datasets.movielens import movielens_100k
from fedrec.model.pack_files import Pack, read_pack
from fedrec.population.simulate import Simulation
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.spec import Plan

SCENARIO = Path(__file__).parents[1] / "movielens-100k.toml"
VALIDATION, TEST = 100, 200


@dataclass(frozen=True, eq=False)
class Newcomers:
    """A pack, the popularity of items among those it was trained on, and two groups of people it does not know."""

    pack: Pack
    counts: NDArray[np.int64]
    validation: Population
    test: Population


def newcomers(data: Path, seed: int, runs: Path) -> Newcomers:
    """The people of `seed`, and the pack made without them: trained now, or before in the folder `runs`."""
    whole = movielens_100k(data)
    order = stream(seed, "newcomers").permutation(len(whole.population))
    held, rest = order[: VALIDATION + TEST], np.sort(order[VALIDATION + TEST :])
    known = replace(whole, population=whole.population.take(rest))
    chosen = [history.items[history.choices()] for history in known.population]
    counts = np.bincount(np.concatenate(chosen), minlength=len(whole.catalogue))
    pack = _pack(known, {"seed": seed, "data": {"path": str(data)}}, runs / f"pack-{seed}")
    validation, test = (whole.population.take(part) for part in (held[:VALIDATION], held[VALIDATION:]))
    return Newcomers(pack, counts, validation, test)


def _pack(known: Dataset, settings: dict[str, object], path: Path) -> Pack:
    if not (path / "pack" / "pack.json").exists():
        quiet = {"split": {"fit": "train+validation"}, "evaluation": {"baselines": "none", "every": 0}}
        plan = Plan.read(SCENARIO).override(settings).override(quiet)
        resumes = (path / "plan.toml").exists()
        run = Simulation.resume(path, dataset=known) if resumes else Simulation.start(plan, path, dataset=known)
        run.train(lambda row: print(path.name, "round", row.get("round"), flush=True))
        run.finish(lambda arm: print(path.name, arm, flush=True))
    return read_pack(path / "pack", None)
