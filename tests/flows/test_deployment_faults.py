"""Nothing is lost, nothing wrong is released, every release is paid for: on the real thing, fault by fault."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import contextmanager
from gzip import compress
from types import SimpleNamespace

import pytest
from plans import plan_of
from sites import make_site

from fedrec.deploy import trainer
from fedrec.deploy.certificates import serving, trusting
from fedrec.errors import PrivacyRefusal
from fedrec.population.simulate import Simulation
from simulations.deployments.faults import FAULTS, SABOTAGE
from simulations.deployments.oracle import model_of
from simulations.deployments.relay import Relay, Weather
from simulations.deployments.tap import Tape, leaks, tls_of
from simulations.deployments.trial import MASKED

FAST = ["trainer killed around its journal and before the charge", "canaries in texts and choices"]
ROOT_ONLY = {"the server's disk full for 15 s", "a device's disk full"}


def survives(name, folder):
    outcome = FAULTS[name](folder)
    assert outcome.good, outcome
    return outcome


@pytest.mark.parametrize("name", FAST)
def test_a_federation_survives(tmp_path, name):
    survives(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in FAST])
def test_a_federation_survives_all_the_rest(tmp_path, name):
    if name in ROOT_ONLY and os.geteuid():
        pytest.skip("only root may mount a disk")
    survives(name, tmp_path)


# A trainer that stops says whether it is worth trying again: 5 is, 4 is not.


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [("P06", "shares", 5), ("P06", "layered", 5), ("P06", "sampled shares", 4), ("P16", "shares", 4)],
)
def test_devices_are_waited_for_where_nothing_is_drawn_again(monkeypatch, tmp_path, refusal, kind, code):
    site = make_site(tmp_path / "site")

    def refused(site):
        raise PrivacyRefusal(refusal, "somebody comes")

    monkeypatch.setattr(trainer, "start_logging", lambda process, folder: None)
    monkeypatch.setattr(trainer, "train", refused)
    monkeypatch.setattr(trainer.Task, "open", lambda path: SimpleNamespace(privacy=plan_of(kind)))
    assert trainer.main(str(site.path)) == code


# What the faults are made of, and what judges them, does what it says.


def test_the_oracle_knows_who_was_away_and_what_was_lost(tmp_path):
    plan = MASKED.override({"federation": {"rounds": 2}})
    simulation = Simulation.start(plan, tmp_path / "run")
    told = {
        "everybody": {}, "again": {}, "one in round 1": {"absent": {1: {0}}}, "one in round 2": {"absent": {2: {0}}},
        "another": {"absent": {2: {5}}}, "a round": {"lost": 1},
    }  # fmt: skip
    models = {
        name: model_of(tmp_path / "run", simulation.world, tmp_path / name, **away).tobytes()
        for name, away in told.items()
    }
    assert models["everybody"] == models["again"] and len(set(models.values())) == len(told) - 1


@pytest.mark.parametrize(
    ("orders", "code", "left"),
    [
        ("-c json dumps before\nnext", -9, "next"),
        ("-c json JSONEncoder.encode after", -9, ""),
        ("somebody-else json dumps before", 0, "somebody-else json dumps before"),
        ("", 0, ""),
    ],
)
def test_sabotage_strikes_where_it_is_ordered_to_and_once(tmp_path, orders, code, left):
    file = tmp_path / "orders"
    file.write_text(orders)
    own = {**os.environ, "SABOTAGE": str(file), "PYTHONPATH": str(SABOTAGE)}
    done = subprocess.run([sys.executable, "-c", "import json; json.dumps([1], indent=1)"], env=own, timeout=60)
    assert (done.returncode, file.read_text()) == (code, left)


@contextmanager
def echo(tls=None):
    """A server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as place:

        def serve():
            while True:
                try:
                    line, _ = place.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(line,), daemon=True).start()

        def answer(line):
            try:
                line = tls.wrap_socket(line, server_side=True) if tls else line
                while content := line.recv(4096):
                    line.sendall(content)
            except OSError:
                pass
            line.close()

        threading.Thread(target=serve, daemon=True).start()
        yield place.getsockname()[1]
        place.shutdown(socket.SHUT_RDWR)


def said(port, content, tls=None):
    """What comes back for `content`, until the other side closes or has said as much."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with tls.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain as line:
        line.sendall(content)
        heard = b""
        while len(heard) < len(content) and (piece := line.recv(4096)):
            heard += piece
        return heard


def test_in_fair_weather_everything_comes_through():
    with echo() as port, Relay(port) as relay:
        assert said(relay.at, b"x" * 100_000) == b"x" * 100_000
    assert relay.bytes == {"up": 100_000, "down": 100_000}


def test_a_slow_line_is_as_slow_as_it_says():
    with echo() as port, Relay(port, weather=Weather(rate=2000)) as relay:
        began = time.monotonic()
        assert said(relay.at, b"x" * 1000) == b"x" * 1000
        assert time.monotonic() - began >= 0.5


def test_a_connection_is_reset_after_so_many_bytes():
    with echo() as port, Relay(port, weather=Weather(reset=50_000)) as relay:
        assert said(relay.at, b"x" * 1000) == b"x" * 1000
        with pytest.raises(ConnectionError):
            said(relay.at, b"x" * 200_000)
        assert relay.resets == 1


def test_a_half_closed_connection_says_that_it_has_said_all():
    with echo() as port, Relay(port, weather=Weather(half=3000)) as relay:
        assert 3000 < len(said(relay.at, b"x" * 60_000)) < 60_000


def test_a_dead_line_says_nothing_until_it_lives_again():
    with echo() as port, Relay(port, weather=Weather(dead=True)) as relay:
        began = time.monotonic()
        threading.Timer(0.5, lambda: setattr(relay, "weather", Weather())).start()
        assert said(relay.at, b"late") == b"late"
        assert time.monotonic() - began > 0.4


def test_a_tap_hears_in_the_clear_what_tls_hides(tmp_path):
    site, tape = make_site(tmp_path / "site"), Tape()
    ours = trusting(site.ca)
    with echo(serving(site.keys)) as port:
        with Relay(port, tape) as blind:
            assert said(blind.at, b"a canary", ours) == b"a canary"
        assert not leaks(tape.places(), ["a canary"])
        with Relay(port, tape, tls_of(site)) as tap:
            assert said(tap.at, b"a canary", ours) == b"a canary"
    assert leaks(tape.places(), ["a canary"]) == {"wire (up)": 1, "wire (down)": 1}
    with pytest.raises(ssl.SSLError), echo(serving(make_site(tmp_path / "other").keys)) as port, Relay(port) as other:
        said(other.at, b"a canary", ours)


CANARY = "a canary of ours"


@pytest.mark.parametrize(
    "content",
    [
        CANARY.encode(),
        CANARY.encode("utf-16"),
        CANARY.encode().hex().encode(),
        *(b64encode(b"." * shift + CANARY.encode() + b"...") for shift in range(3)),
        b"head" + compress(b"x" * 50 + CANARY.encode()) + b"tail",
    ],
)
def test_the_search_finds_a_canary_in_every_disguise(content):
    assert leaks(iter([("there", b"before" + content + b"after"), ("elsewhere", b"nothing")]), [CANARY])["there"]
    assert not leaks(iter([("there", content)]), ["another one"])
