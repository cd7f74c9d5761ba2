"""MovieLens people whom a model has never met: it is trained on the others, and they meet it one event at a time."""

from __future__ import annotations

from collections.abc import Collection
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
WARM = {"warm": {"enabled": True}}  # one round tells how popular items are, and begins the model
PRIVATE = {"privacy": {"mode": "user-central", "epsilon": 4.0}, "federation": {"rounds": 0}}  # and is all there is


@dataclass(frozen=True, eq=False)
class Newcomers:
    """A pack, another that was made privately, the popularity of items among those they were trained on, and others."""

    pack: Pack
    private: Pack
    counts: NDArray[np.int64]
    validation: Population
    test: Population


def newcomers(data: Path, seed: int, seeds: Collection[int], runs: Path) -> Newcomers:
    """The people of `seed`, and the packs made without them: trained now, or before in the folder `runs`.

    Nobody is in `validation` who is a test person of any of the `seeds`.
    """
    whole = movielens_100k(data)
    order = _order(seed, whole)
    held, rest = order[: VALIDATION + TEST], np.sort(order[VALIDATION + TEST :])
    known = replace(whole, population=whole.population.take(rest))
    chosen = [history.items[history.choices()] for history in known.population]
    counts = np.bincount(np.concatenate(chosen), minlength=len(whole.catalogue))
    settings = {"seed": seed, "data": {"path": str(data)}} | WARM
    packs = [_pack(known, settings, runs / f"pack-{seed}"), _pack(known, settings | PRIVATE, runs / f"private-{seed}")]
    tested = np.concatenate([_order(one, whole)[VALIDATION : VALIDATION + TEST] for one in seeds])
    validation = held[:VALIDATION][~np.isin(held[:VALIDATION], tested)]
    return Newcomers(*packs, counts, *(whole.population.take(part) for part in (validation, held[VALIDATION:])))


def _order(seed: int, whole: Dataset) -> NDArray[np.int64]:
    return stream(seed, "newcomers").permutation(len(whole.population))


def _pack(known: Dataset, settings: dict[str, object], path: Path) -> Pack:
    if not (path / "pack" / "pack.json").exists():
        quiet = {"split": {"fit": "train+validation"}, "evaluation": {"baselines": "none", "every": 0}}
        plan = Plan.read(SCENARIO).override(settings).override(quiet)
        resumes = (path / "plan.toml").exists()
        run = Simulation.resume(path, dataset=known) if resumes else Simulation.start(plan, path, dataset=known)
        run.train(lambda row: print(path.name, "round", row.get("round"), flush=True))
        run.finish(lambda arm: print(path.name, arm, flush=True))
    return read_pack(path / "pack", None)
