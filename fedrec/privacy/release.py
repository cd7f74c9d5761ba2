"""From a sum of clipped updates to something everyone may see."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.clipping import check_bounded, radius
from fedrec.privacy.noise import Noise
from fedrec.privacy.plan import PrivacyPlan


def add_up(vectors: Iterable[NDArray[np.int64]], dim: int, *, plan: PrivacyPlan) -> NDArray[np.int64]:
    """(dim,) the exact sum of received vectors; refuses one that is longer than the clip norm (P08).

    Nobody's vector sums to zero: an empty cohort is released like any other.
    """
    total = np.zeros(dim, np.int64)
    for vector in vectors:
        if vector.shape != (dim,) or not check_bounded(vector, plan.clip, plan.grid):
            remedy = "Filter replies before they are added."
            raise PrivacyRefusal("P08", "every summand is within the clip norm", remedy=remedy, clip=plan.clip)
        total += vector
    return total


def release(total: NDArray[np.int64], plan: PrivacyPlan, noise: Noise) -> NDArray[np.float64]:
    """The noised mean update (dim,): the sum of whatever arrived, plus noise, over the public expected cohort.

    The noise is `plan.sigma` however many clients answered. Charge the ledger before this leaves memory.
    Refuses noise of another level than the plan states (P07) and a sum that no cohort can have (P08).
    """
    if noise.level is not plan.level:
        remedy = "Take `plan.noise()`."
        raise PrivacyRefusal(
            "P07", "noise is of the level that is stated", remedy=remedy, drawn=str(noise.level), stated=str(plan.level)
        )
    _check(total, plan)
    return (total + noise.draw(plan.sigma, total.size)) / (plan.grid * plan.expected)


def _check(total: NDArray[np.int64], plan: PrivacyPlan) -> None:
    if total.ndim != 1 or total.dtype != np.int64:
        remedy = "Sum the integer vectors that clients send."
        raise PrivacyRefusal("P08", "an aggregate is one int64 vector", remedy=remedy, dtype=str(total.dtype))
    limit = plan.budget.population * radius(plan.clip, plan.grid)
    if total.size and not -limit <= int(total.min()) <= int(total.max()) <= limit:
        remedy = "Check every vector before it is added; nothing was released."
        raise PrivacyRefusal("P08", "an aggregate is within population × clip norm", remedy=remedy, limit=limit)
