"""The contestants of a table: what a federated model is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedrec.errors import SpecError
from fedrec.population.alone import Central, LocalOnly, central
from fedrec.population.world import Fleet, ModelScorer
from fedrec.study.baselines import (
    Setting,
    Tuned,
    ease,
    ease_of,
    frozen_text,
    item_knn,
    item_knn_of,
    popularity,
    random_scores,
    together,
    tune,
)
from fedrec.study.cells import Choice
from fedrec.study.evaluate import Ranking, Scorer

_L2 = (20.0, 50.0, 100.0, 200.0, 500.0)
_PACES = (0.1, 1.0)
_NEIGHBOURS = ((50, 10.0), (100, 20.0), (200, 50.0))


@dataclass(frozen=True, eq=False)
class Contestant:
    """A scorer, and the settings that were compared on validation items to get it, in order."""

    scorer: Scorer
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Arm:
    """A name and how to get its contestant; building may train for a while."""

    name: str
    build: Callable[[], Contestant]


FAST = ("random", "popularity", "frozen text", "EASE (central)", "public start, untrained", "local only")
BASELINES = (*FAST, "item-kNN (central)", "same model, central")


def arms(fleet: Fleet) -> Iterator[Arm]:
    """The baselines that the plan asks for, cheap ones first. Their settings are chosen on validation only."""
    asked = {"none": (), "fast": FAST, "all": BASELINES}[fleet.task.plan.evaluation.baselines]
    return (baseline(fleet, name) for name in asked)


def baseline(fleet: Fleet, name: str) -> Arm:
    """The baseline of that name, one of `BASELINES`."""
    world, items = fleet.world, len(fleet.task.catalogue)
    match name:
        case "random":
            build = lambda: Contestant(random_scores(items, seed=fleet.task.plan.seed))
        case "popularity":
            build = lambda: Contestant(popularity(world.population, world.cuts, items))
        case "frozen text":
            build = lambda: _frozen(fleet)
        case "EASE (central)":
            build = lambda: _ease(fleet)
        case "public start, untrained":
            build = lambda: _start(fleet)
        case "local only":
            build = lambda: _alone(fleet)
        case "item-kNN (central)":
            build = lambda: _knn(fleet)
        case "same model, central":
            build = lambda: _central(fleet)
        case _:
            raise SpecError("a baseline has a known name", remedy=f"There are: {', '.join(BASELINES)}.", name=name)
    return Arm(name, build)


def _frozen(fleet: Fleet) -> Contestant:
    encoder = fleet.task.model.adapter.encoder
    return Contestant(frozen_text(encoder.encode(fleet.task.catalogue.texts, public=True)))


def _start(fleet: Fleet) -> Contestant:
    model = fleet.task.model
    return Contestant(ModelScorer(fleet, model.initial, np.zeros((len(fleet), model.spec.dim), np.float32)))


def _central(fleet: Fleet) -> Contestant:
    """The epoch that validation likes best; the last one, if validation items were trained on."""
    epochs = list(central(fleet, Central()))
    if fleet.task.plan.split.fit != "train":
        return Contestant(epochs[-1])
    tuned = _tune(fleet, lambda epoch: epochs[epoch], range(len(epochs)))
    return Contestant(tuned.scorer, _choices("epochs", [(epoch + 1, value) for epoch, value in tuned.tried]))


def _alone(fleet: Fleet) -> Contestant:
    tuned = _tune(fleet, lambda pace: LocalOnly(fleet, fleet.world.split.train, pace), _PACES)
    return Contestant(LocalOnly(fleet, fleet.world.cuts, tuned.setting), _choices("pace", tuned.tried))


def _ease(fleet: Fleet) -> Contestant:
    world, items = fleet.world, len(fleet.task.catalogue)
    both = together(world.population, world.split.train, items)
    tuned = _tune(fleet, lambda l2: ease_of(both, l2=l2), _L2)
    return Contestant(ease(world.population, world.cuts, items, l2=tuned.setting), _choices("l2", tuned.tried))


def _knn(fleet: Fleet) -> Contestant:
    world, items = fleet.world, len(fleet.task.catalogue)
    grid = [(min(neighbours, items - 1), shrinkage) for neighbours, shrinkage in _NEIGHBOURS]
    both = together(world.population, world.split.train, items)
    tuned = _tune(fleet, lambda one: item_knn_of(both, neighbours=one[0], shrinkage=one[1]), grid)
    neighbours, shrinkage = tuned.setting
    scorer = item_knn(world.population, world.cuts, items, neighbours=neighbours, shrinkage=shrinkage)
    return Contestant(scorer, _choices("neighbours, shrinkage", tuned.tried))


def _choices(what: str, tried: Sequence[tuple[object, float]]) -> tuple[Choice, ...]:
    """What was tried, the first of the best marked: it is what `tune` takes."""
    best = max(value for _, value in tried)
    first = next(at for at, (_, value) in enumerate(tried) if value == best)
    return tuple(
        Choice(setting=f"{what} = {setting}", value=value, chosen=at == first)
        for at, (setting, value) in enumerate(tried)
    )


def _tune(fleet: Fleet, build: Callable[[Setting], Scorer], grid: Sequence[Setting]) -> Tuned[Setting]:
    """On the validation items of those whom the plan asks."""
    plan, world = fleet.task.plan, fleet.world
    ranking = Ranking(negatives=0, people=plan.evaluation.people, seed=plan.seed)
    return tune(build, grid, world.population, world.split, ranking)
