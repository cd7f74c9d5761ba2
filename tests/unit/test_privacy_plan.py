"""The plan: consistent by construction, refused otherwise."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

import fedrec.privacy
from fedrec.errors import BudgetExceeded, PrivacyRefusal, SpecError
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.noise import Hardened, Level, Research, Seeded
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.release import add_up, release
from fedrec.privacy.sampling import Fixed, Poisson, SecretCoins
from fedrec.privacy.terms import Budget

PLAN = PrivacyPlan.within(Budget.of(8.0, 943), rounds=10, rate=0.1, clip=1.3)
TEST = replace(PLAN, level=Level.TEST)


class Nothing:
    """Noise that is none, to see the arithmetic."""

    level, kind, rng = Level.HARDENED, "none", "none"

    def draw(self, sigma, dim):
        self.sigma = sigma
        return np.zeros(dim, np.int64)


def test_the_plan_spends_its_budget_and_no_more():
    assert 0.999 * 8 < PLAN.epsilon <= 8
    assert PLAN.spent(5) < PLAN.epsilon
    assert PLAN.spent(0) == 0


def test_everything_follows_from_the_same_numbers():
    assert PLAN.event.rate == PLAN.sampler.rate == 0.1
    assert PLAN.event.multiplier == PLAN.multiplier
    assert PLAN.sigma == PLAN.multiplier * PLAN.clip_update(np.ones(3)).l2
    assert PLAN.expected == pytest.approx(94.3)
    assert PLAN.guarantee.epsilon == PLAN.epsilon


def test_p10_refuses_a_plan_that_costs_more_than_its_budget():
    for wrong in ({"rounds": 11}, {"sampler": Poisson(0.11)}, {"multiplier": PLAN.multiplier * 0.99}):
        with pytest.raises(BudgetExceeded, match="P10: a plan keeps its budget.*Calibrate") as refusal:
            replace(PLAN, **wrong)
        assert refusal.value.code == "P10"


@pytest.mark.parametrize("grid", [0, -4, 3, 1000])
def test_p18_refuses_a_grid_that_does_not_divide_exactly(grid):
    with pytest.raises(PrivacyRefusal, match="P18: a grid is a power of two"):
        replace(PLAN, grid=grid)


def test_p18_refuses_noise_narrower_than_five_steps():
    with pytest.raises(PrivacyRefusal, match="P18: noise spans at least 5 grid steps.*sigma="):
        replace(PLAN, grid=2)


def test_p01_refuses_a_private_plan_without_noise():
    with pytest.raises(PrivacyRefusal, match="P01: private noise is positive"):
        replace(PLAN, multiplier=0.0)


@pytest.mark.parametrize("wrong", [{"sampler": Fixed(94)}, {"tops_up": True}, {"retries": True}, {"shuffles": True},
                                   {"minimum": 2}])  # fmt: skip
def test_p03_refuses_a_strategy_without_independent_coins(wrong):
    with pytest.raises(PrivacyRefusal, match="P03: a Poisson plan does not cover this strategy") as refusal:
        PLAN.admit(Conduct(**{"sampler": PLAN.sampler, **wrong}))
    assert refusal.value.remedy
    assert next(iter(wrong)) in str(refusal.value)


def test_p03_refuses_a_plan_built_around_a_fixed_cohort():
    with pytest.raises(PrivacyRefusal, match="P03: .*fixed number"):
        replace(PLAN, sampler=Fixed(94))


def test_p02_refuses_another_rate_than_the_accounted_one():
    with pytest.raises(PrivacyRefusal, match=r"P02: .*rate=0\.2.*rate=0\.1.*plan.sampler"):
        PLAN.admit(Conduct(sampler=Poisson(0.2)))


@pytest.mark.parametrize("weights", ["examples", "client"])
def test_p05_refuses_weights(weights):
    with pytest.raises(PrivacyRefusal, match="P05: all weights are equal.*Count every client once"):
        PLAN.admit(Conduct(sampler=PLAN.sampler, weights=weights))


@pytest.mark.parametrize("denominator", ["replies", "enrolled"])
def test_p04_refuses_a_denominator_that_depends_on_who_is_there(denominator):
    with pytest.raises(PrivacyRefusal, match="P04: .*public denominator.*rate × the plan's population"):
        PLAN.admit(Conduct(sampler=PLAN.sampler, denominator=denominator))


def test_a_strategy_that_keeps_the_rules_gets_the_accounted_sampler():
    assert PLAN.admit(Conduct(sampler=Poisson(0.1))) is PLAN.sampler


def test_p07_keeps_seeds_out_of_private_plans():
    assert PLAN.noise() == Hardened()
    assert replace(PLAN, level=Level.RESEARCH).noise() == Research()
    assert isinstance(PLAN.coins(), SecretCoins)
    for seeded in (PLAN.noise, PLAN.coins):
        with pytest.raises(PrivacyRefusal, match="P07: private .* never seeded"):
            seeded(default_rng(0))


def test_a_test_plan_replays_and_is_not_private():
    assert isinstance(TEST.noise(default_rng(0)), Seeded)
    assert TEST.coins(default_rng(1)).random(3).tolist() == default_rng(1).random(3).tolist()
    assert not TEST.private
    assert TEST.public()["label"] == "non-private"
    assert TEST.hash != PLAN.hash


def test_a_release_divides_the_exact_sum_by_the_public_cohort():
    updates = [np.array([0.5, 0.0]), np.array([0.25, -1.0])]
    total = add_up((PLAN.clip_update(update).vector for update in updates), 2, plan=PLAN)
    noise = Nothing()
    assert release(total, PLAN, noise) * 94.3 == pytest.approx([0.75, -1.0])
    assert noise.sigma == PLAN.sigma


def test_an_empty_cohort_releases_noise_of_the_same_size():
    total = add_up([], 10_000, plan=PLAN)
    released = release(total, PLAN, PLAN.noise()) * PLAN.expected
    assert released.std() == pytest.approx(PLAN.multiplier * PLAN.clip, rel=0.06)


def test_p07_refuses_noise_of_another_level():
    for plan, noise in ((PLAN, Seeded(default_rng(0))), (PLAN, Research()), (TEST, Hardened())):
        with pytest.raises(PrivacyRefusal, match="P07: noise is of the level that is stated"):
            release(np.zeros(3, np.int64), plan, noise)


@pytest.mark.parametrize("total", [np.array([np.nan]), np.array([1.0]), np.zeros((2, 2), np.int64)])
def test_p08_refuses_an_aggregate_that_is_not_integers(total):
    with pytest.raises(PrivacyRefusal, match="P08: an aggregate is one int64 vector"):
        release(total, PLAN, PLAN.noise())


@pytest.mark.parametrize("entry", [2**62, -(2**63)])
def test_p08_refuses_an_aggregate_that_no_cohort_can_have(entry):
    with pytest.raises(PrivacyRefusal, match="P08: .*nothing was released"):
        release(np.array([entry, 0]), PLAN, PLAN.noise())


@pytest.mark.parametrize("vector", [np.array([2**20, 0]), np.array([0]), np.array([0.0, 0.0])])
def test_p08_refuses_a_summand_beyond_the_clip_norm(vector):
    with pytest.raises(PrivacyRefusal, match="P08: every summand is within the clip norm"):
        add_up([vector], 2, plan=PLAN)


def test_noise_that_would_drown_the_signal_is_refused_with_the_width_that_would_not():
    dim = int((PLAN.expected / PLAN.multiplier) ** 2)
    assert PLAN.check_width(dim) == PLAN.noise_to_clip(dim) == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(SpecError, match=f"at most 10 clip norms.*at most {100 * dim // 10**5}"):
        PLAN.check_width(101 * dim)
    assert PLAN.check_width(101 * dim, force=True) > 10


def test_p18_refuses_more_parameters_than_the_grid_can_hold():
    coarse = replace(PLAN, grid=64)
    assert coarse.check_width(500) < 1
    with pytest.raises(PrivacyRefusal, match="P18: rounding moves a norm by 1 % at most"):
        coarse.check_width(600)


def test_the_hash_covers_every_public_number():
    louder = replace(PLAN, multiplier=PLAN.multiplier * 1.5)
    variants = [louder, replace(PLAN, clip=1.0), replace(PLAN, rounds=9), replace(PLAN, grid=2**10)]
    assert len({plan.hash for plan in (PLAN, *variants)}) == 5
    assert replace(PLAN, clip=1.3).hash == PLAN.hash


def test_pillars_never_import_each_other():
    pillars = {"clipping", "noise", "sampling", "accounting"}
    folder = Path(fedrec.privacy.__file__).parent
    for pillar in pillars:
        imported = {
            node.module
            for node in ast.walk(ast.parse((folder / f"{pillar}.py").read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        assert not imported & {f"fedrec.privacy.{other}" for other in pillars}


def test_the_default_grid_is_fine_and_the_bound_is_the_radius():
    assert PLAN.sigma >= 100
    assert PLAN.clip_update(np.full(4, 9.0)).l2 == math.floor(PLAN.clip * PLAN.grid)
