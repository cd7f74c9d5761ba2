"""One update for many that a few liars cannot drag along: coordinate by coordinate, the middle instead of the mean.

Yin et al. 2018 (ICML, definitions 1 and 2): coordinate-wise median and trimmed mean. Both look at single updates, so
they have no place where noise is calibrated to a sum, or where a sum is all that is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.privacy.crossing import Summed
from fedrec.privacy.terms import Mode
from fedrec.rounds.filter import Vector
from fedrec.spec import FederationSpec

Centre = Callable[[Vector], NDArray[np.float64]]  # (client, dim), at least one client → (dim,)

_COLUMNS = 4096  # coordinates that are sorted at a time


def centre_of(spec: FederationSpec) -> Centre | None:
    """What stands for all updates of a round; None for their mean, which needs their sum alone."""
    match spec.aggregation:
        case "median":
            return median
        case "trimmed-mean":
            return lambda updates: trimmed_mean(updates, spec.trim)
    return None


def median(updates: Vector) -> NDArray[np.float64]:
    """(dim,) the middle of each coordinate; of two middles, their mean."""
    return np.asarray(np.median(updates.astype(np.float64), axis=0))


def trimmed_mean(updates: Vector, trim: float) -> NDArray[np.float64]:
    """(dim,) the mean of each coordinate without the `trim` (below a half) smallest and as many largest."""
    cut = int(trim * len(updates))
    kept = np.sort(updates.astype(np.float64), axis=0)[cut : len(updates) - cut]
    return np.asarray(kept.mean(axis=0))


def gathered(updates: Sequence[Vector], centre: Centre) -> Summed:
    """What the sum of `updates` (dim,), at least one, would be if each were their centre: missing ones stay zeros.

    Whole numbers give whole ones.
    """
    every = np.stack(updates)
    blocks = (every[:, start : start + _COLUMNS] for start in range(0, every.shape[1], _COLUMNS))
    total = len(every) * np.concatenate([centre(block) for block in blocks])
    return Summed(np.rint(total).astype(np.int64) if every.dtype.kind == "i" else total, len(every))


def within(bound: float) -> Callable[[NDArray[Any]], bool]:
    """Whether a vector is at most so long (L2); any is where `bound` is 0."""
    return lambda vector: not bound or float(np.linalg.norm(vector.astype(np.float64))) <= bound


def check_mode(spec: FederationSpec, mode: Mode) -> None:
    """Refuse what breaks the promise of `mode`: asking more clients than counted (P03), the middle of a sum (P04)."""
    if mode is Mode.NONE:
        return
    if spec.extra:
        remedy = "Set federation.extra = 0; shares.survivors counts on dropouts, and a missing reply is a zero."
        raise PrivacyRefusal("P03", "a private plan asks the cohort that was accounted", remedy=remedy,
                             extra=spec.extra)  # fmt: skip
    if spec.bound:
        remedy = "Set federation.bound = 0; privacy.clip bounds every update."
        raise SpecError("modes with a promise have a clip norm", remedy=remedy, bound=spec.bound)
    check_centre(centre_of(spec), mode)


def check_centre(centre: Centre | None, mode: Mode) -> None:
    """Refuse P04 a centre where noise is calibrated to a sum: a median moves otherwise, and shares do not add up."""
    if centre and mode not in (Mode.NONE, Mode.USER_LOCAL, Mode.INTERACTION_LOCAL):
        remedy = 'Set federation.aggregation = "mean", or use user-local or interaction-local.'
        raise PrivacyRefusal("P04", "noise on a sum hides who is in the sum, not in a median", remedy=remedy,
                             mode=str(mode))  # fmt: skip


def check_seen(spec: FederationSpec) -> None:
    """Refuse settings about single updates, for a crew that shows sums alone."""
    if spec.aggregation != "mean" or spec.bound or spec.extra:
        raise _unseen(aggregation=spec.aggregation, bound=spec.bound, extra=spec.extra)


def check_joined(centre: Centre | None) -> None:
    """Refuse a centre of partial sums: it is not that of the updates."""
    if centre:
        raise _unseen()


def _unseen(**got: object) -> SpecError:
    remedy = 'Use --engine loop, or federation.aggregation = "mean", bound = 0 and extra = 0.'
    return SpecError("single updates are judged where they are seen", remedy=remedy, **got)
