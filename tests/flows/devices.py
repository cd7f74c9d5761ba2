"""Folders of devices as enrolment leaves them, made without a server."""

import json
import shutil
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from links import Authority

from fedrec.deploy.certificates import fingerprint
from fedrec.deploy.identity import issue, make_key
from fedrec.device.act import acts_of
from fedrec.device.store import Store
from fedrec.population.simulate import Simulation
from fedrec.spec import Plan
from fedrec.task import CATALOGUE, PLAN

SMALL = Plan.of({
    "data": {"options": {"users": "5", "items": "64"}},
    "model": {"encoder": "hash", "dim": 4, "rank": 2}, "federation": {"rounds": 2, "cohort": 5},
    "evaluation": {"every": 0, "baselines": "none"},
})  # fmt: skip
OPEN = 'modes = ["none"]\n'


class Settlement:
    """A task in `folder`, and devices that are enrolled in it; nobody need be at `server`."""

    def __init__(self, folder: Path, settings=None, *, server="https://127.0.0.1:9", authority=None):
        self.folder, self.server = folder, server
        self.simulation = Simulation.start(SMALL.override(settings or {}), folder / "run")
        self.task, self.signing = self.simulation.task, Ed25519PrivateKey.generate()
        self.authority = (authority or Authority()).pem

    def device(self, seat, *, policy=OPEN, name=None):
        """The folder of a device that holds what this client of the simulation trains on."""
        home = self.folder / "devices" / (name or f"device {seat}")
        (home / "task").mkdir(parents=True)
        for file in (PLAN, CATALOGUE):
            shutil.copy(self.folder / "run" / file, home / "task" / file)
        (home / "task" / "statement.txt").write_text("what is promised\n")
        (home / "ca.pem").write_bytes(self.authority)
        (home / "policy.toml").write_text(policy)
        public = make_key(home / "key.pem").public_key()
        content = {
            "server": self.server, "seat": seat, "site": fingerprint(self.authority), "task": self.task.hash,
            "certificate": issue(self.signing, seat, public).hex(),
            "roster_key": self.signing.public_key().public_bytes_raw().hex(),
        }  # fmt: skip
        (home / "device.json").write_text(json.dumps(content))
        world = self.simulation.world
        with Store(home / "events.sqlite") as store:
            store.append(acts_of(world.population[seat].before(int(world.cuts[seat])), self.task.catalogue.ids))
        return home
