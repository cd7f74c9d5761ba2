"""Everybody's data in one place, which only a simulation has: histories, splits, virtual devices."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.datasets import load
from fedrec.datasets.dataset import Dataset
from fedrec.device.history import History
from fedrec.device.profile import Events
from fedrec.device.training import LocalTraining, queries_at
from fedrec.errors import DataError, RunError
from fedrec.model.adapter import TowerInputs
from fedrec.population.source import Population
from fedrec.population.states import DeviceStates
from fedrec.privacy.clipping import clip_to_grid
from fedrec.randomness import stream
from fedrec.rounds.aggregate import wire_type
from fedrec.spec import Plan
from fedrec.study.splits import Split, global_time, hide_items, leave_one_out
from fedrec.task import Task

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class World:
    """A data set, cut into what devices may learn from and what is held out. `population` is what they hold."""

    dataset: Dataset
    population: Population
    split: Split
    plan: Plan

    @classmethod
    def open(cls, plan: Plan) -> World:
        """The world of a plan. A plan with fewer clients than the data has takes the first of them."""
        dataset = load(plan.data.source, Path(plan.data.path) if plan.data.path else None, plan.data.options)
        if not len(dataset.population):
            raise DataError("a data set has at least one person", source=plan.data.source)
        return cls.of(dataset, plan)

    @classmethod
    def of(cls, dataset: Dataset, plan: Plan) -> World:
        """The world of a data set that is already loaded."""
        people = dataset.population.head(plan.clients or len(dataset.population))
        if plan.split.kind == "cold-items":
            people, split = hide_items(people, plan.split.hidden, plan.seed, len(dataset.catalogue))
        else:
            split = leave_one_out(people) if plan.split.kind == "leave-one-out" else global_time(people)
        return cls(dataset, people, split, plan)

    @property
    def cuts(self) -> NDArray[np.int64]:
        """(client,) how many of its events each device may train on."""
        return self.split.train if self.plan.split.fit == "train" else self.split.test.cuts

    @cached_property
    def words(self) -> dict[str, int]:
        """Every distinct free text, numbered."""
        written = self.population.table.column("text").unique().to_pylist()
        return {text: row for row, text in enumerate(sorted(text for text in written if text))}


class Fleet:
    """Virtual devices over a world, opened one at a time. What `take_part` returns is what a device would send."""

    def __init__(self, task: Task, world: World, states: DeviceStates) -> None:
        self.task, self.world, self.states = task, world, states
        self.training = LocalTraining(task.model, task.plan.training, hidden=world.split.cold_items)
        self._events: dict[tuple[int, int], Events] = {}

    def __len__(self) -> int:
        return len(self.world.population)

    def take_part(self, client: int, number: int, shared: NDArray[np.float32]) -> NDArray[Any]:
        """Train for one round, keep the embedding, and return the update: clipped to the grid in private modes."""
        try:
            delta = self._train(client, number, shared)
        except Exception:
            if self.task.privacy is None:
                raise
            # Whether a device failed may depend on what it holds: in private modes it sends zeros instead.
            _LOG.exception("a device failed in round %d and sends zeros", number)
            delta = np.zeros_like(shared)
        return self._cross(delta)

    def events(self, client: int, cut: int) -> Events:
        """The first `cut` events of a client as tensors; computed once."""
        key = (client, cut)
        if key not in self._events:
            history = self.world.population[client].before(cut)
            self._events[key] = Events.of(history, self.task.plan.profile, self.tower)
        return self._events[key]

    def tower(self, texts: Sequence[str]) -> TowerInputs:
        """What the frozen tower makes of private texts; each distinct text goes through it once."""
        return self._bank[torch.tensor([self.world.words[text] for text in texts], dtype=torch.int64)]

    def scores(
        self,
        shared: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        clients: NDArray[np.int64],
        cuts: Sequence[int],
    ) -> NDArray[np.float32]:
        """(client, item) what each of `clients` would rank with, given its own `embeddings` (client, dim)."""
        model = self.task.model
        with torch.no_grad():
            parameters = model.layout.views(torch.from_numpy(shared))
            table = model.item_vectors(parameters)
            queries = [
                queries_at(model, parameters, (self.events(int(client), cut), torch.tensor([cut])), (table, None))
                for client, cut in zip(clients, cuts, strict=True)
            ]
            wanted = torch.cat(queries) + torch.from_numpy(embeddings)
            return (wanted @ table.T + model.prior(parameters)).numpy()

    @cached_property
    def _bank(self) -> TowerInputs:
        return self.task.model.adapter.prepare(list(self.world.words))

    def _train(self, client: int, number: int, shared: NDArray[np.float32]) -> NDArray[np.float32]:
        rng = stream(self.task.plan.seed, "client", number, client)
        embedding = self.states.before(client, number)
        outcome = self.training.round(shared, embedding, self.events(client, int(self.world.cuts[client])), rng)
        self.states.keep(client, number, outcome.embedding)
        return outcome.delta

    def _cross(self, delta: NDArray[np.float32]) -> NDArray[Any]:
        privacy = self.task.privacy
        if privacy is None:
            return delta
        clipped = clip_to_grid(delta.astype(np.float64), privacy.clip, privacy.grid)
        return clipped.vector.astype(wire_type(privacy.clip, privacy.grid))


@dataclass(frozen=True, eq=False)
class ModelScorer:
    """A trained model as the evaluation's `Scorer`: shared parameters and every device's own embedding."""

    fleet: Fleet
    shared: NDArray[np.float32]
    embeddings: NDArray[np.float32]

    def __call__(self, clients: NDArray[np.int64], histories: Sequence[History], /) -> NDArray[np.float32]:
        """(client, item) scores."""
        return self.fleet.scores(
            self.shared, self.embeddings[clients], clients, [len(history) for history in histories]
        )


@dataclass(frozen=True, eq=False)
class VirtualDevice:
    """One client of a fleet, as the client app sees it."""

    fleet: Fleet
    client: int

    @property
    def task(self) -> str:
        """Hash of the task."""
        return self.fleet.task.hash

    def take_part(self, number: int, shared: NDArray[np.float32]) -> NDArray[Any]:
        """What this device sends in round `number`."""
        if not 0 <= self.client < len(self.fleet):
            raise RunError("a node holds a client of the plan", client=self.client, clients=len(self.fleet))
        return self.fleet.take_part(self.client, number, shared)
