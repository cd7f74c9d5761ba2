"""A device's folder on this machine: what enrolment left in it, who runs it, and how it fares."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from fedrec.deploy.identity import CARD
from fedrec.deploy.lock import held, holder
from fedrec.device.policy import Policy
from fedrec.device.store import Store
from fedrec.errors import DataError, RunError
from fedrec.files import write_atomic
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.entries import Standing
from fedrec.settings import Section, checked, read_text

AUTHORITY, TASK, POLICY = "ca.pem", "task", "policy.toml"
EVENTS, LEDGER = "events.sqlite", "ledger.sqlite"
STATUS, RUNNING, NODE = "status.json", "client.pid", "node"

_ENROL = "`fedrec client enroll FOLDER INVITATION` makes one."
_PATIENCE = 0.05  # seconds between two looks at a lock


class Enrolment(Section):
    """What enrolment told the device: public, but for nobody else."""

    server: str
    seat: int = Field(ge=0)
    site: str
    certificate: str
    roster_key: str
    task: str


@dataclass(frozen=True)
class DeviceFolder:
    """One device. Nothing in `status.json` says what a person did; nothing in the folder says who the person is."""

    path: Path

    @cached_property
    def enrolment(self) -> Enrolment:
        """What `device.json` says."""
        self.check()
        try:
            content = json.loads(read_text(self.path / CARD, "device's card"))
        except ValueError:
            raise DataError("a device's card is JSON", remedy=_ENROL, path=str(self.path / CARD)) from None
        return checked(Enrolment, content, "devices")

    @property
    def node(self) -> int:
        """The server's number for the device when it was last there; 0 if that is not known."""
        try:
            return int((self.path / NODE).read_text())
        except (OSError, ValueError):
            return 0

    def note_node(self, number: int) -> None:
        """Remember the server's number."""
        write_atomic(self.path / NODE, b"%d\n" % number)

    def check(self) -> None:
        """Refuse a folder that is no device's."""
        if not (self.path / CARD).is_file():
            raise RunError("a device's folder has a device.json", remedy=_ENROL, path=str(self.path))

    @property
    def policy(self) -> Policy:
        """The owner's terms: `policy.toml`, or the default ones where there is no such file."""
        return Policy.read(self.path / POLICY) if (self.path / POLICY).exists() else Policy()

    @property
    def authority(self) -> bytes:
        """The certificate, in PEM, of the only authority that the device believes."""
        return read_text(self.path / AUTHORITY, "certificate of the server's authority").encode()

    def events(self) -> Store:
        """What the person did; only a folder that is a device's has that."""
        self.check()
        return Store(self.path / EVENTS)

    def running(self) -> AbstractContextManager[None]:
        """Be the process that runs the device, as long as this lasts; it is on file by its id."""
        return held(self.path / RUNNING, "one process runs a device", "`fedrec client stop` ends it.")

    def process(self) -> int | None:
        """The id of the process that runs the device."""
        return holder(self.path / RUNNING)

    def ended(self, patience: float) -> bool:
        """Whether nobody runs the device, at the latest after `patience` seconds."""
        deadline = time.monotonic() + patience
        while self.process() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PATIENCE)
        return True

    def status(self) -> dict[str, Any]:
        """How the device fares, as its process last told; nothing where none ever did."""
        try:
            told = json.loads((self.path / STATUS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def given(self) -> dict[str, Any]:
        """What the device has spent, from its ledger, which is verified; nothing in a task without promises."""
        if not (self.path / LEDGER).exists():
            return {}
        standings = DeviceLedger.read(self.path / LEDGER).standings
        return spending(standings.get(str(self.enrolment.seat), Standing()), self.enrolment.task)

    def tell(self, state: str, **got: object) -> None:
        """Note how the device fares; what is not told stays as it was told before."""
        now = {**self.status(), "state": state, "at": int(time.time()), **got}
        write_atomic(self.path / STATUS, json.dumps(now, indent=2).encode())


def devices_of(paths: Sequence[Path]) -> list[DeviceFolder]:
    """The devices in `paths`: each a device's folder, or one that has such folders in it. None twice."""
    found = dict.fromkeys(place for path in paths for place in _below(path))
    return [DeviceFolder(path) for path in found]


def spending(standing: Standing, task: str) -> dict[str, Any]:
    """What a device has given to `task` by its own ledger: each ε with its unit, relation and adversary."""
    seat = standing.seats.get(task)
    if seat is None:
        return {"participations": 0, "left": None, "spent": []}
    spent = [{**asdict(one), "text": str(one)} for one in seat.terms.most.guarantees(seat.spent)]
    return {"participations": sum(seat.used), "left": seat.left, "spent": spent}


def _below(path: Path) -> list[Path]:
    if (path / CARD).is_file():
        return [path.absolute()]
    found = sorted(card.parent.absolute() for card in path.glob(f"*/{CARD}"))
    if not found:
        rule = "a device's folder has a device.json, or has folders that do"
        raise RunError(rule, remedy=_ENROL, path=str(path))
    return found
