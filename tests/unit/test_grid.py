"""The in-process grid behaves like a network: errors are replies, and every node keeps its own context."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.clientapp import ClientApp

from fedrec.errors import DataError
from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.population.grid import in_process

ROOT = Path(__file__).parents[2]
SECRET = "what she searched for"
SHARED = wire.arrays(np.zeros(2, np.float32))


class Toy:
    """A device that sends its number; 1 has a bug and 2 refuses."""

    task, disguise = "t", None

    def __init__(self, client):
        self.client = client

    def take_part(self, number, shared):
        if self.client == 1:
            raise ZeroDivisionError(SECRET)
        if self.client == 2:
            raise DataError("a rule", remedy="A remedy.", value=SECRET)
        return np.full(2, self.client, np.float32)


def header(number):
    return wire.Header("t", number, model=wire.digest(wire.vector(SHARED)))


def partition(context):
    return int(context.node_config["partition-id"])


def ask(grid, nodes, number=1):
    return list(grid.send_and_receive([wire.train(node, header(number), SHARED) for node in nodes]))


def test_node_n_hosts_client_n_minus_one():
    grid = in_process(client_app(lambda context: Toy(partition(context))), 5)
    assert list(grid.get_node_ids()) == [1, 2, 3, 4, 5]
    replies = ask(grid, [5, 1])
    assert [reply.metadata.src_node_id for reply in replies] == [5, 1]
    sent = [wire.read_update(reply, header(1)).tolist() for reply in replies]
    assert sent == [[4, 4], [0, 0]]


def test_a_client_that_raises_becomes_an_error_reply_and_the_others_go_on():
    replies = ask(in_process(client_app(lambda context: Toy(partition(context))), 4), [1, 2, 3, 4])
    assert [reply.has_error() for reply in replies] == [False, True, True, False]


def test_an_error_reply_holds_the_rule_and_nothing_of_the_person(caplog):
    bug, refusal = ask(in_process(client_app(lambda context: Toy(partition(context))), 4), [2, 3])
    assert "ZeroDivisionError" in bug.error.reason
    assert "a rule" in refusal.error.reason
    assert SECRET not in bug.error.reason + refusal.error.reason


@pytest.mark.parametrize(("error", "reason"), [(ZeroDivisionError(SECRET), "ZeroDivisionError"), (DataError("a"), "a")])
def test_any_client_app_may_raise(caplog, error, reason):
    app = ClientApp()

    @app.train()
    def train(message, context):
        raise error

    (reply,) = ask(in_process(app, 1), [1])
    assert reply.error.reason == reason


def test_replies_are_made_as_they_are_taken():
    asked = []
    grid = in_process(client_app(lambda context: asked.append(partition(context)) or Toy(0)), 3)
    replies = iter(grid.send_and_receive([wire.train(node, header(1), SHARED) for node in (1, 2, 3)]))
    next(replies)
    assert asked == [0]


def test_each_node_keeps_its_own_context():
    seen = []

    def open_device(context):
        count = context.state.get("count", ConfigRecord({"n": 0}))
        context.state["count"] = ConfigRecord({"n": count["n"] + 1})
        seen.append((context.node_id, context.state["count"]["n"], context.node_config["num-partitions"]))
        return Toy(0)

    grid = in_process(client_app(open_device), 3)
    ask(grid, [1, 2])
    ask(grid, [2])
    assert seen == [(1, 1, 3), (2, 1, 3), (2, 2, 3)]


def test_there_is_no_other_way_to_send():
    grid = in_process(client_app(lambda context: Toy(0)), 1)
    assert grid.run.run_id == 1
    with pytest.raises(NotImplementedError, match="make a flwr.app.Message"):
        grid.create_message(RecordDict(), wire.TRAIN, 1, "1")
    with pytest.raises(NotImplementedError, match="use send_and_receive"):
        grid.push_messages([])
    with pytest.raises(NotImplementedError, match="use send_and_receive"):
        grid.pull_messages([])


@pytest.mark.parametrize("module", ["fedrec.population.grid", "fedrec.exchange.client", "client.app"])
def test_flower_does_not_phone_home(module):
    """In a process that never heard of the switches, whichever of our modules comes first."""
    code = (
        f"import {module}, os\n"
        "from flwr.supercore.telemetry import FLWR_TELEMETRY_ENABLED as enabled\n"
        "assert (enabled, os.environ['FLWR_DISABLE_UPDATE_CHECK']) == ('0', '1')"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLWR_", "RAY_"))}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean, cwd=ROOT)
