"""From accepted updates to a mean that everyone may see: cohort, sum, release."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal, RunError
from fedrec.privacy.adaptive import unclipped_fraction
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.crossing import Summed
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Source
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Fixed
from fedrec.privacy.terms import Guarantee
from fedrec.randomness import stream
from fedrec.rounds import robust
from fedrec.rounds.filter import Filter, Vector
from fedrec.rounds.memory import NoiseMemory, Row


class Turn(NamedTuple):
    """Which round it is, counted from 1, and where an adaptive clip norm stands in it (None: the plan's)."""

    number: int
    clip: float | None = None


@dataclass(frozen=True, eq=False)
class Release:
    """What everyone may see of a round: the mean (size,), and where an adaptive clip norm goes next.

    `noise` is the standard deviation of the noise on each coordinate of the mean. `digest` names everything released.
    """

    mean: NDArray[np.float64]
    digest: str
    noise: float = 0.0
    clip: float | None = None


class Rounds(Protocol):
    """How cohorts are drawn and updates become a mean: in the open, or as a privacy plan says."""

    @property
    def private(self) -> bool:
        """Whether anything about a cohort must stay out of logs."""

    def filter(self, turn: Turn, size: int) -> Filter:
        """The form of an acceptable update of `size` numbers."""

    def cohort(self, number: int, clients: int) -> NDArray[np.int64]:
        """Positions, ascending, of the clients of round `number`."""

    def enough(self, number: int) -> int | None:
        """How many accepted updates close round `number`; None: it waits for everybody who was asked."""

    def sum(self, turn: Turn, updates: Iterable[Vector], size: int) -> Summed:
        """The sum of accepted updates of `size` numbers, in their order, or what stands for it."""

    def join(self, turn: Turn, partials: Iterable[Summed], size: int) -> Summed:
        """The sum of sums that were formed elsewhere, each over other clients."""

    def release(self, turn: Turn, summed: Summed, size: int) -> Release:
        """The mean update over the public cohort size; a missing reply counts as zero."""

    def published(self, number: int, digest: str) -> None:
        """Note that the checkpoint which contains a release is on disk."""

    def resume(self, number: int, digest: str) -> int:
        """The round to continue after, if the model is that of round `number`, whose release had the given digest."""

    def affords(self, number: int) -> bool:
        """Whether round `number` may be released."""

    def repeats(self, number: int) -> bool:
        """Whether round `number` may be asked again when it was not released: only where who comes is no secret."""

    def skips(self, number: int) -> bool:
        """Whether the rounds after `number` are what they are without it: where groups come in turn."""

    def spent(self) -> Guarantee | None:
        """What every charge so far costs, those that a crash lost included; None where nothing is promised."""


def digest(released: NDArray[np.float64]) -> str:
    """SHA-256 of a release, byte for byte."""
    return hashlib.sha256(released.tobytes()).hexdigest()


@dataclass(frozen=True)
class OpenRounds:
    """Mode `none`: seeded cohorts of a fixed size, exact means, no promise. To a warm start everybody comes.

    `everybody` is the population if round 1 is a warm start, else 0. The rest is the plan's; `bound` is of updates.
    """

    seed: int
    size: int
    everybody: int = 0
    extra: float = 0.0
    bound: float = 0.0
    centre: robust.Centre | None = None
    private: bool = False

    def filter(self, turn: Turn, size: int) -> Filter:
        """float32, finite, at most `bound` long."""
        statistics = self.everybody and turn.number == 1
        return Filter(size, np.dtype(np.float32), robust.within(0.0 if statistics else self.bound))

    def cohort(self, number: int, clients: int) -> NDArray[np.int64]:
        """The planned number of clients without replacement, and the `extra` ones."""
        size = self._size(number)
        asked = size + math.ceil(size * self.extra - 1e-9)  # 70 · 0.1 is a little more than 7
        return Fixed(asked).draw(clients, stream(self.seed, "cohort", number))

    def enough(self, number: int) -> int | None:
        """The planned number, where more are asked."""
        return self._size(number) if self.extra else None

    def sum(self, turn: Turn, updates: Iterable[Vector], size: int) -> Summed:
        """In float64."""
        if self.centre and (rows := list(updates)):
            return robust.gathered(rows, self.centre)
        each = (Summed(update.astype(np.float64), 1) for update in updates)
        return replace(self, centre=None).join(turn, each, size)

    def join(self, turn: Turn, partials: Iterable[Summed], size: int) -> Summed:
        """In float64, in the order in which they come."""
        robust.check_joined(self.centre)
        total, count = np.zeros(size), 0
        for part in partials:
            if part.total.shape != (size,) or not np.isfinite(part.total).all():
                raise RunError("a partial sum is finite and has the model's size", remedy="Lower the learning rate.",
                               round=turn.number, size=part.total.shape, expected=size)  # fmt: skip
            total += part.total
            count += part.count
        return Summed(total, count)

    def release(self, turn: Turn, summed: Summed, size: int) -> Release:
        """The sum over the planned cohort size."""
        mean = summed.total / self._size(turn.number)
        return Release(mean, digest(mean))

    def published(self, number: int, digest: str) -> None:
        """Nothing to note."""

    def resume(self, number: int, digest: str) -> int:
        """Nothing to repeat: cohorts are addressed by round."""
        return number

    def affords(self, number: int) -> bool:
        """Always."""
        return True

    def repeats(self, number: int) -> bool:
        """Never: without shares of noise a round is released, or ends the run."""
        return False

    def skips(self, number: int) -> bool:
        """Never: a round that fails ends the run, which may be resumed."""
        return False

    def spent(self) -> None:
        """Nothing is promised."""

    def _size(self, number: int) -> int:
        return self.everybody if self.everybody and number == 1 else self.size


@dataclass(frozen=True, eq=False)
class PrivateRounds:
    """Rounds as a privacy plan says: its schedules, its noise, every release charged before it leaves memory.

    `seed` serves level `test` alone, whose runs are labelled non-private; `memory` is needed where noise is correlated.
    `sums` says that whoever gathers the updates shows the server their sum alone; `centre` stands for their sum in
    modes that hide single updates. Refuses a `conduct` or a centre that the plan does not cover (P02 to P05), a ledger
    of another plan, and a plan that claims masks where there are none (P13).
    """

    private: ClassVar[bool] = True  # level `test` promises nothing, but is run as if it did

    plan: PrivacyPlan
    ledger: Ledger
    seed: int
    conduct: Conduct
    memory: NoiseMemory | None = None
    sums: bool = False
    centre: robust.Centre | None = None

    def __post_init__(self) -> None:
        self.plan.admit(self.conduct)
        robust.check_centre(self.centre, self.plan.mode)
        if self.ledger.plan != self.plan:
            raise RunError("a round is charged to the plan that it follows", remedy="Open the ledger of this plan.")
        if self.plan.masking and not self.sums:
            remedy = "Gather the updates by secure aggregation, or set shares.masked = false."
            raise PrivacyRefusal("P13", "masks are on where a plan claims them", remedy=remedy)

    def filter(self, turn: Turn, size: int) -> Filter:
        """Grid integers that an honest client can have sent."""
        crossing = self.plan.crossing(turn.number, turn.clip)
        self.plan.check_width(turn.number, size, force=True)
        return Filter(crossing.width(size), crossing.dtype, crossing.accepts)

    def cohort(self, number: int, clients: int) -> NDArray[np.int64]:
        """Whom the plan's schedule names; secret coins are replayable at level `test` only."""
        self.ledger.reserve(number)
        phase, at = self.plan.place(number)
        coins = self.plan.coins(self._seeded("cohort", number))
        return phase.schedule.draw(clients, coins, at)

    def enough(self, number: int) -> None:
        """Whoever is asked is waited for: a mean over the fastest is not the one that was accounted."""

    def sum(self, turn: Turn, updates: Iterable[Vector], size: int) -> Summed:
        """Exact, on the grid; refuses a vector that no honest client sends (P08)."""
        crossing, rows = self.plan.crossing(turn.number, turn.clip), list(updates)
        with self._aborting(turn):
            total = crossing.total(rows, crossing.width(size))
        return robust.gathered(rows, self.centre) if self.centre and rows else total

    def join(self, turn: Turn, partials: Iterable[Summed], size: int) -> Summed:
        """Exact, on the grid; refuses a sum that so many honest clients do not have (P08)."""
        robust.check_joined(self.centre)
        crossing = self.plan.crossing(turn.number, turn.clip)
        with self._aborting(turn):
            return crossing.joined(partials, crossing.width(size))

    def release(self, turn: Turn, summed: Summed, size: int) -> Release:
        """The noised sum over the public cohort, charged when this returns. Too few shares of noise: P06, uncharged."""
        crossing, adaptive = self.plan.crossing(turn.number, turn.clip), self.plan.place(turn.number).phase.adaptive
        noise = self._noise(turn.number) if crossing.rest else None
        with self._aborting(turn):
            released = crossing.release(summed, noise)
        name = digest(released)
        self.ledger.charge(turn.number, name, crossing.clip)
        clip = None
        if adaptive:  # only now: the release which was clipped at the old norm is noised
            bit = unclipped_fraction(float(released[size]), crossing.bit, crossing.grid)
            clip = adaptive.next(crossing.clip, bit)
        return Release(released[:size], name, self.plan.noise_on_mean(turn.number, turn.clip), clip)

    def published(self, number: int, digest: str) -> None:
        """Close the round in the ledger."""
        self.ledger.release(number, digest)

    def resume(self, number: int, digest: str) -> int:
        """A charge whose release reached the checkpoint is released; one that was lost stays spent.

        Rounds that were given up since are not asked again, except the last. Refuses P16 a checkpoint that is not of
        the ledger's last release.
        """
        self.ledger.settle(number, digest)
        return max(number, self.ledger.opened - 1)

    def affords(self, number: int) -> bool:
        """Whether the plan covers another release in this round."""
        return self.ledger.affords(number)

    def repeats(self, number: int) -> bool:
        """Where groups come in turn. To draw again until a cohort is large is not the sampling that is accounted."""
        return self.plan.in_the_open(number)

    def skips(self, number: int) -> bool:
        """Where groups come in turn, and noise does not follow from that of the rounds before."""
        return self.repeats(number) and self.plan.place(number).phase.bands == 1

    def spent(self) -> Guarantee | None:
        """The ledger's ε in the terms of the plan's first promise; None at level `test`."""
        promised = self.plan.promises[0].guarantee
        return replace(promised, epsilon=self.ledger.epsilon) if self.plan.private else None

    @contextmanager
    def _aborting(self, turn: Turn) -> Iterator[None]:
        """A round that is refused before it is released costs nothing."""
        try:
            yield
        except PrivacyRefusal:
            self.ledger.abort(turn.number)
            raise

    def _noise(self, number: int) -> Source:
        (phase, at), source = self.plan.place(number), self.plan.noise(self._seeded("noise", number))
        if phase.bands == 1:
            return source
        if self.memory is None:
            raise RunError("correlated noise has a memory", remedy="Give the rounds a NoiseMemory.", bands=phase.bands)
        return Row(self.memory, at, phase.bands, source)

    def _seeded(self, purpose: str, number: int) -> np.random.Generator | None:
        return None if self.plan.private else stream(self.seed, purpose, number)
