"""Minimum separation: whatever crashes, repeats or changes places, no client comes too soon or too often."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import release_of

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.phase import Phase, charges
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, SecretCoins
from fedrec.privacy.terms import Budget, Mode
from fedrec.rounds.aggregate import PrivateRounds, Turn

LAW = settings(derandomize=True, deadline=None, max_examples=200)
GROUPS, CLIENTS = st.integers(1, 6), st.integers(1, 30)
FATES = st.sampled_from(["ends well", "dies before the charge", "dies after the charge", "dies after the checkpoint"])


def phase_of(groups, rounds, bands=1):
    return Phase(rounds=rounds, schedule=Cyclic(groups), clip=1.0, multiplier=5.0, grid=2**10, bands=bands)


def met(schedule, clients, rounds):
    """For each client, the indices of `rounds` in which it came."""
    cohorts = [set(schedule.draw(clients, SecretCoins(), index).tolist()) for index in rounds]
    return [[index for index, cohort in zip(rounds, cohorts, strict=True) if who in cohort] for who in range(clients)]


def separated(schedule, clients, rounds, groups):
    """Whether every client's distinct rounds lie `groups` apart."""
    own = [sorted(set(indices)) for indices in met(schedule, clients, rounds)]
    return all(later - earlier >= groups for indices in own for earlier, later in itertools.pairwise(indices))


# The schedule.


@LAW
@given(GROUPS, CLIENTS, st.permutations(range(20)))
def test_rounds_of_one_client_are_separated_in_whatever_order_they_are_drawn(groups, clients, order):
    assert separated(Cyclic(groups), clients, order, groups)


@LAW
@given(GROUPS, CLIENTS, st.integers(1, 20))
def test_everybody_comes_once_in_each_turn_of_the_groups_and_never_more_than_was_said(groups, clients, rounds):
    cyclic = Cyclic(groups)
    counts = [len(indices) for indices in met(cyclic, clients, range(rounds))]
    assert max(counts) == cyclic.participations(rounds)
    assert min(counts) >= rounds // groups
    turn = np.concatenate([cyclic.draw(clients, SecretCoins(), index) for index in range(groups)])
    assert sorted(turn.tolist()) == list(range(clients))


def test_a_cohort_drawn_at_random_is_not_separated():
    assert not separated(Fixed(6), 24, range(20), 4)


# What a ledger allows after crashes.


def released(phase, attempts, affords):
    """The attempts that are made, one after the other, if `affords` is asked before each."""
    done = []
    for index in attempts:
        if affords(phase, done, index):
            done.append(index)
    return done


ATTEMPTS = st.lists(st.integers(0, 11), max_size=40)


@LAW
@given(GROUPS, CLIENTS, ATTEMPTS)
def test_no_client_comes_more_often_than_was_accounted(groups, clients, attempts):
    phase = phase_of(groups, 12)
    done = released(phase, attempts, Phase.affords)
    counts = [len(indices) for indices in met(phase.schedule, clients, done)]
    assert max(counts) <= phase.participations
    paid = sum(count for _, count in charges(Mode.USER_CENTRAL, phase, clients, done))
    assert max(counts) <= paid <= phase.participations


def test_counting_rounds_instead_of_participations_would_be_too_generous():
    phase, attempts = phase_of(3, 12), [0] * 12
    generous = released(phase, attempts, lambda phase, done, index: len(done) < phase.rounds)
    assert len(met(phase.schedule, 6, generous)[0]) > phase.participations
    assert len(met(phase.schedule, 6, released(phase, attempts, Phase.affords))[0]) == phase.participations


@LAW
@given(st.integers(2, 6), CLIENTS, ATTEMPTS)
def test_correlated_noise_is_never_drawn_twice_for_one_round(groups, clients, attempts):
    phase = phase_of(groups, 12, bands=2)
    done = released(phase, attempts, Phase.affords)
    assert len(set(done)) == len(done)
    for own in met(phase.schedule, clients, done):
        assert all(later - earlier >= groups for earlier, later in itertools.pairwise(sorted(own)))


# The same through the server's rounds and ledger, killed between its steps.


def plan_of(groups, rounds):
    budget = Budget.of(1e4, 12, over_cap=True)
    return PrivacyPlan(mode=Mode.USER_CENTRAL, population=12, phases=(phase_of(groups, rounds),), budget=budget)


def attempt(rounds, number, fate):
    """One round on a server that may die in it: who was paid for, and what is on disk if it is over."""
    cohort = rounds.cohort(number, 12).tolist()
    if fate == "dies before the charge":
        return [], None
    release = release_of(rounds, Turn(number), (np.full(3, client, np.int32) for client in cohort[::-1]), 3)
    if fate == "dies after the charge":
        return cohort, None
    if fate == "ends well":
        rounds.published(number, release.digest)
    return cohort, (number, release.digest)


@settings(LAW, max_examples=15)
@given(st.integers(1, 4), st.lists(FATES, min_size=1, max_size=14))
def test_a_server_that_dies_again_and_again_keeps_to_the_plan(tmp_path_factory, groups, fates):
    plan, path = plan_of(groups, 6), tmp_path_factory.mktemp("run") / "ledger.jsonl"
    saved, charged = (0, ""), []
    for fate in fates:
        with Ledger(path, plan) as ledger:
            rounds = PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules))
            rounds.resume(*saved)
            number = saved[0] + 1
            if not rounds.affords(number):
                break
            paid, over = attempt(rounds, number, fate)
            charged += [(number, client) for client in paid]
            assert ledger.epsilon <= plan.epsilon
        saved = over or saved
    counts = np.bincount([client for _, client in charged], minlength=12)
    assert counts.max() <= plan.phases[0].participations
    for who in range(12):
        own = sorted({number for number, client in charged if client == who})
        assert all(later - earlier >= groups for earlier, later in itertools.pairwise(own))


def test_a_schedule_that_was_not_planned_is_not_admitted():
    with pytest.raises(PrivacyRefusal, match="P02: the schedules in use are those that were accounted"):
        plan_of(3, 6).admit(Conduct(schedules=(Cyclic(2),)))
