"""Who comes: independent coins for private runs, a fixed number for the others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import require


class Coins(Protocol):
    """A source of uniform numbers in [0, 1); a numpy `Generator` is one."""

    def random(self, size: int, /) -> NDArray[np.float64]:
        """(size,) independent uniform numbers."""
        ...


class SecretCoins:
    """Coins from the operating system, which nobody can replay: a private cohort is a secret."""

    def random(self, size: int, /) -> NDArray[np.float64]:
        """(size,) uniform multiples of 2⁻⁵³."""
        words = np.frombuffer(os.urandom(8 * size), dtype="<u8")
        return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)


@dataclass(frozen=True)
class Poisson:
    """Every client comes with probability `rate`, whoever else comes. The cohort may be empty.

    `rate` is public. Nobody is drawn again for a client that did not answer.
    """

    rate: float

    def __post_init__(self) -> None:
        require(0 < self.rate <= 1, "a rate is a probability in (0, 1]", rate=self.rate)

    def draw(self, clients: int, coins: Coins) -> NDArray[np.int64]:
        """Positions in 0 … clients − 1 of those who come, ascending."""
        return np.flatnonzero(coins.random(clients) < self.rate)


@dataclass(frozen=True)
class Fixed:
    """Exactly `size` clients (all, when there are fewer), uniformly without replacement. For non-private runs only."""

    size: int

    def __post_init__(self) -> None:
        require(self.size >= 1, "a cohort has at least one client", size=self.size)

    def draw(self, clients: int, coins: Coins) -> NDArray[np.int64]:
        """Positions in 0 … clients − 1 of those who come, ascending."""
        return np.sort(np.argsort(coins.random(clients))[: self.size])
