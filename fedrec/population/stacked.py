"""Cohorts of virtual devices in batched computation: what `Fleet.take_part` does for one device, for thousands.

Updates agree to floating-point tolerance; from there on, what crosses is the same whole numbers.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.device.participation import Participation
from fedrec.errors import FedrecError, RunError
from fedrec.exchange.wire import Partial
from fedrec.population.heads import Heads, Slope
from fedrec.population.updates import Chunk, Cohort, Updates
from fedrec.population.world import Fleet
from fedrec.privacy.crossing import Crossing, Summed
from fedrec.privacy.noise import Level
from fedrec.rounds.aggregate import Turn
from fedrec.speed import Speed

Ints = NDArray[np.int64]

SLAB = 1 << 14  # clients whose histories are in memory at once: a cohort may be everybody


class Stacked:
    """Devices of a `fleet`, many at a time. What `take_part` returns is the sum of what they would send.

    Where the server adds the noise, what they spend is counted in the fleet's accounts; where they add it themselves,
    in its ledger, device by device.
    """

    def __init__(self, fleet: Fleet, speed: Speed) -> None:
        self.fleet, self.updates = fleet, Updates(fleet, speed)

    def take_part(self, turn: Turn, shared: NDArray[np.float32], clients: Ints) -> Partial:
        """The sum of what `clients` send in a round, and how many stayed out for what reason; embeddings are kept."""
        some = np.split(clients, range(SLAB, len(clients), SLAB))
        return reduce(_joined, (self._some(turn, shared, slab) for slab in some))

    def _some(self, turn: Turn, shared: NDArray[np.float32], clients: Ints) -> Partial:
        privacy = self.fleet.task.privacy
        if privacy is None:
            return self._in_the_open(self.updates.cohort(turn.number, clients), shared)
        crossing = privacy.crossing(turn.number, turn.clip)
        if crossing.share or privacy.interaction:
            return self._each_by_itself(turn, shared, clients)
        staying, refused = self._entering(turn.number, clients)
        cohort = self.updates.cohort(turn.number, staying)
        if crossing.level is Level.RESEARCH and self.updates.single(turn.number):
            return Partial(self._unwritten(crossing, cohort, shared), refused)
        return Partial(self._crossed(crossing, cohort, shared), refused)

    def _entering(self, number: int, clients: Ints) -> tuple[Ints, Counter[str]]:
        """Who may still take part, each of them counted, and why others may not."""
        accounts = self.fleet.accounts
        if accounts is None:
            raise RunError("devices of a private round count what they spend", remedy="Give the fleet its Accounts.")
        refusals = accounts.enter(clients, number)
        return np.delete(clients, list(refusals)), Counter(refusal.rule for refusal in refusals.values())

    def _crossed(self, crossing: Crossing, cohort: Cohort, shared: NDArray[np.float32]) -> Summed:
        """Every update is clipped and rounded by itself, and the sum is exact."""
        total = np.zeros(crossing.width(self.fleet.task.learner.width(cohort.number)), np.int64)
        count = 0
        for part in self.updates.each(cohort, shared, lambda chunk: crossing.add_all(chunk.updates)):
            total += part.total
            count += part.count
        return Summed(total, count)

    def _unwritten(self, crossing: Crossing, cohort: Cohort, shared: NDArray[np.float32]) -> Summed:
        """Clipped by their norms alone: no update is written down, only their weighted sum.

        Source: Lee and Kifer 2021, Scaling up Differentially Private Deep Learning with Fast Per-Example Gradient
        Clipping, whose examples are users here.
        """
        reach, norms = crossing.reach(len(shared)), list[NDArray[np.float64]]()

        def clip(heads: Heads, slope: Slope) -> Tensor:
            length = self.updates.rate * heads.lengths(slope)
            norms.append(length.double().cpu().numpy())
            return torch.where(length.isfinite(), (reach / length).clamp(max=1.0), 0.0)

        return crossing.rounded(self.updates.total(cohort, shared, clip), np.concatenate([np.zeros(0), *norms]))

    def _in_the_open(self, cohort: Cohort, shared: NDArray[np.float32]) -> Partial:
        """Without promises nobody's update is needed by itself, except to see that it is finite."""
        fine: list[int] = []
        if self.updates.single(cohort.number):

            def keep(heads: Heads, slope: Slope) -> Tensor | None:
                finite = slope.finite
                fine.append(int(finite.sum()))
                return None if finite.all() else finite.float()

            total = self.updates.total(cohort, shared, keep)
        else:
            total = np.zeros(self.fleet.task.learner.width(cohort.number))
            for some, count in self.updates.each(cohort, shared, _finite):
                total += some
                fine.append(count)
        refused = Counter({"not finite": len(cohort.clients) - sum(fine)})
        return Partial(Summed(total, sum(fine)), +refused)

    def _each_by_itself(self, turn: Turn, shared: NDArray[np.float32], clients: Ints) -> Partial:
        """Every device enters its ledger, adds its own noise and seals what it sends; only training is common."""
        total = np.zeros(self._width(turn), np.int64)
        count, refused = 0, Counter[str]()
        fresh: list[tuple[int, Participation]] = []
        for client in map(int, clients):
            part, out = self.fleet.participation(client, turn.number), self.fleet.out(client, turn, shared)
            try:
                kept = part.enter(turn.number, out)
            except FedrecError as error:
                refused[error.rule] += 1
                continue
            if kept is None:
                fresh.append((client, part))
            else:
                total, count = total + kept, count + 1
        trained = np.array([client for client, _ in fresh], np.int64)
        for places, made in self.updates.each(self.updates.cohort(turn.number, trained), shared, lambda chunk: chunk):
            for place, update in zip(places, made, strict=True):
                client, part = fresh[place]
                total += part.leave(turn.number, update, self.fleet.out(client, turn, shared))
                count += 1
        return Partial(Summed(total, count), refused)

    def _width(self, turn: Turn) -> int:
        privacy, width = self.fleet.task.privacy, self.fleet.task.learner.width(turn.number)
        return privacy.crossing(turn.number, turn.clip).width(width) if privacy else width


def _joined(one: Partial, other: Partial) -> Partial:
    summed = Summed(one.summed.total + other.summed.total, one.summed.count + other.summed.count)
    return Partial(summed, one.refused + other.refused)


def _finite(chunk: Chunk) -> tuple[NDArray[np.float64], int]:
    """(size,) the sum of the updates that are finite, and how many these are."""
    finite = np.isfinite(chunk.updates).all(axis=1)
    return chunk.updates[finite].sum(axis=0, dtype=np.float64), int(finite.sum())
