"""Every mode's release path survives an attack that breaks each of its faulty versions."""

import math
from dataclasses import replace

import pytest

from fedrec.errors import SpecError
from fedrec.privacy.audit import audit, claims
from fedrec.privacy.audit.banded import banded_claim
from fedrec.privacy.audit.faults import (
    client_weights,
    composed,
    faults,
    little_noise,
    no_clip,
    no_noise,
    runs_to_find,
    shared_seed,
)
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.noise import Hardened, Level, Research
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson
from fedrec.privacy.terms import Adversary, Budget, Mode, Relation
from fedrec.study.uploads import interaction_claim

POPULATION = 943


def plan_of(mode, *, least=0, level=Level.HARDENED, **fields):
    """A plan of one phase, whatever it costs."""
    budget = Budget.of(40.0, POPULATION, over_cap=True)
    phases = (Phase(**{"rounds": 1, "clip": 1.3, "grid": 2**19, **fields}),)
    return PrivacyPlan(mode=mode, population=POPULATION, phases=phases, budget=budget, least=least, level=level)


def claims_of(mode, schedule, multiplier, *, least=0, level=Level.HARDENED):
    return claims(plan_of(mode, schedule=schedule, multiplier=multiplier, least=least, level=level))


(CENTRAL,) = claims_of(Mode.USER_CENTRAL, Poisson(0.1), 1.0)
(FIXED,) = claims_of(Mode.USER_CENTRAL, Fixed(94), 2.0)
(GROUPS,) = claims_of(Mode.USER_CENTRAL, Cyclic(10), 1.0)
SHARED, SERVER = claims_of(Mode.USER_DISTRIBUTED, Poisson(0.1), 1.0, least=2)
(LOCAL,) = claims_of(Mode.USER_LOCAL, Cyclic(10), 2.0)
BROKEN = [CENTRAL, SHARED, LOCAL]


def named(given):
    return given.__name__ if callable(given) else f"{given.mode}, {given.relation}, {given.adversary.name}"


def test_the_claims_are_those_of_the_modes():
    shown = [(claim.relation, claim.adversary, claim.mu) for claim in (CENTRAL, FIXED, GROUPS, SHARED, SERVER, LOCAL)]
    assert shown == [
        (Relation.ADD_OR_REMOVE, Adversary.READER, 1.0),
        (Relation.REPLACE_ONE, Adversary.READER, 1.0),
        (Relation.ZERO_OUT, Adversary.READER, 1.0),
        (Relation.ZERO_OUT, Adversary.READER, 1.0),
        (Relation.REPLACE_ONE, Adversary.SERVER, pytest.approx(2 * math.sqrt(2))),
        (Relation.REPLACE_ONE, Adversary.ANYONE, 1.0),
    ]


@pytest.mark.parametrize("claim", [CENTRAL, FIXED, GROUPS, SHARED, SERVER, LOCAL], ids=named)
def test_the_real_path_is_not_falsified(claim):
    verdict = audit(claim.through(Hardened()), claim, runs=3000)
    assert verdict.passed, verdict
    assert verdict.mu_claimed / 2 < verdict.mu_lower <= verdict.mu_claimed  # and the attack is not asleep
    assert verdict.epsilon_lower < min(verdict.epsilon_ceiling, claim.epsilon)
    assert "not falsified" in str(verdict)


@pytest.mark.parametrize(
    ("claim", "fault"), [(claim, fault) for claim in BROKEN for fault in faults(claim)], ids=named
)  # fmt: skip
def test_every_fault_is_found(claim, fault):
    verdict = audit(fault(claim), claim, runs=runs_to_find(fault))
    assert not verdict.passed, verdict
    assert "FALSIFIED" in str(verdict)


@pytest.mark.parametrize("claim", BROKEN, ids=named)
def test_without_noise_the_audit_shows_all_it_could(claim):
    verdict = audit(no_noise(claim), claim, runs=1000)
    assert verdict.mu_lower > 4
    assert verdict.epsilon_lower == pytest.approx(verdict.epsilon_ceiling)


@pytest.mark.parametrize("claim", BROKEN, ids=named)
def test_a_round_without_its_checks_is_only_faulty_when_a_fault_is_put_in(claim):
    sound = composed(claim, lambda update, replies: claim.crossing.clipped(update).vector)
    assert audit(sound, claim, runs=500).passed


BANDED = plan_of(Mode.USER_CENTRAL, rounds=3, schedule=Cyclic(2), multiplier=1.5, bands=2)


def test_correlated_noise_is_audited_over_all_its_rounds():
    claim = banded_claim(BANDED)
    assert claim.releases == 3 and claim.mu == pytest.approx(math.sqrt(1 + 0.5**2 + 1) / 1.5)
    verdict = audit(claim.through(Hardened()), claim, runs=1000)
    assert claim.mu / 3 < verdict.mu_lower <= claim.mu
    assert not audit(little_noise(claim), claim, runs=runs_to_find(little_noise)).passed
    for wrong in (
        lambda: claims(BANDED),
        lambda: banded_claim(plan_of(Mode.USER_CENTRAL, schedule=Cyclic(2), multiplier=1)),
    ):
        with pytest.raises(SpecError):
            wrong()


def test_interactions_are_hidden_in_a_step_of_training():
    claim = interaction_claim(InteractionTerms(rate=0.1, steps=1, clip=0.7, multiplier=1.0, examples=100))
    assert audit(claim.through(Hardened()), claim, runs=1000).passed
    for fault in (no_noise, shared_seed, no_clip, client_weights):
        assert not audit(fault(claim), claim, runs=runs_to_find(fault)).passed


def test_floating_point_noise_is_as_loud():
    (claim,) = claims_of(Mode.USER_CENTRAL, Poisson(0.1), 1.0, level=Level.RESEARCH)
    assert audit(claim.through(Research()), claim, runs=1000).passed
    assert not audit(claim.through(Research()), replace(claim, noise=2 * claim.noise), runs=3000).passed
