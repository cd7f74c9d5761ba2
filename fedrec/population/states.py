"""What virtual devices keep between rounds: local embeddings, on disk, never in a message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.population.mapped import Mapped

_NEVER = -1
_CLIENTS = 1 << 15  # at a time, so that few pages are touched before they are dropped

Clients = NDArray[np.int64]


class DeviceStates:
    """The last two embeddings of every client, with the rounds that made them.

    Two, so that a round repeated after a crash starts from what it started from the first time.
    The files are mapped and their pages dropped after each call: memory does not grow with the population.
    """

    def __init__(self, folder: Path, clients: int, dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._values = Mapped(folder / "embeddings.npy", (clients, 2, dim), np.dtype(np.float32))
        self._rounds = Mapped(folder / "rounds.npy", (clients, 2), np.dtype(np.int32), fill=_NEVER)

    def before(self, client: int, number: int) -> NDArray[np.float32]:
        """(dim,) the embedding with which `client` enters round `number`; zeros at first."""
        return self.before_all(np.array([client]), number).ravel()

    def before_all(self, clients: Clients, number: int) -> NDArray[np.float32]:
        """(client, dim) the embeddings with which `clients` enter round `number`."""
        found = np.zeros((len(clients), self._values.array.shape[2]), np.float32)
        for part, asked in self._parts(clients):
            rounds = self._rounds.array[asked]
            rounds[rounds >= number] = _NEVER
            known = np.flatnonzero(rounds.max(axis=1) != _NEVER)  # the pages of the others are not even read
            found[part][known] = self._values.array[asked[known], rounds[known].argmax(axis=1)]
        return found

    def keep(self, client: int, number: int, embedding: NDArray[np.float32]) -> None:
        """Remember what round `number` made."""
        self.keep_all(np.array([client]), number, embedding[None])

    def keep_all(self, clients: Clients, number: int, embeddings: NDArray[np.float32]) -> None:
        """Remember what round `number` made of `clients`, each of them named once."""
        for part, asked in self._parts(clients):
            rounds = self._rounds.array[asked]
            stale = rounds >= number
            slots = np.where(stale.any(axis=1), stale.argmax(axis=1), rounds.argmin(axis=1))
            # Between the first write and the last a slot is invalid and its client's other one, older, still holds.
            self._rounds.array[asked, slots] = _NEVER
            self._values.array[asked, slots] = embeddings[part]
            self._rounds.array[asked, slots] = number

    def after(self, number: int, clients: Clients | None = None) -> NDArray[np.float32]:
        """(client, dim) the embeddings of `clients`, by default of everybody, once round `number` is over."""
        return self.before_all(np.arange(len(self._rounds.array)) if clients is None else clients, number + 1)

    def _parts(self, clients: Clients) -> Iterator[tuple[slice, Clients]]:
        for first in range(0, len(clients), _CLIENTS):
            part = slice(first, first + _CLIENTS)
            yield part, clients[part]
            self._values.drop()
            self._rounds.drop()
