"""The pool of Ray's workers, over actors that are threads: who gets a message, and what becomes of the dead."""

import importlib.util
import logging
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Flower's simulation engine needs Ray: pip install 'fedrec[ray]'", allow_module_level=True)

from fedrec.exchange import wire
from fedrec.exchange.flower import become_local_server

from flwr.app import Context, RecordDict  # isort: skip  (after ours: it sets Flower's switches)
from flwr.clientapp.client_app import ClientAppException
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from fedrec.population import ray as pool

CONFIG = {"run": "/somewhere"}


class Actor:
    """Answers with its name when `open` is set, unless it was killed."""

    def __init__(self, name, begins):
        self.name, self.open, self.killed, self.asked = name, threading.Event(), False, []
        self.open.set()
        self.began = Future()
        self.run, self.__ray_ready__ = SimpleNamespace(remote=self._run), SimpleNamespace(remote=lambda: self.began)
        begins(self)

    def _run(self, app, message, place, context):
        answer = Future()
        self.asked.append((place, context.run_config))

        def work():
            self.open.wait(10)
            answer.set_exception(ActorDiedError()) if self.killed else answer.set_result((place, self.name, context))

        threading.Thread(target=work, daemon=True).start()
        return answer

    def die(self):
        self.killed = True
        self.open.set()


@pytest.fixture
def hired(monkeypatch):
    """The actors that were ever asked for. `hired.begins` says what becomes of the next one: it starts at once."""
    actors = SimpleNamespace(all=[], begins=lambda actor: actor.began.set_result(None))

    def hire():
        actors.all.append(Actor(len(actors.all), lambda actor: actors.begins(actor)))
        return actors.all[-1]

    kind = SimpleNamespace(options=lambda **options: SimpleNamespace(remote=hire))
    monkeypatch.setattr(pool, "client_app_actor", lambda: kind)
    ready = lambda refs, timeout: ([ref for ref in refs if ref.done()], [])
    fake = SimpleNamespace(wait=ready, get=lambda ref: ref.result(10), kill=lambda actor: actor.die())
    monkeypatch.setattr(pool, "ray", fake)
    become_local_server()
    return actors


def asked(workers, place):
    """Who answers the node at `place`."""
    context = Context(1, place + 1, {"partition-id": place, "num-partitions": 9}, RecordDict(), {})
    reply, after = workers.process_message(wire.hello(place + 1), context)
    assert after is context
    return reply


class Asking(threading.Thread):
    """A message that is under way."""

    def __init__(self, workers, place):
        super().__init__(daemon=True)
        self.ask, self.reply = lambda: asked(workers, place), None
        self.start()

    def run(self):
        self.reply = self.ask()

    def answer(self):
        self.join(10)
        return self.reply


def workers_of(count):
    return pool.Workers(lambda: None, count, pool.Cluster(), CONFIG)


def held(actor):
    """Wait until a message is with an actor that does not answer."""
    deadline = time.monotonic() + 10
    while not actor.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_is_answered_by_the_worker_that_knows_it(hired):
    workers = workers_of(2)
    first = hired.all[0]
    first.open.clear()
    slow = Asking(workers, 0)
    held(first)
    assert asked(workers, 1) == 1  # the free one
    first.open.set()
    assert slow.answer() == 0
    assert [asked(workers, place) for place in (1, 0, 0, 1)] == [1, 0, 0, 1]
    assert first.asked[0] == ("0", CONFIG)


def test_a_node_has_one_message_at_a_time(hired):
    workers = workers_of(2)
    hired.all[0].open.clear()
    slow = Asking(workers, 0)
    held(hired.all[0])
    again = Asking(workers, 0)
    time.sleep(0.2)
    assert again.is_alive() and not hired.all[1].asked
    hired.all[0].open.set()
    assert (slow.answer(), again.answer()) == (0, 0)


def test_a_dead_worker_costs_its_message_and_another_takes_its_place(hired):
    workers = workers_of(1)
    hired.all[0].open.clear()
    slow = Asking(workers, 0)
    held(hired.all[0])
    hired.all[0].die()
    assert slow.answer().error.reason == "a worker died"
    assert asked(workers, 0) == asked(workers, 0) == 1


def test_a_worker_out_of_reach_is_stopped_for_good(hired):
    workers = workers_of(1)
    unreachable = hired.all[0]
    unreachable.run = SimpleNamespace(remote=lambda *job: _failed(ActorUnavailableError("gone", None)))
    assert asked(workers, 0).error.reason == "a worker died"
    assert unreachable.killed and asked(workers, 0) == 1


def test_an_app_that_fails_keeps_its_worker_and_says_why(hired, caplog):
    workers = workers_of(1)
    failing = hired.all[0]
    works = failing.run
    error = RayTaskError("run", "a long traceback", ClientAppException("a Parquet file must be whole"))
    failing.run = SimpleNamespace(remote=lambda *job: _failed(error))
    with caplog.at_level(logging.WARNING):
        assert asked(workers, 3).error.reason == "a Parquet file must be whole"
    assert "node 3 answered with an error: a Parquet file must be whole\n" in caplog.text
    failing.run = works
    assert asked(workers, 3) == 0


def _failed(error):
    future = Future()
    future.set_exception(error)
    return future


def test_while_a_worker_finds_no_room_the_rest_do_its_work(hired):
    workers = workers_of(2)
    hired.begins = lambda actor: None  # never
    hired.all[0].die()
    assert asked(workers, 0).has_error()
    assert {asked(workers, place) for place in (0, 1, 0, 1)} == {1}
    hired.all[2].began.set_result(None)  # another machine came
    assert asked(workers, 2) == 2


def test_a_worker_that_cannot_start_is_asked_for_again(hired):
    def begins(actor):
        actor.began.set_exception(ActorDiedError()) if actor.name < 2 else actor.began.set_result(None)

    hired.begins = begins
    workers = workers_of(1)
    assert asked(workers, 0) == 2


def test_a_message_does_not_wait_for_ever_for_a_worker(hired, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.2)
    hired.begins = lambda actor: None
    assert asked(workers_of(1), 0).error.reason == "no worker runs"


def test_waiting_for_a_busy_worker_needs_no_patience(hired, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 0.1)
    workers = workers_of(1)
    hired.all[0].open.clear()
    slow = Asking(workers, 0)
    held(hired.all[0])
    queued = Asking(workers, 1)
    time.sleep(0.4)
    hired.all[0].open.set()
    assert (slow.answer(), queued.answer()) == (0, 0)


def test_closing_ends_what_is_under_way_and_what_waits(hired):
    workers = workers_of(1)
    hired.all[0].open.clear()
    slow, queued = Asking(workers, 0), None
    held(hired.all[0])
    queued = Asking(workers, 1)
    workers.close()
    assert slow.answer().has_error() and queued.answer().error.reason == "no worker runs"
    assert len(hired.all) == 1  # nobody is asked for any more
