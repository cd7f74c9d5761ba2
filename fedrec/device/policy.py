"""What a device lets be asked of it, whoever asks: pinned by its owner, checked against a task's public plan."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self

import tomli_w
from pydantic import Field

from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.privacy.enrolment import Charge, Events, Limit, Limits, Span, Terms
from fedrec.privacy.events import Gaussian
from fedrec.privacy.phase import Phase, Purpose
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.terms import Mode, Relation
from fedrec.settings import Section, checked

_NO_LIMIT = 1e6


class UserCap(Section):
    """What may become known of the whole person: ε for one task, the largest δ, and ε for all tasks together at it.

    One task is counted in its own relation and at its own δ, all together as zero-out.
    """

    epsilon: float = Field(10.0, gt=0)
    delta: float = Field(1e-3, gt=0, lt=1)
    lifetime: float = Field(20.0, gt=0)


class InteractionCap(Section):
    """The same three for one interaction."""

    epsilon: float = Field(10.0, gt=0)
    delta: float = Field(1e-5, gt=0, lt=1)
    lifetime: float = Field(20.0, gt=0)


class Policy(Section):
    """The owner's terms. By default a device takes part only where noise is added before anything leaves it.

    `least`: the smallest crowd among which noise may be shared out. `masked`: shares of noise only behind masks.
    `participations`: the most in one task, `lifetime` in all. `separation`: the fewest rounds from one to the next.
    `clip`: the largest clip norm. No sampling is believed: whoever asks a device knows that it was asked.
    """

    modes: tuple[Mode, ...] = tuple(mode for mode in Mode if mode.on_device)
    user: UserCap = UserCap()
    interaction: InteractionCap = InteractionCap()
    least: int = Field(1, ge=1)
    masked: bool = False
    participations: int = Field(1000, ge=1)
    lifetime: int = Field(10_000, ge=1)
    separation: int = Field(1, ge=1)
    clip: float = Field(2.0**20, gt=0)

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """A policy from TOML; what it does not name keeps its default, and unknown names are refused."""
        try:
            return checked(cls, tomllib.loads(text), "privacy")
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"a policy is valid TOML: {error}", remedy="Repair the line.") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """A policy from a TOML file. A policy that cannot be read is not an empty one: it is refused."""
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            remedy = "Repair the file, or remove the setting that names it."
            raise SpecError("a device's policy can be read", remedy=remedy, path=str(path), reason=reason) from None

    def to_toml(self) -> str:
        """Every term, spelled out."""
        return tomli_w.dumps(self.model_dump(mode="json"))

    @property
    def limits(self) -> Limits:
        """The most that the device gives to all tasks together."""
        return Limits(
            participations=self.lifetime, user=Limit(self.user.lifetime, self.user.delta),
            interaction=Limit(self.interaction.lifetime, self.interaction.delta),
        )  # fmt: skip

    def accept(self, plan: PrivacyPlan, task: str) -> Terms:
        """The terms on which the device takes part in `task`.

        Refuses P10, and names the term, when the public plan asks for more than the owner allows. Looks at no data.
        """
        self._check_mode(plan)
        self._check_promises(plan)
        self._check_phases(plan)
        return terms_of(plan, task, self._most(plan))

    def accept_none(self) -> None:
        """Refuse P10 a task without any privacy plan, unless the owner listed mode `none`."""
        self._admit(Mode.NONE)

    def _check_mode(self, plan: PrivacyPlan) -> None:
        self._admit(plan.mode if plan.private else Mode.NONE)  # replayable noise is none
        if plan.mode.shares_noise and plan.least < self.least:
            _refuse("noise is shared out among enough clients", least=plan.least, accepted=self.least)
        if plan.mode.shares_noise and self.masked and plan.masking is None:
            _refuse("a share of noise leaves the device behind a mask", masking=None)

    def _admit(self, mode: Mode) -> None:
        if mode not in self.modes:
            _refuse("a device takes part in the modes of its policy", mode=str(mode), accepted=[*map(str, self.modes)])

    def _check_promises(self, plan: PrivacyPlan) -> None:
        """What the plan says it costs. What the device can count on by itself, its ledger checks round by round."""
        if plan.budget and plan.budget.delta > self.user.delta:
            _refuse("delta about users is small", delta=plan.budget.delta, accepted=self.user.delta)
        if plan.interaction and plan.interaction.delta > self.interaction.delta:
            _refuse("delta about interactions is small", delta=plan.interaction.delta, accepted=self.interaction.delta)
        if plan.budget and plan.epsilon > self.user.epsilon:
            _refuse("epsilon about users is small", epsilon=plan.epsilon, accepted=self.user.epsilon)
        inner = plan.interaction
        if inner and inner.epsilon > self.interaction.epsilon:
            _refuse("epsilon about interactions is small", epsilon=inner.epsilon, accepted=self.interaction.epsilon)

    def _check_phases(self, plan: PrivacyPlan) -> None:
        for phase in plan.phases:
            largest = phase.adaptive.most if phase.adaptive else phase.clip
            if largest > self.clip:
                _refuse("clip norms are bounded", clip=largest, accepted=self.clip)
            if phase.rounds > 1 and phase.separation < self.separation:
                _refuse("rounds of one device lie apart", separation=phase.separation, accepted=self.separation)

    def _most(self, plan: PrivacyPlan) -> Limits:
        user = Limit(self.user.epsilon, plan.budget.delta) if plan.budget else None
        interaction = Limit(self.interaction.epsilon, plan.interaction.delta) if plan.interaction else None
        return Limits(participations=self.participations, user=user, interaction=interaction)


def anything(plan: PrivacyPlan) -> Limits:
    """Limits that refuse nothing, at the plan's own δ: for virtual devices, which have no owner."""
    user = Limit(_NO_LIMIT, plan.budget.delta) if plan.budget else None
    interaction = Limit(_NO_LIMIT, plan.interaction.delta) if plan.interaction else None
    return Limits(participations=plan.rounds, user=user, interaction=interaction)


def terms_of(plan: PrivacyPlan, task: str, most: Limits) -> Terms:
    """What each phase of `plan` may ask of one device, and what each time costs it."""
    spans = []
    for first, phase in zip(plan.firsts, plan.phases, strict=True):
        times = phase.participations
        if plan.interaction and phase.purpose is Purpose.TRAINING:
            times = min(times, plan.interaction.participations)
        spans.append(Span(
            first=first, rounds=phase.rounds, participations=times, separation=phase.separation,
            charge=Charge(user=_user(plan, phase), interaction=_interaction(plan, phase)),
        ))  # fmt: skip
    return Terms(task=task, statement=plan.hash, spans=tuple(spans), most=most)


def _user(plan: PrivacyPlan, phase: Phase) -> Events:
    """Noise of the server's is not the device's to count; shares count as the sum that they make up."""
    if plan.mode is Mode.USER_LOCAL:
        return ((Gaussian(phase.multiplier, Relation.REPLACE_ONE), 1),)
    return ((Gaussian(phase.multiplier, Relation.ZERO_OUT), 1),) if plan.mode.shares_noise else ()


def _interaction(plan: PrivacyPlan, phase: Phase) -> Events:
    if plan.interaction is None:
        return ()
    warm = phase.purpose is Purpose.WARM_START
    terms = plan.interaction.statistics if warm else plan.interaction.terms
    return tuple(terms.charges(1)) if terms else ()


def _refuse(rule: str, /, **got: object) -> None:
    remedy = "Ask for a plan within the policy; only the device's owner changes the policy."
    raise PrivacyRefusal("P10", rule, remedy=remedy, **got)
