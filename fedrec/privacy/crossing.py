"""One round's way out: what a device does to its vector before it leaves, and what the server does to the sum.

Both halves read the same public numbers, so that no round can be clipped at one norm and noised for another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.adaptive import within
from fedrec.privacy.clipping import WHOLE, Bounded, clip_each, clip_to_grid, radius, within_ball
from fedrec.privacy.noise import COARSEST, Level, Source

_FAR = 9.0  # standard deviations that honest noise does not exceed: P < 1e-17


@dataclass(frozen=True, eq=False)
class Summed:
    """The exact sum of what `count` clients sent."""

    total: NDArray[Any]  # (dim,) int64 in grid steps; float64 where nothing is promised
    count: int


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Public numbers of one round. Noise is counted in multiples of the clip norm.

    `share` is what each client adds, `rest` what the server adds to the sum. Sums are divided by `expected`, whoever
    answered; with fewer than `least` summands nothing is released. `population` bounds every honest sum. `bit`, in
    grid steps, is what a client appends (negative if its update was clipped) where the clip norm adapts.
    """

    clip: float
    grid: int
    share: float
    rest: float
    expected: float
    least: int
    population: int
    level: Level
    bit: int = 0

    def __post_init__(self) -> None:
        for sigma in (self.share * self.radius, self.rest * self.radius):
            if 0 < sigma < COARSEST:
                remedy = "Use more grid steps per unit."
                raise PrivacyRefusal("P18", "noise spans at least 5 grid steps", remedy=remedy, sigma=sigma)

    @property
    def radius(self) -> int:
        """The clip norm in grid steps."""
        return radius(self.clip, self.grid)

    @property
    def spread(self) -> float:
        """The noise on one coordinate of the mean over the clip norm, when all that are expected answer."""
        return math.hypot(self.rest, self.share * math.sqrt(self.expected)) / self.expected

    def width(self, dim: int) -> int:
        """Length of what is sent for an update of `dim` numbers."""
        return dim + bool(self.bit)

    @property
    def dtype(self) -> np.dtype[np.signedinteger[Any]]:
        """The smallest signed integer that holds whatever a client may send; public, so that payloads are alike."""
        return np.dtype(np.int32 if self._reach < 2**31 else np.int64)

    @property
    def _reach(self) -> float:
        """The largest number that an honest client may send."""
        return max(self.radius, self.bit) + 2 * _FAR * self.share * self.radius

    def clipped(self, update: NDArray[np.float64]) -> Bounded:
        """`update` (dim,) on the ball and on the grid."""
        return clip_to_grid(update, self.clip, self.grid)

    def send(self, update: NDArray[np.float64], noise: Source | None) -> NDArray[np.signedinteger[Any]]:
        """What leaves the device: clipped, rounded, and with this client's share of the noise where the mode has one.

        Refuses a share without a source of noise (P06), and a source of another level than the plan states (P07).
        """
        bit = self.bit if within(update, self.clip) else -self.bit
        return self._leaving(self.clipped(update).vector, bit, noise)

    def add_all(self, updates: NDArray[np.float32]) -> Summed:
        """The `total` of what `send` makes of each row of `updates` (client, dim), in a fraction of its time.

        For rounds in which clients add no noise; refuses a share (P06): whoever has one sends by itself.
        """
        if self.share:
            self._noise(None, self.share, 0)
        clients, dim = updates.shape
        # Floats that hold whole numbers below 2⁵³ add up exactly, and faster.
        total = np.zeros(dim, np.float64 if clients * self.radius <= WHOLE else np.int64)
        bits = 0
        for vector, norm in clip_each(updates, self.clip, self.grid):
            total += vector.astype(total.dtype, copy=False)
            bits += self._bit(norm)
        whole = total.astype(np.int64)
        return Summed(np.append(whole, bits) if self.bit else whole, clients)

    def reach(self, dim: int) -> float:
        """The clip norm of updates (dim,) that are added before they are rounded, as `rounded` does.

        One summand x moves a rounded sum by ‖x‖ + √dim grid steps at most, so it gets √dim steps less than the radius.
        Refuses a grid on which nothing is left (P18).
        """
        steps = self.radius - math.sqrt(dim)
        if steps <= 0:
            remedy = "Use more grid steps per unit, or noise of level hardened."
            raise PrivacyRefusal("P18", "rounding a sum moves it less than a clip norm", remedy=remedy, steps=steps)
        return steps / self.grid

    def rounded(self, total: NDArray[np.float64], norms: NDArray[np.float64]) -> Summed:
        """A sum (dim,) of updates of these `norms` (client,), each scaled to `reach` if it was longer, on the grid.

        For level `research` alone (P07): what a float sum leaves out is not bounded to the last bit, so no more is
        claimed of it than of floating-point noise.
        """
        if self.level is not Level.RESEARCH or self.share:
            remedy = "Clip and round every update by itself: `add_all`."
            raise PrivacyRefusal("P07", "only noise of level research hides a floating-point sum", remedy=remedy,
                                 level=str(self.level), share=self.share)  # fmt: skip
        whole = np.rint(total * self.grid).astype(np.int64)
        bits = sum(self._bit(norm) for norm in norms.tolist())
        return Summed(np.append(whole, bits) if self.bit else whole, len(norms))

    def accepts(self, vector: NDArray[Any]) -> bool:
        """Whether an honest client can have sent `vector` of the right type. Never raises on the vector's account."""
        return self._sums(vector.astype(np.int64), 1)

    def total(self, vectors: Iterable[NDArray[Any]], dim: int) -> Summed:
        """The exact sum of received vectors (dim,). Refuses one that no honest client sends (P08)."""
        return self.joined((Summed(vector.astype(np.int64), 1) for vector in vectors), dim)

    def joined(self, partials: Iterable[Summed], dim: int) -> Summed:
        """The exact sum of partial sums (dim,), each made of other clients' vectors.

        Refuses one that so many honest clients do not have together (P08). That proves less than `accepts` does for
        each vector: whoever adds them up must have checked them, for a partial sum can hide one that is too long.
        """
        total, count = np.zeros(dim, np.int64), 0
        for part in partials:
            possible = part.total.shape == (dim,) and part.total.dtype == np.int64
            if not possible or not 0 <= part.count <= self.population - count or not self._sums(part.total, part.count):
                remedy = "Filter replies before they are added."
                raise PrivacyRefusal("P08", "every summand is within the clip norm", remedy=remedy, clip=self.clip)
            total += part.total
            count += part.count
        return Summed(total, count)

    def release(self, summed: Summed, noise: Source | None) -> NDArray[np.float64]:
        """The noised mean update (dim,), over the public expected cohort. Charge the ledger before it leaves memory.

        The server's part of the noise is `rest`, however many clients answered. Refuses a sum of fewer than `least`
        (P06): the noise would be short. Refuses a sum that no cohort can have (P08) and noise of another level than
        the plan states (P07).
        """
        if summed.count < self.least:
            remedy = "Nothing was released. Wait for more clients, or count on fewer (shares.survivors) in a new plan."
            raise PrivacyRefusal("P06", "as many noise shares arrive as the plan counts on", remedy=remedy,
                                 arrived=summed.count, least=self.least)  # fmt: skip
        total = summed.total
        self._check(total)
        noised = total + self._noise(noise, self.rest, total.size) if self.rest else total
        return np.asarray(noised / (self.grid * self.expected), np.float64)

    def _leaving(self, vector: NDArray[np.int64], bit: int, noise: Source | None) -> NDArray[np.signedinteger[Any]]:
        if self.bit:
            vector = np.append(vector, bit)
        if self.share:
            vector = vector + self._noise(noise, self.share, vector.size)
            np.clip(vector, np.iinfo(self.dtype).min, np.iinfo(self.dtype).max, out=vector)
        return vector.astype(self.dtype)

    def _bit(self, norm: float) -> int:
        """What `send` appends for an update of this norm."""
        return -self.bit if self.clip < norm < math.inf else self.bit

    def _sums(self, total: NDArray[np.int64], count: int) -> bool:
        """Whether `count` honest clients can have sent vectors with this sum."""
        if total.ndim != 1:
            return False
        if not self.share:
            update, bits = (total[:-1], total[-1:]) if self.bit else (total, total[:0])
            votes = range(-count * self.bit, count * self.bit + 1, 2 * self.bit or 1)
            return all(bit in votes for bit in bits.tolist()) and within_ball(update, count * self.radius)
        noise = self.share * self.radius * math.sqrt(count) * (math.sqrt(total.size) + _FAR)
        return within_ball(total, count * math.hypot(self.radius, self.bit) + noise)

    def _noise(self, noise: Source | None, scale: float, dim: int) -> NDArray[np.int64]:
        if noise is None:
            remedy = "Give every client a source of noise, or leave it out of the cohort."
            raise PrivacyRefusal("P06", "no noise share is missing", remedy=remedy, share=scale)
        if noise.level is not self.level:
            remedy = "Take `plan.noise()`."
            raise PrivacyRefusal("P07", "noise is of the level that is stated", remedy=remedy,
                                 drawn=str(noise.level), stated=str(self.level))  # fmt: skip
        return noise.draw(scale * self.radius, dim)

    def _check(self, total: NDArray[np.int64]) -> None:
        if total.ndim != 1 or total.dtype != np.int64:
            remedy = "Sum the integer vectors that clients send."
            raise PrivacyRefusal("P08", "an aggregate is one int64 vector", remedy=remedy, dtype=str(total.dtype))
        limit = self.population * self._reach
        if total.size and not -limit <= int(total.min()) <= int(total.max()) <= limit:
            remedy = "Check every vector before it is added; nothing was released."
            raise PrivacyRefusal("P08", "an aggregate is within population × clip norm", remedy=remedy, limit=limit)
