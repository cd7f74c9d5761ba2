"""What virtual devices make in a round, many at a time: statistics, updates, or gradients that are only to be summed.

Every number agrees with the loop over devices to floating-point tolerance. Memory is bounded by chunks of the clients
that are worked on, beside their histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.errors import RunError
from fedrec.model.devices import usable_device
from fedrec.model.ranking import Model
from fedrec.population.batch import Batch, Laid, chunked
from fedrec.population.heads import Heads, Part, Slope, Whole
from fedrec.population.rivals import Drawn, draw
from fedrec.population.several import bytes_per_client, several_steps
from fedrec.population.stacked_statistics import StackedStatistics, protected_rows
from fedrec.population.tower import Tower
from fedrec.population.workers import results
from fedrec.population.world import Fleet
from fedrec.speed import Speed

Ints = NDArray[np.int64]
Rows = NDArray[np.float32]
Weigh = Callable[[Heads, Slope], Tensor | None]
_T = TypeVar("_T")

FLAT = 1 << 20  # events that are kept flat from round to round, in some 50 MB


class Chunk(NamedTuple):
    """Updates (n, size) of the clients at these positions of a cohort."""

    places: Ints
    updates: Rows


@dataclass(frozen=True, eq=False)
class Cohort:
    """Some clients as they enter a round."""

    number: int
    clients: Ints
    batch: Batch
    embeddings: Rows

    def __repr__(self) -> str:
        return f"Cohort({len(self.clients)} clients, contents withheld)"


class _Work(NamedTuple):
    """How a cohort is cut, what makes the rows of a chunk, and how many chunks are worked on side by side."""

    chunks: Iterator[Ints]
    rows: Callable[[Ints], Rows]
    workers: int


class Updates:
    """The work of the devices of a `fleet`, on the device and within the memory of `speed`."""

    def __init__(self, fleet: Fleet, speed: Speed) -> None:
        self.fleet, self.speed = fleet, speed
        self._device = usable_device(speed.device)
        self._keeping = Lock()

    def cohort(self, number: int, clients: Ints) -> Cohort:
        """Those clients, with what they know when round `number` begins."""
        batch = self._flat(clients) if self._everybody is None else self._everybody.pick(clients)
        return Cohort(number, clients, batch, self.fleet.states.before_all(clients, number))

    @cached_property
    def _everybody(self) -> Batch | None:
        """All histories, where they are few enough to be flattened once and not in every round."""
        people = self.fleet.world.population
        return self._flat(np.arange(len(people))) if people.sizes.sum() <= FLAT else None

    def _flat(self, clients: Ints) -> Batch:
        fleet, world = self.fleet, self.fleet.world
        people, items = world.population.take(clients), len(fleet.task.model)
        return Batch.of(people, world.cuts[clients], fleet.task.plan.profile, items=items, words=world.words)

    def each(self, cohort: Cohort, shared: NDArray[np.float32], then: Callable[[Chunk], _T]) -> Iterator[_T]:
        """`then` of everybody's update, chunk by chunk in one order; it runs beside other chunks, so it shares nothing.

        Embeddings are kept as they are made.
        """
        if len(cohort.clients):
            work = self._work(cohort, shared)
            jobs = (partial(lambda at: then(Chunk(at, work.rows(at))), places) for places in work.chunks)
            yield from results(jobs, work.workers)

    def _work(self, cohort: Cohort, shared: NDArray[np.float32]) -> _Work:
        inside = self.fleet.rounds.inside
        if self._warm(cohort.number):
            return self._protected(cohort) if inside and inside.statistics else self._statistics(cohort)
        if self.fleet.rounds.noisy:
            return self._noisy(cohort, shared)
        return self._one_step(cohort, shared) if self.single(cohort.number) else self._steps(cohort, shared)

    def _warm(self, number: int) -> bool:
        return self.fleet.task.warm is not None and number == 1

    def single(self, number: int) -> bool:
        """Whether the round is one plain step, the same for everyone: their sum then has a single way back."""
        return self.fleet.task.plan.training.steps == 1 and not self._warm(number)

    def _statistics(self, cohort: Cohort) -> _Work:
        batch, summaries = cohort.batch, self._summaries
        chunks = chunked(batch, batch.usable_counts, summaries.budget, self.speed.budget)
        return _Work(chunks, lambda places: summaries.rows(batch.pick(places)), self.workers)

    @cached_property
    def _summaries(self) -> StackedStatistics:
        warm = self.fleet.task.warm
        if warm is None:
            raise RunError("only a task with a warm start asks for statistics")
        return StackedStatistics.over(warm, self.fleet.bank)

    def _protected(self, cohort: Cohort) -> _Work:
        """Statistics to which each device adds noise of its own."""
        cuts = self.fleet.world.cuts[cohort.clients]

        def rows(places: Ints) -> Rows:
            coins = lambda place: self.fleet.coins(int(cohort.clients[places[place]]), cohort.number)
            people = self.fleet.world.population.take(cohort.clients[places])
            return protected_rows(self.fleet.rounds, people, cuts[places], self.fleet.tower, coins)

        return _Work(self._pieces(cohort, 8 * self.fleet.task.learner.width(1)), rows, 1)

    def _noisy(self, cohort: Cohort, shared: NDArray[np.float32]) -> _Work:
        """DP-SGD, device by device: it has secret coins and noise of its own in every step."""

        def rows(places: Ints) -> Rows:
            clients = map(int, cohort.clients[places])
            made = [self.fleet.trained(client, cohort.number, shared) for client in clients]
            return np.stack(made).astype(np.float32)

        return _Work(self._pieces(cohort, 4 * len(shared)), rows, 1)

    def _steps(self, cohort: Cohort, shared: NDArray[np.float32]) -> _Work:
        """Several local steps, each client from parameters of its own."""
        (heads, batch), training = self._heads(cohort, shared), self.fleet.rounds.open
        examples = np.minimum(batch.usable_counts, training.spec.examples)
        budget = lambda n, t, e: n * bytes_per_client(self._model, training.spec, t, e)

        def rows(places: Ints) -> Rows:
            coins = [self.fleet.coins(int(client), cohort.number) for client in cohort.clients[places]]
            before = cohort.embeddings[places]
            deltas, kept = several_steps(heads, training, batch.pick(places), before, coins=coins)
            self._keep(cohort, places, kept)
            return deltas

        return _Work(chunked(batch, examples, budget, heads.room(self.speed.budget)), rows, self._beside(heads))

    def _one_step(self, cohort: Cohort, shared: NDArray[np.float32]) -> _Work:
        heads, batch = self._heads(cohort, shared)

        def rows(places: Ints) -> Rows:
            slope = self._slope(heads, cohort, batch, places)
            steps = torch.empty(len(places), len(shared), device=self._device)
            heads.write(slope.times(-self.rate), steps)
            return steps.cpu().numpy()

        return _Work(self._even(heads, batch), rows, self._beside(heads))

    @property
    def rate(self) -> float:
        """The length of a local step over that of its gradient."""
        return self.fleet.task.plan.training.learning_rate

    def total(self, cohort: Cohort, shared: NDArray[np.float32], weigh: Weigh) -> NDArray[np.float64]:
        """(size,) the sum of everybody's update times its factor, by a single way back through the model.

        `weigh` gets heads and slope of a chunk and gives the factors (n,), None for ones; nobody's update is written
        down.
        """
        heads, batch = self._heads(cohort, shared)
        whole = Whole.over(heads)

        def part(places: Ints) -> Part:
            slope = self._slope(heads, cohort, batch, places)
            factors = weigh(heads, slope)
            return heads.part(slope if factors is None else slope.scaled(factors))

        jobs = (partial(part, places) for places in self._even(heads, batch))
        for made in results(jobs, self._beside(heads)):
            whole.add(made)
        return -self.rate * whole.gradient().cpu().numpy()

    @property
    def workers(self) -> int:
        """How many chunks are worked on side by side."""
        return 1 if self._device.type != "cpu" else self.speed.threads or torch.get_num_threads()

    def _beside(self, heads: Heads) -> int:
        """Where a tower keeps a Jacobian for the next chunk, all cores work on one."""
        return 1 if heads.deep else self.workers

    def _even(self, heads: Heads, batch: Batch) -> Iterator[Ints]:
        spec = self.fleet.task.plan.training
        examples = np.minimum(batch.usable_counts, spec.examples)
        budget = lambda n, t, e: n * heads.bytes(t, e, spec.negatives)
        return chunked(batch, examples, budget, heads.room(self.speed.budget))

    def _pieces(self, cohort: Cohort, each: int) -> Iterator[Ints]:
        size = max(1, self.speed.budget // each)
        for start in range(0, len(cohort.clients), size):
            yield np.arange(start, min(len(cohort.clients), start + size))

    def _heads(self, cohort: Cohort, shared: NDArray[np.float32]) -> tuple[Heads, Batch]:
        """What all clients of a round share, and their histories over its entries."""
        batch, texts = _narrowed(cohort.batch, len(self._model))
        start, written = torch.from_numpy(shared).to(self._device), self.fleet.bank[texts].to(self._device)
        tower = Tower(self._model, start, written, clients=len(cohort.clients))
        shut = torch.from_numpy(self.fleet.world.split.cold_items).to(self._device)
        return Heads(self._model, tower, shut, self.fleet.task.plan.training.hide_seen), batch

    @cached_property
    def _model(self) -> Model:
        return self.fleet.task.model.to(self._device)

    def _slope(self, heads: Heads, cohort: Cohort, batch: Batch, places: Ints) -> Slope:
        """Gradients of some clients; their embeddings have moved."""
        spec = self.fleet.task.plan.training
        laid, drawn = self._laid(cohort, batch.pick(places), places)
        before = torch.from_numpy(cohort.embeddings[places]).to(self._device)
        slope = heads.slope(laid, before, drawn)
        moved = before - spec.embedding_rate * (slope.embedding + spec.embedding_decay * before)
        kept = torch.where(laid.real.any(1, keepdim=True), moved, before)
        self._keep(cohort, places, kept.cpu().numpy())
        return slope

    def _keep(self, cohort: Cohort, places: Ints, embeddings: Rows) -> None:
        if self.fleet.task.plan.training.embedding_rate:
            with self._keeping:
                self.fleet.states.keep_all(cohort.clients[places], cohort.number, embeddings)

    def _laid(self, cohort: Cohort, part: Batch, places: Ints) -> tuple[Laid, Drawn | None]:
        """The examples and rivals that each client draws, as it would draw them by itself."""
        coins = lambda place: self.fleet.coins(int(cohort.clients[places[place]]), cohort.number)
        laid, drawn = draw(self.fleet.rounds.open, part, coins)
        return laid.to(self._device), drawn.to(self._device) if drawn else None


def _narrowed(batch: Batch, items: int) -> tuple[Batch, Tensor]:
    """The batch over the catalogue and the texts that it mentions, and which texts these are."""
    known, at = np.unique(batch.entry, return_inverse=True)
    texts = known[known >= items]
    moved = np.concatenate([known[known < items], items + np.arange(len(texts))])
    return replace(batch, entry=moved[at]), torch.from_numpy(texts - items)
