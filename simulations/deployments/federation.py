"""A federation on this machine, over real sockets: a site, and client processes that hold slices of a data set.

Devices hold what a simulation of the same plan trains on: the events of each person before their validation item.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.deploy.enrol import enrol
from fedrec.deploy.folder import POLICY, DeviceFolder
from fedrec.deploy.invitation import Invitation
from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site
from fedrec.device.act import acts_of
from fedrec.errors import FedrecError
from fedrec.population.world import World, dataset_of
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.spec import Plan
from fedrec.task import Task

FEDREC = (sys.executable, "-m", "fedrec")
ANY = (
    'modes = ["none", "user-central", "user-distributed", "user-local", "interaction-local", "layered"]\n'
    "[user]\nepsilon = 1e6\nlifetime = 1e6\ndelta = 0.1\n[interaction]\nepsilon = 1e6\nlifetime = 1e6\ndelta = 0.1\n"
)
CHILDREN = {"superlink": "flower-superlink", "door": "fedrec.deploy.doorkeeper", "trainer": "fedrec.deploy.trainer"}


@dataclass
class Federation:
    """A site in `folder`/site and devices in `folder`/host-N/NNNNN, and the processes that run them.

    `through` is the port that the devices of a host are told, where it is not the door's. `environment` is what
    commands get on top of ours, by their names: "server", "host-0" …
    """

    folder: Path
    plan: Plan
    through: dict[str, int] = field(default_factory=dict)
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @cached_property
    def site(self) -> Site:
        """The server's folder."""
        return Site.open(self.folder / "site")

    @cached_property
    def world(self) -> World:
        """Everybody's data."""
        return World.of(dataset_of(self.plan.data), self.plan)

    @property
    def hosts(self) -> list[Path]:
        """The client machines' folders."""
        return sorted(self.folder.glob("host-*[0-9]"))

    @property
    def devices(self) -> list[Path]:
        """The devices' folders, in the order of their seats."""
        return sorted(self.folder.glob("host-*/[0-9]*"), key=lambda device: device.name)

    @classmethod
    def make(cls, folder: Path, plan: Plan, *, patience: float = 60.0, begin: float = 1.0) -> Federation:
        """A new site for the plan, as `fedrec server init` makes it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.toml").write_text(plan.to_toml())
        ports = free_ports(3)
        fedrec(
            "server", "init", folder / "site", "--host", "127.0.0.1", "--seats", plan.clients, "--config",
            folder / "plan.toml", "--port", ports[0], "--operators", f"127.0.0.1:{ports[1]}", "--superlink", ports[2],
            "--patience", patience, "--begin", begin,
        )  # fmt: skip
        return cls(folder, plan)

    def serve(self) -> None:
        """Start the site: one command."""
        self._start("server", "server", "start", self.folder / "site")
        address = ("127.0.0.1", self.site.spec.port)
        await_(lambda: _answers(address), "the site opens its door", seconds=120)

    def enrol(self, hosts: int, *, seats: int | None = None) -> None:
        """Give the first `seats` people of the plan's data, or all, a device and a seat each, on `hosts` machines."""
        for client in range(self.plan.clients if seats is None else seats):
            device = self.folder / f"host-{client % hosts}" / f"{client:05}"
            seat = self.admit(device)
            assert seat == client, (seat, client)
            self.fill(device, client)

    def admit(self, device: Path) -> int:
        """Enrol a device whose owner accepts anything; its seat."""
        site = self.site
        with Roster(site.roster, site.spec.seats) as roster:
            (secret,) = roster.issue(1, seconds=3600)
        url = f"https://127.0.0.1:{self.through.get(device.parent.name, site.spec.port)}"
        _patiently(device, Invitation(url, site.id, secret).encode())
        (device / POLICY).write_text(ANY)
        return DeviceFolder(device).enrolment.seat

    def fill(self, device: Path, client: int) -> None:
        """Store a person's events on a device."""
        history = self.world.population[client].before(int(self.world.cuts[client]))
        with DeviceFolder(device).events() as store:
            store.append(acts_of(history, self.world.dataset.catalogue.ids))

    def join(self, hosts: Sequence[Path] | None = None) -> None:
        """Start the client machines: one command each."""
        for host in hosts or self.hosts:
            self._start(host.name, "client", "start", host)

    def finished(self, *, seconds: float) -> None:
        """Wait until the site has published its last model."""

        def done() -> bool:
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, f"{ended} ended before their time, see {self.folder}/*.log"
            return self.done

        await_(done, "the training comes to its end", seconds=seconds)

    @property
    def done(self) -> bool:
        """Whether the last model is published."""
        return (self.site.packs / "latest").exists()

    @property
    def model(self) -> NDArray[np.float32]:
        """The shared vector as it is now."""
        task = Task.open(self.site.run)
        saved = Checkpoint.load(self.site.run / "checkpoint.safetensors", task.hash)
        return task.model.initial if saved is None else saved.optimum.shared

    def phase(self) -> tuple[int, str]:
        """Round and phase, as operators are told."""
        try:
            told = json.loads((self.site.state / "round.json").read_text())
        except (OSError, ValueError):
            return 0, ""
        return told["round"], told["phase"]

    def child(self, name: str) -> int | None:
        """The process id of one of the site's three processes (`CHILDREN`); None while there is none."""
        parent = self.processes["server"].pid
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            try:
                command = Path(f"/proc/{child}/cmdline").read_text()
            except OSError:
                continue
            if CHILDREN[name] in command:
                return int(child)
        return None

    def kill(self, name: str) -> None:
        """End a command as a power cut does."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End everything."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, *words: object) -> None:
        own = self.environment.get(name, {})
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*FEDREC, *map(str, words)], stdout=log, stderr=log, env=quiet() | own
            )


def fedrec(*words: object) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*FEDREC, *map(str, words)], capture_output=True, text=True, env=quiet(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def quiet() -> dict[str, str]:
    """One thread a process: they share few cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    places = [socket.socket() for _ in range(count)]
    try:
        for place in places:
            place.bind(("127.0.0.1", 0))
        return [place.getsockname()[1] for place in places]
    finally:
        for place in places:
            place.close()


def await_(true: Callable[[], object], what: str, *, seconds: float, look: float = 0.1) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(look)


@contextmanager
def running(federation: Federation, hosts: int) -> Iterator[Federation]:
    """The federation, with all its devices enrolled and at work."""
    try:
        federation.serve()
        federation.enrol(hosts)
        federation.join()
        yield federation
    finally:
        federation.stop()


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _patiently(device: Path, invitation: str) -> None:
    """Enrol; the SuperLink may still be starting."""
    for _ in range(300):
        try:
            return enrol(device, invitation)
        except FedrecError:
            time.sleep(0.2)
    enrol(device, invitation)
