"""Clients that do not answer change nothing about who is asked: nobody is asked instead of them, or twice.

Secret coins, false alarms once in a million, no retries; strategies that top up or ask again must be found out.
"""

import os
from collections import Counter

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.stats import binom, binomtest, chi2

from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.grid import in_process
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.phase import Phase
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Poisson
from fedrec.privacy.terms import Budget, Mode
from fedrec.rounds.aggregate import PrivateRounds
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import ServerOptimizer
from fedrec.spec import FederationSpec

ALARM = 1e-6
CLIENTS, RATE, ROUNDS, SIZE = 60, 0.25, 120, 3
PHASE = Phase(rounds=ROUNDS, schedule=Poisson(RATE), clip=1.0, multiplier=20.0, grid=2**10)
PLAN = PrivacyPlan(mode=Mode.USER_CENTRAL, population=CLIENTS, phases=(PHASE,), budget=Budget.of(19.0, CLIENTS))
SPEC = FederationSpec(rounds=ROUNDS, cohort=int(CLIENTS * RATE), optimizer="sgd")
LEARNER = Learner(ServerOptimizer(SPEC, np.zeros(SIZE, bool)), SIZE, ROUNDS)
START = wire.arrays(np.zeros(SIZE, np.float32))


class Device:
    """A device that learns nothing."""

    task, disguise = "a task", None

    def __init__(self, context):
        self.client = int(context.node_config["partition-id"])

    def take_part(self, turn, shared):
        return PLAN.crossing(turn.number).send(np.zeros(SIZE), None)


class Unreliable:
    """A grid on which a reply arrives with probability `answers`; `asked` keeps the nodes of each request for one."""

    def __init__(self, answers):
        self.grid, self.answers, self.asked = in_process(client_app(Device), CLIENTS), answers, []
        self.coins = default_rng()

    def get_node_ids(self):
        return self.grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        replies = list(self.grid.send_and_receive(messages, timeout=timeout))
        if messages and messages[0].metadata.message_type == wire.HELLO:
            return replies
        self.asked.append([message.metadata.dst_node_id for message in messages])
        return [reply for reply in replies if self.coins.random() < self.answers]


class ToppingUp(FederatedTraining):
    """The first mistake: a cohort that is too small is filled up."""

    def configure_train(self, server_round, arrays, config, grid):
        requests = list(super().configure_train(server_round, arrays, config, grid))
        crew = self.crew
        free = [(node, client) for client, node in crew._roster.items() if node not in crew._asked]
        spare = dict(free[: max(0, SPEC.cohort - len(requests))])
        crew._asked |= spare
        return requests + [wire.train(node, self._header, arrays) for node in spare]


class AskingAgain(FederatedTraining):
    """The second: who did not answer is asked once more."""

    def configure_train(self, server_round, arrays, config, grid):
        requests = list(super().configure_train(server_round, arrays, config, grid))
        heard = {reply.metadata.src_node_id for reply in grid.send_and_receive(requests)}
        return [request for request in requests if request.metadata.dst_node_id not in heard]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Neither what a run has spent nor the durability of its ledger is in question here; both take their time."""
    monkeypatch.setattr(PrivateRounds, "spent", lambda self: None)
    monkeypatch.setattr(os, "fsync", lambda file: None)


def asked(folder, answers, kind=FederatedTraining):
    """The nodes of every request for updates, and the plan's charges, after all rounds."""
    grid = Unreliable(answers)
    with Ledger(folder / "ledger.jsonl", PLAN) as ledger:
        rounds = PrivateRounds(PLAN, ledger, 0, Conduct(schedules=PLAN.schedules))
        strategy = kind(SPEC, rounds, LEARNER, task=Device.task, folder=folder)
        strategy.join(grid, CLIENTS)
        strategy.start(grid, START)
        return grid.asked, ledger.charged


def size_p(requests):
    """Two-sided p-value of cohort sizes: their variance, and how many lie below the mean; independent coins give both.

    The variance, N·q·(1 − q), tells coins from a draw of fixed size; it misses topping up once in twenty tries, where
    no cohort is small and honest coins make 45 in 100 of them so.
    """
    sizes, coins = np.array([len(nodes) for nodes in requests]), binom(CLIENTS, RATE)
    statistic = sizes.var(ddof=1) * (sizes.size - 1) / coins.var()
    spread = 2 * min(chi2.cdf(statistic, sizes.size - 1), chi2.sf(statistic, sizes.size - 1))
    small = binomtest(int((sizes < coins.mean()).sum()), sizes.size, coins.cdf(coins.mean() - 1)).pvalue
    return 2 * min(spread, small)


def never_twice(requests):
    """Whether each round asked once, and nobody twice."""
    return len(requests) == ROUNDS and max(Counter(nodes).most_common(1)[0][1] for nodes in requests if nodes) == 1


@pytest.mark.parametrize("answers", [1.0, 0.5, 0.0])
def test_silence_changes_no_cohort_and_is_charged_like_any_round(tmp_path, answers):
    requests, charged = asked(tmp_path, answers)
    assert size_p(requests) > ALARM
    assert never_twice(requests)
    assert charged == tuple(range(1, ROUNDS + 1))


def test_topping_up_is_found(tmp_path):
    requests, _ = asked(tmp_path, 0.5, ToppingUp)
    assert min(map(len, requests)) >= SPEC.cohort
    assert size_p(requests) < ALARM


def test_asking_again_is_found(tmp_path):
    requests, _ = asked(tmp_path, 0.5, AskingAgain)
    assert not never_twice(requests)
