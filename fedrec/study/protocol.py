"""The protocol, checked on what really trains and measures: nothing held out is known, nothing is chosen on test.

`check` looks at a simulation before it trains, `check_run` at the folder of one that is finished. Both keep people from
mistakes; a forger, who can rewrite every file, they do not stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, RunError
from fedrec.privacy.chain import Book
from fedrec.randomness import stream
from fedrec.rounds.checkpoint import CHECKPOINT, Checkpoint
from fedrec.runs import Run
from fedrec.spec import Plan
from fedrec.study.cells import FEDERATED
from fedrec.study.holdouts import Holdout
from fedrec.study.leaks import Draw, check_split, dependence, swaps
from fedrec.study.seal import Seal, fingerprint

if TYPE_CHECKING:
    from fedrec.population.simulate import Simulation
    from fedrec.population.world import World

_PAIRS, _FEWEST = 200, 10  # of people who are asked for training rivals, at most and at least
_DRAWS = (4, 200)  # of each of them, at least and at most
_COUNTS = 800.0  # of held-out items among the rivals drawn: twice what tells a fair sampler from a leak


def check(simulation: Simulation) -> tuple[str, ...]:
    """One sentence for each part of the protocol that `simulation` was seen to keep, or could not be tested on.

    Rivals are drawn by the code of one device, which every faster engine is tested against, from what it trains on, for
    some hundreds of people.

    Raises:
        DataError: a history knows a held-out item, training rivals depend on what is held out, or settings are chosen
            on test items.

    """
    _check_cuts(simulation.world)
    check_split(simulation.world.population, simulation.world.split)
    people, split = len(simulation.world.population), simulation.world.split.name
    return (
        f"No history that is trained on or ranked with mentions a held-out item ({split}, {people} people).",
        "No test item is a validation item: settings are chosen without them.",
        *_rivals(simulation),
    )


def check_run(path: Path) -> None:
    """Raise `DataError` unless every contestant of the finished run in `path` brought one model to the test items.

    The trained one must be that of the plan's last round, or of the last that its privacy budget allowed.
    """
    run, looks = Run.open(path), Seal(path).looks
    run.check_plan(Plan.read(path / "plan.toml"))
    results = run.results
    if results is None:
        raise RunError("a finished run has results", remedy="Go on with --resume.", path=str(path))
    recorded, figures = results.get("looks") or {}, results["summary"]
    agreed = {name for name in figures if name in looks and looks[name] == recorded.get(name)}
    wrong = sorted({*looks, *recorded, *figures} - agreed)
    if wrong:
        raise _chosen("the looks at its test items are not those of its results", path, contestants=wrong)
    if FEDERATED in looks:
        _check_last(run, looks[FEDERATED])


def _check_last(run: Run, look: str) -> None:
    saved = Checkpoint.load(run.path / CHECKPOINT, run.manifest["task"])
    if saved is None or fingerprint(saved.optimum.shared) != look:
        raise _chosen("the model that was measured is not in its checkpoint", run.path)
    told, planned = [row["round"] for row in run.metrics()], Plan.read(run.path / "plan.toml").rounds
    if told[-1:] != [saved.round] or (saved.round != planned and not _spent(run, saved.round)):
        raise _chosen("rounds are missing", run.path, measured=saved.round, told=told[-1:], planned=planned)


def _spent(run: Run, number: int) -> bool:
    """Whether the privacy budget ends with round `number`: a crash can cost a charge."""
    ledger = run.path / "ledger.jsonl"
    if not ledger.exists():
        return False
    book = Book.read(ledger)
    return not book.plan.affords(book.position.charged, number + 1)


def _chosen(but: str, path: Path, **got: object) -> DataError:
    remedy = "Choose rounds on validation items, in a new run whose files nobody changes."
    return DataError(f"a run is measured once, at its last round, but {but}", remedy=remedy, run=str(path), **got)


def _check_cuts(world: World) -> None:
    late = int((world.cuts > _limit(world)).sum())
    if late:
        raise DataError("devices train on what comes before the cut, and nothing else", past_the_cut=late)


def _limit(world: World) -> NDArray[np.int64]:
    split = world.split
    return split.validation.cuts if world.plan.split.fit == "train" else split.test.cuts


def _rivals(simulation: Simulation) -> Iterator[str]:
    """Hidden items are nobody's rivals, so there validation items alone can show a sampler that looks ahead."""
    split = simulation.world.split
    hides = bool(split.cold_items.any())
    if hides:
        yield _hidden(simulation)
    else:
        yield _blind(simulation, "test", split.test)
    if simulation.world.plan.split.fit == "train":
        yield _blind(simulation, "validation", split.validation)


def _blind(simulation: Simulation, name: str, holdout: Holdout) -> str:
    plan, world = simulation.task.plan, simulation.world
    swapped = swaps(world.population, holdout.targets, seed=plan.seed, most=_PAIRS)
    if len(swapped) >= _FEWEST:
        found = dependence(_draw(simulation), swapped, draws=_draws(simulation, len(swapped)))
        found.check()
        if found.enough:
            seen = f"{len(swapped)} pairs of people, {found.sigmas:+.1f} standard deviations"
            return f"Training rivals do not depend on {name} items ({seen})."
    return f"Too few people to test whether training rivals depend on {name} items ({len(swapped)} pairs)."


def _hidden(simulation: Simulation) -> str:
    draw, cold = _draw(simulation), np.flatnonzero(simulation.world.split.cold_items)
    people = stream(simulation.task.plan.seed, "asked").permutation(len(simulation.world.population))[: 2 * _PAIRS]
    shown = sum(int(np.isin(draw(int(client)), cold).any()) for client in people for _ in range(_DRAWS[0]))
    if shown:
        remedy = "Mask them in the loss, or it pushes them down."
        raise DataError("hidden items are no rivals in training", remedy=remedy, draws=shown)
    return f"Hidden items are no rivals in training ({len(people)} people)."


def _draw(simulation: Simulation) -> Draw:
    """From what a device really holds, by the code that really trains it."""
    fleet, limit = simulation.fleet, _limit(simulation.world)
    rng = stream(simulation.task.plan.seed, "protocol")

    def rivals(client: int) -> NDArray[np.int64]:
        held = fleet.held(client)
        if len(held.history) > limit[client]:
            raise DataError("devices train on what comes before the cut, and nothing else", past_the_cut=1)
        return fleet.rounds.rivals(held, rng)

    return rivals


def _draws(simulation: Simulation, pairs: int) -> int:
    """As many as give the counts that are needed, if rivals are drawn evenly; a whole catalogue counts every time."""
    negatives, items = simulation.task.plan.training.negatives, int((~simulation.world.split.cold_items).sum())
    share = min(1.0, negatives / items) if negatives else 1.0
    return int(np.clip(ceil(_COUNTS / (4 * share * pairs)), *_DRAWS))
