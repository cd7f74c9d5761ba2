"""One object from which clip, noise, cohort and account all follow, so that they cannot disagree."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from numpy.random import Generator

from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError, require
from fedrec.privacy.accounting import Charges, Gaussian, epsilon, glance
from fedrec.privacy.clipping import radius
from fedrec.privacy.conduct import Conduct, admit
from fedrec.privacy.crossing import Crossing
from fedrec.privacy.inside import InteractionPromise
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.masking import Masking
from fedrec.privacy.noise import Level, Noise, noise_source
from fedrec.privacy.parts import check_parts
from fedrec.privacy.phase import Phase, Purpose, check_mode, crowd, relation, user_charges
from fedrec.privacy.sampling import Coins, Cyclic, Schedule, SecretCoins
from fedrec.privacy.terms import Adversary, Budget, Guarantee, Mode, Relation, Unit

DROWNED = 10.0  # noise norm over clip norm beyond which nothing is learnt


class Promise(NamedTuple):
    """A guarantee, and the charges from which its ε was computed."""

    guarantee: Guarantee
    charges: Charges


class Place(NamedTuple):
    """Where a round lies: its phase, and how many rounds of it come before."""

    phase: Phase
    at: int


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """Everything public about who is protected how, fixed before the first round and checked at birth.

    `budget` is what all phases together may cost a user, None where only interactions are protected; `interaction` is
    the promise about these. `least` is the fewest honest clients whose shares make up the noise of a round, and
    `colluders` how many more must come because the server may know theirs. Without `masking` the server sees every
    vector that a client sends. No instance exists that costs more than its budget.
    """

    mode: Mode
    population: int
    phases: tuple[Phase, ...]
    budget: Budget | None = None
    interaction: InteractionPromise | None = None
    level: Level = Level.HARDENED
    least: int = 0
    colluders: int = 0
    masking: Masking | None = None

    def __post_init__(self) -> None:
        check_parts(self)
        for place, phase in enumerate(self.phases):
            check_mode(self.mode, phase)
            for crossing in [self._crossing(phase, clip) for clip in phase.clips]:
                if self.masking:
                    self.masking.admit(place, crossing, crowd(phase.schedule, self.population), self.colluders)
        if self.budget and self.epsilon > self.budget.epsilon:
            remedy = "Take the phases from `calibrated`."
            raise BudgetExceeded("P10", "a plan keeps its budget", remedy=remedy, costs=self.epsilon, of=self.budget)

    @property
    def private(self) -> bool:
        """Whether anything may be claimed: replayable noise protects nobody."""
        return self.level is not Level.TEST

    @property
    def rounds(self) -> int:
        """Releases of all phases together."""
        return sum(phase.rounds for phase in self.phases)

    @property
    def firsts(self) -> tuple[int, ...]:
        """The number of each phase's first round."""
        return tuple(accumulate((phase.rounds for phase in self.phases[:-1]), initial=1))

    @property
    def required(self) -> int:
        """How many must answer for a round's noise to be whole; 0 where it does not come in shares."""
        return self.least + self.colluders if self.mode.shares_noise else 0

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """Who comes, phase by phase."""
        return tuple(phase.schedule for phase in self.phases)

    def place(self, number: int) -> Place:
        """Where round `number`, counted from 1 over all phases, lies."""
        return Place(self.phases[at := self.phase_at(number)], number - self.firsts[at])

    def phase_at(self, number: int) -> int:
        """The index of the phase in which round `number` lies."""
        for at, (first, phase) in enumerate(zip(self.firsts, self.phases, strict=True)):
            if 0 <= number - first < phase.rounds:
                return at
        raise RunError("a round is one of the plan's", remedy="Start a new plan.", round=number, rounds=self.rounds)

    def in_the_open(self, number: int) -> bool:
        """Whether anybody may know who comes in round `number`: groups in turn are public, draws are secret."""
        return isinstance(self.place(number).phase.schedule, Cyclic)

    def crossing(self, number: int, clip: float | None = None) -> Crossing:
        """The two halves of round `number`; `clip` is where an adaptive clip norm stands (P12 out of its range)."""
        phase = self.place(number).phase
        if clip is None or clip == phase.clip:
            return self._crossing(phase, phase.clip)
        if phase.adaptive is None:
            remedy = "Clip at the plan's norm."
            raise PrivacyRefusal("P12", "a clip norm moves only in a plan that lets it", remedy=remedy, clip=clip)
        return self._crossing(phase, clip)

    def noise_on_mean(self, number: int, clip: float | None = None) -> float:
        """The standard deviation of all noise on one coordinate of round `number`'s mean, when all expected answer.

        Noise inside the devices' training is not counted: it is not on the mean, but in the updates.
        """
        crossing, first = self.crossing(number, clip), self._statistics(number)
        inner = first.spread / math.sqrt(crossing.expected) if first else 0.0
        return math.hypot(crossing.spread * crossing.clip, inner)

    def affords(self, charged: Sequence[int], number: int) -> bool:
        """Whether round `number` may be released after the `charged` ones, repetitions included."""
        each = zip(self.firsts, self.phases, self._split(charged), strict=True)
        return any(
            0 <= number - first < phase.rounds and phase.affords(done, number - first) for first, phase, done in each
        )

    @property
    def epsilon(self) -> float:
        """What all rounds cost against the first adversary of `promises`."""
        return self.promises[0].guarantee.epsilon

    def spent(self, charged: Sequence[int]) -> float:
        """ε of the first promise after the `charged` rounds, by `glance` before the last. Information."""
        if self.budget is None:
            met = sum(map(Phase.met, self.phases, self._split(charged)))
            return self.interaction.spent(met) if self.interaction else 0.0
        if (charges := self._charges(charged)) == (whole := self._charges()):
            return self.epsilon
        return min(self.epsilon, glance(charges, whole, delta=self.budget.delta))

    @cached_property
    def promises(self) -> tuple[Promise, ...]:
        """One for each adversary and unit about which anything can be said, the one the plan was made for first."""
        found = []
        if self.budget:
            schedule = self.phases[0].schedule
            who = Adversary.ANYONE if self.mode is Mode.USER_LOCAL else Adversary.READER
            found.append(self._promise(self._charges(), relation(self.mode, schedule), who))
        if self.interaction:
            found.append(Promise(self.interaction.guarantee, self.interaction.charges))
        if self.mode.shares_noise:
            how = Relation.ZERO_OUT if self.masking else Relation.REPLACE_ONE
            found.append(self._promise(self._seen_by_server(how), how, Adversary.SERVER))
        return tuple(found)

    def admit(self, conduct: Conduct) -> tuple[Schedule, ...]:
        """The schedules for a strategy that keeps this plan's rules (P02 to P05 otherwise)."""
        return admit(conduct, self.schedules, least=self.required)

    def noise(self, generator: Generator | None = None) -> Noise:
        """The source of noise for one release; a `generator` belongs to level `test` alone (P07)."""
        return noise_source(self.level, generator)

    def coins(self, generator: Generator | None = None) -> Coins:
        """The source of coins for one cohort; a `generator` belongs to level `test` alone (P07)."""
        if self.private and generator is not None:
            remedy = "Leave the generator out: a private cohort cannot be replayed."
            raise PrivacyRefusal("P07", "private cohorts are never seeded", remedy=remedy, level=str(self.level))
        return SecretCoins() if generator is None else generator

    def noise_to_clip(self, number: int, dim: int) -> float:
        """The expected noise norm on the mean of `dim` numbers in round `number`, over the clip norm."""
        return self.crossing(number).spread * math.sqrt(dim)

    def check_width(self, number: int, dim: int, *, force: bool = False) -> float:
        """`noise_to_clip` for round `number`, worth a warning above 1.

        Refuses a ratio above 10 unless forced, and a grid on which rounding could move a norm by over 1 % (P18).
        """
        crossing = self.crossing(number)
        inflation = math.sqrt(1 + dim / (4 * radius(crossing.clip, crossing.grid) ** 2))
        if inflation > 1.01:
            remedy = "Use more grid steps per unit or fewer parameters."
            raise PrivacyRefusal("P18", "rounding moves a norm by 1 % at most", remedy=remedy, factor=inflation)
        ratio = self.noise_to_clip(number, dim)
        most = int((DROWNED / crossing.spread) ** 2) if crossing.spread else dim
        remedy = f"Train at most {most} shared parameters, or force it."
        require(
            force or ratio <= DROWNED, f"noise is at most {DROWNED:g} clip norms", remedy=remedy, ratio=ratio, dim=dim
        )
        return ratio

    def public(self) -> dict[str, Any]:
        """Every field, for manifests and ledgers; nothing in a plan is private."""
        budget = self.budget and {
            "epsilon": float(self.budget.epsilon), "delta": float(self.budget.delta), "over_cap": self.budget.over_cap,
        }  # fmt: skip
        return {
            "mode": str(self.mode), "label": str(self.mode) if self.private else "non-private",
            "population": self.population, "budget": budget, "phases": [phase.public() for phase in self.phases],
            "interaction": self.interaction.public() if self.interaction else None, "level": str(self.level),
            "least": self.least, "colluders": self.colluders,
            "masking": self.masking.public() if self.masking else None,
        }  # fmt: skip

    @classmethod
    def of_public(cls, content: dict[str, Any]) -> PrivacyPlan:
        """The plan that wrote `content`; refuses one that could not exist."""
        budget, inner, masking = content["budget"], content["interaction"], content["masking"]
        return cls(
            mode=Mode(content["mode"]), population=content["population"],
            phases=tuple(Phase.of_public(phase) for phase in content["phases"]),
            budget=Budget(**budget, population=content["population"]) if budget else None,
            interaction=InteractionPromise.of_public(inner) if inner else None, level=Level(content["level"]),
            least=content["least"], colluders=content["colluders"],
            masking=Masking.of_public(masking) if masking else None,
        )  # fmt: skip

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `public()`."""
        return hashlib.sha256(json.dumps(self.public(), sort_keys=True).encode()).hexdigest()

    def _statistics(self, number: int) -> InteractionTerms | None:
        """The terms of the noise about interactions that the statistics of a warm start already hold."""
        warm = self.place(number).phase.purpose is Purpose.WARM_START
        return self.interaction.statistics if self.interaction and warm else None

    def _crossing(self, phase: Phase, clip: float) -> Crossing:
        z = phase.adaptive.split(phase.multiplier) if phase.adaptive else phase.multiplier
        share = {Mode.USER_LOCAL: z}.get(self.mode, z / math.sqrt(self.least) if self.required else 0.0)
        if phase.adaptive:
            phase.adaptive.check(clip)
        bit = phase.adaptive.half(phase.multiplier, radius(clip, phase.grid)) if phase.adaptive else 0
        return Crossing(
            clip=clip, grid=phase.grid, share=share, rest=z if self.mode is Mode.USER_CENTRAL else 0.0,
            expected=phase.schedule.expected(self.population), least=self.required, population=self.population,
            level=self.level, bit=bit,
        )  # fmt: skip

    def _split(self, charged: Sequence[int]) -> list[list[int]]:
        """The `charged` rounds of each phase, counted from 0 within it."""
        each = zip(self.firsts, self.phases, strict=True)
        return [[number - first for number in charged if 0 <= number - first < phase.rounds] for first, phase in each]

    def _charges(self, charged: Sequence[int] | None = None) -> Charges:
        numbers = range(1, self.rounds + 1) if charged is None else charged
        return user_charges(self.mode, self.phases, self.population, self._split(numbers))

    def _promise(self, costs: Charges, how: Relation, who: Adversary) -> Promise:
        assert self.budget is not None  # only users' promises are made here
        cost, delta = epsilon(costs, delta=self.budget.delta), self.budget.delta
        return Promise(Guarantee(epsilon=cost, delta=delta, unit=Unit.USER, relation=how, adversary=who), costs)

    def _seen_by_server(self, how: Relation) -> Charges:
        """Sums behind masks, each vector without: the server knows who came, so nothing is amplified."""
        shrink = 1.0 if self.masking else math.sqrt(self.least)
        return [(Gaussian(phase.multiplier / shrink, how), phase.participations) for phase in self.phases]
