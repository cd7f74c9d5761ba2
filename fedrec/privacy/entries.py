"""One entry of a device's ledger, and what the entries of one device amount to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from fedrec.errors import BudgetExceeded, PrivacyRefusal
from fedrec.privacy.enrolment import Charge, Limits, Terms
from fedrec.privacy.records import GENESIS


class Step(StrEnum):
    """What happened between a device and a task."""

    ENROLLED = "enrolled"  # the terms are fixed
    RESERVED = "reserved"  # one participation is spent, whatever becomes of it
    SEALED = "sealed"  # these bytes and no others may leave for it


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Public facts about one step of one device. Entries of a device follow each other by `seq` and `prev`."""

    seq: int
    prev: str  # hash of the device's entry before
    device: str
    task: str
    step: Step
    round: int
    content: dict[str, Any]  # ENROLLED: the terms
    digest: str  # SEALED: SHA-256 of what is sent
    time: int  # Unix seconds

    @cached_property
    def text(self) -> str:
        """Canonical JSON."""
        content = {name.name: getattr(self, name.name) for name in fields(self)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def line(self) -> bytes:
        """`text` behind its own hash."""
        return f"{self.hash} {self.text}".encode()

    @classmethod
    def parse(cls, line: bytes) -> Entry:
        """The entry of one line; refuses P11 unless it is, byte for byte, what `line()` writes."""
        try:
            content = json.loads(line[65:])
            content["step"] = Step(content["step"])
            entry = cls(**{name.name: content[name.name] for name in fields(cls)})
            intact = entry.line() == line
        except (ValueError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise broken("an entry of a device's ledger reads as it was written")
        return entry


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a device stands in one task. `digest` is "" until the last reserved round is sealed."""

    terms: Terms
    used: tuple[int, ...]  # participations in each span of the terms
    last: int = 0  # the last reserved round, 0 before the first
    digest: str = ""
    spent: Charge = Charge()

    @property
    def left(self) -> int:
        """How often the device may still come."""
        spans = sum(span.participations - used for span, used in zip(self.terms.spans, self.used, strict=True))
        return min(spans, self.terms.most.participations - sum(self.used))

    def awaits(self, number: int) -> bool:
        """Whether round `number` is reserved and nothing has left for it."""
        return number == self.last > 0 and not self.digest


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the entries of one device amount to. `counter` is how many there are."""

    counter: int = 0
    head: str = GENESIS
    seats: Mapping[str, Seat] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Participations in all tasks."""
        return sum(sum(seat.used) for seat in self.seats.values())

    @property
    def spent(self) -> Charge:
        """The cost of all tasks together, as a lifetime limit counts it."""
        return sum((seat.spent for seat in self.seats.values()), Charge()).zeroed()

    def after(self, device: str, row: Sequence[Any]) -> Standing:
        """The standing after a row of (device, seq, line) that is on file.

        A step that was not allowed cannot have been written: there, the file was changed (P11).
        """
        entry = Entry.parse(row[2])
        if (device, entry.device, entry.seq) != (row[0], row[0], row[1]):
            raise broken("an entry is filed where it belongs")
        try:
            return advance(self, entry)
        except PrivacyRefusal as refusal:
            if refusal.code == "P11":
                raise
            raise broken("a device's ledger holds only steps that were allowed", seq=entry.seq) from refusal

    def check(self, task: str, lifetime: Limits) -> None:
        """Refuse P10 when `task`, or all tasks together, cost more than was agreed."""
        seat = self.seats[task]
        seat.terms.most.check(seat.spent, sum(seat.used), whole=seat.terms.whole)
        whole = sum((seat.terms.whole for seat in self.seats.values()), Charge()).zeroed()
        lifetime.check(self.spent, self.used, whole=whole)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a whole file says, every entry checked. `head` is the hash of the last one, "" when there is none."""

    entries: int
    head: str
    standings: Mapping[str, Standing]  # by device

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> Reading:
        """From rows of (place, device, seq, line) in the order in which they were written; refuses P11 any change."""
        count, head, standings = 0, "", dict[str, Standing]()
        for place, device, *rest in rows:
            count += 1
            if place != count:
                raise broken("no entry is missing", place=place, count=count)
            standing = standings.get(device, Standing()).after(device, (device, *rest))
            standings[device], head = standing, standing.head
        return cls(entries=count, head=head, standings=standings)


def advance(standing: Standing, entry: Entry) -> Standing:
    """The standing after `entry`. Refuses P11 a break in the chain, P10 or P15 a step against the terms."""
    if (entry.seq, entry.prev) != (standing.counter, standing.head):
        raise broken("each entry of a device follows the one before", seq=entry.seq, place=standing.counter)
    match entry.step:
        case Step.ENROLLED:
            seat = _enrolled(standing, entry)
        case Step.RESERVED:
            seat = reserved(_seat(standing, entry), entry.round)
        case Step.SEALED:
            seat = _sealed(_seat(standing, entry), entry)
    return Standing(counter=entry.seq + 1, head=entry.hash, seats={**standing.seats, entry.task: seat})


def reserved(seat: Seat, number: int) -> Seat:
    """The seat once a participation is spent on round `number`; refuses P10 what the spans do not allow."""
    terms, span = seat.terms, seat.terms.span(number)
    if number <= seat.last:
        raise _early("a device answers a round once, and no older one", round=number, last=seat.last)
    if seat.last in span and number - seat.last < span.separation:
        raise _early("rounds of one device lie apart", round=number, last=seat.last, separation=span.separation)
    used = tuple(count + (each is span) for count, each in zip(seat.used, terms.spans, strict=True))
    if max(count - each.participations for count, each in zip(used, terms.spans, strict=True)) > 0:
        raise _early("a device takes part as often as the plan counts on", round=number, most=span.participations)
    return replace(seat, used=used, last=number, digest="", spent=seat.spent + span.charge)


def broken(rule: str, /, **got: object) -> PrivacyRefusal:
    """P11: a device's ledger is not what it was."""
    remedy = "Nothing was sent. This device cannot tell what it has spent: take it out of its tasks and enrol it anew."
    return PrivacyRefusal("P11", rule, remedy=remedy, **got)


def _enrolled(standing: Standing, entry: Entry) -> Seat:
    if entry.task in standing.seats:
        remedy = "Enrol the device in a new task: the terms of this one hold to its end."
        raise PrivacyRefusal("P15", "the terms of a task do not change", remedy=remedy, task=entry.task[:12])
    terms = Terms.of_public(entry.content)
    if terms.task != entry.task:
        raise broken("terms are of the task that they are filed under", seq=entry.seq)
    return Seat(terms=terms, used=(0,) * len(terms.spans))


def _sealed(seat: Seat, entry: Entry) -> Seat:
    if not seat.awaits(entry.round) or not entry.digest:
        raise _early("a round is sealed once, while it is the last one reserved", round=entry.round, last=seat.last)
    return replace(seat, digest=entry.digest)


def _seat(standing: Standing, entry: Entry) -> Seat:
    if entry.task not in standing.seats:
        raise _early("a device takes part in tasks that it is enrolled in", task=entry.task[:12])
    return standing.seats[entry.task]


def _early(rule: str, /, **got: object) -> BudgetExceeded:
    return BudgetExceeded("P10", rule, remedy="The device stays out of this round.", **got)
