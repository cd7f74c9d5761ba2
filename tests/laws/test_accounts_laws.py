"""Accounts of a cohort say what a ledger of each device would say, and survive what a ledger survives."""

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as choose

from fedrec.errors import BudgetExceeded
from fedrec.population.accounts import Accounts
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Charge, Limit, Limits, Span, Terms
from fedrec.privacy.events import Gaussian
from fedrec.privacy.terms import Relation
from fedrec.randomness import stream

CLIENTS = 4
# One to six participations at this noise cost 0.3 to 0.9.
CHARGES = choose.sampled_from([Charge(), Charge(user=((Gaussian(16.0, Relation.ZERO_OUT), 1),))])
LIMITS = choose.builds(
    lambda participations, epsilon: Limits(participations=participations, user=Limit(epsilon, 1e-6)),
    choose.integers(0, 7), choose.sampled_from([0.5, 0.8, 9.0]),
)  # fmt: skip
SHAPES = choose.tuples(choose.integers(1, 8), choose.integers(0, 4), choose.integers(1, 4), CHARGES, choose.booleans())
ANYHOW = choose.lists(
    choose.tuples(choose.integers(0, 14), choose.lists(choose.integers(0, CLIENTS - 1), unique=True)), max_size=14
)
ASKED = ANYHOW | ANYHOW.map(lambda asked: sorted(asked, key=lambda each: each[0]))  # in turn, more of them may come


def terms_of(shapes, most):
    spans, first = [], 1
    for rounds, participations, separation, charge, gap in shapes:
        spans.append(Span(first=first, rounds=rounds, participations=participations, separation=separation,
                          charge=charge))  # fmt: skip
        first += rounds + gap
    return Terms(task="task", statement="plan", spans=tuple(spans), most=most)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(choose.lists(SHAPES, min_size=1, max_size=3), LIMITS, LIMITS, ASKED)
def test_accounts_are_ledgers(shapes, most, lifetime, asked):
    terms = terms_of(shapes, most)
    with tempfile.TemporaryDirectory() as name, DeviceLedger(Path(name, "one"), lifetime, fast=True) as ledger:
        accounts = Accounts(Path(name), CLIENTS, terms, lifetime)
        for client in range(CLIENTS):
            ledger.enrol(str(client), terms)
        for number, clients in asked:
            said = {}
            for place, client in enumerate(clients):
                try:
                    ledger.reserve(str(client), "task", number)
                except BudgetExceeded as refusal:
                    said[place] = str(refusal)
            cohort = np.array(clients, np.int64)
            found = accounts.enter(cohort, number)
            assert {place: str(refusal) for place, refusal in found.items()} == said
            for client in range(CLIENTS):
                assert accounts.seat(client) == ledger.standing(str(client)).seats["task"]


# Kill −9.

MANY, ROUNDS = 30_000, 100_000
LONG = Terms(
    task="task", statement="plan", most=Limits(participations=ROUNDS),
    spans=(Span(first=1, rounds=ROUNDS, participations=ROUNDS),),
)  # fmt: skip


def cohort(number):
    return np.flatnonzero(stream(5, "cohort", number).random(MANY) < 0.7)


def spend(folder, first, pipe):
    accounts = Accounts(folder, MANY, LONG, LONG.most)
    for number in range(first, ROUNDS):
        accounts.enter(cohort(number), number)
        os.write(pipe, b"%d " % number)


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_kill_minus_nine_loses_no_round_and_counts_none_twice(tmp_path):
    rng, last, expected = stream(5, "moments"), 0, np.zeros(MANY, np.int64)
    for _ in range(8):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            try:
                spend(tmp_path, last + 1, writer)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            began = pipe.read(1)
            time.sleep(float(rng.uniform(0, 0.1)))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            told = [int(word) for word in (began + pipe.read()).split()]
        for number in told:
            expected[cohort(number)] += 1
        accounts = Accounts(tmp_path, MANY, LONG, LONG.most)
        torn = told[-1] + 1  # may be counted for some, and nobody was told
        counted = np.array([accounts.seat(client).used[0] for client in range(0, MANY, 50)])
        assert np.isin(counted - expected[::50], [0, 1]).all()
        accounts.enter(cohort(torn), torn)
        expected[cohort(torn)] += 1
        assert [accounts.seat(client).used[0] for client in range(0, MANY, 50)] == expected[::50].tolist()
        last = torn
    assert last > 20
