"""From accepted updates to the next shared vector: cohort, sum, release, optimiser step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import RunError
from fedrec.privacy.clipping import check_bounded, radius
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.release import add_up, release
from fedrec.privacy.sampling import Fixed
from fedrec.randomness import stream
from fedrec.rounds.filter import Filter, Vector
from fedrec.spec import FederationSpec


class Rounds(Protocol):
    """How cohorts are drawn and updates become a mean: one class for each privacy mode."""

    @property
    def private(self) -> bool:
        """Whether anything about a cohort must stay out of logs."""

    def filter(self, size: int) -> Filter:
        """The form of an acceptable update."""

    def cohort(self, number: int, clients: int) -> NDArray[np.int64]:
        """Positions, ascending, of the clients of round `number`."""

    def release(self, number: int, updates: Iterable[Vector], size: int) -> NDArray[np.float64]:
        """(size,) the mean update over the public cohort size; a missing reply counts as zero."""

    def published(self, number: int, mean: NDArray[np.float64]) -> None:
        """Note that the checkpoint which contains `mean` is on disk."""

    def resume(self, number: int, digest: str) -> None:
        """Continue after round `number`, whose mean had the given digest."""

    def may_go_on(self) -> bool:
        """Whether another round may be released."""

    def spent(self) -> float | None:
        """ε of every charge so far, those that a crash cost included; None where nothing is promised."""


def digest(mean: NDArray[np.float64]) -> str:
    """SHA-256 of a release, byte for byte."""
    return hashlib.sha256(mean.tobytes()).hexdigest()


@dataclass(frozen=True)
class OpenRounds:
    """Mode `none`: seeded cohorts of a fixed size, exact means, no promise."""

    seed: int
    size: int
    private: bool = False

    def filter(self, size: int) -> Filter:
        """float32, finite, unbounded."""
        return Filter(size, np.dtype(np.float32), lambda vector: True)

    def cohort(self, number: int, clients: int) -> NDArray[np.int64]:
        """`size` clients without replacement."""
        return Fixed(self.size).draw(clients, stream(self.seed, "cohort", number))

    def release(self, number: int, updates: Iterable[Vector], size: int) -> NDArray[np.float64]:
        """The sum over the planned cohort size."""
        total = np.zeros(size)
        for update in updates:
            total += update
        return total / self.size

    def published(self, number: int, mean: NDArray[np.float64]) -> None:
        """Nothing to note."""

    def resume(self, number: int, digest: str) -> None:
        """Nothing to repeat: cohorts are addressed by round."""

    def may_go_on(self) -> bool:
        """Always."""
        return True

    def spent(self) -> None:
        """Nothing is promised."""


@dataclass(frozen=True)
class CentralRounds:
    """Mode `user-central`: secret Poisson cohorts, noise on the sum, every release charged before it leaves memory.

    `seed` serves level `test` alone, whose runs are labelled non-private. Refuses a `conduct` that the plan does not
    cover (P02 to P05), and a ledger of another plan.
    """

    plan: PrivacyPlan
    ledger: Ledger
    seed: int
    conduct: Conduct

    def __post_init__(self) -> None:
        self.plan.admit(self.conduct)
        if self.ledger.plan != self.plan:
            raise RunError("a round is charged to the plan that it follows", remedy="Open the ledger of this plan.")

    @property
    def private(self) -> bool:
        """Level `test` promises nothing, but is run as if it did."""
        return True

    def filter(self, size: int) -> Filter:
        """Grid integers of L2 norm at most the clip norm."""
        self.plan.check_width(size, force=True)
        within = lambda vector: check_bounded(vector.astype(np.int64), self.plan.clip, self.plan.grid)  # noqa: E731
        return Filter(size, wire_type(self.plan.clip, self.plan.grid), within)

    def cohort(self, number: int, clients: int) -> NDArray[np.int64]:
        """Independent coins, secret unless the level is `test`."""
        self.ledger.reserve(number)
        seeded = None if self.plan.private else stream(self.seed, "cohort", number)
        return self.conduct.sampler.draw(clients, self.plan.coins(seeded))

    def release(self, number: int, updates: Iterable[Vector], size: int) -> NDArray[np.float64]:
        """The noised sum over rate × population, charged when this returns."""
        seeded = None if self.plan.private else stream(self.seed, "noise", number)
        total = add_up((update.astype(np.int64) for update in updates), size, plan=self.plan)
        mean = release(total, self.plan, self.plan.noise(seeded))
        self.ledger.charge(number, digest(mean))
        return mean

    def published(self, number: int, mean: NDArray[np.float64]) -> None:
        """Close the round in the ledger."""
        self.ledger.release(number, digest(mean))

    def resume(self, number: int, digest: str) -> None:
        """A charge whose release reached the checkpoint is released; one that was lost stays spent."""
        pending = self.ledger.pending
        if pending is None:
            return
        if pending == (number, digest):
            self.ledger.release(number, digest)
        else:
            self.ledger.abort(pending[0])

    def may_go_on(self) -> bool:
        """Whether the ledger has a charge left."""
        return self.ledger.remaining > 0

    def spent(self) -> float | None:
        """The ledger's ε; None at level `test`."""
        return self.ledger.epsilon if self.plan.private else None


def wire_type(clip: float, grid: int) -> np.dtype[np.generic]:
    """The smallest signed integer that holds a clipped coordinate; public, so that all payloads are alike."""
    return np.dtype(np.int32 if radius(clip, grid) < 2**31 else np.int64)


@dataclass(frozen=True, eq=False)
class Optimum:
    """The shared vector and the optimiser's two moments, each (size,) float32."""

    shared: NDArray[np.float32]
    first: NDArray[np.float32]
    second: NDArray[np.float32]

    @classmethod
    def start(cls, shared: NDArray[np.float32]) -> Optimum:
        """Moments of zero."""
        return cls(shared, np.zeros_like(shared), np.zeros_like(shared))


@dataclass(frozen=True, eq=False)
class ServerOptimizer:
    """SGD with momentum, Adam or Yogi over mean updates; post-processing, so it costs no privacy.

    Source: Reddi et al. 2021, Adaptive Federated Optimization, Algorithm 2, with the bias
    correction and the decoupled weight decay (on `decayed` coordinates) of AdamW. Decay pulls
    `towards` a public vector (None: zero), as in Li et al. 2018, Explicit Inductive Bias for
    Transfer Learning (L2-SP): what was not learnt falls back to the frozen text model.
    """

    spec: FederationSpec
    decayed: NDArray[np.bool_]
    towards: NDArray[np.float32] | None = None

    def step(self, at: Optimum, mean: NDArray[np.float64], number: int) -> Optimum:
        """The optimum after round `number` (counted from 1)."""
        rate, momentum = self.spec.learning_rate, self.spec.momentum
        shared = at.shared.astype(np.float64)
        away = shared if self.towards is None else shared - self.towards
        shared -= rate * self.spec.weight_decay * self.decayed * away
        if self.spec.optimizer == "sgd":
            first = momentum * at.first + mean
            return Optimum((shared + rate * first).astype(np.float32), first.astype(np.float32), at.second)
        first = momentum * at.first + (1 - momentum) * mean
        second = self._second(at.second.astype(np.float64), mean**2)
        bias = 1 - momentum**number, 1 - _SECOND**number
        shared += rate * (first / bias[0]) / (np.sqrt(second / bias[1]) + _TINY)
        return Optimum(shared.astype(np.float32), first.astype(np.float32), second.astype(np.float32))

    def _second(self, second: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.spec.optimizer == "adam":
            return _SECOND * second + (1 - _SECOND) * square
        return second - (1 - _SECOND) * np.sign(second - square) * square


_SECOND = 0.999
_TINY = 1e-8
