"""Rounds that ask more than they need, and rounds whose liars do not move the model."""

import numpy as np
import pytest
from federation import (
    CLIENTS,
    INITIAL,
    SERVER,
    SIZE,
    SPEC,
    TASK,
    Tampered,
    grid_of,
    local,
    vector_of,
)
from slices import plan as whole_plan

from fedrec.errors import RunError, SpecError
from fedrec.exchange import wire
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.simulate import Simulation
from fedrec.population.world import Fleet
from fedrec.rounds import robust
from fedrec.rounds.aggregate import OpenRounds
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import Optimum, ServerOptimizer
from fedrec.speed import Engine, Speed

LOOP = Speed(engine=Engine.LOOP)


def run(folder, rounds, grid, *, spec=SPEC):
    """The shared vector after a round, and what was told."""
    folder.mkdir(exist_ok=True)
    learner = Learner(ServerOptimizer(spec, SERVER.decayed), SIZE, 1)
    strategy, told = FederatedTraining(spec, rounds, learner, task=TASK, folder=folder), []
    strategy.observers.append(told.append)
    strategy.join(grid, CLIENTS)
    return wire.vector(strategy.start(grid, wire.arrays(INITIAL)).arrays), told


# More than are needed.

EXTRA = OpenRounds(seed=0, size=4, extra=0.5)
ASKED = EXTRA.cohort(1, CLIENTS).tolist()


def by_hand(clients):
    total = np.sum([local(client, 1, INITIAL).astype(np.float64) for client in sorted(clients)], axis=0)
    return SERVER.step(Optimum.start(INITIAL), total / 4, 1).shared


class Counting:
    """A grid that knows how many of its replies were taken; they come in the order of `places`."""

    def __init__(self, places=range(6), silent=()):
        self.grid, self.places, self.silent, self.taken = grid_of(), places, silent, 0

    def get_node_ids(self):
        return self.grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        requests = list(messages)
        replies = list(self.grid.send_and_receive(requests, timeout=timeout))
        if requests[0].metadata.message_type == wire.HELLO:
            return replies
        return self.one_by_one([replies[place] for place in self.places if place not in self.silent])

    def one_by_one(self, replies):
        for reply in replies:
            self.taken += 1
            yield reply


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4, 5), (5, 2, 4, 0, 1, 3)])
def test_the_first_so_many_close_the_round_and_are_added_in_the_order_of_clients(tmp_path, places):
    grid = Counting(places)
    shared, told = run(tmp_path, EXTRA, grid)
    np.testing.assert_array_equal(shared, by_hand([ASKED[place] for place in places[:4]]))
    assert (told[0].tally.asked, told[0].tally.accepted, told[0].tally.refused) == (6, 4, {"late": 2})
    assert grid.taken == 4  # nobody is waited for in vain


def test_a_reply_that_is_refused_does_not_close_a_round(tmp_path):
    lie = vector_of(lambda v: np.full(SIZE, np.nan, np.float32))
    grid = Tampered(grid_of(), lambda requests, replies: [lie(requests[0], replies[0]), *replies[1:]])
    shared, told = run(tmp_path, EXTRA, grid)
    np.testing.assert_array_equal(shared, by_hand(ASKED[1:5]))
    assert told[0].tally.refused == {"not finite": 1, "late": 1}


def test_a_duplicate_is_not_late_as_well(tmp_path):
    grid = Tampered(grid_of(), lambda requests, replies: [replies[0], replies[0], *replies[1:]])
    _, told = run(tmp_path, EXTRA, grid)
    assert told[0].tally.refused == {"duplicate": 1, "late": 2}


@pytest.mark.parametrize(("silent", "fewer"), [((0, 1), 0), ((0, 1, 2), 1)])
def test_those_who_are_silent_are_made_up_for(tmp_path, silent, fewer):
    shared, told = run(tmp_path, EXTRA, Counting(silent=silent))
    here = [client for place, client in enumerate(ASKED) if place not in silent]
    np.testing.assert_array_equal(shared, by_hand(here))
    assert (told[0].tally.accepted, told[0].tally.refused) == (4 - fewer, {} if fewer else {"late": 2})


def test_the_quorum_is_of_the_planned_cohort(tmp_path):
    strict = SPEC.model_copy(update={"quorum": 1.0})
    run(tmp_path / "enough", EXTRA, Counting(silent=(0, 1)), spec=strict)
    with pytest.raises(RunError, match="needs a quorum.*accepted=3, asked=6"):
        run(tmp_path / "few", EXTRA, Counting(silent=(0, 1, 2)), spec=strict)


# Liars.

SGD = SPEC.model_copy(update={"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 1.0})
CENTRES = {"mean": None, "median": robust.median, "trimmed mean": lambda updates: robust.trimmed_mean(updates, 0.3)}


def attacked(liars=(0, 3, 7)):
    """A grid on which these places of each cohort push far in one direction."""
    push = vector_of(lambda vector: np.full(SIZE, -1e3, np.float32))

    def tamper(requests, replies):
        return [
            push(request, reply) if place in liars else reply
            for place, (request, reply) in enumerate(zip(requests, replies, strict=True))
        ]

    return Tampered(grid_of(), tamper)


def test_a_mean_is_moved_by_liars_and_a_median_is_not(tmp_path):
    """Three in ten; the distance from where the model is without them, in the coordinate where it is largest."""
    far = {}
    for name, centre in CENTRES.items():
        rounds, folder = OpenRounds(0, 10, centre=centre), tmp_path / name
        folder.mkdir()
        ends = [run(folder / str(len(liars)), rounds, attacked(liars), spec=SGD)[0] for liars in ((), (0, 3, 7))]
        far[name] = float(np.abs(ends[1] - ends[0]).max())
    assert far["mean"] > 250
    assert max(far["median"], far["trimmed mean"]) < 0.3  # honest updates are about 0.1 long in each coordinate


def test_a_bound_keeps_out_who_shouts(tmp_path):
    _, told = run(tmp_path, OpenRounds(0, 10, bound=5.0), attacked())
    assert told[0].tally.refused == {"out of bound": 3}


# A whole simulation.


def trained(path, plan, speed=LOOP):
    simulation = Simulation.start(plan, path, speed=speed)
    simulation.train(lambda row: None)
    return simulation


def test_people_who_lie_move_the_mean_of_a_simulation_and_hardly_its_median(tmp_path, monkeypatch):
    honest, liars = Fleet.trained, range(0, 40, 5)

    def lying(fleet, client, number, shared):
        delta = honest(fleet, client, number, shared)
        return delta * -100 if client in liars else delta

    shares = {}
    for kind in ("mean", "median"):
        federation = {"optimizer": "sgd", "aggregation": kind, "cohort": 40, "weight_decay": 0, "rounds": 1}
        ends = []
        for name, act in (("honest", honest), ("lying", lying)):
            monkeypatch.setattr(Fleet, "trained", act)
            simulation = trained(tmp_path / f"{kind} {name}", whole_plan(federation=federation))
            ends.append(simulation._trained()[1])
        step = np.linalg.norm(ends[0] - simulation.task.model.initial)
        shares[kind] = np.linalg.norm(ends[1] - ends[0]) / step
    assert shares["mean"] > 5 and shares["median"] < 2


@pytest.mark.parametrize("setting", [{"aggregation": "median"}, {"bound": 9.0}, {"extra": 0.2}])
def test_an_engine_that_adds_up_in_shards_does_without_and_says_so(tmp_path, setting):
    plan = whole_plan(federation=setting)
    with pytest.raises(SpecError, match="single updates are judged where they are seen.*--engine loop"):
        trained(tmp_path / "stacked", plan, Speed(threads=1))
    assert [row["round"] for row in trained(tmp_path / "loop", plan).run.metrics()] == [0, 1, 2, 3]
