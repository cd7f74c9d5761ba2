"""An attempt to catch the release path telling more than it claims. It can only falsify: passing proves nothing.

The mechanism is run many times on neighbouring cohorts, with and without one canary client, and an attacker who knows
the canary's direction guesses which was which. His exact (Clopper-Pearson) error bounds give a lower bound on the
Gaussian-DP parameter μ, which must not exceed the claim 1/z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.release import add_up, release

Updates = Sequence[NDArray[np.float64]]
Mechanism = Callable[[Updates], NDArray[np.float64]]  # (client, dim) raw updates → (dim,) what everyone sees

DIM = 8
_LOUD = 4.0  # the canary before clipping, in clip norms: a path that forgets to clip is heard


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What `runs` pairs of releases allow to say, at confidence 1 − `alpha`."""

    mu_lower: float  # the mechanism is not μ-GDP for any smaller μ
    mu_claimed: float
    epsilon_lower: float  # of one release, at the plan's δ
    epsilon_ceiling: float  # the largest value that this many runs could have shown
    runs: int
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether the claim survived."""
        return self.mu_lower <= self.mu_claimed

    def __str__(self) -> str:
        return (
            f"{'not falsified' if self.passed else 'FALSIFIED'}: μ ≥ {self.mu_lower:.3f} shown, "
            f"{self.mu_claimed:.3f} claimed; one release has ε ≥ {self.epsilon_lower:.2f}, and {self.runs} runs could "
            f"have shown {self.epsilon_ceiling:.2f} at most (confidence 1 − {self.alpha:g})"
        )


def real_path(plan: PrivacyPlan) -> Mechanism:
    """What a round does: clip each update, sum, add noise, divide."""

    def mechanism(updates: Updates) -> NDArray[np.float64]:
        vectors = (plan.clip_update(update).vector for update in updates)
        return release(add_up(vectors, DIM, plan=plan), plan, plan.noise())

    return mechanism


def audit(mechanism: Mechanism, plan: PrivacyPlan, *, runs: int = 4000, alpha: float = 1e-6) -> Verdict:
    """Attack `mechanism`, which claims to be `plan`'s, with 3 × `runs` releases.

    The attacker looks at one release, and at the difference of two releases of the same cohort, in which noise that was
    used twice cancels. Thresholds are fixed in advance; `alpha` is shared among them.
    """
    direction = np.zeros(DIM)
    direction[0] = 1.0
    others = [_loud(plan, axis) for axis in (1, 2, 3)]
    without, base = (_scores(mechanism, others, direction, plan, runs) for _ in range(2))
    present = _scores(mechanism, [*others, _LOUD * plan.clip * direction], direction, plan, runs)
    z = plan.multiplier
    attacks = [(without, present, 0.5), (without, present, 0.5 + 0.8 * z),
               (without - base, present - base, 0.5), (without - base, present - base, 0.5 + 0.8 * z)]  # fmt: skip
    share = alpha / 2 / len(attacks)
    errors = [(_upper(absent > cut, share), _upper(canary <= cut, share)) for absent, canary, cut in attacks]
    silent = 1 - share ** (1 / runs)  # the bound when the attacker never errs
    return Verdict(
        mu_lower=max(float(-norm.ppf(fpr) - norm.ppf(fnr)) for fpr, fnr in errors), mu_claimed=1 / z,
        epsilon_lower=max(_pure(fpr, fnr, plan.delta) for fpr, fnr in errors),
        epsilon_ceiling=_pure(silent, silent, plan.delta), runs=runs, alpha=alpha,
    )  # fmt: skip


def _loud(plan: PrivacyPlan, axis: int) -> NDArray[np.float64]:
    """Another client, orthogonal to the canary."""
    update = np.zeros(DIM)
    update[axis] = _LOUD * plan.clip
    return update


def _scores(
    mechanism: Mechanism, updates: Updates, direction: NDArray[np.float64], plan: PrivacyPlan, runs: int
) -> NDArray[np.float64]:
    """(run,) how much of the canary is in each release: 0 or 1 on average."""
    seen = np.stack([mechanism(updates) for _ in range(runs)])
    return np.asarray(seen @ direction * plan.expected / plan.clip, np.float64)


def _upper(wrong: NDArray[np.bool_], alpha: float) -> float:
    """Clopper-Pearson upper bound on a rate of errors."""
    count = int(wrong.sum())
    return 1.0 if count == wrong.size else float(beta.ppf(1 - alpha, count + 1, wrong.size - count))


def _pure(fpr: float, fnr: float, delta: float) -> float:
    """The ε that errors so small rule out."""
    gains = [(1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr]
    return max(0.0, *(math.log(gain) for gain in gains if gain > 0))
