"""One line of a ledger, and the rule by which a line may follow the lines before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cached_property
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

    @cached_property
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
            intact = record.line() == line and isinstance(record.event, dict)
            intact = intact and type(record.seq) is type(record.round) is int
        except (ValueError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact:
            raise tampered("a ledger line reads as it was written")
        return record


class Position(NamedTuple):
    """What the records so far amount to."""

    round: int = -1  # the last round that was reserved; −1 before the first
    state: State = State.PLANNED
    charged: tuple[int, ...] = ()  # rounds, once for each charge
    digest: str = ""


def last_release(records: Sequence[Record]) -> tuple[int, str]:
    """(round, digest) of the last release; (0, "") before the first."""
    return next(((each.round, each.digest) for each in reversed(records) if each.state is State.RELEASED), (0, ""))


Affords = Callable[[tuple[int, ...], int], bool]  # (charged rounds, next round) → whether the plan covers it


def advance(position: Position, record: Record, affords: Affords) -> Position:
    """The position after `record`; refuses P11 out of order, and P10 what the plan does not cover."""
    match record.state:
        case State.RESERVED:
            _check_reservation(position, record.round)
            if not affords(position.charged, record.round):
                raise exhausted(position.charged, record.round)
            return Position(record.round, State.RESERVED, position.charged)
        case State.CHARGED if _follows(position, record, State.RESERVED):
            return Position(record.round, State.CHARGED, (*position.charged, record.round), record.digest)
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


def check_model(records: Sequence[Record], model: tuple[int, str]) -> None:
    """Refuse P16 unless `model`, (round, digest) of the release that it was made from, is the last one released."""
    if (released := last_release(records)) != model:
        remedy = "Bring back the checkpoint and the ledger of one moment, or start a new run."
        raise PrivacyRefusal("P16", "a model and its ledger tell of one release", remedy=remedy,
                             model=model[0], ledger=released[0])  # fmt: skip


def exhausted(charged: tuple[int, ...], number: int) -> BudgetExceeded:
    """P10: everything planned for such a round has been spent."""
    remedy = "Stop here: the model so far is covered; more rounds need a new plan and a new budget."
    return BudgetExceeded("P10", "a plan is charged for the rounds that it has, and for no more", remedy=remedy,
                          charges=len(charged), round=number)  # fmt: skip


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
