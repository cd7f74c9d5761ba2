"""The in-process grid behaves like a network: errors are replies, and every node keeps its own context."""

import logging

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedrec.errors import DataError
from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.population.grid import LocalGrid

SHARED = wire.arrays(np.zeros(2, np.float32))


class Toy:
    """A device that sends its number; 1 has a bug and 2 refuses."""

    task = "t"

    def __init__(self, client):
        self.client = client

    def take_part(self, number, shared):
        if self.client == 1:
            raise ZeroDivisionError("what she searched for")
        if self.client == 2:
            raise DataError("a rule", remedy="A remedy.")
        return np.full(2, self.client, np.float32)


def partition(context):
    return int(context.node_config["partition-id"])


def ask(grid, nodes, number=1):
    return list(grid.send_and_receive([wire.train(node, wire.Header("t", number), SHARED) for node in nodes]))


def test_node_n_hosts_client_n_minus_one():
    grid = LocalGrid(client_app(lambda context: Toy(partition(context))), 5)
    assert list(grid.get_node_ids()) == [1, 2, 3, 4, 5]
    replies = ask(grid, [5, 1])
    assert [reply.metadata.src_node_id for reply in replies] == [5, 1]
    sent = [wire.read_update(reply, wire.Header("t", 1)).tolist() for reply in replies]
    assert sent == [[4, 4], [0, 0]]


def test_a_client_that_raises_becomes_an_error_reply_and_the_others_go_on(caplog):
    grid = LocalGrid(client_app(lambda context: Toy(partition(context))), 4)
    with caplog.at_level(logging.ERROR):
        replies = ask(grid, grid.get_node_ids())
    assert [reply.has_error() for reply in replies] == [False, True, True, False]
    assert [replies[n].error.reason for n in (1, 2)] == ["ZeroDivisionError", "a rule. A remedy."]
    assert [record.getMessage() for record in caplog.records] == ["client 1 failed"]


def test_replies_are_made_as_they_are_taken():
    asked = []
    grid = LocalGrid(client_app(lambda context: asked.append(partition(context)) or Toy(0)), 3)
    replies = iter(grid.send_and_receive([wire.train(node, wire.Header("t", 1), SHARED) for node in (1, 2, 3)]))
    next(replies)
    assert asked == [0]


def test_each_node_keeps_its_own_context():
    seen = []

    def open_device(context):
        count = context.state.get("count", ConfigRecord({"n": 0}))
        context.state["count"] = ConfigRecord({"n": count["n"] + 1})
        seen.append((context.node_id, context.state["count"]["n"], context.node_config["num-partitions"]))
        return Toy(0)

    grid = LocalGrid(client_app(open_device), 3)
    ask(grid, [1, 2])
    ask(grid, [2])
    assert seen == [(1, 1, 3), (2, 1, 3), (2, 2, 3)]


def test_there_is_no_other_way_to_send():
    grid = LocalGrid(client_app(lambda context: Toy(0)), 1)
    assert grid.run.run_id == 1
    with pytest.raises(NotImplementedError, match="make a flwr.app.Message"):
        grid.create_message(RecordDict(), wire.TRAIN, 1, "1")
    with pytest.raises(NotImplementedError, match="use send_and_receive"):
        grid.push_messages([])
    with pytest.raises(NotImplementedError, match="use send_and_receive"):
        grid.pull_messages([])
