"""A slice of a simulation's clients behind one node of a grid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange.wire import NO_REPLY, Partial
from fedrec.population.stacked import Stacked
from fedrec.rounds.aggregate import Turn


@dataclass(frozen=True, eq=False)
class Shard:
    """Clients `first` … `first` + `hosts` − 1, as the shard app sees them."""

    stacked: Stacked
    first: int
    hosts: int

    @classmethod
    def of(cls, stacked: Stacked, place: int, among: int) -> Shard:
        """The slice at `place` when all clients are cut into `among` slices of like size."""
        bounds = [len(stacked.fleet) * at // among for at in (place, place + 1)]
        return cls(stacked, bounds[0], bounds[1] - bounds[0])

    @property
    def task(self) -> str:
        """Hash of the task."""
        return self.stacked.fleet.task.hash

    def take_part(self, turn: Turn, shared: NDArray[np.float32], clients: NDArray[np.int64]) -> Partial:
        """The sum of what some of its clients send in a round, each clipped and checked by itself.

        Who falls silent counts as refused, and neither trains nor spends.
        """
        ours = (self.first <= clients) & (clients < self.first + self.hosts)
        if not ours.all() or (np.diff(clients) <= 0).any():
            raise WireError("a shard is asked for clients of its own, each once", first=self.first, hosts=self.hosts)
        awake = self.stacked.fleet.awake(turn.number, clients)
        said = self.stacked.take_part(turn, shared, awake)
        return Partial(said.summed, said.refused + Counter({NO_REPLY: len(clients) - len(awake)}))
