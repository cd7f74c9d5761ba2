"""The contestants of a table: what a federated model is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

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
from fedrec.study.evaluate import Ranking, Scorer

_L2 = (20.0, 50.0, 100.0, 200.0, 500.0)
_PACES = (0.1, 1.0)
_NEIGHBOURS = ((50, 10.0), (100, 20.0), (200, 50.0))


@dataclass(frozen=True)
class Arm:
    """A name and how to get its scorer; building may train for a while."""

    name: str
    build: Callable[[], Scorer]


def arms(fleet: Fleet) -> Iterator[Arm]:
    """The baselines that the plan asks for, cheap ones first. Their settings are chosen on validation only."""
    plan, world = fleet.task.plan, fleet.world
    people, cuts, items = world.population, world.cuts, len(fleet.task.catalogue)
    if plan.evaluation.baselines == "none":
        return
    yield Arm("random", lambda: random_scores(items, seed=plan.seed))
    yield Arm("popularity", lambda: popularity(people, cuts, items))
    yield Arm("frozen text", lambda: _frozen(fleet))
    yield Arm("EASE (central)", lambda: ease(people, cuts, items, l2=_best_l2(fleet)))
    yield Arm("public start, untrained", lambda: _start(fleet))
    yield Arm("local only", lambda: LocalOnly(fleet, cuts, _best_pace(fleet)))
    if plan.evaluation.baselines == "all":
        yield Arm("item-kNN (central)", lambda: _knn(fleet))
        yield Arm("same model, central", lambda: _central(fleet))


def _frozen(fleet: Fleet) -> Scorer:
    encoder = fleet.task.model.adapter.encoder
    return frozen_text(encoder.encode(fleet.task.catalogue.texts, public=True))


def _start(fleet: Fleet) -> Scorer:
    model = fleet.task.model
    return ModelScorer(fleet, model.initial, np.zeros((len(fleet), model.spec.dim), np.float32))


def _central(fleet: Fleet) -> Scorer:
    """The epoch that validation likes best; the last one, if validation items were trained on."""
    epochs = list(central(fleet, Central()))
    if fleet.task.plan.split.fit != "train":
        return epochs[-1]
    return _tune(fleet, lambda epoch: epochs[epoch], range(len(epochs))).scorer


def _best_pace(fleet: Fleet) -> float:
    return _tune(fleet, lambda pace: LocalOnly(fleet, fleet.world.split.train, pace), _PACES).setting


def _best_l2(fleet: Fleet) -> float:
    both = together(fleet.world.population, fleet.world.split.train, len(fleet.task.catalogue))
    return _tune(fleet, lambda l2: ease_of(both, l2=l2), _L2).setting


def _knn(fleet: Fleet) -> Scorer:
    world, items = fleet.world, len(fleet.task.catalogue)
    grid = [(min(neighbours, items - 1), shrinkage) for neighbours, shrinkage in _NEIGHBOURS]
    both = together(world.population, world.split.train, items)
    build = lambda one: item_knn_of(both, neighbours=one[0], shrinkage=one[1])  # noqa: E731
    neighbours, shrinkage = _tune(fleet, build, grid).setting
    return item_knn(world.population, world.cuts, items, neighbours=neighbours, shrinkage=shrinkage)


def _tune(fleet: Fleet, build: Callable[[Setting], Scorer], grid: Sequence[Setting]) -> Tuned[Setting]:
    """On the validation items of those whom the plan asks."""
    plan, world = fleet.task.plan, fleet.world
    ranking = Ranking(negatives=0, people=plan.evaluation.people, seed=plan.seed)
    return tune(build, grid, world.population, world.split.validation, ranking)
