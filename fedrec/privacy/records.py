"""One line of a ledger, and the rule by which a line may follow the lines before it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

from fedrec.errors import BudgetExceeded, PrivacyRefusal

GENESIS = "0" * 64


class State(StrEnum):
    """Where a round stands."""

    PLANNED = "planned"  # the whole run: the first record, and only that
    RESERVED = "reserved"  # clients may be asked; nothing has been drawn
    CHARGED = "charged"  # spent, whether or not anybody sees the result
    RELEASED = "released"
    ABORTED = "aborted"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Public facts about one transition. No cohort, no cohort size, no norm, no seed has a field here."""

    seq: int
    prev: str  # hash of the record before
    plan: str  # hash of the plan
    round: int
    state: State
    event: dict[str, Any]  # PLANNED: the whole plan and its ε; CHARGED: what the round costs
    digest: str  # SHA-256 of the noised aggregate, or ""
    time: int  # Unix seconds
    version: str

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()

    def line(self) -> bytes:
        """The record and its own hash, as one line of JSON."""
        return (_canonical({**asdict(self), "hash": self.hash}) + "\n").encode()

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """The record of one line; refuses P11 unless it is, byte for byte, what `line()` writes."""
        try:
            content = json.loads(line)
            content["state"] = State(content["state"])
            record = cls(**{field.name: content[field.name] for field in fields(cls)})
            intact = record.line() == line
        except (ValueError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise tampered("a ledger line reads as it was written")
        return record


class Position(NamedTuple):
    """What the records so far amount to."""

    round: int = -1  # the last round that was reserved; −1 before the first
    state: State = State.PLANNED
    charges: int = 0
    digest: str = ""


def advance(position: Position, record: Record, rounds: int) -> Position:
    """The position after `record`; refuses P11 out of order, and P10 beyond `rounds` charges."""
    match record.state:
        case State.RESERVED:
            _check_reservation(position, record.round)
            if position.charges >= rounds:
                raise exhausted(position.charges, rounds)
            return Position(record.round, State.RESERVED, position.charges)
        case State.CHARGED if _follows(position, record, State.RESERVED):
            return Position(record.round, State.CHARGED, position.charges + 1, record.digest)
        case State.RELEASED if _follows(position, record, State.CHARGED) and record.digest == position.digest:
            return position._replace(state=State.RELEASED)
        case State.ABORTED if _follows(position, record, State.RESERVED, State.CHARGED):
            return position._replace(state=State.ABORTED)
    raise tampered(
        "a round is reserved, then charged, then released or aborted",
        round=record.round, state=str(record.state), after=str(position.state), of=position.round,
    )  # fmt: skip


def tampered(rule: str, /, **got: object) -> PrivacyRefusal:
    """P11: the ledger is not what it was."""
    remedy = "Restore the ledger and its .head file from one backup, or enrol the clients under a new plan."
    return PrivacyRefusal("P11", rule, remedy=remedy, **got)


def exhausted(charges: int, rounds: int) -> BudgetExceeded:
    """P10: everything planned has been spent."""
    remedy = "Stop here: the model so far is covered; more rounds need a new plan and a new budget."
    return BudgetExceeded("P10", "a plan is charged at most once for each of its rounds", remedy=remedy,
                          charges=charges, rounds=rounds)  # fmt: skip


def _follows(position: Position, record: Record, *states: State) -> bool:
    return record.round == position.round and position.state in states


def _check_reservation(position: Position, number: int) -> None:
    settled = position.state in (State.PLANNED, State.RELEASED, State.ABORTED)
    first, again = position.round < 0, number == position.round and position.state is not State.RELEASED
    if number < 0 or not (first or again or (settled and number == position.round + 1)):
        raise tampered(
            "rounds follow each other without gap or repetition",
            round=number, after=position.round, state=str(position.state),
        )  # fmt: skip


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
