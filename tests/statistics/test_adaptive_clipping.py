"""The clip norm comes to its quantile, and each round's noise is made for that round's norm.

Fresh noise, false alarms once in a million, no retries; every test also meets a wrong answer, which it rejects.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.stats import chi2

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.adaptive import Adaptive, unclipped_fraction
from fedrec.privacy.clipping import squared_norm
from fedrec.privacy.crossing import Summed
from fedrec.privacy.noise import Hardened
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic
from fedrec.privacy.terms import Budget, Mode

ALARM = 1e-6
CLIENTS, DIM, ROUNDS, Z = 200, 4, 100, 1.0
UPDATES = default_rng(1).normal(size=(CLIENTS, DIM)) * default_rng(2).lognormal(size=(CLIENTS, 1))
NORMS = np.linalg.norm(UPDATES, axis=1)


@dataclass(frozen=True, kw_only=True)
class Flower(Adaptive):
    """flwr 1.41's rule (F1): the same exponential, fed with the fraction of *clipped* clients."""

    def next(self, clip, fraction):
        return super().next(clip, 1 - fraction)


def plan_of(follow, clip):
    phase = Phase(rounds=ROUNDS, schedule=Cyclic(1), clip=clip, multiplier=Z, grid=2**20, adaptive=follow)
    budget = Budget.of(1e4, CLIENTS, over_cap=True)
    return PrivacyPlan(mode=Mode.USER_CENTRAL, population=CLIENTS, phases=(phase,), budget=budget)


def follow_of(kind=Adaptive, quantile=0.5):
    return kind(quantile=quantile, rate=0.5, spread=CLIENTS / 20, least=1e-3, most=1e3)


def norms_of(follow, clip):
    """The clip norm of each round, from real updates, real noise and the released bit alone."""
    plan, norms = plan_of(follow, clip), [clip]
    for number in range(1, ROUNDS):
        crossing = plan.crossing(number, norms[-1])
        total = crossing.total([crossing.send(update, None) for update in UPDATES], DIM + 1)
        released = crossing.release(total, Hardened())
        norms.append(follow.next(norms[-1], unclipped_fraction(released[-1], crossing.bit, crossing.grid)))
    return np.array(norms)


def unclipped(norms):
    """The share of updates within each norm."""
    return (NORMS[:, None] <= norms).mean(axis=0)


@pytest.mark.parametrize("quantile", [0.5, 0.8])
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_the_norm_comes_to_its_quantile_from_far_below_and_far_above(quantile, factor):
    norms = norms_of(follow_of(quantile=quantile), float(np.quantile(NORMS, quantile)) * factor)
    assert abs(unclipped(norms[:1])[0] - quantile) > 0.15
    assert abs(unclipped(norms[-20:]).mean() - quantile) < 0.08


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_flwr_s_rule_runs_away_from_it(factor):
    norms = norms_of(follow_of(Flower), float(np.median(NORMS)) * factor)
    assert unclipped(norms[-20:]).mean() == (0.0 if factor < 1 else 1.0)


# Noise.


def variance_p(noise, sigma):
    """Two-sided p-value of Σx²/σ² under χ²."""
    statistic = float((noise**2).sum()) / sigma**2
    return 2 * min(chi2.cdf(statistic, noise.size), chi2.sf(statistic, noise.size))


def noise_of(crossing, dim=100_000):
    """What a release of zeros shows, in the units of the updates."""
    return crossing.release(Summed(np.zeros(dim, np.int64), 0), Hardened()) * crossing.expected


FOLLOW = follow_of()
PLAN = plan_of(FOLLOW, 2.0)
NOW, SHRUNK = PLAN.crossing(1), PLAN.crossing(2, FOLLOW.next(2.0, 0.9))


def test_a_round_s_noise_is_made_for_its_own_norm():
    wide = FOLLOW.split(Z) * 2.0
    assert variance_p(noise_of(NOW), wide) > ALARM
    assert SHRUNK.clip == pytest.approx(2.0 * math.exp(-0.2))
    assert variance_p(noise_of(SHRUNK), wide) < ALARM  # flwr's order (F2): the norm moves before noise is drawn
    assert variance_p(noise_of(SHRUNK), FOLLOW.split(Z) * SHRUNK.clip) > ALARM


def test_the_noise_on_the_number_of_unclipped_clients_is_the_spread():
    per_client = 2 * NOW.bit / NOW.grid
    assert variance_p(noise_of(NOW) / per_client, FOLLOW.spread * (1 + 0.5 / NOW.bit)) > ALARM
    assert variance_p(noise_of(NOW) / per_client, FOLLOW.spread * 1.03) < ALARM


@pytest.mark.parametrize("update", [UPDATES[0] * 1e6, UPDATES[0] * 1e-9, np.full(DIM, np.nan)])
def test_one_draw_covers_update_and_bit_at_the_accounted_multiplier(update):
    sent = NOW.send(update, None)
    sigma = NOW.rest * NOW.radius
    assert squared_norm(sent.astype(np.int64)) * Z**2 <= sigma**2 * (1 + 1e-12)
    longer = NOW.radius**2 + (NOW.bit + 1) ** 2
    assert longer * Z**2 > sigma**2  # so the bit could not be longer
    assert (NOW.radius**2 + NOW.bit**2) * Z**2 > (Z * NOW.radius) ** 2  # noise of z·C alone would be short


def test_a_vector_clipped_for_another_round_is_not_added():
    """Its bit has the wrong length, whichever norm was larger."""
    loud = UPDATES[0] * 1e6
    for crossing, other in ((NOW, SHRUNK), (SHRUNK, NOW)):
        assert crossing.accepts(crossing.send(loud, None))
        assert not crossing.accepts(other.send(loud, None))
        with pytest.raises(PrivacyRefusal, match="P08: every summand is within the clip norm"):
            crossing.total([other.send(loud, None)], DIM + 1)


@pytest.mark.parametrize("vote", [0, 2, -3])
def test_a_bit_is_a_bit_and_not_a_vote(vote):
    sent = NOW.send(np.zeros(DIM), None)
    assert NOW.accepts(sent)
    sent[-1] = vote * NOW.bit
    assert not NOW.accepts(sent)


@pytest.mark.parametrize("clip", [1e-4, 1e4, math.nan])
def test_p12_refuses_a_round_whose_norm_is_out_of_range(clip):
    with pytest.raises(PrivacyRefusal, match="P12: a clip norm stays within its public range") as no:
        PLAN.crossing(2, clip)
    assert no.value.code == "P12"


def test_p12_refuses_to_move_a_norm_that_the_plan_fixed():
    fixed = replace(PLAN, phases=(replace(PLAN.phases[0], adaptive=None),))
    with pytest.raises(PrivacyRefusal, match="P12: a clip norm moves only in a plan that lets it"):
        fixed.crossing(2, 1.9)


def test_p12_refuses_a_plan_whose_bits_cost_more_than_everything():
    with pytest.raises(PrivacyRefusal, match="P12: the bits cost less than the whole release"):
        plan_of(replace(FOLLOW, spread=Z / 2), 2.0)


def test_p18_refuses_a_plan_whose_norm_could_shrink_below_its_grid():
    """The first norm has room on the grid, the least has not: better to hear of it before the first round."""
    with pytest.raises(PrivacyRefusal, match="P18: .*more grid steps"):
        plan_of(replace(FOLLOW, least=1e-6), 2.0)


def test_p12_refuses_correlated_noise_under_a_norm_that_moves():
    """What a round takes back of an earlier round's noise was made for the earlier norm."""
    banded = replace(PLAN.phases[0], schedule=Cyclic(4), bands=2, adaptive=None)
    with pytest.raises(PrivacyRefusal, match="P12: correlated noise keeps one clip norm.*bands = 1"):
        replace(banded, adaptive=FOLLOW)
