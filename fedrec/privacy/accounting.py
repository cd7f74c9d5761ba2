"""What it costs: ε of a sequence of releases, and the noise that keeps it within a budget.

The first accountant is the privacy loss distribution (PLD) of dp_accounting for the Poisson-sampled Gaussian under
add-or-remove-one, rounded pessimistically. Rényi DP from the same library is the second opinion; Opacus gives a third
and a fourth in the tests.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from fedrec.errors import PrivacyRefusal, SpecError, require
from fedrec.privacy.terms import Relation

INTERVAL = 1e-4  # of the privacy loss grid
REFINED = 1e-5  # below `REFINE`, where rounding up by 1e-4 a round would show
REFINE = 0.1
_BRACKET = 1e-3
_STEP = math.log1p(1e-4)  # calibrated multipliers lie on exp(k · _STEP)
_SMALLEST, _LARGEST = 0.1, 1e5


@dataclass(frozen=True)
class SampledGaussian:
    """One release: Gaussian noise of `multiplier` × sensitivity on a sum over a Poisson sample of `rate`."""

    rate: float
    multiplier: float
    relation: Relation = Relation.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        require(0 < self.rate <= 1, "a rate is a probability in (0, 1]", rate=self.rate)
        if not (math.isfinite(self.multiplier) and self.multiplier > 0):
            remedy = "Without noise the run is non-private."
            raise PrivacyRefusal("P01", "private noise is positive", remedy=remedy, multiplier=self.multiplier)
        if self.relation is not Relation.ADD_OR_REMOVE:
            raise PrivacyRefusal(
                "P04", "Poisson sampling with sensitivity C is accounted for add-or-remove-one only",
                remedy="Replace-one has sensitivity 2C: it needs an accountant of its own.",
                relation=str(self.relation),
            )  # fmt: skip


def epsilon(event: SampledGaussian, *, rounds: int, delta: float) -> float:
    """ε at `delta` after `rounds` releases: an upper bound, within about 1e-3 of the truth.

    Infinite for a multiplier below 0.1: there is next to nothing to count, and its losses do not fit in memory.
    """
    if event.multiplier < _SMALLEST:
        return math.inf
    value = _pld_epsilon(event, rounds, delta, INTERVAL)
    return _pld_epsilon(event, rounds, delta, REFINED) if value < REFINE else value


def calibrate(budget: float, *, delta: float, rate: float, rounds: int) -> float:
    """The smallest noise multiplier, on a grid of relative width 1e-4, whose ε is at most `budget`."""
    start = math.ceil(_root(lambda log_z: _bracketing(log_z, budget, delta, rate, rounds)) / _STEP)

    def affords(k: int) -> bool:
        return epsilon(SampledGaussian(rate, math.exp(k * _STEP)), rounds=rounds, delta=delta) <= budget

    k = _smallest(affords, start)
    assert affords(k) and not affords(k - 1)
    return math.exp(k * _STEP)


def renyi_epsilon(event: SampledGaussian, *, rounds: int, delta: float) -> float:
    """The second opinion: looser than `epsilon` (about 10 % at ε near 8), and computed another way."""
    import dp_accounting

    with _quiet():
        accountant = dp_accounting.rdp.RdpAccountant()
        gaussian = dp_accounting.GaussianDpEvent(event.multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(event.rate, gaussian), rounds)
        return float(accountant.get_epsilon(delta))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """ε of a μ-GDP mechanism, exactly (Balle and Wang 2018): T unsampled releases have μ = √T / multiplier."""
    import dp_accounting

    return float(dp_accounting.get_epsilon_gaussian(1 / mu, delta))


def accountant(value: float) -> dict[str, str | float]:
    """Which accountant said `value`, for statements and ledgers."""
    interval = REFINED if value < REFINE else INTERVAL
    return {"name": "dp_accounting PLD", "version": version("dp-accounting"), "interval": interval}


@lru_cache(maxsize=1024)
def _pld_epsilon(event: SampledGaussian, rounds: int, delta: float, interval: float) -> float:
    if rounds == 0:
        return 0.0
    return float(_pld(event, interval).self_compose(rounds).get_epsilon_for_delta(delta))


@lru_cache(maxsize=4)  # one holds up to a million doubles
def _pld(event: SampledGaussian, interval: float) -> Any:  # noqa: ANN401  dp_accounting has no types
    # Imported here, because only those who plan need it and it takes over a second.
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        event.multiplier, value_discretization_interval=interval, sampling_prob=event.rate
    )


def _bracketing(log_z: float, budget: float, delta: float, rate: float, rounds: int) -> float:
    """log(ε/budget) on a coarser loss grid: a few per cent of the time, and close enough to start from."""
    event = SampledGaussian(rate, math.exp(log_z))
    value = _pld_epsilon(event, rounds, delta, min(_BRACKET, budget / 1000))
    return math.log(max(value, 1e-12) / budget)


def _root(excess: Callable[[float], float]) -> float:
    """Where the decreasing function `excess` of log z crosses zero."""
    from scipy.optimize import brentq

    low = high = 0.0
    while excess(high) > 0 and high < math.log(_LARGEST):
        low, high = high, high + 0.7
    while excess(low) <= 0 and low > math.log(_SMALLEST):
        low, high = low - 0.7, low
    if excess(low) <= 0 or excess(high) > 0:
        remedy = "Choose epsilon, rounds and rate of ordinary size."
        raise SpecError("a multiplier between 0.1 and 1e5 meets the budget", remedy=remedy)
    return float(brentq(excess, low, high, xtol=_STEP / 4))


def _smallest(holds: Callable[[int], bool], start: int) -> int:
    """The smallest k with `holds(k)`, which is monotone: gallop from `start`, then halve."""
    low, high, stride = start - 1, start, 1
    while not holds(high):
        low, high, stride = high, high + stride, 2 * stride
    while holds(low):
        low, high, stride = low - stride, low, 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@contextmanager
def _quiet() -> Iterator[None]:
    """The Rényi accountant reports every order that it skips; the skipped orders only loosen its answer."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
