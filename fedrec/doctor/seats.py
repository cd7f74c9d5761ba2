"""The checks of a device's folder: its keys and files, its server, and whether its owner's terms admit the task."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fedrec.deploy.certificates import fingerprint
from fedrec.deploy.folder import EVENTS, LEDGER, TASK, DeviceFolder
from fedrec.deploy.identity import KEY, Identity, Witness
from fedrec.doctor.asking import Server
from fedrec.doctor.finding import Finding
from fedrec.doctor.machine import clock, disk

_SKEW = 60.0  # seconds between two clocks that both are set by a time service, with room to spare
_AGAIN = "Enrol a new folder with a new invitation; this one's seat stays taken until the operator revokes it."
_SECRETS = (KEY, EVENTS, LEDGER)

Check = tuple[str, str, Callable[[], Iterator[Finding]]]


def checks(folder: Path) -> tuple[Check, ...]:
    """Name, code and check, in the order in which they are worth repairing."""
    device = DeviceFolder(folder)
    return (
        ("seat", "P07", lambda: _seat(device)),
        ("secrets", "P07", lambda: _secrets(folder)),
        ("authority", "P07", lambda: _authority(device)),
        ("disk", "P11", lambda: disk((folder,))),
        ("clock", "P11", clock),
        ("ledger", "P11", lambda: _ledger(folder)),
        ("events", "", lambda: _events(folder)),
        ("policy", "P10", lambda: _policy(device)),
        ("server", "", lambda: _server(device)),
    )


def _seat(device: DeviceFolder) -> Iterator[Finding]:
    """Whether the site gave the seat to this very key."""
    identity, word = Identity.read(device.path), b"fedrec doctor"
    witness = Witness(bytes.fromhex(device.enrolment.roster_key))
    holds = witness.check(identity.seat, identity.certificate, word, identity.sign(word))
    seen = f"number {identity.seat}, given to this key by the site" if holds else "the site did not give it to this key"
    yield Finding(name="seat", code="P07", ok=holds, seen=seen, remedy=_AGAIN)


def _secrets(folder: Path) -> Iterator[Finding]:
    there = [folder / name for name in _SECRETS if (folder / name).exists()]
    loose = [path.name for path in there if stat.S_IMODE(path.stat().st_mode) & 0o077]
    seen = f"others may read {', '.join(loose)}" if loose else f"{len(there)} files, none open to others"
    yield Finding(
        name="secrets", code="P07", ok=not loose, seen=seen,
        remedy="chmod 600 these files. If others could have read the key, enrol anew and have the seat revoked.",
    )  # fmt: skip


def _authority(device: DeviceFolder) -> Iterator[Finding]:
    same = fingerprint(device.authority) == device.enrolment.site
    seen = "it is the invitation's" if same else "ca.pem is not what the invitation named"
    yield Finding(name="authority", code="P07", ok=same, seen=seen, remedy=_AGAIN)


def _ledger(folder: Path) -> Iterator[Finding]:
    from fedrec.privacy.device_ledger import DeviceLedger

    path = folder / LEDGER
    seen = "none yet: the device has never taken part"
    if path.exists():
        reading = DeviceLedger.read(path)
        seen = f"{reading.entries} entries, verified"
    yield Finding(name="ledger", code="P11", ok=True, seen=seen, remedy="")


def _events(folder: Path) -> Iterator[Finding]:
    """How many is the person's own business, and not told."""
    from fedrec.device.store import Store

    path = folder / EVENTS
    seen = "none yet"
    if path.exists():
        with Store(path) as store:
            store.check()
        seen = "sound"
    yield Finding(name="events", code="", ok=True, seen=seen, remedy="")


def _policy(device: DeviceFolder) -> Iterator[Finding]:
    """Whether the task is the one that was agreed on, and the owner's terms admit it, by its public plan alone."""
    from fedrec.task import Task

    policy, task = device.policy, Task.open(device.path / TASK)
    agreed = task.hash == device.enrolment.task
    seen = "it is the one that the site signed" if agreed else "it is not the one that the site signed"
    yield Finding(name="task", code="P15", ok=agreed, seen=seen, remedy=_AGAIN)
    if task.privacy is None:
        policy.accept_none()
        seen = "it admits a task without any promise"
    else:
        policy.accept(task.privacy, task.hash)
        seen = "it admits " + "; ".join(str(promise.guarantee) for promise in task.privacy.promises)
    yield Finding(name="policy", code="P10", ok=True, seen=seen, remedy="")


def _server(device: DeviceFolder) -> Iterator[Finding]:
    """Whether the server is who it should be, and its clock agrees with ours."""
    url, ca = urlsplit(device.enrolment.server), device.authority
    name, port = str(url.hostname), url.port or 443
    asked = time.time()
    reply = Server((name, port), name, ca).ask("/fedrec/v1/ca")
    ours = reply.status == 200 and reply.body.strip() == ca.strip()
    seen = f"{name}:{port} answers, by this authority" if ours else f"{name}:{port} answers {reply.status}"
    remedy = "Ask the operator to run `fedrec doctor` on the site."
    yield Finding(name="server", code="", ok=ours, seen=seen, remedy=remedy)
    if reply.date is not None:
        yield _skew(reply.date - (asked + time.time()) / 2)


def _skew(seconds: float) -> Finding:
    return Finding(
        name="clocks", code="", ok=abs(seconds) <= _SKEW, seen=f"the server's is {seconds:+,.0f} s from this one",
        remedy="Let a time service set this clock: certificates and invitations go by it.",
    )  # fmt: skip
