"""Whether a site is well: what was looked at and found wanting, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from fedrec.deploy.clock import LEAST
from fedrec.deploy.glances import Condition
from fedrec.deploy.view import Look

_DAY = 86_400.0
_MEGABYTE = 2**20


class State(IntEnum):
    """How bad it is. A site that is only degraded goes on, and tells an operator what to do before it fails."""

    OK = 0
    DEGRADED = 1
    FAILING = 2

    @property
    def word(self) -> str:
        """As messages and probes say it."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Margins:
    """From when on something is worth a word: seconds, and bytes."""

    silence: float = 60.0
    overdue: float = 60.0
    expiry: float = 21 * _DAY
    scarce: int = 1024 * _MEGABYTE
    full: int = 256 * _MEGABYTE


@dataclass(frozen=True, kw_only=True)
class Concern:
    """One thing that is not as it should be. `name` is its heading in docs/runbook.md."""

    name: str
    state: State
    seen: str
    remedy: str

    def public(self) -> dict[str, str]:
        """Every field."""
        return {"name": self.name, "state": self.state.word, "seen": self.seen, "remedy": self.remedy}


@dataclass(frozen=True, kw_only=True)
class Health:
    """Every concern, the worst first. Nothing in it is about a person or a device."""

    concerns: tuple[Concern, ...]

    @property
    def state(self) -> State:
        """The worst of them."""
        return max((concern.state for concern in self.concerns), default=State.OK)

    @property
    def ready(self) -> bool:
        """Whether the site does its work."""
        return self.state is not State.FAILING

    def public(self) -> dict[str, Any]:
        """For probes and people."""
        return {"state": self.state.word, "concerns": [concern.public() for concern in self.concerns]}


def judge(look: Look, margins: Margins = Margins()) -> Health:
    """The health of a site at one look."""
    judges: tuple[Callable[[Look, Margins], Iterator[Concern]], ...] = (
        _ledger, _disk, _certificate, _processes, _trainer, _seats, _clock, _deadline, _budget, _files,
    )  # fmt: skip
    found = [concern for one in judges for concern in one(look, margins)]
    return Health(concerns=tuple(sorted(found, key=lambda concern: -concern.state)))


def _ledger(look: Look, margins: Margins) -> Iterator[Concern]:
    if look.machine.ledger:
        yield Concern(
            name="ledger damaged", state=State.FAILING, seen=look.machine.ledger,
            remedy="Stop the server. Bring back run/ as a whole from the last copy; never edit or remove the ledger.",
        )  # fmt: skip


def _disk(look: Look, margins: Margins) -> Iterator[Concern]:
    free = look.machine.free
    if free is not None and free < margins.scarce:
        yield Concern(
            name="disk full", state=State.FAILING if free < margins.full else State.DEGRADED,
            seen=f"{free / _MEGABYTE:,.0f} MiB are free where the site lies",
            remedy="Make room: a round whose charge cannot be written is not released. Old logs and packs go first.",
        )  # fmt: skip


def _certificate(look: Look, margins: Margins) -> Iterator[Concern]:
    remedy = "Renew it: `fedrec server renew SITE`. Devices need no change while the authority stays the same."
    if look.machine.certificate is None:
        seen = "it is missing or cannot be read: keys/server.pem"
        yield Concern(name="certificate", state=State.DEGRADED, seen=seen, remedy=remedy)
        return
    begins, ends = look.machine.certificate
    left = ends - look.at
    if look.at < begins:
        seen = f"it is valid from {(begins - look.at) / _DAY:.1f} days from now: look at the clock first"
        yield Concern(name="certificate", state=State.FAILING, seen=seen, remedy=remedy)
    elif left < margins.expiry:
        seen = f"it expires in {left / _DAY:.0f} days" if left > 0 else "it has expired: no device connects"
        yield Concern(name="certificate", state=State.DEGRADED if left > 0 else State.FAILING, seen=seen, remedy=remedy)


def _processes(look: Look, margins: Margins) -> Iterator[Concern]:
    """Of a process that ends before its time; while it is only started again, the others go on."""
    for child, condition in sorted(look.machine.children.items()):
        count, remedy = look.machine.restarts.get(child, 0), f"The last line of logs/{child}.out says why."
        match condition:
            case Condition.AGAIN:
                state, seen = State.DEGRADED, f"{child} was started again, {count} times so far"
            case Condition.DOWN:
                state, seen = State.FAILING, f"{child} ends whenever it is started, {count} times so far"
            case Condition.GIVEN_UP:
                state, seen = State.FAILING, f"{child} has ended over what another try does not mend"
                remedy = f"{remedy} Mend that, then stop the site and start it."
            case _:
                continue
        yield Concern(name="process down", state=state, seen=seen, remedy=remedy)


def _trainer(look: Look, margins: Margins) -> Iterator[Concern]:
    if look.machine.children.get("trainer") in (Condition.STARTING, Condition.GIVEN_UP):
        return  # it has yet to report, or `_processes` has said why it does not
    remedy = "`fedrec server status SITE` says which process is down; logs/trainer.jsonl says why."
    if look.now is None:
        if "state/round.json" not in look.torn:
            seen = "no trainer has reported since the site was made"
            yield Concern(name="trainer silent", state=State.FAILING, seen=seen, remedy="`fedrec server start SITE`.")
    elif not look.now.finished and look.at - look.now.beat > margins.silence:
        seen = f"it was last heard of {look.at - look.now.beat:,.0f} s ago"
        yield Concern(name="trainer silent", state=State.FAILING, seen=seen, remedy=remedy)


def _seats(look: Look, margins: Margins) -> Iterator[Concern]:
    starting = look.machine.children.get("superlink") is Condition.STARTING
    if look.standing is None and not starting:
        yield Concern(
            name="seats unknown", state=State.FAILING, seen="neither roster nor SuperLink says who is there",
            remedy="A SuperLink is started again by itself: logs/superlink.out. `fedrec doctor SITE` reads the roster.",
        )  # fmt: skip


def _clock(look: Look, margins: Margins) -> Iterator[Concern]:
    ahead = look.now.beat - look.at if look.now else 0.0
    if abs(look.machine.stepped) >= LEAST:
        seen = f"it was set by {look.machine.stepped:+,.0f} s within the last hour"
    elif ahead >= LEAST:
        seen = f"the trainer's last word is {ahead:,.0f} s in the future"
    else:
        return
    remedy = "Let one time service set it, slowly. Certificates, invitations and windows of the public clock go by it."
    yield Concern(name="clock jumped", state=State.DEGRADED, seen=seen, remedy=remedy)


def _deadline(look: Look, margins: Margins) -> Iterator[Concern]:
    if look.now is None or look.now.deadline is None or look.now.finished:
        return
    late = look.at - look.now.deadline
    if late > margins.overdue:
        yield Concern(
            name="round overdue", state=State.DEGRADED,
            seen=f"round {look.now.round} should have been over {late:,.0f} s ago",
            remedy="Nothing is lost: see logs/trainer.jsonl. A restart goes on from the last checkpoint.",
        )  # fmt: skip


def _budget(look: Look, margins: Margins) -> Iterator[Concern]:
    spent, rows, planned = look.training.spent, look.training.rows, look.training.planned
    done = rows[-1]["round"] if rows else 0
    promised = next((claim.epsilon for claim in look.training.claims if spent and claim.terms == spent.terms), None)
    if spent is None or spent.epsilon is None or promised is None or planned is None or done >= planned:
        return
    if spent.epsilon >= promised:
        yield Concern(
            name="budget spent", state=State.DEGRADED,
            seen=f"all of ε={promised:.4g} ({', '.join(spent.terms)}) is spent after {done} of {planned} rounds",
            remedy="The run ends here; its last model may be published. More rounds need a new plan, and new consent.",
        )  # fmt: skip


def _files(look: Look, margins: Margins) -> Iterator[Concern]:
    if look.torn:
        yield Concern(
            name="unreadable files", state=State.DEGRADED, seen=f"cannot be read: {', '.join(look.torn)}",
            remedy="A file of state/ is written anew in the next round; the others come back from a copy.",
        )  # fmt: skip
