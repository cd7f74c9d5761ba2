"""What a virtual device has spent where the server adds the noise, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError
from fedrec.population.accounts import Accounts
from fedrec.privacy.enrolment import Charge, Limit, Limits, Span, Terms
from fedrec.privacy.entries import Standing
from fedrec.privacy.events import Gaussian
from fedrec.privacy.terms import Relation, Unit

AMPLE = Limits(participations=100)
WARM, TRAINING = Span(first=1, rounds=1, participations=1), Span(first=2, rounds=20, participations=3, separation=4)
TERMS = Terms(task="task", statement="plan", spans=(WARM, TRAINING), most=AMPLE)


def some(*clients):
    return np.array(clients, np.int64)


def enter(accounts, clients, number):
    assert accounts.enter(clients, number) == {}


def refused(accounts, client, number, says):
    before = accounts.seat(client)
    refusals = accounts.enter(some(client), number)
    with pytest.raises(BudgetExceeded, match=f"P10: .*{says}") as refusal:
        raise refusals[0]
    assert refusal.value.remedy
    assert accounts.seat(client) == before


def test_each_span_counts_for_itself(tmp_path):
    accounts = Accounts(tmp_path, 3, TERMS, AMPLE)
    for number, clients in ((1, some(0, 1, 2)), (2, some(2, 0)), (6, some(0))):
        enter(accounts, clients, number)
    assert [accounts.seat(client).used for client in range(3)] == [(1, 2), (1, 0), (1, 1)]
    assert [accounts.seat(client).last for client in range(3)] == [6, 1, 2]


def test_a_round_counts_once_however_often_it_is_repeated(tmp_path):
    accounts = Accounts(tmp_path, 2, TERMS, AMPLE)
    for _ in range(3):
        enter(accounts, some(0, 1), 2)
    enter(accounts, some(1, 1), 6)  # named twice by mistake
    assert [accounts.seat(client).used for client in range(2)] == [(0, 1), (0, 2)]


def test_what_was_not_agreed_is_refused_and_not_counted(tmp_path):
    accounts = Accounts(tmp_path, 3, TERMS, AMPLE)
    for number in (2, 6, 10):
        enter(accounts, some(1), number)
    refused(accounts, 1, 14, "as often as the plan counts on; got round=14, most=3")
    refused(accounts, 1, 6, "a round once, and no older one; got round=6, last=10")
    enter(accounts, some(2), 4)
    refused(accounts, 2, 7, "rounds of one device lie apart; got round=7, last=4, separation=4")
    for number in (0, 22, -3):
        refused(accounts, 0, number, "asked in rounds of its plan")


def test_who_may_not_come_says_why_and_the_others_are_counted(tmp_path):
    accounts = Accounts(tmp_path, 4, TERMS, AMPLE)
    enter(accounts, some(3), 5)
    enter(accounts, some(1), 8)
    refusals = accounts.enter(some(0, 3, 1, 2), 7)
    assert sorted(refusals) == [1, 2]  # positions
    assert "lie apart" in str(refusals[1]) and "no older one" in str(refusals[2])
    assert [accounts.seat(client).last for client in range(4)] == [7, 8, 7, 5]


def test_devices_that_differ_in_rounds_long_past_are_judged_once(tmp_path, monkeypatch):
    """A cohort costs what its kinds cost, of which there are as many as counts, not as many as histories."""
    accounts, judged = Accounts(tmp_path, 5, TERMS, AMPLE), []
    for client, number in ((0, 2), (1, 3), (2, 4), (3, 10)):
        enter(accounts, some(client), number)
    check = Standing.check
    monkeypatch.setattr(Standing, "check", lambda *asked: (judged.append(asked), check(*asked))[1])
    assert sorted(accounts.enter(some(0, 1, 2, 3, 4), 9)) == [3]
    assert len(judged) == 2  # who came once, and who never did; the device of round 10 is refused by its rounds
    assert [accounts.seat(client).used for client in range(5)] == [(0, 2), (0, 2), (0, 2), (0, 1), (0, 1)]


def test_limits_hold_for_a_task_and_for_a_lifetime(tmp_path):
    for folder, terms, lifetime in (
        ("task", Terms(task="task", statement="plan", spans=(TRAINING,), most=Limits(participations=1)), AMPLE),
        ("life", Terms(task="task", statement="plan", spans=(TRAINING,), most=AMPLE), Limits(participations=1)),
    ):
        accounts = Accounts(tmp_path / folder, 1, terms, lifetime)
        enter(accounts, some(0), 2)
        enter(accounts, some(0), 2)
        refused(accounts, 0, 6, "at most so often; got participations=2, most=1")


def test_what_a_span_costs_is_added_up(tmp_path):
    charge = Charge(user=((Gaussian(5.0, Relation.REPLACE_ONE), 1),))
    span = Span(first=1, rounds=10, participations=10, charge=charge)
    enough = Limits(participations=10, user=Limit(charge.times(2).zeroed().epsilon(Unit.USER, 1e-6), 1e-6))
    plenty = Limits(participations=10, user=Limit(1e6, 1e-6))
    accounts = Accounts(tmp_path, 1, Terms(task="task", statement="plan", spans=(span,), most=plenty), enough)
    enter(accounts, some(0), 1)
    enter(accounts, some(0), 2)
    assert accounts.seat(0).spent == charge.times(2)
    refused(accounts, 0, 3, "spends at most its limit for each user")


def test_nobody_may_come_to_any_round_at_no_cost(tmp_path):
    accounts = Accounts(tmp_path, 2, TERMS, AMPLE)
    enter(accounts, some(), 2)
    enter(accounts, some(), 99)
    assert accounts.seat(0).used == (0, 0)


def test_another_opening_knows_what_was_spent(tmp_path):
    enter(Accounts(tmp_path, 2, TERMS, AMPLE), some(1), 2)
    again = Accounts(tmp_path, 2, TERMS, AMPLE)
    assert [again.seat(client).last for client in range(2)] == [0, 2]


def test_p15_refuses_accounts_of_other_terms_and_a_population_of_another_size(tmp_path):
    Accounts(tmp_path, 2, TERMS, AMPLE)
    with pytest.raises(PrivacyRefusal, match="P15: the terms of a task do not change"):
        Accounts(tmp_path, 2, replace(TERMS, most=Limits(participations=101)), AMPLE)
    with pytest.raises(RunError, match="device states fit the plan"):
        Accounts(tmp_path, 3, TERMS, AMPLE)


def test_a_million_devices_cost_eight_bytes_each_and_those_only_once_they_come(tmp_path):
    accounts = Accounts(tmp_path, 1_000_000, TERMS, AMPLE)
    enter(accounts, some(999_999), 2)
    file = (tmp_path / "accounts.npy").stat()
    assert file.st_size < 1_000_000 * 2 * 8 + 1000
    assert file.st_blocks * 512 < 100_000
