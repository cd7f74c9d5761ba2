"""What virtual devices keep between rounds: local embeddings, on disk, never in a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fedrec.errors import RunError

_NEVER = -1


class DeviceStates:
    """The last two embeddings of every client, with the rounds that made them.

    Two, so that a round repeated after a crash starts from what it started from the first time.
    The files are mapped: memory does not grow with the population.
    """

    def __init__(self, folder: Path, clients: int, dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._values = _mapped(folder / "embeddings.npy", (clients, 2, dim), np.dtype(np.float32), 0)
        self._rounds = _mapped(folder / "rounds.npy", (clients, 2), np.dtype(np.int32), _NEVER)

    def before(self, client: int, number: int) -> NDArray[np.float32]:
        """(dim,) the embedding with which `client` enters round `number`; zeros at first."""
        rounds = np.where(self._rounds[client] < number, self._rounds[client], _NEVER)
        slot = int(rounds.argmax())
        return np.array(
            self._values[client, slot] if rounds[slot] != _NEVER else np.zeros_like(self._values[client, 0])
        )

    def keep(self, client: int, number: int, embedding: NDArray[np.float32]) -> None:
        """Remember what round `number` made."""
        rounds = self._rounds[client]
        stale = rounds >= number
        slot = int(stale.argmax()) if stale.any() else int(rounds.argmin())
        # Between the two writes the slot is invalid and the other one, older, still holds.
        self._rounds[client, slot] = _NEVER
        self._values[client, slot] = embedding
        self._rounds[client, slot] = number

    def after(self, number: int) -> NDArray[np.float32]:
        """(client, dim) every client's embedding once round `number` is over."""
        return np.stack([self.before(client, number + 1) for client in range(len(self._rounds))])


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], fill: int) -> NDArray[Any]:
    if path.exists():
        array = open_memmap(path, mode="r+")
        if array.shape != shape or array.dtype != dtype:
            raise RunError("device states fit the plan", path=str(path), shape=array.shape, expected=shape)
        return array
    fresh = path.with_suffix(".new")
    array = open_memmap(fresh, mode="w+", dtype=dtype, shape=shape)
    if fill:
        array[:] = fill
    array.flush()
    fresh.replace(path)
    return array
