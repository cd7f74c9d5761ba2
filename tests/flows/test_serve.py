"""A task and a grid brought together, with and without a promise."""

import json

import numpy as np
import pytest

from fedrec.errors import SpecError
from fedrec.exchange.client import client_app
from fedrec.exchange.serve import serve
from fedrec.model.catalogue import Catalogue
from fedrec.population.grid import LocalGrid, in_process
from fedrec.population.simulate import Simulation
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.spec import Plan
from fedrec.task import Task

ITEMS = Catalogue(["a", "b", "c"], ["red apple", "green pear", "blue plum"])
PLAN = Plan.of(
    {
        "clients": 4,
        "model": {"encoder": "hash", "adapter": "none", "dim": 2, "decays": [0.5]},
        "federation": {"rounds": 2, "cohort": 4, "optimizer": "sgd", "momentum": 0, "learning_rate": 1},
    }
)
PRIVATE = {"privacy": {"mode": "user-central", "noise": "test", "clip": 1e-3}, "federation": {"cohort": 2}}


class Toy:
    """A device that sends one number everywhere."""

    disguise = None

    def __init__(self, task, client):
        self.task, self.client, self._privacy = task.hash, client, task.privacy

    def take_part(self, turn, shared):
        update = np.full(len(shared), self.client + 1, np.float32)
        return update if self._privacy is None else self._privacy.crossing(turn.number).send(update.astype(float), None)


def grid_of(task):
    app = client_app(lambda context: Toy(task, int(context.node_config["partition-id"])))
    return in_process(app, task.plan.clients)


def test_everybody_counts_once(tmp_path):
    task = Task(PLAN.override({"federation": {"weight_decay": 0}}), ITEMS)
    shared = serve(task, grid_of(task), tmp_path)
    np.testing.assert_allclose(shared, task.model.initial + 2 * (1 + 2 + 3 + 4) / 4, rtol=1e-6)


def test_a_cohort_larger_than_the_population_is_everybody_and_the_plan_says_so(tmp_path):
    settings = {"data": {"options": {"users": "20", "items": "64"}}, "federation": {"cohort": 99}}
    simulation = Simulation.start(PLAN.override({"clients": 0}).override(settings), tmp_path / "run")
    assert Plan.read(tmp_path / "run" / "plan.toml").federation.cohort == len(simulation.world.population) == 20


def test_decay_spares_the_popularity_prior_and_leads_back_to_the_start(tmp_path):
    task = Task(PLAN.override({"federation": {"weight_decay": 0.5}}), ITEMS)
    moved = serve(task, grid_of(task), tmp_path) - task.model.initial
    prior = task.model.layout.mask("popularity")
    # 2.5 a round; before the second, half of the distance from the start is taken back.
    np.testing.assert_allclose(moved[prior], 5.0, rtol=1e-6)
    np.testing.assert_allclose(moved[~prior], 2.5 / 2 + 2.5, rtol=1e-6)


def test_a_finished_run_asks_nobody_again(tmp_path):
    task, told = Task(PLAN, ITEMS), []
    shared = serve(task, grid_of(task), tmp_path, [told.append])

    def idle(messages):
        asked = list(messages)
        assert all(message.metadata.message_type == "query.hello" for message in asked)
        return grid_of(task).send_and_receive(asked)

    assert serve(task, LocalGrid(idle, 4), tmp_path).tobytes() == shared.tobytes()
    assert [progress.round for progress in told] == [1, 2]


def test_a_private_run_keeps_a_ledger_beside_its_checkpoint(tmp_path):
    task = Task(PLAN.override(PRIVATE), ITEMS)
    told = []
    serve(task, grid_of(task), tmp_path, [told.append])
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines[1:]] == ["reserved", "charged", "released"] * 2
    checkpoint = Checkpoint.load(tmp_path / "checkpoint.safetensors", task.hash)
    assert (checkpoint.round, checkpoint.digest) == (2, lines[-1]["digest"])
    assert [(progress.tally, progress.seconds, progress.spent) for progress in told] == [(None, None, None)] * 2


def test_more_parameters_than_the_noise_allows_are_refused_before_the_ledger(tmp_path):
    loud = {"privacy": {"mode": "user-central", "epsilon": 0.5, "noise": "test"}, "federation": {"cohort": 1}}
    task = Task(PLAN.override(loud), ITEMS)
    with pytest.raises(SpecError, match="noise is at most 10 clip norms"):
        serve(task, grid_of(task), tmp_path)
    assert list(tmp_path.iterdir()) == []
    forced = Task(task.plan.override({"privacy": {"force": True}}), ITEMS)
    assert len(serve(forced, grid_of(forced), tmp_path)) == forced.model.layout.size


def test_a_private_run_writes_nothing_from_which_its_cohorts_could_be_told(tmp_path):
    plan = Plan.of(
        {
            "data": {"source": "synthetic", "options": {"users": "40", "items": "64"}},
            "model": {"encoder": "hash", "adapter": "none", "dim": 2, "residuals": False, "popularity": False},
            "federation": {"rounds": 2, "cohort": 20},
            "privacy": {"mode": "user-central", "force": True},
            "evaluation": {"every": 0},
        }
    )
    simulation, rows = Simulation.start(plan, tmp_path / "run"), []
    simulation.train(rows.append)
    assert [row["round"] for row in rows[-2:]] == [1, 2]
    assert {name for row in rows for name in row} <= {"round", "bytes_down", "bytes_up", "spent"}
    assert rows == simulation.run.metrics()
    assert len({(row["bytes_down"], row["bytes_up"]) for row in rows[-2:]}) == 1
    assert Checkpoint.load(simulation.run.path / "checkpoint.safetensors", simulation.task.hash).tally is None
