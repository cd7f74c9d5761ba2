"""Shares of noise add up to what was accounted, or nothing is released.

Fresh randomness, false alarms once in a million, no retries; every test also meets a wrong answer, which it rejects.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from plans import release_of
from pvalues import shape_p, variance_p

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Hardened, Level, Research, Seeded
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.records import State
from fedrec.privacy.sampling import Cyclic
from fedrec.privacy.terms import Budget, Mode
from fedrec.rounds.aggregate import PrivateRounds, Turn

ALARM = 1e-6
DIM, CLIENTS, LEAST, Z = 100_000, 12, 8, 2.0
PHASE = Phase(rounds=1, schedule=Cyclic(1), clip=1.0, multiplier=Z, grid=2**12)
PLAN = PrivacyPlan(
    mode=Mode.USER_DISTRIBUTED, population=CLIENTS, phases=(PHASE,), budget=Budget.of(19.0, CLIENTS), least=LEAST
)  # fmt: skip
CROSSING = PLAN.crossing(1)
WHOLE = Z * 2**12  # the accounted noise on the sum, in grid steps


def shares(count, crossing=CROSSING, noise=None):
    """What `count` clients send who learnt nothing: their noise alone."""
    return [crossing.send(np.zeros(DIM), noise or Hardened()) for _ in range(count)]


def total(sent, crossing=CROSSING):
    return crossing.total(sent, DIM).total


def fails(noise, sigma):
    return min(variance_p(noise, sigma), shape_p(noise, sigma)) < ALARM / 2


@pytest.mark.parametrize("survivors", [LEAST, LEAST + 1, CLIENTS])
def test_the_sum_of_shares_has_the_variance_of_its_survivors(survivors):
    summed = total(shares(survivors))
    assert not fails(summed, WHOLE * np.sqrt(survivors / LEAST))
    assert variance_p(summed, WHOLE * np.sqrt((survivors - 1) / LEAST)) < ALARM
    assert summed.astype(float).var() > (1 - 0.03) * WHOLE**2  # never less than what was accounted


def test_research_shares_add_up_too():
    crossing = replace(CROSSING, level=Level.RESEARCH)
    assert not fails(total(shares(LEAST, crossing, Research()), crossing), WHOLE)


def test_shares_of_one_seed_do_not_hide_one_another():
    """Their sum has n times the variance, and each is known to whoever knows one."""
    crossing = replace(CROSSING, level=Level.TEST)
    same = [shares(1, crossing, Seeded(default_rng(7)))[0] for _ in range(LEAST)]
    assert fails(total(same, crossing), WHOLE)
    assert variance_p(total(same, crossing), WHOLE * np.sqrt(LEAST)) > ALARM


def test_a_dropped_share_shows():
    short = [*shares(LEAST - 1), np.zeros(DIM, CROSSING.dtype)]
    assert fails(total(short), WHOLE)


def test_a_share_for_everybody_who_was_asked_is_too_small_when_some_are_missing():
    """The usual mistake: z·C/√n for n asked, of whom n_min answer."""
    small = replace(CROSSING, share=Z / np.sqrt(CLIENTS))
    assert fails(total(shares(LEAST, small), small), WHOLE)


def test_a_share_beside_the_clip_norm_is_the_plan_s():
    assert CROSSING.share == pytest.approx(Z / np.sqrt(LEAST))
    assert CROSSING.rest == 0.0  # the server is not asked for any
    local = replace(PLAN, mode=Mode.USER_LOCAL, least=0, budget=Budget.of(1e4, CLIENTS, over_cap=True)).crossing(1)
    assert local.share == Z


# Too few, or too quiet: P06, and nothing is released.


@pytest.mark.parametrize("survivors", [0, 1, LEAST - 1])
def test_p06_refuses_to_release_a_sum_of_fewer_than_hide_one_another(survivors):
    with pytest.raises(PrivacyRefusal, match=f"P06: .*arrived={survivors}, least={LEAST}. Nothing was released") as no:
        CROSSING.release(CROSSING.total(shares(survivors), DIM), None)
    assert no.value.code == "P06"


def test_p06_leaves_nothing_behind_but_an_aborted_round(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl", PLAN) as ledger:
        rounds = PrivateRounds(PLAN, ledger, 0, Conduct(schedules=PLAN.schedules))
        rounds.cohort(1, CLIENTS)
        with pytest.raises(PrivacyRefusal, match="P06"):
            release_of(rounds, Turn(1), shares(LEAST - 1), DIM)
        assert (ledger.charged, ledger.pending, ledger.records[-1].state) == ((), None, State.ABORTED)
        rounds.cohort(1, CLIENTS)  # asked again, the devices send the same bytes
        assert release_of(rounds, Turn(1), shares(LEAST), DIM).mean.any()
        assert ledger.charged == (1,)


def test_colluders_do_not_count_as_hiding_anybody():
    """They know their own shares: n_min honest clients are needed beside them."""
    crossing = replace(PLAN, colluders=3).crossing(1)
    with pytest.raises(PrivacyRefusal, match=f"P06: .*arrived={LEAST + 2}, least={LEAST + 3}"):
        crossing.release(crossing.total(shares(LEAST + 2, crossing), DIM), None)
    sent = shares(LEAST + 3, crossing)
    assert not fails(total(sent, crossing) - np.sum(sent[:3], axis=0), WHOLE)


def test_p06_refuses_a_client_that_cannot_add_its_share():
    with pytest.raises(PrivacyRefusal, match="P06: no noise share is missing.*leave it out of the cohort") as no:
        CROSSING.send(np.zeros(3), None)
    assert no.value.code == "P06"


def test_p07_refuses_a_share_from_a_seed():
    with pytest.raises(PrivacyRefusal, match="P07: noise is of the level that is stated.*drawn='test'"):
        CROSSING.send(np.zeros(3), Seeded(default_rng(0)))


def test_p18_refuses_shares_that_the_grid_would_shape():
    with pytest.raises(PrivacyRefusal, match="P18: noise spans at least 5 grid steps.*more grid steps"):
        replace(PLAN, phases=(replace(PHASE, grid=4),)).crossing(1)


def test_p06_refuses_shares_sized_for_nobody():
    with pytest.raises(PrivacyRefusal, match="P06: shares are sized for at least one honest client"):
        replace(PLAN, least=0)


def test_honest_noise_is_accepted_and_shouting_is_not():
    sent = shares(1)[0]
    assert CROSSING.accepts(sent)
    assert not CROSSING.accepts(sent.astype(np.int64) * 2)
