"""The server's ledger: what has been spent is on disk before anything that it paid for exists.

`ledger.jsonl` only grows; each record holds the hash of the one before. `ledger.jsonl.head` names the last
acknowledged record and is replaced atomically after each append, so that a line torn by a crash (never acknowledged)
can be told from one that was cut off or altered later. Whoever rolls back both files together is not detected.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedrec.errors import RunError
from fedrec.privacy.accounting import SampledGaussian, accountant, epsilon
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.records import GENESIS, Position, Record, State, advance, tampered


class Ledger:
    """One plan's charges, durable. One process at a time; a method returns when its record is on disk."""

    def __init__(self, path: Path, plan: PrivacyPlan) -> None:
        """Create the ledger of `plan` at `path`, or verify the one that is there.

        Refuses P11 when hashes, order, head or ε are wrong; `RunError` when it belongs to another plan or process.
        """
        self.path, self.plan = path, plan
        self._head = path.with_name(path.name + ".head")
        self._file = _locked(path)
        try:
            self._records = self._recover()
            self._position = self._replay()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let another process open the ledger."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    @property
    def head(self) -> str:
        """Hash of the last record: what statements and checkpoints quote."""
        return self._records[-1].hash

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record, public."""
        return tuple(self._records)

    @property
    def charges(self) -> int:
        """How many releases have been paid for, seen or not."""
        return self._position.charges

    @property
    def remaining(self) -> int:
        """How many may still be made."""
        return self.plan.rounds - self.charges

    @property
    def epsilon(self) -> float:
        """ε of the charges so far. Information: the plan's ε is the promise."""
        return self.plan.spent(self.charges)

    @property
    def pending(self) -> tuple[int, str] | None:
        """(round, digest) of a charge without a release.

        A noised aggregate on disk with that digest may be released as it is; otherwise the charge is lost.
        """
        spent = self._position.state is State.CHARGED
        return (self._position.round, self._position.digest) if spent else None

    def reserve(self, number: int) -> None:
        """Open round `number`: the next one, or again one that was not released. Refuses P10 when all is spent."""
        self._append(number, State.RESERVED)

    def charge(self, number: int, digest: str) -> None:
        """Pay for round `number`, before its noised aggregate (SHA-256 `digest`) leaves memory."""
        self._append(number, State.CHARGED, event=_event(self.plan), digest=digest)

    def release(self, number: int, digest: str) -> None:
        """Note that round `number` was made public, byte for byte what was charged."""
        self._append(number, State.RELEASED, digest=digest)

    def abort(self, number: int) -> None:
        """Give round `number` up: free while it is only reserved, spent once it is charged."""
        self._append(number, State.ABORTED)

    def _append(self, number: int, state: State, *, event: dict[str, Any] | None = None, digest: str = "") -> None:
        record = Record(
            seq=len(self._records), prev=self._records[-1].hash if self._records else GENESIS, plan=self.plan.hash,
            round=number, state=state, event=event or {}, digest=digest, time=int(time.time()), version=_version(),
        )  # fmt: skip
        if state is not State.PLANNED:
            self._position = advance(self._position, record, self.plan.rounds)
        try:
            _write(self._file, record.line())
            self._seal(record)
        except BaseException as error:
            self.close()  # what is on disk is unknown now: reopening finds out
            if isinstance(error, OSError):
                raise RunError("the ledger must be written before a round goes on", reason=str(error)) from error
            raise
        self._records.append(record)

    def _seal(self, record: Record) -> None:
        """Make `record` the acknowledged head, atomically."""
        fresh = self._head.with_name(self._head.name + ".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write(file, _sealed(record))
        finally:
            os.close(file)
        os.replace(fresh, self._head)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _recover(self) -> list[Record]:
        """The records on disk, less a torn line that nobody was told of."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        acknowledged = self._acknowledged()
        torn = len(lines) > acknowledged and not lines[-1].endswith(b"\n")
        if torn:
            os.ftruncate(self._file, sum(map(len, lines[:-1])))
            os.fsync(self._file)
        records = [Record.parse(line) for line in (lines[:-1] if torn else lines)]
        if not acknowledged <= len(records) <= acknowledged + 1:
            raise tampered("the ledger reaches to its acknowledged head", records=len(records), head=acknowledged)
        if acknowledged and self._head.read_bytes() != _sealed(records[acknowledged - 1]):
            raise tampered("the head names the last acknowledged record", head=acknowledged)
        if len(records) > acknowledged:
            self._seal(records[-1])
        return records

    def _acknowledged(self) -> int:
        """How many records the head vouches for."""
        if not self._head.exists():
            return 0
        try:
            return int(json.loads(self._head.read_bytes())["seq"]) + 1
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise tampered("the head file reads as it was written") from error

    def _replay(self) -> Position:
        if not self._records:
            self._position = Position()
            self._append(-1, State.PLANNED, event=_planned(self.plan))
        _check_plan(self._records[0], self.plan)
        position = Position()
        for seq, record in enumerate(self._records):
            _check_link(record, self._records[seq - 1] if seq else None, seq)
            if record.plan != self.plan.hash or (record.state is State.CHARGED and record.event != _event(self.plan)):
                raise tampered("every record is of the plan in the first", seq=seq)
            position = advance(position, record, self.plan.rounds) if seq else position
        return position


def _locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        remedy = "Wait for it, or stop it."
        raise RunError("a ledger is open in one process at a time", remedy=remedy, path=str(path)) from error
    return file


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
    os.fsync(file)


def _sealed(record: Record) -> bytes:
    return (json.dumps({"seq": record.seq, "hash": record.hash}) + "\n").encode()


def _event(plan: PrivacyPlan) -> dict[str, Any]:
    return {"rate": plan.event.rate, "z_eff": plan.event.multiplier, "clip": plan.clip}


def _planned(plan: PrivacyPlan) -> dict[str, Any]:
    return {**plan.public(), "spends": plan.epsilon, "accountant": accountant(plan.epsilon)}


def _check_plan(record: Record, plan: PrivacyPlan) -> None:
    """The first record is this plan's, and its ε is what its events cost."""
    if record.state is not State.PLANNED:
        raise tampered("a ledger begins with its plan")
    if record.plan != plan.hash:
        raise RunError(
            "a ledger belongs to one plan", remedy="Start a new run folder.", ledger=record.plan, plan=plan.hash
        )
    if {name: record.event.get(name) for name in plan.public()} != plan.public():
        raise tampered("the plan in the first record has the hash beside it")
    event = SampledGaussian(record.event["rate"], record.event["multiplier"])
    recomputed = epsilon(event, rounds=record.event["rounds"], delta=record.event["delta"])
    if not math.isclose(recomputed, record.event["spends"], rel_tol=0, abs_tol=1e-6):
        raise tampered("the stored epsilon is what the events cost", stored=record.event["spends"], now=recomputed)


def _check_link(record: Record, before: Record | None, seq: int) -> None:
    if record.seq != seq or record.prev != (before.hash if before else GENESIS):
        raise tampered("each record follows the one before it", seq=record.seq, place=seq)


def _version() -> str:
    try:
        return version("fedrec")
    except PackageNotFoundError:
        return "unknown"
