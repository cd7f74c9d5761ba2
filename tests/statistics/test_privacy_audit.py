"""The release path survives an attack that breaks every one of its mutants."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from fedrec.privacy.audit import DIM, audit, real_path
from fedrec.privacy.noise import Level, Seeded
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.release import add_up, release
from fedrec.privacy.sampling import Poisson
from fedrec.privacy.terms import Budget

PLAN = PrivacyPlan(
    budget=Budget.of(8.0, 943), rounds=1, sampler=Poisson(0.1), clip=1.3, grid=2**19, multiplier=1.0
)  # fmt: skip


def total(updates, plan=PLAN):
    return add_up((plan.clip_update(update).vector for update in updates), DIM, plan=plan)


def quieter(updates):
    """Noise √2 too small, as when half the shares are missing."""
    quiet = replace(PLAN, multiplier=PLAN.multiplier / np.sqrt(2), budget=Budget.of(20.0, 943))
    return release(total(updates), quiet, quiet.noise())


def silent(updates):
    """No noise at all."""
    return total(updates) / (PLAN.grid * PLAN.expected)


def wrong_denominator(updates):
    """The mean over those who answered, with noise for the mean over those expected."""
    noise = PLAN.noise().draw(PLAN.sigma, DIM) / (PLAN.grid * PLAN.expected)
    return total(updates) / (PLAN.grid * len(updates)) + noise


def same_seed(updates):
    """Every release draws the same noise."""
    tested = replace(PLAN, level=Level.TEST)
    return release(total(updates), tested, Seeded(default_rng(11)))


def unclipped(updates):
    """Updates go through at whatever length they have."""
    vectors = (np.trunc(update * PLAN.grid).astype(np.int64) for update in updates)
    return release(np.sum(list(vectors), axis=0), PLAN, PLAN.noise())


def next_clip(updates):
    """Clipped at this round's norm, with noise for the next round's smaller one."""
    later = replace(PLAN, clip=PLAN.clip * 0.6)
    noise = later.noise().draw(later.sigma, DIM)
    return (total(updates) + noise) / (PLAN.grid * PLAN.expected)


def weighted(updates):
    """A client that says it has three times the examples counts three times."""
    heavy = [*updates, *updates[-1:], *updates[-1:]]
    return release(total(heavy), PLAN, PLAN.noise())


def test_the_real_path_is_not_falsified():
    verdict = audit(real_path(PLAN), PLAN)
    assert verdict.passed, verdict
    assert 0.5 < verdict.mu_lower <= verdict.mu_claimed == 1.0  # and the attack is not asleep
    assert verdict.epsilon_lower < verdict.epsilon_ceiling
    assert "not falsified" in str(verdict)


@pytest.mark.parametrize(
    "mutant", [quieter, silent, wrong_denominator, same_seed, unclipped, next_clip, weighted], ids=lambda m: m.__name__
)
def test_every_mutant_is_falsified(mutant):
    verdict = audit(mutant, PLAN)
    assert not verdict.passed, verdict
    assert "FALSIFIED" in str(verdict)


def test_without_noise_the_audit_shows_all_it_could():
    verdict = audit(silent, PLAN)
    assert verdict.mu_lower > 4
    assert verdict.epsilon_lower == pytest.approx(verdict.epsilon_ceiling)
