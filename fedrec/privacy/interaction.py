"""Privacy of single interactions: DP-SGD on the device that holds them, what it assumes and what it costs.

An example is what is sampled and clipped, an interaction is what is protected. Two rules tie them together.

- Every event alone (`Blocks()`): taking an interaction away takes away one example and leaves the others as they are.
  That is add-or-remove-one with sensitivity C, the ordinary sampled Gaussian.
- Events of one window of the public clock together: taking an interaction away *changes* one example, by up to 2C.
  Sampled with a coin of its own, the two outputs share the case in which it stays out, and by advanced joint convexity
  (Balle, Barthe, Gaboardi 2018, Theorem 2) their privacy profile is at most rate × that of sensitivity 2C. This is the
  profile of `FixedSizeGaussian`. It holds for whatever else happens inside one window: relation replace-one.

Blocks by position in the history would have neither property: removing one event shifts all later blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal, require
from fedrec.privacy.clipping import clip_to_grid, radius
from fedrec.privacy.events import FixedSizeGaussian, SampledGaussian
from fedrec.privacy.noise import Noise
from fedrec.privacy.sampling import Poisson
from fedrec.privacy.terms import Relation

LARGEST_DELTA = 1e-5
_FINEST = 2**20  # grid steps in a clip norm


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Which events make an example: a public rule that looks at one event at a time.

    `seconds` 0: every event by itself. Otherwise the events between two multiples of `seconds` since 1970; of a fuller
    window only the last `span` count.
    """

    seconds: int = 0
    span: int = 1

    def __post_init__(self) -> None:
        require(self.seconds >= 0, "a window lasts 0 seconds or more", seconds=self.seconds)
        require(self.span >= 1, "a window holds at least one event", span=self.span)
        require(
            self.seconds > 0 or self.span == 1, "an event by itself spans one event", span=self.span,
            remedy="Set seconds, or leave span out.",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Practice:
    """What a training loop does with its examples. Every default is what the account assumes.

    `windows`: in how many examples one interaction may lie. `embedding`: trained "inside" the noisy optimiser,
    "frozen" at zero, or trained "outside" without noise. `rivals`: negatives from the "public" catalogue, from the
    items "unseen" by this person, or from the "batch". `batches`: by independent coins ("poisson") or "shuffled".
    `gradients`: "each" example's own, or "ghost" norms. `denominator`: a "public" constant or the "count" of examples.
    `normalises`: over a batch. `buckets`: batches by length. `weights`: classes or examples by local counts.
    """

    windows: int = 1
    embedding: Literal["inside", "frozen", "outside"] = "inside"
    rivals: Literal["public", "unseen", "batch"] = "public"
    batches: Literal["poisson", "shuffled"] = "poisson"
    gradients: Literal["each", "ghost"] = "each"
    denominator: Literal["public", "count"] = "public"
    normalises: bool = False
    buckets: bool = False
    weights: bool = False

    def __post_init__(self) -> None:
        """Refuse whatever the account does not cover (P14)."""
        if self.windows != 1:
            _refuse("an interaction lies in one example", "Cut histories with `Blocks`.", windows=self.windows)
        if self.embedding == "outside":
            rule = "a user embedding carries every interaction into each gradient, so it is not trained without noise"
            _refuse(rule, "Train it in the same noisy optimiser, or freeze it.", embedding=self.embedding)
        if self.rivals != "public":
            remedy = "Draw negatives from the public catalogue, whatever the person chose."
            _refuse("rivals do not depend on other examples", remedy, rivals=self.rivals)
        if self.batches != "poisson":
            _refuse("every example tosses a coin of its own", "Sample with `terms.sampler`.", batches=self.batches)
        if self.gradients == "ghost":
            remedy = "Clip the gradient of each example: ghost norms are wrong where modules share parameters."
            _refuse("norms are those of the gradients", remedy, gradients=self.gradients)
        if self.denominator != "public":
            remedy = "Divide by rate × the terms' public number of examples."
            _refuse("the scale does not tell how many examples there are", remedy, denominator=self.denominator)
        mixing = [name for name in ("normalises", "buckets", "weights") if getattr(self, name)]
        if mixing:
            _refuse("no operation looks at two examples", "Compute each example by itself.", uses=", ".join(mixing))


@dataclass(frozen=True, kw_only=True)
class InteractionTerms:
    """Public numbers of a device's DP-SGD, checked at birth (P01, P14).

    `steps` in one participation, each with its own Poisson sample of `rate` among the examples; `clip` bounds one
    example's gradient of everything that is trained (L2); `multiplier` is the noise's standard deviation on the sum
    over `clip`. `examples` is how many a usual device has: a constant for all, never a count on this one.
    """

    rate: float
    steps: int
    clip: float
    multiplier: float
    examples: int
    delta: float = 1e-6
    blocks: Blocks = Blocks()

    def __post_init__(self) -> None:
        require(self.steps >= 1, "a participation takes at least one step", steps=self.steps)
        require(self.examples >= 1, "a usual device has at least one example", examples=self.examples)
        if not 0 < self.delta < 1 / self.examples:
            remedy = "Use 1e-6, or leave delta out."
            raise PrivacyRefusal("P01", "delta lies between 0 and 1 / examples", remedy=remedy, delta=self.delta)
        if self.delta > LARGEST_DELTA:
            _refuse(f"delta for interactions is at most {LARGEST_DELTA:g}", "Use 1e-6.", delta=self.delta)
        radius(self.clip, self.grid)
        self.event  # noqa: B018  (checks rate and multiplier)

    @property
    def sampler(self) -> Poisson:
        """The sampler that is accounted."""
        return Poisson(self.rate)

    @property
    def expected(self) -> float:
        """The public batch size by which noisy sums are divided, however many examples came."""
        return self.rate * self.examples

    @property
    def grid(self) -> int:
        """Steps per unit, a power of two: between 2¹⁹ and 2²⁰ in a clip norm."""
        if not (math.isfinite(self.clip) and 0 < self.clip <= _FINEST):
            remedy = "Choose a norm of ordinary size, such as 1."
            raise PrivacyRefusal("P08", "a clip norm is positive and at most 2^20", remedy=remedy, clip=self.clip)
        return int(2.0 ** math.floor(math.log2(_FINEST / self.clip)))

    @property
    def sigma(self) -> float:
        """The noise's standard deviation on a sum, in grid steps."""
        return self.multiplier * radius(self.clip, self.grid)

    @property
    def spread(self) -> float:
        """The noise's standard deviation on one number of a mean over the public number of examples."""
        return self.multiplier * self.clip / self.examples

    @property
    def typical(self) -> float:
        """How long the mean over a usual device's examples is, in clip norms, before noise."""
        return 1.0 if self.blocks.seconds else lone_length(self.examples)

    @property
    def relation(self) -> Relation:
        """How neighbouring histories differ: by one interaction, or by what happened within one window."""
        return Relation.REPLACE_ONE if self.blocks.seconds else Relation.ADD_OR_REMOVE

    @property
    def event(self) -> SampledGaussian | FixedSizeGaussian:
        """One step, as the accountant sees it."""
        kind = FixedSizeGaussian if self.blocks.seconds else SampledGaussian
        return kind(self.rate, self.multiplier)

    def charges(self, participations: int) -> list[tuple[SampledGaussian | FixedSizeGaussian, int]]:
        """What a device pays for taking part so many times."""
        return [(self.event, self.steps * participations)]


def lone_length(examples: int) -> float:
    """How long the mean of examples of one event each is, in clip norms.

    They hardly ever agree, so that it shrinks with the root of their number.
    """
    return 1 / math.sqrt(examples)


def bounded_sum(rows: NDArray[np.float64], terms: InteractionTerms) -> NDArray[np.int64]:
    """(dim,) sum, in grid steps, of `rows` (example, dim), each clipped; rows that are not finite count as zero."""
    total = np.zeros(rows.shape[1], np.int64)
    for row in rows:
        total += clip_to_grid(row, terms.clip, terms.grid).vector
    return total


def private_statistics(rows: NDArray[np.float64], terms: InteractionTerms, noise: Noise) -> NDArray[np.float64]:
    """(dim,) noisy mean of `rows` (example, dim), over the terms' public number of examples."""
    return noisy_mean(bounded_sum(rows, terms), terms, noise)


def noisy_mean(total: NDArray[np.int64], terms: InteractionTerms, noise: Noise) -> NDArray[np.float64]:
    """(dim,) what is released of `total` (dim,), which must be a sum that `bounded_sum` may have made.

    One release of all the examples: needs terms of one step at rate 1 (P14).
    """
    if terms.rate != 1 or terms.steps != 1:
        remedy = "Make terms of their own for the statistics, with rate=1 and steps=1."
        _refuse("statistics are one release of all examples", remedy, rate=terms.rate, steps=terms.steps)
    return (total + noise.draw(terms.sigma, len(total))) / (terms.grid * terms.examples)


def _refuse(rule: str, remedy: str, /, **got: object) -> None:
    raise PrivacyRefusal("P14", rule, remedy=remedy, **got)
