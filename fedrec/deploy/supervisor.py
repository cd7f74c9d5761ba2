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
from fedrec.deploy.glances import Condition
from fedrec.deploy.lock import held, holder
from fedrec.deploy.logs import note
from fedrec.deploy.site import Site
from fedrec.exchange.superlink import SuperLink
from fedrec.files import write_atomic

_LOOK = 0.2  # seconds between two looks at the processes
_PATIENCE = 30.0  # seconds for a process to end by itself
_FIRST, _LONGEST = 0.5, 60.0  # seconds before a process is started again: twice as many each time
_CALM = 120.0  # seconds after which a process that runs counts as mended
_BRIEF = 30.0  # seconds within which a process ends that cannot start
_OFTEN = 3  # times in a row after which it is down
_WORDS = 4096  # bytes of the longest
_FRESH = 60.0  # seconds that a process may take to get going
_HOPELESS = (2, 3, 4)  # exit codes of mistakes that another try does not mend (fedrec.errors)
_DEATH = 1  # PR_SET_PDEATHSIG
_LOG = logging.getLogger("fedrec.supervisor")

_Told = dict[str, dict[str, int] | dict[str, Condition]]  # by the names of the files in state/


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
    _code: int = 0
    _ends: int = 0  # in a row
    _began: float = 0.0
    _due: float = 0.0

    def watch(self, output: Callable[[str], int]) -> None:
        """Start it if it is due. `output` opens where it writes."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            if now - self._began > _CALM:
                self._ends = 0
            return
        if self.process is not None:
            self._ended(self.process.returncode, now)
        if self.over or now < self._due:
            return
        self.restarts += self._began > 0
        sink = output(self.name)
        try:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                preexec_fn=_dies_with_parent,
            )  # fmt: skip
        finally:
            os.close(sink)
        self._began = now

    @property
    def condition(self) -> Condition:
        """How it fares."""
        if self.over:
            return Condition.GIVEN_UP if self._code else Condition.DONE
        runs = time.monotonic() - self._began if self.process else 0.0
        if self._ends:
            return Condition.DOWN if self._ends >= _OFTEN and runs < _BRIEF else Condition.AGAIN
        return Condition.UP if runs > _FRESH or self.restarts else Condition.STARTING

    def _ended(self, code: int, now: float) -> None:
        self.process, self._code = None, code
        self.over = self.ends and (code == 0 or code in _HOPELESS)
        figures: dict[str, str | int | float | None] = {"child": self.name, "code": code}
        if self.over and code == 0:
            note(_LOG, "a process is done", figures)
        elif self.over:
            event = "a process has ended over what another try does not mend: its .out says what"
            note(_LOG, event, figures, level=logging.ERROR)
        else:
            note(_LOG, "a process has ended before its time: its .out says why", figures, level=logging.WARNING)
        self._due = now + min(_FIRST * 2**self._ends, _LONGEST)
        self._ends = min(self._ends + 1, _OFTEN + 4)

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

    `told` hears where the site is, once nobody else runs it.

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
        kept = _keep(site, _told(running), {})
        told(f"The site is at {site.spec.url}. Its status: http://{site.spec.operators}/")
        try:
            while not stopping:
                for child in running:
                    child.watch(_output(site))
                kept = _keep(site, _told(running), kept)
                time.sleep(_LOOK)
        finally:
            for child in reversed(running):
                child.stop()
            _keep(site, {"children": {}}, {})


def _told(running: list[Child]) -> _Told:
    """What operators hear of the processes."""
    return {
        "restarts": {child.name: child.restarts for child in running if child.restarts},
        "children": {child.name: child.condition for child in running},
    }


def _keep(site: Site, told: _Told, kept: _Told) -> _Told:
    """Note what has changed since it was `kept`. A full disk is no reason to stop what may go on once there is room."""
    for name, content in told.items():
        if kept.get(name) != content:
            try:
                write_atomic(site.state / f"{name}.json", json.dumps(content).encode())
            except OSError as error:
                _LOG.warning("how the processes fare cannot be noted: %s", error)
    return told


def process_of(site: Site) -> int | None:
    """The id of the supervisor that runs the site; None if nobody does."""
    return holder(_lock(site))


def last_words(site: Site, child: str) -> str:
    """What a process of the site said when it ended over a mistake that we can explain; "" of any other end."""
    try:
        text = _out(site, child).read_bytes()[-_WORDS:].decode(errors="replace").rstrip()
    except OSError:
        return ""
    last = text.rpartition("\n")[2]
    return last.removeprefix("fedrec: ") if last.startswith("fedrec: ") else ""


def _out(site: Site, child: str) -> Path:
    return site.logs / f"{child}.out"


def _lock(site: Site) -> Path:
    return site.path / "server.pid"


def _output(site: Site) -> Callable[[str], int]:
    """Where a process writes what is not a log of ours: one file each, begun anew when it is long."""

    def opened(name: str) -> int:
        path = _out(site, name)
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
