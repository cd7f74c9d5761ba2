"""Everybody's data in one place, which only a simulation has: histories, splits, virtual devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.datasets import load
from fedrec.datasets.dataset import Dataset
from fedrec.device.history import History
from fedrec.device.participation import Exit, Participation
from fedrec.device.policy import Policy, anything, terms_of
from fedrec.device.profile import Events
from fedrec.device.rounds import DeviceRounds, Holding
from fedrec.device.training import queries_at
from fedrec.errors import DataError, RunError
from fedrec.exchange.masks import Disguise, Enrolled, Trusting, Unsigned
from fedrec.model.adapter import TowerInputs
from fedrec.population.accounts import Accounts
from fedrec.population.source import People
from fedrec.population.states import DeviceStates
from fedrec.population.texts import prepared
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Terms
from fedrec.randomness import stream
from fedrec.rounds.aggregate import Turn
from fedrec.spec import DataSpec, Plan
from fedrec.study.holdouts import Split
from fedrec.study.splits import Trained, global_time, hide_items, leave_one_out
from fedrec.task import Task

_HELD = 20_000  # histories that are kept as tensors: memory does not grow with the population


@dataclass(frozen=True, eq=False)
class World:
    """A data set, cut into what devices may learn from and what is held out. `population` is what they hold."""

    dataset: Dataset
    population: People
    split: Split
    plan: Plan

    @classmethod
    def open(cls, plan: Plan) -> World:
        """The world of a plan. A plan with fewer clients than the data has takes the first of them."""
        return cls.of(dataset_of(plan.data), plan)

    @classmethod
    def of(cls, dataset: Dataset, plan: Plan) -> World:
        """The world of a data set that is already loaded."""
        people, items = dataset.population.head(plan.clients or len(dataset.population)), len(dataset.catalogue)
        if plan.split.kind == "cold-items":
            return cls(dataset, *hide_items(people, plan.split.hidden, plan.seed, items), plan)
        split = leave_one_out(people) if plan.split.kind == "leave-one-out" else global_time(people)
        return cls(dataset, people, replace(split, cold_items=np.zeros(items, bool)), plan)

    @property
    def cuts(self) -> NDArray[np.int64]:
        """(client,) how many of its events each device may train on."""
        return self.split.train if self.plan.split.fit == "train" else self.split.test.cuts

    @cached_property
    def trained(self) -> Trained:
        """What the federation learns from, for evaluations to count once."""
        return Trained(self.population, self.cuts)

    @cached_property
    def words(self) -> dict[str, int]:
        """Every distinct free text, numbered."""
        return {text: row for row, text in enumerate(self.population.written())}


class Fleet:
    """Virtual devices over a world, opened one at a time. What `take_part` returns is what a device would send.

    In private modes every device counts what it has spent, in a ledger of its own or in columns, and may refuse.
    `policy` is what the devices accept; None accepts whatever the simulation asks.
    """

    def __init__(
        self, task: Task, world: World, states: DeviceStates, spending: DeviceLedger | Accounts | None = None,
        policy: Policy | None = None,
    ) -> None:  # fmt: skip
        self.task, self.world, self.states = task, world, states
        self.ledger = spending if isinstance(spending, DeviceLedger) else None
        self.accounts = spending if isinstance(spending, Accounts) else None
        self.rounds = DeviceRounds(task, hidden=world.split.cold_items)
        self.terms = accepted(task, policy)
        self._holdings: dict[tuple[int, int], Holding] = {}
        self._enrolled: set[int] = set()
        self._disguises: dict[int, Disguise] = {}
        self._newest = 0

    def __len__(self) -> int:
        return len(self.world.population)

    def awake(self, number: int, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `clients` who do not fall silent in a round, in their order.

        Coins are public, and each belongs to a client and a round: who is silent stays so however often the round is
        asked, by whatever engine. Without dropout none is tossed.
        """
        share, seed = self.task.plan.simulation.dropout, self.task.plan.seed
        if not share:
            return clients
        coins = [stream(seed, "dropout", number, client).random() for client in clients.tolist()]
        return clients[np.array(coins) >= share]

    def take_part(self, client: int, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any]:
        """What the device sends in a round; its embedding is kept."""
        train = partial(self.trained, client, turn.number, shared)
        if self.task.privacy is None:
            return train().astype(np.float32)
        return self.participation(client, turn.number).take_part(turn.number, train, self.out(client, turn, shared))

    def out(self, client: int, turn: Turn, shared: NDArray[np.float32]) -> Exit:
        """The device's way out of a private round: its half of the crossing, with noise of its own if it adds any."""
        return self.rounds.out(client, turn, shared, self.tower)

    def holding(self, client: int, cut: int) -> Holding:
        """The first `cut` events of a client, in the forms that training takes."""
        key = (client, cut)
        if key not in self._holdings:
            self._hold(key, self.world.population[client])
        return self._holdings[key]

    def held(self, client: int) -> Holding:
        """All that a client trains on."""
        return self.holding(client, int(self.world.cuts[client]))

    def events(self, client: int, cut: int) -> Events:
        """The first `cut` events of a client as tensors; computed once."""
        return self.holding(client, cut).events

    def tower(self, texts: Sequence[str]) -> TowerInputs:
        """What the frozen tower makes of private texts; each distinct text goes through it once."""
        return self.bank[torch.tensor([self.world.words[text] for text in texts], dtype=torch.int64)]

    def scores(
        self,
        shared: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        clients: NDArray[np.int64],
        cuts: Sequence[int],
    ) -> NDArray[np.float32]:
        """(client, item) what each of `clients` would rank with, given its own `embeddings` (client, dim)."""
        model = self.task.model
        self._fetch(list(zip(clients.tolist(), cuts, strict=True)))
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
    def bank(self) -> TowerInputs:
        """What the frozen tower makes of every distinct private text, in the order of their numbers."""
        return prepared(self.task.model.adapter, self.task.device, tuple(self.world.words))

    def _fetch(self, keys: list[tuple[int, int]]) -> None:
        """Hold what many will be asked for, in one visit to the people: on disk each visit opens a file."""
        wanted = [key for key in keys if key not in self._holdings]
        people = self.world.population.take(np.array([client for client, _ in wanted], np.int64))
        for key, history in zip(wanted, people, strict=True):
            self._hold(key, history)

    def _hold(self, key: tuple[int, int], history: History) -> None:
        while len(self._holdings) >= _HELD:
            del self._holdings[next(iter(self._holdings))]
        self._holdings[key] = Holding(history.before(key[1]), self.task.plan.profile, self.tower)

    def disguise(self, client: int) -> Disguise | None:
        """The masks of one client; nobody enrols virtual devices, so they take each other's word for who they are."""
        if self.task.privacy is None or self.task.privacy.masking is None:
            return None
        if client not in self._disguises:
            self._disguises[client] = Disguise(self.task, Enrolled(Unsigned(client), Trusting()))
        return self._disguises[client]

    def coins(self, client: int, number: int) -> np.random.Generator:
        """What a device draws its examples and rivals from; never noise of a promise."""
        return self.rounds.coins(client, number)

    def trained(self, client: int, number: int, shared: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """The update that a device makes in a round; its embedding is kept."""
        holding = self.held(client)
        start = (shared, self.states.before(client, number))
        outcome = self.rounds.round(number, start, holding, self.coins(client, number))
        self.states.keep(client, number, outcome.embedding)
        return outcome.delta

    def participation(self, client: int, number: int) -> Participation:
        """The device's part in the task, in its ledger; it takes its seat when it first comes."""
        if self.ledger is None or self.terms is None:
            raise RunError("private devices keep a ledger", remedy="Give the fleet a DeviceLedger.")
        if client not in self._enrolled:
            self.ledger.enrol(str(client), self.terms)
            self._enrolled.add(client)
        if number > self._newest:  # no server asks for an older round again
            self.ledger.forget(self.terms.task, before=number)
            self._newest = number
        return Participation(ledger=self.ledger, device=str(client), task=self.terms.task)


def dataset_of(spec: DataSpec) -> Dataset:
    """The data set that a plan names, with somebody in it."""
    dataset = load(spec.source, Path(spec.path) if spec.path else None, spec.options)
    if not len(dataset.population):
        raise DataError("a data set has at least one person", source=spec.source)
    return dataset


@dataclass(frozen=True, eq=False)
class ModelScorer:
    """A trained model as the evaluation's `Scorer`: shared parameters, and every device's own embedding.

    The embeddings are those after round `trained`, or, trained elsewhere, rows (client, dim).
    """

    fleet: Fleet
    shared: NDArray[np.float32]
    trained: int | NDArray[np.float32]

    def __call__(self, clients: NDArray[np.int64], histories: Sequence[History], /) -> NDArray[np.float32]:
        """(client, item) scores."""
        return self.fleet.scores(self.shared, self._own(clients), clients, [len(history) for history in histories])

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(client, dim) everybody's."""
        return self._own(np.arange(len(self.fleet)))

    def _own(self, clients: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = self.trained
        return self.fleet.states.after(rows, clients) if isinstance(rows, int) else rows[clients]


@dataclass(frozen=True, eq=False)
class VirtualDevice:
    """One client of a fleet, as the client app sees it."""

    fleet: Fleet
    client: int

    @property
    def task(self) -> str:
        """Hash of the task."""
        return self.fleet.task.hash

    @property
    def disguise(self) -> Disguise | None:
        """Its masks, in a task that has them."""
        return self.fleet.disguise(self.client)

    def revealed(self, number: int) -> None:
        """Never send for round `number` again."""
        if self.fleet.ledger:
            self.fleet.ledger.withhold(str(self.client), self.task, number)

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any] | None:
        """What this device sends in a round; None if it falls silent: then it neither trains nor spends."""
        if not 0 <= self.client < len(self.fleet):
            raise RunError("a node holds a client of the plan", client=self.client, clients=len(self.fleet))
        awake = self.fleet.awake(turn.number, np.array([self.client]))
        return self.fleet.take_part(self.client, turn, shared) if awake.size else None


def accepted(task: Task, policy: Policy | None) -> Terms | None:
    """The terms on which devices of `policy` take part in `task`; None in a task without promises. Refuses P10."""
    if task.privacy is None:
        if policy is not None:
            policy.accept_none()
        return None
    if policy is not None:
        return policy.accept(task.privacy, task.hash)
    return terms_of(task.privacy, task.hash, anything(task.privacy))
