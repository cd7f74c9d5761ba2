"""One object from which clip, noise, cohort and account all follow, so that they cannot disagree."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedrec.errors import BudgetExceeded, PrivacyRefusal, require
from fedrec.privacy.accounting import SampledGaussian, calibrate, epsilon
from fedrec.privacy.clipping import Bounded, clip_to_grid, default_grid, radius
from fedrec.privacy.conduct import Conduct, admit
from fedrec.privacy.noise import COARSEST, Level, Noise, noise_source
from fedrec.privacy.sampling import Coins, Poisson, SecretCoins
from fedrec.privacy.terms import Adversary, Budget, Guarantee, Mode, Relation, Unit

DROWNED = 10.0  # noise norm over clip norm beyond which nothing is learnt


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """Mode `user-central` with Poisson cohorts: public, fixed before the first round, checked at birth.

    `clip` bounds one client's update (L2), `grid` is steps per unit, `multiplier` is the noise's standard deviation on
    the sum over `clip`. No instance exists whose `rounds` releases cost more than its `budget`.
    """

    budget: Budget
    rounds: int
    sampler: Poisson
    clip: float
    grid: int
    multiplier: float
    level: Level = Level.HARDENED

    @classmethod
    def within(
        cls, budget: Budget, *, rounds: int, rate: float, clip: float, level: Level = Level.HARDENED
    ) -> PrivacyPlan:
        """The plan with the least noise that keeps `budget`. Takes a few seconds: it calibrates."""
        require(rounds >= 1, "a plan has at least one round", rounds=rounds)
        sampler = Poisson(rate)
        multiplier = calibrate(budget.epsilon, delta=budget.delta, rate=sampler.rate, rounds=rounds)
        expected = rate * budget.population
        crowd = min(budget.population, expected + 10 * math.sqrt(expected) + 10)
        grid = default_grid(clip, crowd=crowd, multiplier=multiplier)
        return cls(
            budget=budget, rounds=rounds, sampler=sampler, clip=clip, grid=grid, multiplier=multiplier, level=level
        )

    def __post_init__(self) -> None:
        self.admit(Conduct(sampler=self.sampler))
        require(self.rounds >= 1, "a plan has at least one round", rounds=self.rounds)
        if self.grid < 1 or self.grid & (self.grid - 1):
            remedy = "Use the default grid, or another power of two: dividing by it is exact."
            raise PrivacyRefusal("P18", "a grid is a power of two", remedy=remedy, grid=self.grid)
        if self.event.multiplier * radius(self.clip, self.grid) < COARSEST:
            remedy = "Use more grid steps per unit."
            raise PrivacyRefusal("P18", "noise spans at least 5 grid steps", remedy=remedy, sigma=self.sigma)
        if self.epsilon > self.budget.epsilon:
            remedy = "Calibrate with PrivacyPlan.within."
            raise BudgetExceeded(
                "P10", "a plan keeps its budget", remedy=remedy, costs=self.epsilon, budget=self.budget
            )

    @property
    def mode(self) -> Mode:
        """Which promise this is."""
        return Mode.USER_CENTRAL

    @property
    def private(self) -> bool:
        """Whether anything may be claimed: replayable noise protects nobody."""
        return self.level is not Level.TEST

    @property
    def event(self) -> SampledGaussian:
        """One round, as the accountant sees it."""
        return SampledGaussian(self.sampler.rate, self.multiplier, self.relation)

    @property
    def relation(self) -> Relation:
        """Neighbouring populations differ in one enrolled client."""
        return Relation.ADD_OR_REMOVE

    @property
    def delta(self) -> float:
        """The budget's δ."""
        return self.budget.delta

    @property
    def epsilon(self) -> float:
        """What all the rounds cost, at most `budget.epsilon`."""
        return self.spent(self.rounds)

    def spent(self, charges: int) -> float:
        """ε after `charges` releases. Information: the promise is `epsilon`, whichever round is the last."""
        return epsilon(self.event, rounds=charges, delta=self.delta)

    @property
    def guarantee(self) -> Guarantee:
        """The promise with its unit, relation and adversary."""
        return Guarantee(
            epsilon=self.epsilon, delta=self.delta, unit=Unit.USER, relation=self.relation, adversary=Adversary.READER
        )

    @property
    def expected(self) -> float:
        """The public cohort size rate × N by which every sum is divided, whoever answered."""
        return self.sampler.rate * self.budget.population

    @property
    def sigma(self) -> float:
        """The noise's standard deviation on the sum, in grid steps."""
        return self.multiplier * self.relation.sensitivity(radius(self.clip, self.grid))

    def clip_update(self, update: NDArray[np.float64]) -> Bounded:
        """`clip_to_grid` with this plan's norm and grid."""
        return clip_to_grid(update, self.clip, self.grid)

    def admit(self, conduct: Conduct) -> Poisson:
        """The sampler for a strategy that keeps this plan's rules (P02 to P05 otherwise)."""
        return admit(conduct, self.sampler)

    def noise(self, generator: Generator | None = None) -> Noise:
        """The source of noise for one release; a `generator` belongs to level `test` alone (P07)."""
        return noise_source(self.level, generator)

    def coins(self, generator: Generator | None = None) -> Coins:
        """The source of coins for one cohort; a `generator` belongs to level `test` alone (P07)."""
        if self.private and generator is not None:
            remedy = "Leave the generator out: a private cohort cannot be replayed."
            raise PrivacyRefusal("P07", "private cohorts are never seeded", remedy=remedy, level=str(self.level))
        return SecretCoins() if generator is None else generator

    def noise_to_clip(self, dim: int) -> float:
        """The expected noise norm on the mean of `dim` parameters, over the clip norm: z·√d / (q·N)."""
        return self.multiplier * math.sqrt(dim) / self.expected

    def check_width(self, dim: int, *, force: bool = False) -> float:
        """`noise_to_clip(dim)`, worth a warning above 1.

        Refuses a ratio above 10 unless forced, and a grid on which rounding could move a norm by over 1 % (P18).
        """
        inflation = math.sqrt(1 + dim / (4 * radius(self.clip, self.grid) ** 2))
        if inflation > 1.01:
            remedy = "Use more grid steps per unit or fewer parameters."
            raise PrivacyRefusal("P18", "rounding moves a norm by 1 % at most", remedy=remedy, factor=inflation)
        ratio = self.noise_to_clip(dim)
        remedy = (
            f"Train at most {int((DROWNED * self.expected / self.multiplier) ** 2)} shared parameters, or force it."
        )
        require(
            force or ratio <= DROWNED, f"noise is at most {DROWNED:g} clip norms", remedy=remedy, ratio=ratio, dim=dim
        )
        return ratio

    def public(self) -> dict[str, Any]:
        """Every field, for manifests and ledgers; nothing in a plan is private."""
        return {
            "mode": str(self.mode), "label": str(self.mode) if self.private else "non-private",
            "epsilon": float(self.budget.epsilon), "delta": float(self.delta), "population": self.budget.population,
            "over_cap": self.budget.over_cap, "rounds": self.rounds, "rate": float(self.sampler.rate),
            "clip": float(self.clip), "grid": self.grid, "multiplier": float(self.multiplier), "level": str(self.level),
        }  # fmt: skip

    @property
    def hash(self) -> str:
        """SHA-256 of `public()`."""
        return hashlib.sha256(json.dumps(self.public(), sort_keys=True).encode()).hexdigest()
