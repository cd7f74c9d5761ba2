"""The server's ledger: what has been spent is on disk before anything that it paid for exists.

`ledger.jsonl` only grows; each record holds the hash of the one before. `ledger.jsonl.head` names the last
acknowledged record and is replaced atomically after each append, so that a line torn by a crash (never acknowledged)
can be told from one that was cut off or altered later. Whoever rolls back both files together is not detected.
"""

from __future__ import annotations

import fcntl
import os
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.files import Closing
from fedrec.privacy.chain import cost_of, head_of, on_disk, planned, replay, sealed
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.records import GENESIS, Position, Record, State, advance, check_model


class Ledger(Closing):
    """One plan's charges, durable. One process at a time; a method returns when its record is on disk."""

    def __init__(self, path: Path, plan: PrivacyPlan) -> None:
        """Create the ledger of `plan` at `path`, or verify the one that is there.

        Refuses P11 when hashes, order, head or ε are wrong; `RunError` when it belongs to another plan or process.
        """
        self.path, self.plan = path, plan
        self._head = head_of(path)
        self._file = _locked(path)
        try:
            self._records = self._recover()
            self._position = self._replay()
        except BaseException:
            self.close()
            raise

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
    def charged(self) -> tuple[int, ...]:
        """The rounds that have been paid for, seen or not; one that a crash made us repeat is there twice."""
        return self._position.charged

    @property
    def opened(self) -> int:
        """The last round that was reserved, released or not."""
        return self._position.round

    def affords(self, number: int) -> bool:
        """Whether the plan covers a release in round `number` after all these charges."""
        return self.plan.affords(self.charged, number)

    @property
    def epsilon(self) -> float:
        """ε of the charges so far. Information: the plan's ε is the promise."""
        return self.plan.spent(self.charged)

    @property
    def pending(self) -> tuple[int, str] | None:
        """(round, digest) of a charge without a release.

        A noised aggregate on disk with that digest may be released as it is; otherwise the charge is lost.
        """
        spent = self._position.state is State.CHARGED
        return (self._position.round, self._position.digest) if spent else None

    def settle(self, number: int, digest: str) -> None:
        """Go on from the model of round `number`, whose release has `digest`.

        A charge whose release is that model's is released, one that was lost stays spent. Refuses P16 a model that was
        not made from the last release.
        """
        if self.pending == (number, digest):
            self.release(number, digest)
            return
        check_model(self._records, (number, digest))
        if self.pending:
            self.abort(self.pending[0])

    def reserve(self, number: int) -> None:
        """Open round `number`: the next one, or again one that was not released. Refuses P10 when all is spent."""
        self._append(number, State.RESERVED)

    def charge(self, number: int, digest: str, clip: float | None = None) -> None:
        """Pay for round `number`, before its noised aggregate (SHA-256 `digest`) leaves memory.

        `clip` is where an adaptive clip norm stood; None for the plan's.
        """
        self._append(number, State.CHARGED, event=cost_of(self.plan, number, clip), digest=digest)

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
            self._position = advance(self._position, record, self.plan.affords)
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
            _write(file, sealed(record))
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
        found = on_disk(self.path)
        if found.torn:
            os.ftruncate(self._file, found.intact)
            os.fsync(self._file)
        if len(found.records) > found.acknowledged:
            self._seal(found.records[-1])
        return list(found.records)

    def _replay(self) -> Position:
        if not self._records:
            self._position = Position()
            self._append(-1, State.PLANNED, event=planned(self.plan))
        return replay(self._records, self.plan)


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


@cache  # the package's metadata are files
def _version() -> str:
    try:
        return version("fedrec")
    except PackageNotFoundError:
        return "unknown"
