"""From a plan's privacy settings to the promise they ask for, with the least noise that keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from fedrec.errors import PrivacyRefusal, require
from fedrec.exchange.secagg import degree_for
from fedrec.privacy.accounting import Search, calibrate
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.inside import InteractionPromise, kept_inside
from fedrec.privacy.interaction import Blocks, InteractionTerms
from fedrec.privacy.masking import Masking, Neighbours, bits_for
from fedrec.privacy.matrix import sensitivity
from fedrec.privacy.noise import Level
from fedrec.privacy.phase import Phase, Purpose, calibrated, check_mode, crowd, with_noise
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson, Schedule
from fedrec.privacy.terms import Budget, Mode
from fedrec.rounds import robust
from fedrec.spec import Plan

LOCAL_DELTA = 1e-6


Sized = Callable[[float], tuple[float, int]]  # noise multiplier of the warm start → clip norm and length of statistics


def protection(plan: Plan, sized: Sized = lambda noise: (1.0, 0)) -> PrivacyPlan | None:
    """The calibrated promise of a plan whose population is known, None in mode `none`. Takes seconds.

    `sized` says what a warm start's statistics are like: the model decides it, once the noise on them is known.
    """
    mode = Mode(plan.privacy.mode)
    robust.check_mode(plan.federation, mode)
    if mode is Mode.NONE:
        return None
    fits = plan.federation.cohort <= plan.clients or not plan.federation.rounds
    require(
        fits, "an expected cohort is at most the population",
        remedy="Lower federation.cohort.", cohort=plan.federation.cohort, clients=plan.clients,
    )  # fmt: skip
    if plan.shares.masked and not mode.shares_noise:
        remedy = "Use user-distributed or layered, or set shares.masked = false."
        raise PrivacyRefusal("P13", "masks hide vectors that carry noise shares", remedy=remedy, mode=str(mode))
    phases = noised(plan)
    promised = PrivacyPlan(
        mode=mode, population=plan.clients, phases=phases, budget=budget_of(plan), level=Level(plan.privacy.noise),
        interaction=_inside(plan, phases) if mode.protects_interactions else None,
        least=survivors(plan, phases) if mode.shares_noise else 0,
        colluders=plan.shares.colluders if mode.shares_noise else 0,
    )  # fmt: skip
    if plan.warm.enabled:
        promised = _fitted(promised, *sized(statistics_noise(promised, fitted=False)))
    return _masked(promised, 1 - plan.shares.survivors) if plan.shares.masked else promised


def statistics_noise(plan: PrivacyPlan, *, fitted: bool = True) -> float:
    """The noise multiplier of a warm start, were all its noise the server's, on statistics of the length they have.

    What to ask for has to be decided before the statistics are `fitted` into a clip norm.
    """
    crossing, first = plan.crossing(1), plan.interaction.statistics if plan.interaction else None
    if first is None:
        return crossing.spread * plan.population
    users = crossing.spread * (crossing.clip / first.clip if fitted else room(first.typical))
    inner = first.spread / first.clip / math.sqrt(crossing.expected)
    return math.hypot(users, inner) * plan.population / first.typical


def room(typical: float) -> float:
    """The clip norm for a mean of examples, over that of one: twice its usual length, where that is less."""
    return min(1.0, 2 * typical)


def stands_alone(plan: Plan) -> bool:
    """Whether every event is an example by itself: statistics of it can be about popularity only."""
    return Mode(plan.privacy.mode).protects_interactions and not plan.interaction.seconds


def _fitted(plan: PrivacyPlan, clip: float, size: int) -> PrivacyPlan:
    """The same promise for statistics of `size` numbers clipped to `clip`; no ε depends on a clip norm.

    Statistics that already hold noise about interactions get room for it: it is not to be clipped away.
    """
    inside, first = plan.interaction, plan.interaction.statistics if plan.interaction else None
    norm = clip
    if inside and first:
        norm = clip * math.hypot(room(first.typical), first.spread / first.clip * math.sqrt(size))
        inside = replace(inside, statistics=replace(first, clip=clip))
    warm = with_noise(replace(plan.phases[0], clip=norm), 1.0, plan.population)
    return replace(plan, phases=(warm, *plan.phases[1:]), interaction=inside)


def _masked(plan: PrivacyPlan, dropouts: float) -> PrivacyPlan:
    """The same promise behind masks, which can be lifted when this fraction of a cohort falls silent."""
    sizes = [int(schedule.expected(plan.population)) for schedule in plan.schedules]
    graphs = [degree_for(size, plan.colluders, dropouts) for size in sizes]
    bits = max(
        bits_for(plan.crossing(first, clip), crowd(phase.schedule, plan.population))
        for first, phase in zip(plan.firsts, plan.phases, strict=True) for clip in phase.clips
    )  # fmt: skip
    masking = Masking(
        bits=32 if bits <= 32 else 64, neighbours=tuple(Neighbours(graph.degree, graph.threshold) for graph in graphs)
    )
    return replace(plan, masking=masking)


def budget_of(plan: Plan) -> Budget | None:
    """What a plan may spend on users, None where they are promised nothing."""
    mode = Mode(plan.privacy.mode)
    if not mode.protects_users:
        return None
    # Nobody hides among the others of a population in a local mode: its delta does not depend on N.
    local = min(LOCAL_DELTA, plan.clients**-1.1)
    delta = plan.privacy.delta or (local if mode is Mode.USER_LOCAL else None)
    over_cap = plan.privacy.allow_large_epsilon
    return Budget.of(plan.privacy.epsilon, plan.clients, delta=delta, over_cap=over_cap)


def noised(plan: Plan, search: Search = calibrate) -> tuple[Phase, ...]:
    """The phases of `protection`, with the least noise that `search` finds for the budget of users.

    Statistics of a warm start are clipped to 1 here, until they are fitted.
    """
    mode = Mode(plan.privacy.mode)
    if plan.warm.opinions and stands_alone(plan):
        remedy = "Set interaction.seconds above 0, or warm.opinions = 0."
        raise PrivacyRefusal("P14", "an event that is an example by itself tells of popularity only", remedy=remedy,
                             opinions=plan.warm.opinions)  # fmt: skip
    budget, phases = budget_of(plan), _phases(plan, mode)
    for phase in phases:
        check_mode(mode, phase)  # before a long search
    if budget is None:
        return tuple(with_noise(phase, 0.0, plan.clients) for phase in phases)
    return calibrated(phases, mode=mode, budget=budget, search=search)


def _phases(plan: Plan, mode: Mode) -> tuple[Phase, ...]:
    """Both phases with multipliers relative to that of training."""
    schedule = _schedule(plan, mode)
    training = Phase(
        rounds=max(1, plan.federation.rounds), schedule=schedule, clip=plan.privacy.clip, multiplier=1.0, grid=1,
        bands=plan.privacy.bands, adaptive=_adaptive(plan),
    )  # fmt: skip
    if not plan.warm.enabled:
        return (training,)
    rest = _weight(training, plan.clients) if plan.federation.rounds else 0.0
    warm = Phase(
        purpose=Purpose.WARM_START, rounds=1, schedule=_everybody(schedule, plan.clients), clip=1.0,
        multiplier=_relative(plan.warm.share, rest), grid=1,
    )  # fmt: skip
    return (warm, training) if plan.federation.rounds else (warm,)


def _schedule(plan: Plan, mode: Mode) -> Schedule:
    kind, cohort = plan.privacy.schedule, min(plan.federation.cohort, plan.clients)
    if kind == "auto":
        kind = "poisson" if mode is Mode.USER_CENTRAL else "min-sep"
    match kind:
        case "poisson":
            return Poisson(cohort / plan.clients)
        case "fixed":
            return Fixed(cohort)
    return Cyclic(max(1, plan.clients // cohort))


def _everybody(schedule: Schedule, clients: int) -> Schedule:
    """Full participation, under the relation of `schedule`."""
    match schedule:
        case Poisson():
            return Poisson(1.0)
        case Fixed():
            return Fixed(clients)
        case Cyclic():
            return Cyclic(1)


def _weight(phase: Phase, clients: int) -> float:
    """About how much a phase costs, in 1/z² of one release to everybody. Sampling counts by its central limit."""
    if isinstance(phase.schedule, Cyclic):
        spread = sensitivity(phase.rounds, phase.bands, phase.separation) if phase.bands > 1 else 0.0
        return spread**2 or float(phase.participations)
    rate = phase.schedule.expected(clients) / clients
    return rate**2 * phase.rounds


def _relative(share: float, rest: float) -> float:
    """The multiplier of a release that gets `share` of the budget, over that of a rest that weighs `rest`."""
    return math.sqrt((1 - share) / (share * rest)) if rest else 1.0


def _adaptive(plan: Plan) -> Adaptive | None:
    spec = plan.adaptive
    if not spec.quantile:
        return None
    spread = spec.spread or plan.federation.cohort / 20
    return Adaptive(quantile=spec.quantile, rate=spec.rate, spread=spread, least=spec.least, most=spec.most)


def survivors(plan: Plan, phases: tuple[Phase, ...]) -> int:
    """The fewest honest survivors of the smallest cohort."""
    smallest = min(int(phase.schedule.expected(plan.clients)) for phase in phases)
    return max(1, math.ceil(plan.shares.survivors * smallest) - plan.shares.colluders)


class Inside(NamedTuple):
    """DP-SGD of one device with relative multipliers: how often it trains by `terms`, and the `statistics` before."""

    participations: int
    terms: InteractionTerms | None
    statistics: InteractionTerms | None


def inside(plan: Plan, phases: tuple[Phase, ...]) -> Inside:
    """What a device does about interactions in a plan of these phases, before the noise is known."""
    spec, training = plan.interaction, phases[-1] if plan.federation.rounds else None
    terms = first = None
    if training:
        terms = _terms(plan, rate=spec.rate, steps=spec.steps, clip=spec.clip)
    if plan.warm.enabled:
        rest = spec.rate**2 * spec.steps * training.participations if training else 0.0
        first = _terms(plan, rate=1.0, steps=1, clip=1.0, multiplier=_relative(plan.warm.share, rest))
    return Inside(training.participations if training else 0, terms, first)


def _inside(plan: Plan, phases: tuple[Phase, ...]) -> InteractionPromise:
    met, terms, first = inside(plan, phases)
    over_cap = plan.privacy.allow_large_epsilon
    return kept_inside(plan.interaction.epsilon, met, terms=terms, statistics=first, over_cap=over_cap)


def _terms(plan: Plan, *, rate: float, steps: int, clip: float, multiplier: float = 1.0) -> InteractionTerms:
    spec = plan.interaction
    blocks = Blocks(seconds=spec.seconds, span=spec.span if spec.seconds else 1)
    return InteractionTerms(
        rate=rate, steps=steps, clip=clip, multiplier=multiplier, examples=spec.examples, delta=spec.delta,
        blocks=blocks,
    )  # fmt: skip
