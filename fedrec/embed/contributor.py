"""A person's device in a round: it asks for consent and cap before anything is spent, and again before it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.consent import Consent
from fedrec.embed.ledger import LEDGER, Cap, seats_of, standings, trained
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Charge

if TYPE_CHECKING:
    from fedrec.device.member import Work
    from fedrec.device.policy import Policy
    from fedrec.device.store import Store
    from fedrec.exchange.masks import Disguise
    from fedrec.rounds.aggregate import Turn


class Device(Protocol):
    """What a `Contributor` speaks for: a `Member`, or one that its folder is told of."""

    @property
    def client(self) -> int:
        """Its seat."""

    @property
    def task(self) -> str:
        """Hash of the task."""

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any] | None:
        """What it sends in a round."""

    def revealed(self, number: int) -> None:
        """Its masks of round `number` may be lifted."""


@dataclass(eq=False)
class Contributor:
    """The device of a folder, as `fedrec.exchange.client` wants one. One thread at a time.

    `rounds` are those that it spent on.
    """

    folder: Path
    consent: Consent
    device: Device = field(repr=False)
    disguise: Disguise | None = field(default=None, repr=False)
    rounds: list[int] = field(default_factory=list)
    _over: int = field(default=0, repr=False)  # the last round whose masks may be lifted
    _at_work: bool = field(default=False, repr=False)

    @property
    def client(self) -> int:
        """Its seat."""
        return self.device.client

    @property
    def task(self) -> str:
        """Hash of the task."""
        return self.device.task

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any] | None:
        """What the device sends in a round; refuses P10 before anything is spent, and P10 what is not to go out now."""
        ticket = self.consent.ticket()
        ticket.check()
        self._admit(turn.number)
        self._at_work = True
        try:
            sent = self.device.take_part(turn, shared)
            self.rounds.append(turn.number)
        finally:
            self._at_work = False
        with ticket.permit():
            return sent

    def revealed(self, number: int) -> None:
        """Its masks of round `number` may be lifted: what was sent is not sent again."""
        self.device.revealed(number)
        self._over = number

    @property
    def awaited(self) -> bool:
        """Whether a round is under way in which others need its word: its update, and then to lift their masks."""
        masked = self.disguise is not None and bool(self.rounds) and self.rounds[-1] > self._over
        return self._at_work or masked

    def _admit(self, number: int) -> None:
        found = standings(self.folder)
        seat = found[str(self.client)].seats.get(self.task) if str(self.client) in found else None
        if seat and number == seat.last:
            return  # the round is paid for
        more = seat.terms.span(number).charge if seat else Charge()
        Cap(self.consent.state().max_epsilon).admit(seats_of(found), more)


@contextmanager
def partner(  # noqa: PLR0913  (whose device, of what task; the rest may be left out)
    folder: Path, store: Store, consent: Consent, work: Work, *, seat: int = 0, policy: Policy | None = None
) -> Iterator[Contributor]:  # fmt: skip
    """The device in seat `seat` of a task in this process, for `fedrec.population.grid.in_process`. No network.

    The same ledger, policy, consent and cap as over a network; a task with masks needs a site. Refuses P10 a task
    beyond `policy`.
    """
    with trained("contributing"):
        from fedrec.device.member import Member
        from fedrec.device.policy import Policy

    terms = policy or Policy()
    with ExitStack() as stack:
        ledger = stack.enter_context(DeviceLedger(folder / LEDGER, terms.limits)) if work.task.privacy else None
        yield Contributor(folder, consent, Member(work, seat, store, policy=terms, ledger=ledger))
