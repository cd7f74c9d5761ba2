"""What one plan costs, how loud its noise is, and what it asks of a device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedrec.errors import SpecError, require
from fedrec.model.warm_shares import statistics_size
from fedrec.privacy.accounting import estimate
from fedrec.privacy.inside import fitted
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.matrix import prefix_error
from fedrec.privacy.phase import Phase, Purpose
from fedrec.privacy.plan import DROWNED, PrivacyPlan
from fedrec.privacy.sampling import Cyclic
from fedrec.privacy.terms import Guarantee, Mode
from fedrec.protection import inside, noised, protection, room, stands_alone, survivors
from fedrec.spec import ModelSpec, Plan

_WIDTHS = {"minilm": 384, "hash": 256, "tiny": 32}
_FLOAT = 4  # bytes of one shared parameter on its way to a device


@dataclass(frozen=True, kw_only=True)
class Veil:
    """The noise of one round on a single number, in clip norms.

    `users` lies on the mean over the `cohort`; `inside` lies on each device's own update, from DP-SGD, before the clip.
    `typical` is how long most updates are without noise.
    """

    users: float
    inside: float
    cohort: float
    typical: float = 1.0

    def ratio(self, dim: int) -> float:
        """Noise over signal for `dim` parameters, if every update without noise has its typical length.

        Noise of ρ inside a clipped update leaves the signal 1/√(1 + ρ²) of its length, and is averaged over the cohort.
        """
        inner = self.inside**2 * dim
        return math.sqrt(self.users**2 * dim * (room(self.typical) ** 2 + inner) + inner / self.cohort) / self.typical

    def widest(self, ratio: float = 1.0) -> int:
        """The most parameters with a noise of `ratio`. Where all noise is the server's: (n / z)²."""
        linear = ((self.users * room(self.typical)) ** 2 + self.inside**2 / self.cohort) / self.typical**2
        square = (self.users * self.inside / self.typical) ** 2
        # A root of square·d² + linear·d = ratio² in the form that does not divide by a square of zero.
        return int(2 * ratio**2 / (linear + math.sqrt(linear**2 + 4 * square * ratio**2)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast:
    """A plan with its calibrated promise; `dim` shared parameters, and a warm start of so many `statistics`."""

    plan: Plan
    dim: int
    statistics: int
    privacy: PrivacyPlan

    @classmethod
    def of(cls, plan: Plan, dim: int, statistics: int = 0) -> Forecast:
        """What `plan` promises, exactly. Takes seconds; refuses what no plan may promise (P01 …)."""
        check(plan)
        privacy = protection(plan)
        assert privacy is not None  # `check` refuses mode none
        return cls(plan=plan, dim=dim, statistics=statistics, privacy=privacy)

    @property
    def phase(self) -> Phase:
        """The rounds that the forecast is about: those of training, or a warm start that stands alone."""
        return self.privacy.phases[-1]

    @property
    def learnt(self) -> int:
        """How many numbers a round of `phase` is about."""
        return self.dim if self.plan.federation.rounds else self.statistics

    @property
    def terms(self) -> InteractionTerms | None:
        """What a device does about interactions in a round of `phase`, if anything."""
        promise = self.privacy.interaction
        return (promise.terms or promise.statistics) if promise else None

    @cached_property
    def veil(self) -> Veil:
        """The noise of a round of `phase`."""
        return _veil(self.plan, self.privacy.phases, self.terms)

    @property
    def ratio(self) -> float:
        """Noise over signal in one round; 1 is where little can be learnt and 10 where a run is refused."""
        return self.veil.ratio(self.learnt)

    @property
    def overall(self) -> float:
        """The same over all rounds of `phase` together, if every round says the same."""
        return self.ratio / math.sqrt(self.phase.rounds)

    @property
    def refused(self) -> int | None:
        """The number of parameters beyond which `fedrec simulate` refuses to run; None where nothing refuses."""
        spread = self.privacy.crossing(self.privacy.rounds).spread
        return int((DROWNED / spread) ** 2) if spread else None

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes of one device: what it sends and gets in one round of `phase`, and in all its rounds together."""
        last, first = (self.privacy.crossing(number) for number in (self.privacy.rounds, 1))
        up, down = last.width(self.learnt) * last.dtype.itemsize, self.dim * _FLOAT
        total = self.phase.participations * (up + down)
        if len(self.privacy.phases) > 1:
            total += self.statistics * first.dtype.itemsize + down
        return {"sent": up, "received": down, "total": total}

    def public(self) -> dict[str, Any]:
        """Every figure, for programs."""
        phase, rate = self.phase, self.veil.cohort / self.plan.clients
        return {
            "mode": str(self.privacy.mode), "users": self.plan.clients, "cohort": self.veil.cohort, "rate": rate,
            "rounds": phase.rounds, "noise_multiplier": phase.multiplier, "bands": phase.bands,
            "interaction_multiplier": self.terms.multiplier if self.terms else None,
            "parameters": self.dim, "statistics": self.statistics,
            "noise_to_signal": {"round": self.ratio, "overall": self.overall},
            "largest_dimension": self.veil.widest(), "refused_above": self.refused, "bytes": self.traffic,
            "participations": {"expected": phase.rounds * rate, "most": phase.participations,
                               "separation": phase.separation},
            "guarantees": [_told(promise.guarantee) for promise in self.privacy.promises],
        }  # fmt: skip

    def pace(self, rounds_per_day: float) -> dict[str, float]:
        """Days that the plan takes, and days between two rounds of one device."""
        require(0 < rounds_per_day < math.inf, "a day has more than no rounds", rounds_per_day=rounds_per_day)
        apart = self.plan.clients / self.veil.cohort  # on average, where coins decide
        if isinstance(self.phase.schedule, Cyclic):
            apart = self.phase.separation
        return {"days": self.privacy.rounds / rounds_per_day, "days_between": apart / rounds_per_day}


def parameters(model: ModelSpec, items: int) -> int:
    """How many shared parameters a model has over a catalogue of `items` without dense features.

    Refuses an encoder whose width is not known without opening it.
    """
    remedy = "Give --dim, the number of shared parameters, which `fedrec simulate` prints when it starts."
    width, axes = _width(model, remedy), model.dim
    adapter = {"none": 0, "bottleneck": 2 * model.rank * width, "lora": 2 * model.blocks * model.rank * width}
    maps = axes if model.maps == "diagonal" else axes**2
    return (
        model.projection * width * axes + len(model.decays) * maps + model.residuals * items * axes
        + model.popularity * items + adapter[model.adapter]
    )  # fmt: skip


def statistics(plan: Plan, items: int, axes: int) -> int:
    """How many numbers a device sends in a warm start over a catalogue of `items`, of whose views it keeps `axes`."""
    if stands_alone(plan):
        return items
    model = plan.model
    width = _width(model, "Set warm.opinions = 0 to plan without them.") if plan.warm.opinions else 0
    return statistics_size(items, len(model.decays), min(axes, model.dim), residuals=model.residuals, width=width)


def _width(model: ModelSpec, remedy: str) -> int:
    if model.encoder not in _WIDTHS:
        raise SpecError("the planner knows the width of minilm, hash and tiny", remedy=remedy, encoder=model.encoder)
    return _WIDTHS[model.encoder]


def sketch(plan: Plan) -> Veil:
    """The noise of a plan to one part in a thousand, several times as fast as `Forecast.of`."""
    phases, spec = noised(plan, estimate), plan.interaction
    if not Mode(plan.privacy.mode).protects_interactions:
        return _veil(plan, phases, None)
    met, terms, first = inside(plan, phases)
    training, statistics = fitted(spec.epsilon, met, terms=terms, statistics=first, search=estimate)
    return _veil(plan, phases, training or statistics)


def check(plan: Plan) -> None:
    """Refuse a plan without a promise or without a population."""
    require(plan.privacy.mode != "none", "a plan without privacy has nothing to calibrate",
            remedy="Give --epsilon, or a --mode.", mode=plan.privacy.mode)  # fmt: skip
    require(plan.clients >= 1, "the planner needs the public number of users", remedy="Give --users.",
            users=plan.clients)  # fmt: skip


def _veil(plan: Plan, phases: tuple[Phase, ...], terms: InteractionTerms | None) -> Veil:
    phase, mode = phases[-1], Mode(plan.privacy.mode)
    cohort = phase.schedule.expected(plan.clients)
    typical = terms.typical if terms and phase.purpose is Purpose.WARM_START else 1.0
    users = _spread(mode, phase, cohort, survivors(plan, phases))
    return Veil(users=users, inside=_inner(terms), cohort=cohort, typical=typical)


def _spread(mode: Mode, phase: Phase, cohort: float, least: int) -> float:
    """`Crossing.spread`; of correlated noise, what independent noise would be to spoil the sum of updates as much."""
    z = phase.adaptive.split(phase.multiplier) if phase.adaptive else phase.multiplier
    z *= prefix_error(phase.rounds, phase.bands) / prefix_error(phase.rounds, 1)
    match mode:
        case Mode.USER_CENTRAL:
            return z / cohort
        case Mode.USER_LOCAL:
            return z / math.sqrt(cohort)
        case Mode.USER_DISTRIBUTED | Mode.LAYERED:
            return z / math.sqrt(cohort * least)
    return 0.0


def _inner(terms: InteractionTerms | None) -> float:
    """Noise on one number of a device's update over the most that its steps can move: z / (batch · √steps)."""
    return terms.multiplier / (terms.expected * math.sqrt(terms.steps)) if terms else 0.0


def _told(given: Guarantee) -> dict[str, Any]:
    return {
        "epsilon": given.epsilon, "delta": given.delta, "unit": str(given.unit), "relation": str(given.relation),
        "adversary": given.adversary.name.lower(), "text": str(given),
    }  # fmt: skip
