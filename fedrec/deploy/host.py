"""A client process: it runs the devices of some folders, each with its own key, seat, events and ledger.

What goes wrong with one device is told in its folder and does not stop the others.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from fedrec.deploy.certificates import trusting
from fedrec.deploy.enrol import fetch
from fedrec.deploy.folder import LEDGER, TASK, DeviceFolder, spending
from fedrec.deploy.identity import Identity, Witness
from fedrec.device.member import Member, Work
from fedrec.device.packs import Packs
from fedrec.errors import FedrecError, PrivacyRefusal, RunError
from fedrec.exchange.client import answering
from fedrec.exchange.duty import run_nodes
from fedrec.exchange.fleet import Node
from fedrec.exchange.line import Line
from fedrec.exchange.masks import Disguise, Enrolled
from fedrec.exchange.outlet import Permit
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.rounds.aggregate import Turn
from fedrec.task import Task

STARTING, WAITING, AWAY, STOPPED = "starting", "waiting", "away", "stopped"
REFUSED, FAILED = "refused", "failed"

_LOG = logging.getLogger(__name__)
_RING = "/fedrec/v1/bell?after={}"
_LONGEST = 40.0  # seconds; the server answers after 25
KEPT = 64 << 20  # bytes of messages that many devices of a process get: the model
_OFTEN = 30.0  # seconds between two looks for a newer model
PACKS = "packs"
_PAUSES = (1000, 5000)  # milliseconds until the bell of a server that is away is listened for again

Told = Callable[[Path, str], None]


@dataclass(eq=False)
class Hosted:
    """A device that answers, and whose folder is told how it fares."""

    folder: DeviceFolder
    member: Member
    identity: Identity
    _said: tuple[str, str | None] = (STARTING, None)
    _telling: Lock = field(default_factory=Lock, repr=False)

    @property
    def client(self) -> int:
        """Its seat."""
        return self.member.client

    @property
    def task(self) -> str:
        """Hash of the task."""
        return self.member.task

    @cached_property
    def disguise(self) -> Disguise | None:
        """Its masks, in a task that has them."""
        task = self.member.work.task
        if task.privacy is None or task.privacy.masking is None:
            return None
        witness = Witness(bytes.fromhex(self.folder.enrolment.roster_key))
        return Disguise(task, Enrolled(self.identity, witness))

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any]:
        """What the device sends in a round."""
        trouble: Exception | None = None
        try:
            sent = self.member.take_part(turn, shared)
            trouble = self.member.trouble
        except Exception as failure:
            trouble = failure
            raise
        finally:
            self.tell(WAITING, round=turn.number, error=trouble and plain(trouble), **self.spent())
        return sent

    def revealed(self, number: int) -> None:
        """Its masks of round `number` may be lifted."""
        self.member.revealed(number)

    def known_as(self, number: int) -> None:
        """Note the server's number for it: a device that was killed is let in again by that at once."""
        if number != self.folder.node:
            with suppress(OSError):
                self.folder.note_node(number)

    def heard(self, error: FedrecError | None, told: Told) -> None:
        """Note whether the server can be reached, each time that this changes."""
        state = WAITING if error is None else AWAY if isinstance(error, RunError) else FAILED
        words = None if error is None else plain(error)
        if (state, words) != self._said:
            self._said = (state, words)
            self.tell(state, error=words)
            told(self.folder.path, words or "in touch with the server")

    def spent(self) -> dict[str, Any]:
        """What it has given, by its own ledger. Not while it takes part in another thread."""
        try:
            ledger = self.member.ledger
            return spending(ledger.standing(str(self.client)), self.task) if ledger else {}
        except FedrecError:
            return {}  # what is wrong with the ledger was said where it mattered

    def tell(self, state: str, **got: object) -> None:
        """Note how it fares. Nothing depends on it: a disk that refuses this is not the device's failure."""
        with self._telling:
            try:
                self.folder.tell(state, **got)
            except OSError as error:
                _LOG.warning("the status of device %d cannot be written (%s)", self.client, error.strerror)


class Bell:
    """The server's bell, heard where `permit` allows it: a call returns when it rang or after a while, and which."""

    def __init__(self, server: str, authority: bytes, stop: Event, *, permit: Permit = nullcontext) -> None:
        at = urlsplit(server)
        self._host, self._port = str(at.hostname), at.port or 443
        self._trust, self._stop, self._rung, self._permit = trusting(authority), stop, 0, permit

    def __call__(self) -> bool:
        """Wait for it. Where it cannot be heard, wait a moment of one's own: not all shall come back at once."""
        line = HTTPSConnection(self._host, self._port, timeout=_LONGEST, context=self._trust)
        try:
            line.connect()
            with self._permit():
                line.request("GET", _RING.format(self._rung))
            before, self._rung = self._rung, int(json.loads(line.getresponse().read(1024))["bell"])
            return self._rung != before
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            low, high = _PAUSES
            self._stop.wait((low + secrets.randbelow(high - low)) / 1000)
            return True
        finally:
            line.close()


def host(folders: Sequence[DeviceFolder], stop: Event, told: Told) -> None:
    """Run the devices of `folders` until `stop`; replies under way are finished, and the server is told goodbye.

    `told` hears, in plain words, what is wrong with which device. Raises it if none of them can run.
    """
    with ExitStack() as stack:
        hosted, wrong = opened(folders, stack, told)
        if not hosted:
            raise wrong[0]
        for site in dict.fromkeys(_site(each) for each in hosted):
            stack.enter_context(_on_duty([each for each in hosted if _site(each) == site], stop, told))
        stop.wait()


def opened(folders: Sequence[DeviceFolder], stack: ExitStack, told: Told) -> tuple[list[Hosted], list[FedrecError]]:
    """The devices that can run, until `stack` closes them, and what is wrong with the others."""
    works: dict[str, Work] = {}
    hosted, wrong = list[Hosted](), list[FedrecError]()
    for folder in folders:
        with ExitStack() as own:
            try:
                hosted.append(_opened(folder, works, own))
            except FedrecError as error:
                wrong.append(error)
                told(folder.path, plain(error))
            else:
                stack.push(own.pop_all())
    return hosted, wrong


def plain(error: Exception) -> str:
    """What went wrong, for whoever owns the device; no more than its kind where the words may quote a person's."""
    return str(error) if isinstance(error, FedrecError) else f"this device failed ({type(error).__name__})"


def _opened(folder: DeviceFolder, works: dict[str, Work], own: ExitStack) -> Hosted:
    """A device, on the terms of its owner; whoever refuses has written no entry into its ledger."""
    with usable(folder):
        own.enter_context(folder.running())
        try:
            identity, policy, work = Identity.read(folder.path), folder.policy, work_of(folder, works)
            store = own.enter_context(folder.events())
            store.check()
            ledger = None
            if work.task.privacy:
                ledger = own.enter_context(DeviceLedger(folder.path / LEDGER, policy.limits))
            hosted = Hosted(folder, Member(work, identity.seat, store, policy=policy, ledger=ledger), identity)
        except FedrecError as error:
            folder.tell(REFUSED if isinstance(error, PrivacyRefusal) else FAILED, error=str(error))
            raise
    hosted.tell(STARTING, error=None, **hosted.spent())
    own.callback(hosted.tell, STOPPED)
    return hosted


def work_of(folder: DeviceFolder, works: dict[str, Work]) -> Work:
    """The folder's task; one that is open already is not opened again."""
    promised = folder.enrolment.task
    if promised not in works:
        task = Task.open(folder.path / TASK)
        if task.hash != promised:
            remedy = "Enrol again, with the version of fedrec that the server runs."
            raise RunError("a device trains the task that it enrolled in", remedy=remedy,
                           enrolled=promised[:12], found=task.hash[:12])  # fmt: skip
        works[promised] = Work(task)
    return works[promised]


def _site(hosted: Hosted) -> tuple[str, str]:
    return hosted.folder.enrolment.server, hosted.folder.enrolment.site


@contextmanager
def _on_duty(hosted: Sequence[Hosted], stop: Event, told: Told) -> Iterator[None]:
    """The devices of one site, answering over one line."""
    server, authority = hosted[0].folder.enrolment.server, hosted[0].folder.authority
    line, crashed = Line(address_of(server), authority, keep=KEPT), list[Exception]()
    nodes = {
        Node(address_of(server), each.identity.key, authority, number=each.folder.node, line=line): each
        for each in hosted
    }  # fmt: skip

    def heard(node: Node, error: FedrecError | None) -> None:
        if error is None:
            nodes[node].known_as(node.number)
        nodes[node].heard(error, told)

    def run() -> None:
        try:
            run_nodes(
                [*nodes], [answering(each) for each in hosted], bell=Bell(server, authority, stop), stop=stop,
                heard=heard,
            )  # fmt: skip
        except Exception as error:  # a bug: whoever watches over the process shall see it end
            crashed.append(error)
        finally:
            stop.set()

    # Every device of a site would keep the same pack: one does for all in this process.
    threads = [Thread(target=run), Thread(target=_keep_packs, args=(hosted[0].folder, stop))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        line.close()
    if crashed:
        raise crashed[0]


def _keep_packs(folder: DeviceFolder, stop: Event) -> None:
    """Look for a newer model now and then; what is not the site's own, whole and newer is refused and noted."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(folder.enrolment.roster_key))
    packs = Packs(folder.path / PACKS, key)
    while not stop.is_set():
        try:
            packs.offer(lambda name: fetch(folder.path, f"pack/{name}"))
        except FedrecError as error:
            _LOG.info("no newer model was taken: %s", error)
        except Exception as error:  # a bug, or a disk of which nobody thought: the next look may fare better
            _LOG.warning("no newer model was taken, and it should not have failed like this: %s", type(error))
        stop.wait(_OFTEN)


def address_of(server: str) -> str:
    """The "host:port" of a server's https address."""
    at = urlsplit(server)
    return at.netloc if at.port else f"{at.netloc}:443"


@contextmanager
def usable(folder: DeviceFolder) -> Iterator[None]:
    """Say in words that a disk does not let a device's folder be used."""
    try:
        yield
    except OSError as error:
        remedy = "Let this process read and write the folder."
        raise RunError("a device's folder can be used", remedy=remedy, path=str(folder.path),
                       reason=error.strerror) from None  # fmt: skip
