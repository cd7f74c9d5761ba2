"""What the supervisor makes of processes that end, and what it tells of them."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest

from fedrec.deploy import supervisor
from fedrec.deploy.glances import Condition
from fedrec.deploy.supervisor import Child, last_words, supervise


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


def nowhere(name):
    return os.open(os.devnull, os.O_WRONLY)


def ended(child):
    """The process is waited for, and found to have ended."""
    child.process.wait(20)
    child.watch(nowhere)


def failing(code=1, **more):
    return Child("door", ["sh", "-c", f"exit {code}"], dict(os.environ), **more)


def test_a_process_that_ends_whenever_it_is_started_is_down(clock):
    child = failing(5)
    assert child.condition is Condition.STARTING
    child.watch(nowhere)
    seen = []
    for _ in range(4):
        ended(child)
        seen.append(child.condition)
        clock.now += 60
        child.watch(nowhere)
    assert seen == [Condition.AGAIN, Condition.AGAIN, Condition.DOWN, Condition.DOWN]
    assert child.restarts == 4 and not child.over
    assert child.condition is Condition.DOWN  # it has just begun, as often before
    child.process.wait(20)


def test_a_process_that_stays_is_up_again_after_a_while(clock):
    child = failing()
    child.watch(nowhere)
    for _ in range(3):
        ended(child)
        child.command = ["sleep", "60"]
        clock.now += 60
        child.watch(nowhere)
        if _ < 2:
            child.process.kill()
    assert child.condition is Condition.DOWN
    clock.now += 31  # longer than it ever ran
    child.watch(nowhere)
    assert child.condition is Condition.AGAIN
    clock.now += 90
    child.watch(nowhere)
    assert child.condition is Condition.UP and child.restarts == 3
    child.stop()


def test_a_process_takes_a_moment_to_get_going(clock):
    child = Child("door", ["sleep", "60"], dict(os.environ))
    child.watch(nowhere)
    clock.now += 60
    assert child.condition is Condition.STARTING
    clock.now += 1
    assert child.condition is Condition.UP
    child.stop()


@pytest.mark.parametrize(
    ("code", "condition"),
    [(0, Condition.DONE), (2, Condition.GIVEN_UP), (3, Condition.GIVEN_UP), (4, Condition.GIVEN_UP),
     (1, Condition.AGAIN), (5, Condition.AGAIN), (6, Condition.AGAIN)],
)  # fmt: skip
def test_a_trainer_is_tried_again_only_where_that_can_help(clock, code, condition):
    child = failing(code, ends=True)
    child.watch(nowhere)
    ended(child)
    clock.now += 1000
    child.watch(nowhere)
    assert child.condition is condition and child.restarts == (condition is Condition.AGAIN)
    if child.process:
        child.process.wait(20)


def test_waits_grow_to_a_minute(clock):
    child, waits = failing(), list[float]()
    child.watch(nowhere)
    for _ in range(10):
        ended(child)
        waits.append(child._due - clock.now)
        clock.now = child._due
        child.watch(nowhere)
    child.process.wait(20)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_operators_hear_how_each_process_fares_and_nothing_of_them_when_the_site_has_stopped(tmp_path, monkeypatch):
    site = SimpleNamespace(path=tmp_path, state=tmp_path / "state", logs=tmp_path / "logs",
                           spec=SimpleNamespace(url="https://x.example", operators="127.0.0.1:1"))  # fmt: skip
    site.state.mkdir()
    site.logs.mkdir()
    words = "echo noise; echo 'fedrec: a run keeps its plan. Put it back.' >&2; exit 2"
    running = [Child("superlink", ["sleep", "60"], dict(os.environ)), failing(7),
               Child("trainer", ["sh", "-c", words], dict(os.environ), ends=True)]  # fmt: skip
    seen, handlers = [], {}
    monkeypatch.setattr(supervisor, "children", lambda site: running)
    monkeypatch.setattr(supervisor, "_FIRST", 0.01)
    monkeypatch.setattr(supervisor.signal, "signal", handlers.__setitem__)

    def look(seconds):
        time.sleep(0.01)
        seen.append(json.loads((site.state / "children.json").read_text()))
        if (seen[-1]["door"], seen[-1]["trainer"]) == ("down", "given up") or len(seen) > 1000:
            handlers[signal.SIGTERM](signal.SIGTERM, None)

    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=time.monotonic, sleep=look))
    supervise(site)
    assert seen[0] == {"superlink": "starting", "door": "starting", "trainer": "starting"}
    assert seen[-1] == {"superlink": "starting", "door": "down", "trainer": "given up"}
    assert "started again" in {each["door"] for each in seen}
    assert json.loads((site.state / "children.json").read_text()) == {}
    assert set(json.loads((site.state / "restarts.json").read_text())) == {"door"}
    assert last_words(site, "trainer") == "a run keeps its plan. Put it back."
    assert last_words(site, "door") == last_words(site, "nobody") == ""


def test_last_words_are_of_the_last_end_and_ours(tmp_path):
    site = SimpleNamespace(logs=tmp_path)
    (tmp_path / "door.out").write_text("fedrec: the port is free.\nTraceback …\nValueError: canary\n")
    assert last_words(site, "door") == ""
