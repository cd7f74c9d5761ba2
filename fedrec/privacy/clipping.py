"""What may be sent: one flat vector of integers whose norm is bounded whatever the data were."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal, require

_INT64 = 2**63
WHOLE = 2**53  # float64 adds whole numbers up to here without rounding
_SQUARES = 1e-140, 1e140  # norms whose squares a float64 holds


class Bounded(NamedTuple):
    """A vector that carries its bound: ‖vector‖₂ ≤ l2, exactly."""

    vector: NDArray[np.int64]  # (dim,) in grid steps
    l2: int  # in grid steps
    grid: int  # steps per unit


class Row(NamedTuple):
    """One of many clipped updates."""

    vector: NDArray[Any]  # (dim,) whole numbers in grid steps; the next row may overwrite it
    norm: float  # ‖update‖₂ as `np.linalg.norm` has it; not finite where the update is not


def radius(clip: float, grid: int) -> int:
    """The clip norm in whole grid steps, rounded down; refuses a norm or a grid that bounds nothing (P08, P18)."""
    if not (np.isfinite(clip) and clip > 0):
        raise PrivacyRefusal("P08", "a clip norm is positive and finite", remedy="Set a public constant.", clip=clip)
    steps = int(Fraction(clip) * grid) if grid > 0 else 0
    if steps < 1:
        remedy = "Use more grid steps per unit."
        raise PrivacyRefusal("P18", "the clip norm is at least one grid step", remedy=remedy, clip=clip, grid=grid)
    return steps


def flatten(arrays: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Every uploaded array, scalars included, as one vector, so that one clip bounds them all.

    Refuses anything but floating-point arrays (P08): counters and buffers cannot be clipped, so they cannot be sent.
    """
    for place, array in enumerate(arrays):
        if not np.issubdtype(array.dtype, np.floating):
            remedy = "Keep integer buffers and running statistics on the device."
            raise PrivacyRefusal(
                "P08", "an update holds only floating-point arrays", remedy=remedy, place=place, dtype=str(array.dtype)
            )
    return np.concatenate([np.zeros(0), *(np.asarray(array, np.float64).ravel() for array in arrays)])


def clip_to_grid(update: NDArray[np.float64], clip: float, grid: int) -> Bounded:
    """Round `update` (dim,) toward zero onto the grid, scaled onto the ball of radius `clip` if it is not inside then.

    Guarantee: the sum of squares, in exact integer arithmetic, is at most (clip·grid)². Zero stays zero; a non-finite
    update silently becomes zero, so that no failure leaves the device; a clipped vector is left as it is when `grid`
    is a power of two (division by it is then exact).
    """
    bound = radius(clip, grid)
    if update.ndim != 1:
        remedy = "Flatten all arrays together first: clipping tensors apart does not bound their sum."
        raise PrivacyRefusal("P08", "an update is one flat vector", remedy=remedy, shape=update.shape)
    if update.size == 0 or not np.isfinite(update).all():
        return Bounded(np.zeros(update.size, np.int64), bound, grid)
    return Bounded(_onto_ball(update.astype(np.float64), bound, grid), bound, grid)


def clip_each(updates: NDArray[np.float32], clip: float, grid: int) -> Iterator[Row]:
    """`clip_to_grid` of every row of `updates` (client, dim), bit for bit, in a fraction of its time.

    The same arithmetic in one buffer, with squares of whole floats in place of squares of integers. Such a sum is exact
    up to 2⁵³ and is never rounded back below it, so its comparison with a radius² < 2⁵³ is exact. A larger radius takes
    the integers.
    """
    bound, wide = radius(clip, grid), np.empty(updates.shape[1])
    for update in updates:
        wide[:] = update
        norm = math.sqrt(float(np.dot(wide, wide)))  # float32 has no square that overflows a float64
        if bound**2 >= WHOLE:
            yield Row(clip_to_grid(wide, clip, grid).vector, norm)
            continue
        if not math.isfinite(norm):
            wide[:] = 0
        elif not _fits(norm, wide.size, bound, grid):
            _onto_sphere(wide, norm, bound)
        elif not _inside(wide, bound, grid):
            wide[:] = update
            _onto_sphere(wide, norm, bound)
        yield Row(wide, norm)


def check_bounded(vector: NDArray[np.int64], clip: float, grid: int) -> bool:
    """Whether a received `vector` is one that `clip_to_grid` may have made. Never raises on the vector's account."""
    bound = radius(clip, grid)
    return vector.ndim == 1 and vector.dtype == np.int64 and within_ball(vector, bound)


def within_ball(vector: NDArray[np.int64], l2: float) -> bool:
    """Whether ‖vector‖₂ ≤ l2, exactly."""
    return _peak(vector) <= l2 and squared_norm(vector) <= l2**2


def squared_norm(vector: NDArray[np.int64]) -> int:
    """Σ vᵢ² without overflow and without rounding."""
    if _peak(vector) ** 2 * vector.size < _INT64:
        return int(np.dot(vector, vector))
    return sum(entry * entry for entry in vector.tolist())


def _onto_ball(update: NDArray[np.float64], bound: int, grid: int) -> NDArray[np.int64]:
    norm = _length(update)
    if _fits(norm, update.size, bound, grid):
        inside = np.trunc(update * grid).astype(np.int64)
        if squared_norm(inside) <= bound**2:
            return inside
    _stretch(update, norm, bound)
    vector = update.astype(np.int64)
    while squared_norm(vector) > bound**2:  # the float norm can be short by an ulp
        vector -= np.sign(vector)
    return vector


def _length(update: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore"):
        return math.sqrt(float(np.dot(update, update)))


def _fits(norm: float, size: int, bound: int, grid: int) -> bool:
    """Whether an update of this norm may be inside the ball as it is: rounding takes at most √size steps off a norm."""
    return norm * grid * (1 - 2**-20) <= bound + math.sqrt(size)


def _inside(wide: NDArray[np.float64], bound: int, grid: int) -> bool:
    """Put `wide` on the grid as it is, and tell whether it is inside the ball there."""
    np.trunc(np.multiply(wide, grid, out=wide), out=wide)
    return bool(np.dot(wide, wide) <= bound**2)


def _onto_sphere(wide: NDArray[np.float64], norm: float, bound: int) -> None:
    """Scale `wide`, of this norm, to whole numbers of length `bound` at most."""
    _stretch(wide, norm, bound)
    while np.dot(wide, wide) > bound**2:  # the float norm can be short by an ulp
        wide -= np.sign(wide)


def _stretch(wide: NDArray[np.float64], norm: float, bound: int) -> None:
    """Scale `wide`, of this norm, to the length `bound`, then round toward zero."""
    if not _SQUARES[0] < norm < _SQUARES[1]:  # its squares overflow or vanish
        wide /= np.abs(wide).max()
        norm = _length(wide)
    np.trunc(np.multiply(wide, bound / norm, out=wide), out=wide)


def _peak(vector: NDArray[np.int64]) -> int:
    """Largest |vᵢ|, as a Python integer: in int64, |−2⁶³| is negative."""
    return max(int(vector.max()), -int(vector.min())) if vector.size else 0


def default_grid(clip: float, *, crowd: float, multiplier: float) -> int:
    """Steps per unit, a power of two: at most 2²⁰ steps in a clip norm, at least 100 in the noise.

    Between the two, the sum of `crowd` clipped vectors and ten standard deviations of noise fit an int32.
    """
    require(clip > 0 and crowd > 0 and multiplier > 0, "clip, crowd and multiplier are positive",
            clip=clip, crowd=crowd, multiplier=multiplier)  # fmt: skip
    steps = max(min(2**20, (2**31 - 1) / (crowd + 10 * multiplier)), 200 / multiplier)
    return int(2 ** max(0, np.floor(np.log2(steps / clip))))
