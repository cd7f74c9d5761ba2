"""A site and client machines, each started with one command, train over TLS what a simulation trains."""

import json
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedrec.deploy.enrol import fetch
from fedrec.deploy.folder import DeviceFolder
from fedrec.device.packs import Packs
from fedrec.privacy.chain import Book
from fedrec.spec import Plan
from fedrec.task import Task
from simulations.deployments.federation import CHILDREN, Federation, await_, fedrec, running
from simulations.deployments.oracle import model_of

DEVICES, HOSTS, ROUNDS = 6, 2, 2
OPEN = Plan.of({
    "clients": DEVICES, "seed": 3, "data": {"options": {"users": str(DEVICES), "items": "64"}},
    "model": {"encoder": "hash", "dim": 4, "rank": 2}, "federation": {"rounds": ROUNDS, "cohort": DEVICES},
    "warm": {"enabled": False}, "evaluation": {"every": 0, "baselines": "none"},
})  # fmt: skip
LAYERED = OPEN.override({
    "privacy": {"mode": "layered", "noise": "test", "force": True, "epsilon": 50.0, "allow_large_epsilon": True},
    "interaction": {"epsilon": 50.0}, "shares": {"masked": True},
})  # fmt: skip


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """A federation whose training is over, and whose processes are all still there."""
    with running(Federation.make(tmp_path_factory.mktemp("site") / "it", LAYERED), HOSTS) as federation:
        federation.finished(seconds=180)
        yield federation


def expected(federation):
    return model_of(federation.site.run, federation.world, federation.folder / "oracle")


def test_behind_masks_the_model_is_that_of_the_simulation(layered):
    assert not np.array_equal(layered.model, Task.open(layered.site.run).model.initial)
    assert layered.model.tobytes() == expected(layered).tobytes()


def test_every_round_was_charged_by_the_server_and_by_every_device(layered):
    assert Book.read(layered.site.run / "ledger.jsonl").position.charged == tuple(range(1, ROUNDS + 1))
    assert [DeviceFolder(device).given()["participations"] for device in layered.devices] == [ROUNDS] * DEVICES


def test_each_machine_holds_its_own_people_and_nobody_elses(layered):
    counts = [len(list(host.glob("*/events.sqlite"))) for host in layered.hosts]
    assert counts == [DEVICES // HOSTS] * HOSTS
    assert not list(layered.site.path.rglob("events*"))


def test_a_device_verifies_the_published_model(layered, tmp_path):
    device = layered.devices[0]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(DeviceFolder(device).enrolment.roster_key))
    taken = Packs(tmp_path / "packs", key).offer(lambda name: fetch(device, f"pack/{name}"))
    assert taken is not None and Packs(tmp_path / "packs", key).current().info == taken


def test_operators_and_owners_are_told_how_it_stands(layered):
    site, host = layered.site, layered.hosts[0]
    told = json.loads(fedrec("server", "status", site.path, "--format", "json"))
    assert (told["running"], told["enrolled"]) == (True, DEVICES)
    at, port = site.spec.operators_at
    with urllib.request.urlopen(f"http://{at}:{port}/healthz", timeout=30) as answer:
        assert answer.status == 200
    rows = json.loads(fedrec("client", "status", host, "--format", "json"))
    assert [(row["state"], row["participations"]) for row in rows] == [("waiting", ROUNDS)] * len(rows)
    assert {row["process"] for row in rows} == {layered.processes[host.name].pid}


def test_without_a_promise_the_model_is_that_of_the_simulation_and_a_stop_is_clean(tmp_path):
    with running(Federation.make(tmp_path / "it", OPEN), HOSTS) as federation:
        federation.finished(seconds=180)
        assert federation.model.tobytes() == expected(federation).tobytes()
        children = [federation.child(name) for name in CHILDREN]
        fedrec("client", "stop", *federation.hosts)
        fedrec("server", "stop", federation.site.path)
        await_(lambda: all(p.poll() == 0 for p in federation.processes.values()), "the commands end well", seconds=20)
    assert not any(Path(f"/proc/{child}").exists() for child in children if child)
    assert not [port for port in (federation.site.spec.port, federation.site.spec.superlink) if answers(port)]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
