"""The supervisor: starts a site's three processes, and starts again the ones that end before their time."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.deploy.certificates import CA, SERVER, SERVER_KEY
from fedrec.deploy.lock import held, holder
from fedrec.deploy.logs import note
from fedrec.deploy.site import Site
from fedrec.exchange.superlink import SuperLink
from fedrec.files import write_atomic

_LOOK = 0.2  # seconds between two looks at the processes
_PATIENCE = 30.0  # seconds for a process to end by itself
_LONGEST = 60.0  # seconds before a process is started again
_CALM = 120.0  # seconds after which a process that runs counts as mended
_HOPELESS = (2, 3, 4)  # exit codes of mistakes that another try does not mend (fedrec.errors)
_DEATH = 1  # PR_SET_PDEATHSIG
_LOG = logging.getLogger("fedrec.supervisor")


@dataclass
class Child:
    """One process of a site. `ends`: whether it may come to its end; then, or after a mistake, it stays there."""

    name: str
    command: list[str]
    environment: dict[str, str]
    ends: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    restarts: int = 0
    over: bool = False
    _began: float = 0.0
    _wait: float = 0.5
    _due: float = 0.0

    def watch(self, output: Callable[[str], int]) -> bool:
        """Start it if it is due; whether it was started again. `output` opens where it writes."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            if now - self._began > _CALM:
                self._wait = 0.5
            return False
        if self.process is not None:
            self._ended(self.process.returncode, now)
        if self.over or now < self._due:
            return False
        again = self._began > 0
        self.restarts += again
        sink = output(self.name)
        try:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                preexec_fn=_dies_with_parent,
            )  # fmt: skip
        finally:
            os.close(sink)
        self._began = now
        return again

    def _ended(self, code: int, now: float) -> None:
        self.process = None
        self.over = self.ends and (code == 0 or code in _HOPELESS)
        note(_LOG, "a process has ended", {"child": self.name, "code": code})
        self._due, self._wait = now + self._wait, min(2 * self._wait, _LONGEST)

    def stop(self) -> None:
        """Ask it to end, and insist."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def children(site: Site) -> list[Child]:
    """SuperLink, door and trainer, in the order in which they are needed."""
    spec, keys = site.spec, site.keys
    link = SuperLink(
        port=spec.superlink, authority=keys / CA, certificate=keys / SERVER, key=keys / SERVER_KEY,
        database=site.database, secret=site.executor_secret, home=site.path / "flower",
    )  # fmt: skip
    environment = link.environment()

    def ours(name: str) -> list[str]:
        return [sys.executable, "-m", f"fedrec.deploy.{name}", str(site.path)]

    return [
        Child("superlink", link.command(), environment),
        Child("door", ours("doorkeeper"), environment),
        Child("trainer", ours("trainer"), environment, ends=True),
    ]


def supervise(site: Site, told: Callable[[str], None] = lambda line: None) -> None:
    """Run the site until SIGTERM or SIGINT. What ends before its time is started again, ever more slowly.

    A trainer that is done, or that ended over a mistake in its settings or a refusal, is left alone: the door stays
    open for devices that fetch the model.
    """
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    with held(_lock(site), "one supervisor runs a site", "`fedrec server stop` ends it."):
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, stop)
        site.path.joinpath("flower").mkdir(mode=0o700, exist_ok=True)
        running = children(site)
        try:
            while not stopping:
                if any([child.watch(_output(site)) for child in running]):
                    counts = {child.name: child.restarts for child in running if child.restarts}
                    _keep(site, counts)
                    told(f"started again: {counts}")
                time.sleep(_LOOK)
        finally:
            for child in reversed(running):
                child.stop()


def _keep(site: Site, counts: dict[str, int]) -> None:
    """Restarts, for operators. A full disk is no reason to stop what may go on once there is room."""
    try:
        write_atomic(site.state / "restarts.json", json.dumps(counts).encode())
    except OSError as error:
        _LOG.warning("restarts cannot be noted: %s", error)


def process_of(site: Site) -> int | None:
    """The id of the supervisor that runs the site; None if nobody does."""
    return holder(_lock(site))


def _lock(site: Site) -> Path:
    return site.path / "server.pid"


def _output(site: Site) -> Callable[[str], int]:
    """Where a process writes what is not a log of ours: one file each, begun anew when it is long."""

    def opened(name: str) -> int:
        path = site.logs / f"{name}.out"
        try:
            if path.exists() and path.stat().st_size > 10 * 2**20:
                path.unlink()
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:  # no room for a file
            return os.open(os.devnull, os.O_WRONLY)

    return opened


def _dies_with_parent() -> None:
    """Linux ends this process when its parent is gone, however that went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH, signal.SIGTERM)
