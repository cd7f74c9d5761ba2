"""Every audit of `fedrec audit`: what each mode claims, what an attack could show, and whether the attack can see.

The release paths are those of real plans with real noise; the population is made up. Each row stands only together
with its power check: the same attack must succeed once noise or clip are taken away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from fedrec.privacy.audit import Claim, audit, claims
from fedrec.privacy.audit.banded import banded_claim
from fedrec.privacy.audit.canaries import Canaries, canary_releases, estimate
from fedrec.privacy.audit.faults import Fault, Scaled, faults, little_noise, no_noise, runs_to_find
from fedrec.privacy.audit.one_run import Game, OneRun, Run, one_run, single_run, summed_run
from fedrec.privacy.inside import InteractionPromise
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.noise import Hardened, Noise
from fedrec.privacy.phase import Phase, calibrated
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson, Schedule
from fedrec.privacy.terms import Budget, Mode

POWER = 4.0  # μ that an audit without noise must show
ONE_RUN_POWER = 2.5  # ε, likewise
_CLIENTS = 943
_STEP = InteractionTerms(rate=0.1, steps=1, clip=1.0, multiplier=1.0, examples=100)
_GAME = Game(canaries=200, guesses=100)
_LOOKOUTS = Canaries(count=500, dim=20_000)
_RUNS: tuple[tuple[Mode, Schedule, int], ...] = (
    (Mode.USER_CENTRAL, Poisson(0.5), 8),
    (Mode.USER_DISTRIBUTED, Cyclic(1), 3),
)


class Outcome(StrEnum):
    """What an audit came to."""

    HELD = "not falsified"
    SUCCEEDS = "succeeds, as stated"  # where nothing is promised
    UNINFORMATIVE = "not informative"  # the claim is beyond what this audit could have shown
    IN_KEEPING = "in keeping"  # of an estimate
    SUSPICIOUS = "SUSPICIOUS"  # likewise; a warning
    FALSIFIED = "FALSIFIED"
    BLIND = "BLIND"  # the attack misses what was put there to be found
    UNSTATED = "NOT STATED"  # an attack succeeds of which the statement does not warn

    @property
    def ok(self) -> bool:
        """Whether the claim survived and the attack was shown to work."""
        return self not in (Outcome.FALSIFIED, Outcome.BLIND, Outcome.UNSTATED)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One audit, in words."""

    audit: str
    mode: str
    adversary: str
    claim: str
    shown: str
    ceiling: str  # the largest value that this audit could have shown
    power: str
    verdict: Outcome


def quick() -> Iterator[Row]:
    """D1 on one release of every mode, with every fault that makes sense there. Seconds."""
    for claim in _core():
        yield _released(claim, faults(claim))
    for claim in _others():
        yield _released(claim, (no_noise, little_noise), runs=2000)


def whole_runs() -> Iterator[Row]:
    """D3 and D2 on whole runs whose clients are all canaries. A minute."""
    for mode, schedule, rounds in (*_RUNS, (Mode.USER_LOCAL, Cyclic(1), 3)):
        yield _guessed(_run_plan(mode, schedule, rounds, clients=_GAME.canaries))
    for mode, schedule, rounds in _RUNS:
        yield _estimated(_run_plan(mode, schedule, rounds, clients=_LOOKOUTS.count))


def _core() -> tuple[Claim, ...]:
    from fedrec.study.uploads import interaction_claim  # Opacus takes seconds to import

    one = _release_plan(Mode.USER_CENTRAL, Poisson(0.1), 1.0)
    shares = _release_plan(Mode.USER_DISTRIBUTED, Poisson(0.1), 1.0, least=2)
    local = _release_plan(Mode.USER_LOCAL, Cyclic(10), 2.0)
    return claims(one)[0], claims(shares)[0], claims(local)[0], interaction_claim(_STEP)


def _others() -> tuple[Claim, ...]:
    fixed = _release_plan(Mode.USER_CENTRAL, Fixed(94), 2.0)
    unmasked = _release_plan(Mode.USER_DISTRIBUTED, Poisson(0.1), 2.0, least=2)
    inside = InteractionPromise(budget=20.0, participations=1, terms=_STEP)
    shares = _release_plan(Mode.USER_DISTRIBUTED, Poisson(0.1), 1.0, least=2)
    layered = replace(shares, mode=Mode.LAYERED, interaction=inside)
    correlated = Phase(rounds=3, schedule=Cyclic(2), clip=1.0, multiplier=1.5, grid=2**18, bands=2)
    return (
        claims(fixed)[0], claims(unmasked)[-1], claims(layered)[0],
        banded_claim(_plan(Mode.USER_CENTRAL, correlated)),
    )  # fmt: skip


def _release_plan(mode: Mode, schedule: Schedule, multiplier: float, *, least: int = 0) -> PrivacyPlan:
    return _plan(mode, Phase(rounds=1, schedule=schedule, clip=1.0, multiplier=multiplier, grid=2**18), least=least)


def _plan(mode: Mode, phase: Phase, *, least: int = 0) -> PrivacyPlan:
    budget = Budget.of(40.0, _CLIENTS, over_cap=True)
    return PrivacyPlan(mode=mode, population=_CLIENTS, phases=(phase,), budget=budget, least=least)


def _run_plan(mode: Mode, schedule: Schedule, rounds: int, *, clients: int) -> PrivacyPlan:
    """ε = 3 for a population of canaries, which the one-run audit can still falsify."""
    budget, relative = (
        Budget.of(3.0, clients),
        Phase(rounds=rounds, schedule=schedule, clip=1.0, multiplier=1.0, grid=1),
    )
    return PrivacyPlan(
        mode=mode, population=clients, phases=calibrated([relative], mode=mode, budget=budget), budget=budget,
        least=clients if mode is Mode.USER_DISTRIBUTED else 0,
    )  # fmt: skip


def _released(claim: Claim, planted: tuple[Fault, ...], *, runs: int = 4000) -> Row:
    verdict = audit(claim.through(Hardened()), claim, runs=runs)
    found = [audit(fault(claim), claim, runs=runs_to_find(fault)) for fault in planted]
    missed = [fault.__name__ for fault, seen in zip(planted, found, strict=True) if seen.passed]
    loud = found[planted.index(no_noise)].mu_lower
    many = "one release" if claim.releases == 1 else f"{claim.releases} releases"
    return Row(
        audit=f"D1 {many}", mode=f"{claim.mode}, {claim.relation}", adversary=claim.adversary.name.lower(),
        claim=f"μ ≤ {verdict.mu_claimed:.2f} (ε {claim.epsilon:.2f}, δ {claim.delta:.2g})",
        shown=f"μ ≥ {verdict.mu_lower:.2f} (ε {verdict.epsilon_lower:.2f})", ceiling=f"ε {verdict.epsilon_ceiling:.2f}",
        power=f"{len(planted) - len(missed)} of {len(planted)} faults found, without noise μ ≥ {loud:.1f}",
        verdict=judged(passed=verdict.passed, sees=not missed and loud >= POWER),
    )  # fmt: skip


def _guessed(plan: PrivacyPlan) -> Row:
    found, blank = (_played(plan, noise) for noise in (Hardened(), Scaled(0.0)))
    sees = blank.epsilon_lower >= ONE_RUN_POWER
    verdict = judged(passed=found.passed, sees=sees, informative=found.informative)
    return Row(
        audit=f"D3 one run of {plan.rounds}", mode=str(plan.mode), adversary=claims(plan)[0].adversary.name.lower(),
        claim=f"ε ≤ {found.epsilon_claimed:.2f}, δ {found.delta:.2g}", shown=f"ε ≥ {found.epsilon_lower:.2f}",
        ceiling=f"ε {found.ceiling:.2f}",
        power=f"without noise ε ≥ {blank.epsilon_lower:.2f}", verdict=verdict,
    )  # fmt: skip


def _played(plan: PrivacyPlan, noise: Noise) -> OneRun:
    claim, (phase,) = claims(plan)[0], plan.phases
    run: Run = summed_run(claim, noise, schedule=phase.schedule, rounds=phase.rounds)
    if plan.mode is Mode.USER_LOCAL:
        run = single_run(claim, noise, rounds=phase.rounds)
    return one_run(run, _GAME, epsilon=plan.epsilon, delta=claim.delta)


def _estimated(plan: PrivacyPlan) -> Row:
    (phase,), crossing, delta = plan.phases, plan.crossing(1), claims(plan)[0].delta
    found, blank = (
        estimate(
            canary_releases(crossing, noise, _LOOKOUTS, schedule=phase.schedule, rounds=phase.rounds), _LOOKOUTS,
            epsilon=plan.epsilon, delta=delta,
        )
        for noise in (Hardened(), Scaled(0.0))
    )  # fmt: skip
    seen = Outcome.SUSPICIOUS if found.suspicious else Outcome.IN_KEEPING
    return Row(
        audit=f"D2 canaries in a run of {plan.rounds}", mode=str(plan.mode), adversary="reader",
        claim=f"ε ≤ {plan.epsilon:.2f}, δ {delta:.2g}", shown=f"ε ≈ {max(found.final, found.every):.2f}",
        ceiling="an estimate, not a bound",
        power=f"without noise ε ≈ {max(blank.final, blank.every):.0f}",
        verdict=seen if blank.suspicious else Outcome.BLIND,
    )  # fmt: skip


def judged(*, passed: bool, sees: bool, informative: bool = True) -> Outcome:
    """The outcome for a claim that `passed`, under an attack that `sees`."""
    if not passed:
        return Outcome.FALSIFIED
    if not sees:
        return Outcome.BLIND
    return Outcome.HELD if informative else Outcome.UNINFORMATIVE
