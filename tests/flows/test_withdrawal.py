"""A withdrawal at the worst moments, at a real site that goes on asking: nothing is sent once it has returned."""

import ssl
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import pytest
from apps import begun, invitation, plan_of, settled

from fedrec.device.rounds import DeviceRounds
from fedrec.embed.consent import Ticket
from fedrec.embed.contributor import Contributor
from fedrec.embed.stay import Ending


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A site with many rounds and two other devices, and an app that may enrol there."""
    federation = begun(tmp_path_factory.mktemp("busy") / "it", plan_of(3, 500), 2, patience=3.0)
    try:
        yield settled(federation, federation.folder / "host-app/00002", 2), invitation(federation)
    finally:
        federation.stop()


@dataclass
class Tap:
    """When this process sent how much over TLS; heartbeats and bells included."""

    sent: list[tuple[float, int]]

    @classmethod
    def on(cls, monkeypatch):
        tap = cls([])
        for name in ("send", "sendall", "write"):
            monkeypatch.setattr(ssl.SSLSocket, name, tap.noting(getattr(ssl.SSLSocket, name)))
        return tap

    def noting(self, send):
        def noted(line, content, *rest):
            self.sent.append((time.monotonic(), len(content)))
            return send(line, content, *rest)

        return noted

    def after(self, moment):
        return [length for at, length in self.sent if at > moment]


@contextmanager
def contributing(app, **more):
    """The app takes part in a thread of its own; its outcome is the only entry of the list."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(app.contribute(**more)))
    thread.start()
    try:
        yield outcomes
    finally:
        thread.join(60)
    assert not thread.is_alive()


def took_part(monkeypatch):
    """An event for whenever a device's work of a round is done."""
    done, take_part = threading.Event(), Contributor.take_part

    def noted(device, turn, shared):
        try:
            return take_part(device, turn, shared)
        finally:
            done.set()

    monkeypatch.setattr(Contributor, "take_part", noted)
    return done


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.01, 0.03, 0.1, 0.4])
def test_nothing_is_sent_after_a_withdrawal(busy, monkeypatch, pause):
    """Some time after an update was handed over: before it is sent, while it is, and after."""
    app, code = busy
    tap, done = Tap.on(monkeypatch), took_part(monkeypatch)
    app.consent.grant("contribute")
    with contributing(app, invitation=code) as outcomes:
        assert done.wait(60)
        time.sleep(pause)
        app.consent.withdraw("contribute")
        moment = time.monotonic()
    time.sleep(0.3)
    assert outcomes[0].ending is Ending.WITHDRAWN
    assert tap.sent and tap.after(moment) == []


def test_a_round_under_way_is_thrown_away(busy, monkeypatch):
    app, code = busy
    tap, training, go_on = Tap.on(monkeypatch), threading.Event(), threading.Event()
    round_of = DeviceRounds.round

    def slow(self, *rest):
        training.set()
        assert go_on.wait(60)
        return round_of(self, *rest)

    monkeypatch.setattr(DeviceRounds, "round", slow)
    app.consent.grant("contribute")
    with contributing(app, invitation=code) as outcomes:
        assert training.wait(60)
        began = time.monotonic()
        app.consent.withdraw("contribute")
        moment = time.monotonic()
        assert moment - began < 5, "a withdrawal does not wait for the training"
        go_on.set()
    assert outcomes[0].ending is Ending.WITHDRAWN
    assert tap.after(moment) == []


def test_a_new_grant_does_not_bring_back_what_was_withdrawn(busy, monkeypatch):
    app, code = busy
    tap, done = Tap.on(monkeypatch), took_part(monkeypatch)
    app.consent.grant("contribute")
    with contributing(app, invitation=code) as outcomes:
        assert done.wait(60)
        app.consent.withdraw("contribute")
        moment = time.monotonic()
        app.consent.grant("contribute")
    assert outcomes[0].ending is Ending.WITHDRAWN
    assert tap.after(moment) == []


def test_a_gate_that_stands_open_is_found(busy, monkeypatch):
    """The mutant: a line that asks nobody goes on after the withdrawal, if only to say goodbye."""
    app, code = busy
    tap, done = Tap.on(monkeypatch), took_part(monkeypatch)
    app.consent.grant("contribute")
    monkeypatch.setattr(Ticket, "permit", nullcontext)
    with contributing(app, invitation=code):
        assert done.wait(60)
        app.consent.withdraw("contribute")
        moment = time.monotonic()
    assert tap.after(moment)


def test_a_condition_that_ceases_to_hold_ends_it(busy, monkeypatch):
    app, code = busy
    done = took_part(monkeypatch)
    app.consent.grant("contribute")
    outcome = app.contribute(invitation=code, conditions={"idle": lambda: not done.is_set()})
    assert outcome.ending is Ending.CONDITION and outcome.rounds


def test_a_pause_ends_it_too_and_the_next_contribution_goes_on(busy, monkeypatch):
    app, code = busy
    done = took_part(monkeypatch)
    app.consent.grant("contribute")
    with contributing(app, invitation=code) as outcomes:
        assert done.wait(60)
        app.consent.pause()
    assert outcomes[0].ending is Ending.PAUSED
    assert app.contribute().ending is Ending.PAUSED
    app.consent.resume()
    assert app.contribute(seconds=6).ending is Ending.TIME
