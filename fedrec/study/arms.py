"""The contestants of a table: what a federated model is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fedrec.population.alone import Central, LocalOnly, central
from fedrec.population.world import Fleet, ModelScorer
from fedrec.study.baselines import ease, frozen_text, item_knn, popularity, random_scores, tune
from fedrec.study.evaluate import Scorer

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
        yield Arm("item-kNN (central)", lambda: _knn(fleet, _best_neighbours(fleet)))
        yield Arm("same model, central", lambda: _central(fleet))


def _frozen(fleet: Fleet) -> Scorer:
    encoder = fleet.task.model.adapter.encoder
    return frozen_text(encoder.encode(fleet.task.catalogue.texts, public=True))


def _start(fleet: Fleet) -> Scorer:
    model = fleet.task.model
    return ModelScorer(fleet, model.initial, np.zeros((len(fleet), model.spec.dim), np.float32))


def _central(fleet: Fleet) -> Scorer:
    """The epoch that validation likes best; the last one, if validation items were trained on."""
    epochs, world = list(central(fleet, Central())), fleet.world
    if fleet.task.plan.split.fit != "train":
        return epochs[-1]
    return tune(lambda epoch: epochs[epoch], range(len(epochs)), world.population, world.split.validation).scorer


def _best_pace(fleet: Fleet) -> float:
    build = lambda pace: LocalOnly(fleet, fleet.world.split.train, pace)  # noqa: E731
    return tune(build, _PACES, fleet.world.population, fleet.world.split.validation).setting


def _best_l2(fleet: Fleet) -> float:
    world, items = fleet.world, len(fleet.task.catalogue)
    build = lambda l2: ease(world.population, world.split.train, items, l2=l2)  # noqa: E731
    return tune(build, _L2, world.population, world.split.validation).setting


def _best_neighbours(fleet: Fleet) -> tuple[int, float]:
    build = lambda setting: _knn(fleet, setting, tuning=True)  # noqa: E731
    return tune(build, _NEIGHBOURS, fleet.world.population, fleet.world.split.validation).setting


def _knn(fleet: Fleet, setting: tuple[int, float], *, tuning: bool = False) -> Scorer:
    world, (neighbours, shrinkage) = fleet.world, setting
    cuts = world.split.train if tuning else world.cuts
    items = len(fleet.task.catalogue)
    return item_knn(world.population, cuts, items, neighbours=min(neighbours, items - 1), shrinkage=shrinkage)
