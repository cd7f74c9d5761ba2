"""What a person's device has given away, from its own ledger: read, verified, and never written here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.embed.consent import Consent, Settings
from fedrec.errors import BudgetExceeded, RunError
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Charge, Limit, Limits
from fedrec.privacy.entries import Entry, Seat, Standing, Step
from fedrec.privacy.terms import Guarantee, Unit

if TYPE_CHECKING:
    from fedrec.embed.preview import Preview

LEDGER = "ledger.sqlite"
SENT = "spent.bytes"  # a setting of the store; whatever begins with "spent" outlives forgetting


@dataclass(frozen=True)
class Spent:
    """What is given of one unit: the whole claim, and the ε at the same δ that it may come to; None without a limit."""

    so_far: Guarantee
    most: float | None

    @property
    def left(self) -> float | None:
        """ε that is left. Epsilons do not add up exactly: a round that fits in may still be refused, none is let by."""
        return None if self.most is None else max(0.0, self.most - self.so_far.epsilon)


@dataclass(frozen=True, kw_only=True)
class TaskSpending:
    """What one task got. `rounds` is how often the device took part, `left` how often it still may."""

    task: str
    rounds: int
    left: int
    spent: tuple[Spent, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was given in all. Epsilons of two units or relations stand side by side and are never added.

    `together` counts all tasks as one, users compared by zero-out, at the smallest δ of any task; `most` there is the
    cap of the consent. `bytes_sent` is all that went over the lines to servers for training, without TLS and without
    listening for the bell. `last` is when an update was last made to be sent (Unix seconds), None if never.
    """

    rounds: int
    bytes_sent: int
    last: int | None
    tasks: tuple[TaskSpending, ...]
    together: tuple[Spent, ...]


class LedgerView:
    """The ledger in a person's folder, for the person. A ledger that was changed is refused with P11.

    To say an ε takes the accountant, which comes with `fedrec[train]`; where nothing was given nothing is needed.
    """

    def __init__(self, folder: Path, store: Settings, consent: Consent) -> None:
        self._folder, self._store, self._consent = folder, store, consent

    def __repr__(self) -> str:
        return "LedgerView()"

    def entries(self) -> tuple[Entry, ...]:
        """Every step, task by task in the order in which they were taken."""
        path = self._folder / LEDGER
        if not path.exists():
            return ()
        return tuple(
            entry for device in DeviceLedger.read(path).standings for entry in DeviceLedger.entries(path, device)
        )

    def summary(self) -> Summary:
        """What was given, and what may still be given."""
        seats = seats_of(standings(self._folder))
        with trained("saying what was spent"):
            together = Cap(self._consent.state().max_epsilon).spent(seats)
            tasks = tuple(_task(seat) for seat in seats)
        sealed = [entry.time for entry in self.entries() if entry.step is Step.SEALED]
        return Summary(
            rounds=sum(task.rounds for task in tasks), bytes_sent=bytes_sent(self._store),
            last=max(sealed, default=None), tasks=tasks, together=together,
        )  # fmt: skip

    def preview(self) -> Preview:
        """Exactly what would be sent next. Needs `fedrec[train]`, and a folder that is enrolled at a site."""
        from fedrec.embed.preview import preview

        return preview(self._folder)


@dataclass(frozen=True)
class Cap:
    """The most ε that all contributions together may cost, about each unit apart; None for no cap.

    It is counted at the smallest δ of any task, with users compared by zero-out, as a lifetime limit counts.
    """

    epsilon: float | None

    def admit(self, seats: Sequence[Seat], more: Charge) -> None:
        """Refuse P10 what would break the cap, and under a cap whatever this device cannot count by itself."""
        if self.epsilon is None:
            return
        if not (more.user or more.interaction):
            remedy = "Contribute without a cap, or where noise is added on the device."
            raise BudgetExceeded("P10", "a cap holds for what a device can count by itself", remedy=remedy)
        total = spending(seats) + more.zeroed()
        self._limits(seats).check(total, 0, whole=total)

    def spent(self, seats: Sequence[Seat]) -> tuple[Spent, ...]:
        """What `seats` cost together."""
        whole = sum((seat.terms.whole for seat in seats), Charge()).zeroed()
        return tuple(Spent(one, self.epsilon) for one in _given(self._limits(seats), spending(seats), whole))

    def _limits(self, seats: Sequence[Seat]) -> Limits:
        agreed, most = [seat.terms.most for seat in seats], self.epsilon or 0.0
        user = [limits.user.delta for limits in agreed if limits.user]
        interaction = [limits.interaction.delta for limits in agreed if limits.interaction]
        return Limits(
            participations=0, user=Limit(most, min(user)) if user else None,
            interaction=Limit(most, min(interaction)) if interaction else None,
        )  # fmt: skip


def standings(folder: Path) -> dict[str, Standing]:
    """What the ledger in `folder` says, verified; empty without one."""
    path = folder / LEDGER
    return dict(DeviceLedger.read(path).standings) if path.exists() else {}


def seats_of(found: dict[str, Standing]) -> list[Seat]:
    """Every task that the person's device is or was in, under whatever number it sat there."""
    return [seat for standing in found.values() for seat in standing.seats.values()]


def spending(seats: Sequence[Seat]) -> Charge:
    """What they cost together."""
    return sum((seat.spent for seat in seats), Charge()).zeroed()


def bytes_sent(store: Settings) -> int:
    """What went over the lines so far."""
    return int(store.setting(SENT) or 0)


@contextmanager
def trained(what: str) -> Iterator[None]:
    """Say what to install where the part of fedrec that trains is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fedrec"):
            raise
        remedy = 'Install it: pip install "fedrec[train]".'
        raise RunError(f"{what} needs the part of fedrec that trains", remedy=remedy, missing=error.name) from None


def exhausted(folder: Path, cap: float | None) -> bool:
    """Whether nothing can be given to the enrolled folder's task any more under a cap on ε, however it is asked."""
    with trained("counting what is left"):
        from fedrec.deploy.folder import DeviceFolder

        card, found = DeviceFolder(folder).enrolment, standings(folder)
        seat = found.get(str(card.seat), Standing()).seats.get(card.task)
        return seat is not None and (seat.left <= 0 or not _affordable(seat, seats_of(found), Cap(cap)))


def _affordable(seat: Seat, seats: list[Seat], cap: Cap) -> bool:
    for span, used in zip(seat.terms.spans, seat.used, strict=True):
        try:
            if used < span.participations:
                cap.admit(seats, span.charge)
                return True
        except BudgetExceeded:
            continue
    return False


def _task(seat: Seat) -> TaskSpending:
    most = seat.terms.most
    limits = {Unit.USER: most.user, Unit.INTERACTION: most.interaction}
    given = _given(most, seat.spent, seat.terms.whole)
    spent = tuple(Spent(one, limit.epsilon if (limit := limits[one.unit]) else None) for one in given)
    return TaskSpending(task=seat.terms.task, rounds=sum(seat.used), left=seat.left, spent=spent)


def _given(limits: Limits, spent: Charge, whole: Charge) -> tuple[Guarantee, ...]:
    """What `spent` amounts to; 0 of whatever may be spent and has not been."""
    given = {one.unit: one for one in limits.guarantees(spent)}
    if bool(spent.user) == bool(whole.user) and bool(spent.interaction) == bool(whole.interaction):
        return tuple(given.values())
    return tuple(given.get(one.unit, replace(one, epsilon=0.0)) for one in limits.guarantees(whole))
