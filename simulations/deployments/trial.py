"""One federation under one fault, and the verdict: what was lost, what was released, what was charged for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedrec.deploy.folder import DeviceFolder
from fedrec.deploy.site import Site
from fedrec.errors import FedrecError
from fedrec.exchange.masks import Trusting
from fedrec.exchange.secagg import Aggregation
from fedrec.privacy.chain import Book
from fedrec.spec import Plan
from fedrec.task import Task
from simulations.deployments.federation import Federation
from simulations.deployments.oracle import model_of
from simulations.deployments.relay import Relay

DEVICES, HOSTS = 6, 3
STEPS = ("keys", "shares", "updates", "consent", "unmasking")
_SMALL: dict[str, object] = {
    "clients": DEVICES, "seed": 3, "data": {"options": {"users": str(DEVICES + 2), "items": "64"}},
    "model": {"encoder": "hash", "dim": 4, "adapter": "none", "projection": False},
    # A device that trained and was then cut off remembers what it learnt; the oracle's was away.
    "training": {"embedding_rate": 0.0},
    "federation": {"rounds": 3, "cohort": DEVICES, "quorum": 0.2},
    "warm": {"enabled": False}, "evaluation": {"every": 0, "baselines": "none"},
}  # fmt: skip
OPEN = Plan.of(_SMALL)
MASKED = OPEN.override({
    "privacy": {
        "mode": "user-distributed", "noise": "test", "force": True, "epsilon": 50.0, "allow_large_epsilon": True,
    },
    "shares": {"masked": True, "survivors": 0.67},
})  # fmt: skip
MANY = 10  # of whom the three of one host may be lost
TEN = MASKED.override({
    "clients": MANY, "data": {"options": {"users": str(MANY)}}, "federation": {"rounds": 2, "cohort": MANY},
    "shares": {"survivors": 0.7},
})  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    finished: bool
    model: str
    ledger: str
    seconds: float
    notes: str = ""

    @property
    def good(self) -> bool:
        """Nothing lost, nothing wrong released, nothing under-counted."""
        return self.finished and "differs" not in self.model and "wrong" not in self.ledger


@dataclass
class Trial:
    """A federation of `DEVICES` devices on `HOSTS` hosts, whose sums are watched: who was in which."""

    federation: Federation
    sums: dict[int, frozenset[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lost: int = 0
    absent: dict[int, Collection[int]] = field(default_factory=dict)  # where no sum can be watched
    began: float = field(default_factory=time.monotonic)
    line: Relay = field(default_factory=lambda: Relay(0))

    @property
    def folder(self) -> Path:
        """Where everything of it is."""
        return self.federation.folder

    def at(self, number: int, phase: str, *, seconds: float = 120.0) -> None:
        """Wait for a phase of a round, and note it if it was missed."""
        until, order = time.monotonic() + seconds, ("keys", "shares", "updates", "consent", "unmasking", "publishing")
        wanted = (number, order.index(phase))
        while True:
            found, now = self.federation.phase()
            place = (found, order.index(now)) if now in order else (0, 0)
            if place >= wanted:
                break
            assert time.monotonic() < until, f"round {number} comes to {phase}"
            time.sleep(0.002)
        if place != wanted:
            self.notes.append(f"{phase} of round {number} was over")

    def end(self, seconds: float = 240.0) -> Outcome:
        """Wait for the end, and judge."""
        try:
            self.federation.finished(seconds=seconds)
        except AssertionError as error:
            self.notes.append(str(error))
            return Outcome(False, "—", self._ledger(), self.seconds, "; ".join(self.notes))
        return Outcome(True, self._model(), self._ledger(), self.seconds, "; ".join(self.notes))

    def _model(self) -> str:
        everybody = frozenset(range(self.federation.plan.clients))
        absent = {number: everybody - alive for number, alive in self.sums.items() if alive != everybody} | self.absent
        found = self.federation.model
        expected = model_of(self.federation.site.run, self.federation.world, self.folder / "oracle",
                            absent=absent, lost=self.lost)  # fmt: skip
        if not np.array_equal(found, expected):
            return f"differs by {np.abs(found - expected).max():.2g}"
        if self.lost:
            return f"equal, without round {self.lost}"
        if not absent:
            return "equal"
        away = ", ".join(f"{len(who)} in round {number}" for number, who in sorted(absent.items()))
        return f"equal to that without the lost ({away})"

    def _ledger(self) -> str:
        run = self.federation.site.run
        privacy = Task.open(run).privacy
        if privacy is None:
            return "—"
        try:
            book = Book.read(run / "ledger.jsonl")
        except FedrecError as error:
            return f"wrong: {error}"
        charged = book.position.charged
        released = [record.round for record in book.records[1:] if str(record.state) == "released"]
        if set(released) - set(charged):
            return f"wrong: released {released}, charged {charged}"
        if privacy.spent(charged) > privacy.epsilon:
            return f"wrong: {len(charged)} charges are over budget"
        for device in self.federation.devices:
            seat = DeviceFolder(device).enrolment.seat
            given = DeviceFolder(device).given().get("participations", 0)
            if given < sum(seat in alive for alive in self.sums.values()):
                return f"wrong: seat {seat} counts {given}"
        return f"{len(charged)} charged, {len(released)} released"

    @property
    def seconds(self) -> float:
        """Since the devices came."""
        return time.monotonic() - self.began


@contextmanager
def trial(  # noqa: PLR0913  (what, where, and what lies between)
    folder: Path, plan: Plan = MASKED, *, line: Callable[[Site], Relay] | None = None, patience: float = 40.0,
    begin: float = 1.0, environment: dict[str, dict[str, str]] | None = None, behind: Sequence[str] = ("host-1",),
    devices: int = DEVICES, join: bool = True,
) -> Iterator[Trial]:  # fmt: skip
    """A federation at work; everything of it has ended when this ends.

    `line` lies between the hosts in `behind` and the door; `environment` is that of `Federation`.
    """
    federation = Federation.make(folder, plan, patience=patience, begin=begin)
    federation.environment = environment or {}
    found, over = Trial(federation), threading.Event()
    watching = threading.Thread(target=_watch, args=(found, over), daemon=True)
    with ExitStack() as stack:
        if line:
            found.line = stack.enter_context(line(federation.site))
            federation.through = dict.fromkeys(behind, found.line.at)
        stack.callback(federation.stop)
        stack.callback(over.set)
        federation.serve()
        federation.enrol(HOSTS, seats=devices)
        watching.start()
        found.began = time.monotonic()
        if join:
            federation.join()
        yield found


def _watch(found: Trial, over: threading.Event) -> None:
    """Note who is in each sum, as the site's journal has it while the sum is under way."""
    journal, seen = found.federation.site.run / "secagg", b""
    while not over.wait(0.005):
        try:
            content = journal.read_bytes()
        except OSError:
            continue
        if content != seen:
            sum_ = Aggregation.of_journal(content, Trusting())
            found.sums[sum_.terms.round] = sum_.alive
            seen = content
