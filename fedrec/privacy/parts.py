"""What the parts of a privacy plan must be to each other before anything is computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedrec.errors import PrivacyRefusal, require
from fedrec.privacy.phase import Purpose, relation
from fedrec.privacy.terms import Mode

if TYPE_CHECKING:
    from fedrec.privacy.plan import PrivacyPlan


def check_parts(plan: PrivacyPlan) -> None:
    """A mode has the parts that it needs and no others."""
    mode = plan.mode
    require(mode is not Mode.NONE and bool(plan.phases), "a privacy plan has a mode and a phase", mode=str(mode))
    require((plan.budget is not None) == mode.protects_users, "a budget of users belongs to modes that protect users",
            mode=str(mode))  # fmt: skip
    require((plan.interaction is not None) == mode.protects_interactions,
            "a promise about interactions belongs to modes that protect interactions", mode=str(mode))  # fmt: skip
    require(plan.budget is None or plan.budget.population == plan.population, "a plan has one population",
            population=plan.population)  # fmt: skip
    first, last = plan.phases[0].purpose, plan.phases[-1].purpose
    require(len(plan.phases) == 1 or (len(plan.phases) == 2 and first is Purpose.WARM_START and last is not first),
            "a warm start comes before training", purposes=[str(phase.purpose) for phase in plan.phases])  # fmt: skip
    if mode.protects_users and len({relation(mode, schedule) for schedule in plan.schedules}) > 1:
        remedy = "Use schedules of one kind."
        raise PrivacyRefusal("P04", "all rounds are about one relation", remedy=remedy, schedules=plan.schedules)
    if plan.interaction:
        times = {phase.purpose: phase.participations for phase in plan.phases}
        plan.interaction.check_covers(times.get(Purpose.WARM_START, 0), times.get(Purpose.TRAINING, 0))
    if mode.shares_noise and plan.least < 1:
        remedy = "Set the fewest honest clients of a round."
        raise PrivacyRefusal("P06", "shares are sized for at least one honest client", remedy=remedy, least=plan.least)
    smallest = min(int(schedule.expected(plan.population)) for schedule in plan.schedules)
    if mode.shares_noise and plan.least + plan.colluders > smallest:
        remedy = "Enlarge federation.cohort, or count on fewer survivors."
        raise PrivacyRefusal("P06", "a full cohort has all the shares that a round needs", remedy=remedy,
                             cohort=smallest, least=plan.least, colluders=plan.colluders)  # fmt: skip
    if plan.masking:
        plan.masking.check(mode, len(plan.phases))
    if mode.protects_users and min(phase.multiplier for phase in plan.phases) <= 0:
        raise PrivacyRefusal("P01", "private noise is positive", remedy="Without noise the run is non-private.")
