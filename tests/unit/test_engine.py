"""Flower's simulation engine as `fedrec.exchange.flower` puts it together, with threads in place of Ray."""

import os
import threading
import time

import pytest

from fedrec.exchange import wire
from fedrec.exchange.flower import crashed, engine

from flwr.app import Message, RecordDict  # isort: skip  (after ours: it sets Flower's switches)

from fedrec.errors import RunError


class Echo:
    """Answers with the node's place, after `work`."""

    def __init__(self, work=lambda place: None):
        self.work, self.threads = work, set()

    def process_message(self, message, context):
        self.threads.add(threading.current_thread())
        place = context.node_config["partition-id"]
        self.work(place)
        header = wire.Header("task", client=place, hosts=context.node_config["num-partitions"])
        return Message(RecordDict({"header": header.record()}), reply_to=message), context


def ask(grid, *, timeout=10):
    return grid.send_and_receive([wire.hello(node) for node in grid.get_node_ids()], timeout=timeout)


def places(replies):
    return sorted(wire.read_header(reply).client for reply in replies)


def test_every_node_is_asked_and_answers_for_its_place():
    with engine(Echo(), 5, abreast=2) as grid:
        assert places(ask(grid)) == places(ask(grid)) == [0, 1, 2, 3, 4]
        (header, *_) = (wire.read_header(reply) for reply in ask(grid))
        assert header.hosts == 5


def test_more_messages_are_under_way_than_a_pool_of_threads_has_by_default():
    abreast = 3 + min(32, (os.cpu_count() or 1) + 4)
    together = threading.Barrier(abreast)
    with engine(Echo(lambda place: together.wait(10)), abreast, abreast=abreast) as grid:
        assert places(ask(grid)) == list(range(abreast))


def test_replies_are_handed_on_as_they_come():
    hold = threading.Event()
    with engine(Echo(lambda place: place and hold.wait(10)), 2, abreast=2) as grid:
        replies = iter(ask(grid))
        assert wire.read_header(next(replies)).client == 0
        hold.set()
        assert places(replies) == [1]


def test_a_node_that_is_too_slow_is_left_behind_and_not_waited_for_later():
    hold, answering = threading.Event(), Echo(lambda place: place and hold.wait(10))
    with engine(answering, 2, abreast=2) as grid:
        assert places(ask(grid, timeout=2)) == [0]
        hold.set()
        time.sleep(0.2)
        assert places(ask(grid)) == [0, 1]  # not its late reply beside them


def test_an_error_of_one_node_is_its_reply():
    class Half(Echo):
        def process_message(self, message, context):
            if context.node_config["partition-id"]:
                return super().process_message(message, context)
            return crashed(message, "a worker died"), context

    with engine(Half(), 2, abreast=1) as grid:
        replies = list(ask(grid))
    assert sorted(reply.has_error() for reply in replies) == [False, True]
    assert {reply.error.reason for reply in replies if reply.has_error()} == {"a worker died"}


def test_nobody_waits_for_an_engine_that_is_gone(monkeypatch):
    from flwr.server.superlink.fleet.vce import vce_api

    monkeypatch.setattr(vce_api, "worker", lambda *work: None)  # its threads end at once
    with engine(Echo(), 2, abreast=2) as grid, pytest.raises(RunError, match="Flower's engine runs"):
        list(ask(grid, timeout=60))


def test_an_error_of_the_server_is_its_own_and_ends_the_engine():
    answering = Echo()
    with pytest.raises(ZeroDivisionError), engine(answering, 3, abreast=2) as grid:
        list(ask(grid))
        raise ZeroDivisionError
    for thread in answering.threads:
        thread.join(5)
        assert not thread.is_alive()
