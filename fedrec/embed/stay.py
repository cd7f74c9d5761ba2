"""A device on duty for a while, over one line on which every piece needs consent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event, Thread
from typing import TYPE_CHECKING

from fedrec.embed.consent import Settings, Ticket
from fedrec.embed.contributor import Contributor
from fedrec.embed.ledger import SENT, bytes_sent, exhausted
from fedrec.errors import FedrecError

if TYPE_CHECKING:
    from fedrec.deploy.host import Hosted
    from fedrec.exchange.fleet import Node

_LOOK = 0.25  # seconds between two looks at consent, conditions and the clock
_GRACE = 60.0  # seconds beyond its time that a device stays where others need its word


class Ending(StrEnum):
    """Why a contribution ended, or did not begin."""

    NO_CONSENT = "no consent"
    PAUSED = "paused"
    NOT_ENROLLED = "not enrolled"
    CONDITION = "a condition does not hold"
    NO_BUDGET = "nothing is left to give"
    REFUSED = "the task is beyond the person's terms"
    AWAY = "the server could not be reached"
    WITHDRAWN = "the consent was withdrawn"
    TIME = "the time is over"


@dataclass(frozen=True)
class Outcome:
    """What became of a contribution. `rounds` were spent on, `bytes_sent` left the device, without TLS."""

    ending: Ending
    reason: str
    rounds: tuple[int, ...] = ()
    bytes_sent: int = 0


def _quiet(words: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """When a device takes part: for `seconds`, while all `conditions` hold ("idle", "charging", "unmetered" …).

    A round that has begun in time is finished, unless the consent is withdrawn. `invitation` enrols a folder that is
    not. `told` hears in plain words how the line to the server fares.
    """

    seconds: float = 60.0
    conditions: Mapping[str, Callable[[], bool]] = field(default_factory=dict)
    invitation: str = field(default="", repr=False)
    told: Callable[[str], None] = _quiet

    @property
    def unmet(self) -> str:
        """The first condition that does not hold, "" if all do."""
        return next((name for name, holds in self.conditions.items() if not holds()), "")


ANY_TIME = Occasion()

REASONS = {
    Ending.NO_CONSENT: 'Nobody granted it: consent.grant("contribute").',
    Ending.PAUSED: "Everything is paused: consent.resume() ends it.",
    Ending.NOT_ENROLLED: "This folder has no seat at a site: contribute with an invitation first.",
    Ending.CONDITION: "A condition did not hold: try again when all do.",
    Ending.NO_BUDGET: "What may be given to this task was given; the model on this device goes on working.",
    Ending.REFUSED: "The task asks for more than the person's terms allow.",
    Ending.AWAY: "The server was out of reach: try again later.",
    Ending.WITHDRAWN: "The consent was withdrawn: nothing more was sent.",
    Ending.TIME: "The time was over.",
}


class Stay:
    """One device on duty. It imports what trains; `run` once."""

    def __init__(self, hosted: Hosted, ticket: Ticket, occasion: Occasion) -> None:
        from fedrec.deploy.host import KEPT, Bell, address_of
        from fedrec.exchange.fleet import Node
        from fedrec.exchange.line import Line
        from fedrec.exchange.outlet import Outlet

        card, authority = hosted.folder.enrolment, hosted.folder.authority
        self._hosted, self._ticket, self._occasion = hosted, ticket, occasion
        self._device = Contributor(hosted.folder.path, ticket.consent, hosted, hosted.disguise)
        self._stop, self._reached, self._crashed = Event(), False, list[Exception]()
        self._bell = Bell(card.server, authority, self._stop, permit=ticket.permit)
        self._outlet = Outlet(ticket.permit)
        address = address_of(card.server)
        self._line = Line(address, authority, keep=KEPT, outlet=self._outlet)
        self._node = Node(address, hosted.identity.key, authority, number=hosted.folder.node, line=self._line)

    def run(self, store: Settings) -> Outcome:
        """Take part until something ends it. A bug in a thread of ours is raised here."""
        from fedrec.deploy.host import STOPPED

        before, duty = bytes_sent(store), Thread(target=self._on_duty)
        duty.start()
        try:
            ending = self._until(lambda: store.set(SENT, str(before + self._outlet.sent)))
        finally:
            self._stop.set()
            duty.join()
            self._line.close()
            self._hosted.tell(STOPPED)
            store.set(SENT, str(before + self._outlet.sent))
        if self._crashed:
            raise self._crashed[0]
        if ending is Ending.WITHDRAWN:
            self._discard()
        return Outcome(ending, REASONS[ending], tuple(self._device.rounds), self._outlet.sent)

    def _until(self, note: Callable[[], None]) -> Ending:
        deadline, noted = time.monotonic() + self._occasion.seconds, 0
        while not self._stop.wait(_LOOK):
            if self._outlet.sent > noted:  # a crash loses no more than the last moment
                noted = self._outlet.sent
                note()
            if (ending := self._ended(deadline)) is not None:
                return ending
        return Ending.TIME

    def _ended(self, deadline: float) -> Ending | None:
        state, late = self._ticket.consent.state(), time.monotonic() - deadline
        if self._ticket.withdrawn(state):
            return Ending.WITHDRAWN
        if state.paused:
            return Ending.PAUSED
        if self._occasion.unmet:
            return Ending.CONDITION
        if self._device.awaited and late < _GRACE:
            return None
        if late >= 0:
            return Ending.TIME if self._reached else Ending.AWAY
        if self._device.rounds and exhausted(self._hosted.folder.path, state.max_epsilon):
            return Ending.NO_BUDGET
        return None

    def _on_duty(self) -> None:
        from fedrec.exchange.client import answering
        from fedrec.exchange.duty import run_nodes

        try:
            run_nodes([self._node], [answering(self._device)], bell=self._listen, stop=self._stop, heard=self._heard)
        except Exception as error:
            self._crashed.append(error)
        finally:
            self._stop.set()

    def _listen(self) -> bool:
        self._ticket.check()  # no connection is begun in vain
        return self._bell()

    def _heard(self, node: Node, error: FedrecError | None) -> None:
        if error is None:
            self._reached = True
            self._hosted.known_as(node.number)
        self._hosted.heard(error, lambda path, words: self._occasion.told(words))

    def _discard(self) -> None:
        """Keep no bytes that could be sent for the last round."""
        if self._hosted.member.ledger and self._device.rounds:
            seat, last = str(self._hosted.client), self._device.rounds[-1]
            self._hosted.member.ledger.withhold(seat, self._hosted.task, last)
