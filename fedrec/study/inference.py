"""How sure a mean over people and seeds is, and whether two arms differ.

People and seeds are crossed: a person is hard to please under every seed, a seed is lucky for every person. The
variance of a mean is clustered both ways (Cameron, Gelbach and Miller 2011, "Robust inference with multiway
clustering", §2), unbiased for a full table; degrees of freedom are Satterthwaite's (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from fedrec.study.metrics import Floats

LEVEL = 0.95
MISSES = {2: 13, 3: 9, 4: 8}  # times in 100, at most, in the simulated worlds of tests/statistics; 5 are meant


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval; NaN everywhere where nobody has a value. `error` is the standard error.

    With one seed the interval is about people only: it does not know how another seed would have come out. With a few
    it is too short (`MISSES`); with five seeds it missed the truth up to 7 times in 100 in simulated worlds.
    """

    mean: float
    low: float
    high: float
    error: float
    seeds: int
    users: int


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """What one arm has over another, seed by seed and person by person; `p` is two-sided."""

    difference: Estimate
    p: float


def estimate(values: Floats) -> Estimate:
    """The mean of `values` (seed, user) over its finite cells; rows and columns may have gaps.

    One cell has a mean and no interval (NaN). A table of one value has an interval of no width.
    """
    return _estimate(values)[0]


def contrast(one: Floats, other: Floats) -> Contrast:
    """The mean of `one` − `other`, both (seed, user), over the cells that are finite in both.

    Where all differ by one and the same value, a t test is blind to how few they are: `p` is then the sign test's.
    """
    mine, theirs = (np.where(np.isfinite(table), table, np.nan) for table in (_floats(one), _floats(other)))
    difference, freedom = _estimate(mine - theirs)
    if difference.error == 0:
        agreeing = max(difference.users, difference.seeds)
        return Contrast(difference=difference, p=2.0 ** (1 - agreeing) if difference.mean else 1.0)
    return Contrast(difference=difference, p=2 * float(stdtr(freedom, -abs(difference.mean) / difference.error)))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values, step by step down (Holm 1979). NaN stays NaN and is not a test."""
    adjusted = [math.nan] * len(ps)
    tests = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    reached = 0.0
    for done, (p, place) in enumerate(tests):
        reached = max(reached, min(1.0, p * (len(tests) - done)))
        adjusted[place] = reached
    return adjusted


def _floats(values: Floats) -> Floats:
    return np.asarray(values, np.float64)


def _estimate(values: Floats) -> tuple[Estimate, float]:
    """An estimate and its degrees of freedom."""
    table = _floats(values)
    known = np.isfinite(table)
    cells = table[known]
    seeds, users = int(known.any(axis=1).sum()), int(known.any(axis=0).sum())
    if not cells.size:
        return Estimate(mean=math.nan, low=math.nan, high=math.nan, error=math.nan, seeds=0, users=0), math.nan
    mean = float(cells.mean())
    variance, freedom = _variance(np.where(known, table - mean, 0.0), known)
    if cells.size > 1 and cells.min() == cells.max():
        mean, variance = float(cells[0]), 0.0  # a mean of equal numbers can be off by a rounding error
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Estimate(mean=mean, low=mean - half, high=mean + half, error=error, seeds=seeds, users=users), freedom


def _variance(residuals: Floats, known: NDArray[np.bool_]) -> tuple[float, float]:
    """The variance of the mean, and its degrees of freedom; NaN for one cell.

    A residual is measured from the table's own mean, which takes from every product of two residuals one variance of
    the mean, on average. Hence the divisors: each is the share of pairs of cells that are in no cluster together.
    """
    pairs = float(known.sum()) ** 2
    (by_user, same_user, users), (by_seed, same_seed, seeds) = (_clusters(residuals, known, axis) for axis in (0, 1))
    if users == 1 and seeds == 1:
        return math.nan, math.nan
    if seeds == 1:
        return by_user / (pairs - same_user), users - 1
    if users == 1:
        return by_seed / (pairs - same_seed), seeds - 1
    both = float((residuals**2).sum())
    apart = pairs - same_user - same_seed + math.sqrt(pairs)
    person, seed = by_user / (pairs - same_user), by_seed / (pairs - same_seed)
    rest = person + seed - (by_user + by_seed - both) / apart  # what differs from one cell to the next, in both
    # No source of error takes another's away: each alone is a lower bound, which the difference may fall below by luck.
    variance = max(person + seed - rest, person, seed, rest)
    parts = ((person, users - 1), (seed, seeds - 1), (rest, (users - 1) * (seeds - 1)))
    return variance, _satterthwaite(variance, parts)


def _clusters(residuals: Floats, known: NDArray[np.bool_], axis: int) -> tuple[float, float, int]:
    """Sum of squared cluster sums, number of pairs of cells in one cluster, number of clusters."""
    sums, sizes = residuals.sum(axis=axis), known.sum(axis=axis)
    return float((sums**2).sum()), float((sizes**2).sum()), int((sizes > 0).sum())


def _satterthwaite(variance: float, parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a variance made of (part, degrees of freedom); never fewer than the poorest part has."""
    fewest = min(freedom for _, freedom in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    return max(variance**2 / spread, fewest) if spread else float(fewest)
