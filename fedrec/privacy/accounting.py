"""What it costs: ε of a list of releases, and the noise that keeps it within a budget.

Releases that nobody was sampled for are counted exactly, as one μ-GDP mechanism (Balle and Wang 2018; Dong, Roth, Su
2022). The others go through privacy loss distributions (PLD), rounded pessimistically. Rényi DP is the second opinion;
the tests ask Opacus for two more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib.metadata import version
from typing import Any, Protocol

from fedrec.errors import BudgetExceeded, PrivacyRefusal, SpecError
from fedrec.privacy import losses
from fedrec.privacy.events import (
    Charges,
    Event,
    FixedSizeGaussian,
    Gaussian,
    Sampled,
    SampledGaussian,
    WindowedGaussian,
    reduced,
)

__all__ = [
    "Charges", "Event", "FixedSizeGaussian", "Gaussian", "GdpFilter", "SampledGaussian", "WindowedGaussian",
    "Search", "accountant", "calibrate", "epsilon", "estimate", "gaussian_epsilon", "gaussian_mu", "gaussian_mu_for",
    "glance", "renyi_epsilon", "zcdp_epsilon",
]  # fmt: skip

INTERVAL = 1e-4  # of the privacy loss grid
REFINED = 1e-5  # below `REFINE`, where rounding up by 1e-4 a round would show
REFINE = 0.1
_GLANCED = (1e-2, 5e-3, 2e-3, 1e-3, INTERVAL, REFINED)  # for what is told between rounds
_CLOSE = 1.005
_BRACKET = 1e-3
_STEP = math.log1p(1e-4)  # calibrated multipliers lie on exp(k · _STEP)
_SMALLEST, _LARGEST = 0.1, 1e5


Repeat = Callable[[Sampled, float, int], losses.Loss]  # event, interval, times


class Search(Protocol):
    """What finds a noise multiplier for a budget: `calibrate` or `estimate`."""

    def __call__(self, budget: float, *, delta: float, charges: Callable[[float], Charges]) -> float:
        """The multiplier z."""
        ...


def epsilon(charges: Charges, *, delta: float) -> float:
    """ε at `delta` of releases that were fixed in advance, each so many times, in any order.

    Exact when nobody was sampled, else an upper bound (Poisson: within about 1e-3). Infinite when a sampled release has
    noise of less than a tenth of what its unit moves: there is next to nothing to count, and its losses do not fit in
    memory. Refuses lists whose events are not about one relation (P04).
    """
    mu, sampled = reduced(charges)
    return _sampled_epsilon(mu, sampled, delta) if sampled else gaussian_epsilon(mu, delta)


def glance(charges: Charges, whole: Charges, *, delta: float) -> float:
    """At least ε of `charges`, a part of `whole`, in a fraction of the time: on the coarsest grid that will do.

    That is one on which ε of `whole` comes out too large by half a per cent at most.
    """
    mu, sampled = reduced(charges)
    if not sampled:
        return gaussian_epsilon(mu, delta)
    return _pld_epsilon(mu, sampled, delta, _coarsest(*reduced(whole), delta), _piecemeal)


def calibrate(budget: float, *, delta: float, charges: Callable[[float], Charges]) -> float:
    """The smallest noise multiplier z, on a grid of relative width 1e-4, with ε(`charges`(z)) at most `budget`.

    ε must not grow with z.
    """
    start = math.ceil(math.log(estimate(budget, delta=delta, charges=charges)) / _STEP)

    def affords(k: int) -> bool:
        return epsilon(charges(math.exp(k * _STEP)), delta=delta) <= budget

    k = _smallest(affords, start)
    assert affords(k) and not affords(k - 1)
    return math.exp(k * _STEP)


def estimate(budget: float, *, delta: float, charges: Callable[[float], Charges]) -> float:
    """What `calibrate` finds, to some parts in a thousand and in a quarter of the time: to compare, not to promise."""
    return math.exp(_root(lambda log_z: _bracketing(charges(math.exp(log_z)), budget, delta)))


def gaussian_mu(charges: Charges) -> float:
    """μ of releases that nobody was sampled for: the root of Σ μ². Refuses any other (P15)."""
    mu, sampled = reduced(charges)
    if sampled:
        remedy = "Fix the list in advance and ask for its epsilon, or give up the sampling's amplification."
        raise PrivacyRefusal("P15", "only releases without sampling have a mu", remedy=remedy, event=sampled[0][0])
    return mu


def gaussian_epsilon(mu: float, delta: float) -> float:
    """ε of a μ-GDP mechanism, exactly (Balle and Wang 2018)."""
    import dp_accounting

    return float(dp_accounting.get_epsilon_gaussian(1 / mu, delta)) if mu else 0.0


def gaussian_mu_for(epsilon: float, delta: float) -> float:
    """The largest μ with (`epsilon`, `delta`), short of it by a billionth."""
    import dp_accounting

    return (1 - 1e-9) / float(dp_accounting.get_sigma_gaussian(epsilon, delta))


def zcdp_epsilon(rho: float, delta: float) -> float:
    """ε of a ρ-zCDP mechanism (Canonne, Kamath, Steinke 2020, Corollary 13).

    The discrete Gaussian is zCDP with the ρ = μ²/2 of the continuous one, and no other bound of it is a theorem in many
    dimensions; at 100 grid steps and more `gaussian_epsilon` holds for it in all but name.
    """
    from scipy.optimize import minimize_scalar

    def at(log_excess: float) -> float:  # of the order α over 1
        alpha = 1 + math.exp(log_excess)
        return rho * alpha + (-math.log(delta) - math.log(alpha)) / (alpha - 1) + math.log1p(-1 / alpha)

    best = minimize_scalar(at, bounds=(-10.0, 25.0), method="bounded", options={"xatol": 1e-9})
    return max(0.0, float(best.fun)) if rho else 0.0


def renyi_epsilon(charges: Charges, *, delta: float) -> float:
    """The second opinion: looser than `epsilon` (about 10 % at ε near 8), and computed another way.

    Infinite for `WindowedGaussian`, of which the library has no Rényi bound. Its event for fixed sizes ignores that
    replace-one doubles the sensitivity, so it is told half the noise; it is then up to 2.5 times looser.
    """
    import dp_accounting

    mu, sampled = reduced(charges)
    if any(isinstance(event, WindowedGaussian) for event, _ in sampled):
        return math.inf
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    if any(isinstance(event, FixedSizeGaussian) for event, _ in sampled):
        relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    with _quiet():
        orders = dp_accounting.rdp.RdpAccountant(neighboring_relation=relation)
        if mu:
            orders.compose(dp_accounting.GaussianDpEvent(1 / mu))
        for event, times in sampled:
            orders.compose(_renyi_event(event), times)
        return float(orders.get_epsilon(delta))


def accountant(charges: Charges, value: float) -> dict[str, str | float]:
    """Which accountant said that `charges` cost `value`, for statements and ledgers; interval 0 means closed form."""
    _, sampled = reduced(charges)
    name, interval = "analytic Gaussian", 0.0
    if sampled:
        own = any(not isinstance(event, SampledGaussian) for event, _ in sampled)
        name = "dp_accounting PLD" + own * " of fedrec's privacy profile"
        interval = REFINED if value < REFINE else INTERVAL
    return {"name": name, "version": version("dp-accounting"), "interval": interval}


@dataclass(frozen=True)
class GdpFilter:
    """Room for releases whose noise is chosen as the run goes: Σ μ² ≤ `limit`² (Smith and Thakurta 2022).

    `spent` is Σ μ² so far. No PLD and no amplification by sampling is sound for such a list (P15).
    """

    limit: float
    spent: float = 0.0

    def charge(self, event: Event) -> GdpFilter:
        """The filter after `event`, or `BudgetExceeded` (P10): ask before the release, and keep the answer."""
        spent = self.spent + gaussian_mu([(event, 1)]) ** 2
        if spent > self.limit**2 * (1 + 1e-12):  # forgives the rounding of a sum of squares
            remedy = "Stop here, or add more noise."
            raise BudgetExceeded("P10", "the squares of mu keep within the limit's", remedy=remedy,
                                 spent=self.spent, event=event, limit=self.limit)  # fmt: skip
        return GdpFilter(self.limit, spent)


def _sampled_epsilon(mu: float, sampled: tuple[tuple[Sampled, int], ...], delta: float) -> float:
    value = _pld_epsilon(mu, sampled, delta, INTERVAL)
    return _pld_epsilon(mu, sampled, delta, REFINED) if value < REFINE else value


@lru_cache(maxsize=16)
def _coarsest(mu: float, sampled: tuple[tuple[Sampled, int], ...], delta: float) -> float:
    most = _CLOSE * _sampled_epsilon(mu, sampled, delta)
    return next(interval for interval in _GLANCED if _pld_epsilon(mu, sampled, delta, interval) <= most)


@lru_cache(maxsize=4)  # one holds up to a million doubles
def _loss(event: Sampled, interval: float) -> losses.Loss:
    match event:
        case SampledGaussian():
            return losses.poisson(event.rate, event.multiplier, interval)
        case FixedSizeGaussian():
            return losses.fixed_size(event.rate, event.multiplier, interval)
        case WindowedGaussian():
            return losses.windowed(event.rate, event.multiplier, event.windows, interval)


def _at_once(event: Sampled, interval: float, times: int) -> losses.Loss:
    return _loss(event, interval).self_compose(times)


@lru_cache(maxsize=32)
def _piecemeal(event: Sampled, interval: float, times: int) -> losses.Loss:
    """The same from powers of two: when asked for one more each time, it makes one convolution."""
    without_last_bit = times & (times - 1)
    if not without_last_bit:
        return _at_once(event, interval, times)
    last = _piecemeal(event, interval, times - without_last_bit)
    return _piecemeal(event, interval, without_last_bit).compose(last)


@lru_cache(maxsize=1024)
def _pld_epsilon(
    mu: float, sampled: tuple[tuple[Sampled, int], ...], delta: float, interval: float, repeat: Repeat = _at_once
) -> float:
    if max(mu, *(event.peak for event, _ in sampled)) > (1 + 1e-9) / _SMALLEST:
        return math.inf
    parts = [repeat(event, interval, times) for event, times in sampled]
    if mu:
        parts.append(losses.gaussian(mu, interval))
    return float(reduce(lambda one, other: one.compose(other), parts).get_epsilon_for_delta(delta))


def _renyi_event(event: Sampled) -> Any:  # noqa: ANN401  dp_accounting has no types
    import dp_accounting

    noise = dp_accounting.GaussianDpEvent(1 / event.peak)
    if isinstance(event, FixedSizeGaussian):
        size, population = event.rate.as_integer_ratio()
        return dp_accounting.SampledWithoutReplacementDpEvent(population, size, noise)
    return dp_accounting.PoissonSampledDpEvent(event.rate, noise)


def _bracketing(charges: Charges, budget: float, delta: float) -> float:
    """log(ε/budget) on a coarser loss grid: a few per cent of the time, and close enough to start from."""
    mu, sampled = reduced(charges)
    if not sampled:
        value = gaussian_epsilon(mu, delta)
    else:
        value = _pld_epsilon(mu, sampled, delta, min(_BRACKET, budget / 1000))
    return math.log(min(max(value, 1e-12), 1e12) / budget)


def _root(excess: Callable[[float], float]) -> float:
    """Where the decreasing function `excess` of log z crosses zero."""
    from scipy.optimize import brentq

    low = high = 0.0
    while excess(high) > 0 and high < math.log(_LARGEST):
        low, high = high, high + 0.7
    while excess(low) <= 0 and low > math.log(_SMALLEST):
        low, high = max(low - 0.7, math.log(_SMALLEST)), low
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
