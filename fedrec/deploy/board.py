"""The words and figures of the status page, so that its template only sets them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from fedrec.deploy.glances import Accuracy, Claim, Condition, Pack
from fedrec.deploy.view import Look, Training

WAITING = "waiting for devices"  # the trainer's word for it
_RECENT = 5  # rounds from which the time to come is guessed

Fact = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A part of a whole: in words, and in percent."""

    percent: float
    said: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """One promise: what it is about, what it allows, and what of it is spent; None where nobody counts along."""

    claim: Claim
    spent: float | None

    @property
    def bar(self) -> Bar | None:
        """The spent part."""
        if self.spent is None or not self.claim.epsilon:
            return None
        percent = 100 * self.spent / self.claim.epsilon
        return _bar(percent, f"ε = {self.spent:.3g} of {self.claim.epsilon:.3g} is spent ({percent:.0f} %)")


def headline(look: Look) -> str:
    """Where the run stands, in one sentence."""
    done, planned = _done(look), look.training.planned
    if look.machine.children.get("trainer") is Condition.GIVEN_UP:
        return f"The trainer has given up, after {done:,} rounds."
    if look.now is None:
        return "The trainer has not reported yet."
    if look.now.finished:
        return f"All is done: {done:,} rounds."
    if not look.now.round:
        return f"{look.now.phase.capitalize()}{_awaited(look)}."
    of = f" of {planned:,}" if planned else ""
    again = f", attempt {look.now.attempt}" if look.now.attempt > 1 else ""
    return f"Round {look.now.round:,}{of}: {look.now.phase}{again}."


def progress(look: Look) -> Bar | None:
    """Finished rounds of those planned."""
    done, planned = _done(look), look.training.planned
    if not planned:
        return None
    percent = 100 * done / planned
    return _bar(percent, f"{done:,} of {planned:,} rounds are finished ({percent:.0f} %)")


def facts(look: Look) -> Iterator[Fact]:
    """What is known of people, time and the machine, and may be told."""
    if look.standing:
        yield "Seats taken", f"{look.standing.enrolled:,} of {look.standing.seats:,}"
        yield "Devices online", f"{look.standing.online:,}"
    yield from _times(look)
    last = look.training.rows[-1] if look.training.rows else {}
    if "bytes_down" in last and "bytes_up" in last:
        yield "Sent to and by a client in a round", f"{size(last['bytes_down'])} and {size(last['bytes_up'])}"
    if look.machine.free is not None:
        yield "Free disk", size(look.machine.free)
    if look.machine.certificate:
        yield "Certificate valid until", moment(look.machine.certificate[1])
    if look.machine.restarts:
        told = ", ".join(f"{name} {count}" for name, count in sorted(look.machine.restarts.items()))
        yield "Restarts", told


def accounts(training: Training) -> list[Account]:
    """One for each promise with an ε."""
    spent = training.spent
    return [
        Account(claim=claim, spent=spent.epsilon if spent and spent.terms == claim.terms else None)
        for claim in training.claims if claim.epsilon is not None
    ]  # fmt: skip


def updates(look: Look) -> Iterator[Fact]:
    """Of the last finished round, if anybody may know."""
    if look.last is None or not look.last.public:
        return
    for name, count in (
        ("Asked", look.last.asked), ("Answered", look.last.answered), ("Accepted", look.last.accepted)
    ):  # fmt: skip
        if count is not None:
            yield name, f"{count:,}"


def packs(look: Look) -> list[tuple[str, str, str, str]]:
    """Version, round, when, and whether it is the one that devices are offered."""
    return [_pack(pack) for pack in look.packs]


def accuracy(found: Accuracy) -> Iterator[Fact]:
    """A figure with everything without which it means nothing."""
    interval = f" ({found.low:.3f} to {found.high:.3f})" if found.low is not None and found.high is not None else ""
    yield found.name, f"{found.value:.3f}{interval}"
    yield "People it was measured on", f"{found.people:,}"
    yield "How", found.how
    yield "Consent", found.consent
    yield "When", found.measured


def moment(unix: float) -> str:
    """A time as people read it, in UTC; "" for one that no calendar has."""
    try:
        return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def size(count: float) -> str:
    """Bytes as people read them."""
    step = min(int(math.log(max(count, 1), 1024)), 4)
    return f"{count / 1024**step:,.{1 if step else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[step]}"


def span(seconds: float) -> str:
    """A length of time as people say it."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.{int(seconds < 10)}f} s"


def _awaited(look: Look) -> str:
    """What round 1 waits for, as far as that is known."""
    if look.now is None or look.now.phase != WAITING or look.standing is None or not look.standing.begin:
        return ""
    return f": {look.standing.online:,} are online, training begins with {look.standing.begin:,}"


def _times(look: Look) -> Iterator[Fact]:
    """How long rounds take tells how many came: only where that is public."""
    seconds = [row["seconds"] for row in look.training.rows if isinstance(row.get("seconds"), int | float)]
    if look.now and look.now.since is not None and (look.now.public or look.now.finished):
        yield "In this phase since", moment(look.now.since)
    if look.now and look.now.deadline is not None and look.now.public:
        yield "Deadline of the round", moment(look.now.deadline)
    if not seconds or not look.training.planned:
        return
    yield "The last round took", span(seconds[-1])
    left = look.training.planned - _done(look)
    if left > 0:
        yield "All rounds will take about", span(left * median(seconds[-_RECENT:])) + " more"


def _pack(pack: Pack) -> tuple[str, str, str, str]:
    number = "" if pack.round is None else f"{pack.round}"
    return f"{pack.version}", number, pack.when, "yes" if pack.latest else ""


def _done(look: Look) -> int:
    return int(look.training.rows[-1]["round"]) if look.training.rows else 0


def _bar(percent: float, said: str) -> Bar:
    return Bar(percent=min(max(percent, 0.0), 100.0), said=said)
