"""The device's ledger: a participation is on disk before the device trains, and its bytes before they are sent.

An SQLite file with one append-only table of hash-chained entries; one file may hold many devices. Beside it,
`.head` names the last acknowledged entry: SQLite takes an emptied file for a new one, and this does not. Changes are
journalled by rollback, not by a write-ahead log: whoever cuts a log short silently takes commits back.
Whoever sets back all files together is found out only by a server that echoes the counter, and not if it is the server.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fedrec.databases import connected, speaks_of_damage, transaction
from fedrec.errors import BudgetExceeded, RunError
from fedrec.files import Closing, write_atomic
from fedrec.privacy.enrolment import Limits, Terms
from fedrec.privacy.entries import Entry, Reading, Standing, Step, advance, broken

_SCHEMA = (
    "CREATE TABLE entries (place INTEGER PRIMARY KEY, device TEXT NOT NULL, seq INTEGER NOT NULL, "
    "line BLOB NOT NULL, UNIQUE (device, seq))",
    "CREATE TABLE payloads (device TEXT NOT NULL, task TEXT NOT NULL, round INTEGER NOT NULL, "
    "payload BLOB NOT NULL, PRIMARY KEY (device, task))",
)
_COLUMNS = "device, seq, CAST(line AS BLOB)"  # whatever type a changed byte may give a line
_REMEMBERED = 10_000  # standings kept in memory
_HASH = 64  # a line begins with this many hexadecimal digits


class DeviceLedger(Closing):
    """What the devices of one file have spent. Any number of processes; one thread at a time for each instance.

    `lifetime` is the most that each device gives to all its tasks together. A method returns when its entry is on
    disk. `fast` is for simulations: entries survive the death of the process but not a power cut, and a device is
    checked when it first comes, not the whole file at opening.
    """

    def __init__(self, path: Path, lifetime: Limits, *, fast: bool = False) -> None:
        """Create the ledger at `path`, or verify the one that is there; refuses P11 when it is not what it was."""
        self.path, self.lifetime, self._fast = path, lifetime, fast
        self._known: dict[str, Standing] = {}
        self._appended: list[tuple[str, Standing]] = []
        with _explained(path):
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            self._db = connected(path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def enrol(self, device: str, terms: Terms) -> None:
        """Take a seat in a task; the same one again costs nothing. Refuses P15 terms that have changed."""
        with self._transaction():
            standing = self._standing(device)
            if terms.task not in standing.seats or standing.seats[terms.task].terms != terms:
                self._append(standing, device, terms.task, Step.ENROLLED, content=terms.public())

    def reserve(self, device: str, task: str, number: int, *, echoed: int = 0) -> None:
        """Spend one participation, before the device trains for round `number`.

        A round that was reserved and never sealed may be tried again: nothing has left for it, and it is not charged
        twice. Refuses P10 beyond what was agreed, and P11 when a server has seen the device's counter at `echoed` and
        the ledger is behind it. No refusal depends on data.
        """
        with self._transaction():
            standing = self._standing(device)
            if echoed > standing.counter:
                raise broken("a device's ledger is not older than what a server has seen of it",
                             counter=standing.counter, echoed=echoed)  # fmt: skip
            seat = standing.seats.get(task)
            if seat is None or not seat.awaits(number):
                self._append(standing, device, task, Step.RESERVED, number).check(task, self.lifetime)

    def seal(self, device: str, task: str, number: int, payload: bytes) -> bytes:
        """Fix what is sent for round `number`: the bytes to send, which are the first that were ever sealed for it."""
        with self._transaction():
            standing = self._standing(device)
            if (first := self._sealed(standing, device, task, number)) is not None:
                return first
            self._append(standing, device, task, Step.SEALED, number, digest=hashlib.sha256(payload).hexdigest())
            self._db.execute("REPLACE INTO payloads VALUES (?, ?, ?, ?)", (device, task, number, payload))
        return payload

    def sent(self, device: str, task: str, number: int) -> bytes | None:
        """The bytes sealed for round `number`, the last one; None if none were. They may be sent again, as they are."""
        with self._transaction():
            return self._sealed(self._standing(device), device, task, number)

    def standing(self, device: str) -> Standing:
        """What one device has spent. Its `counter` is what a server may echo."""
        with self._transaction():
            return self._standing(device)

    def forget(self, task: str, *, before: int) -> None:
        """Drop the bytes of rounds that no server asks for any more; what was spent for them stays."""
        with self._transaction():
            self._db.execute("DELETE FROM payloads WHERE task = ? AND round < ?", (task, before))

    def withhold(self, device: str, task: str, number: int) -> None:
        """Never send for round `number` again: in two sums of different others the same bytes would show themselves."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM payloads WHERE device = ? AND task = ? AND round = ?", (device, task, number)
            )  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> Reading:
        """Every entry of the file at `path`, verified; changes nothing. Refuses P11 as opening does."""
        with _reader(path) as db:
            if _tables(db) != sorted(_SCHEMA):
                raise broken("a device's ledger has the tables that it was made with")
            _check_head(db, _head(path))
            return _reading(db)

    @classmethod
    def entries(cls, path: Path, device: str) -> list[Entry]:
        """What `device` did, step by step. Each entry reads as it was written; `read` checks that none is missing."""
        with _reader(path) as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM entries WHERE device = ? ORDER BY seq", (device,))
            return [Entry.parse(line) for _, _, line in rows]

    def _open(self) -> None:
        with _explained(self.path):
            self._db.execute("PRAGMA journal_mode = TRUNCATE")
            self._db.execute("PRAGMA secure_delete = ON")  # replaced bytes are gone
            self._db.execute(f"PRAGMA synchronous = {'OFF' if self._fast else 'FULL'}")
        with self._transaction(check=False):
            tables = _tables(self._db)
            if not tables and not _head(self.path).exists():
                for table in _SCHEMA:
                    self._db.execute(table)
            elif tables != sorted(_SCHEMA):
                raise broken("a device's ledger has the tables that it was made with")
        with self._transaction():
            if not self._fast:
                self._known = dict(_reading(self._db).standings)

    @contextmanager
    def _transaction(self, *, check: bool = True) -> Iterator[None]:
        """Everything or nothing, one process at a time; the head follows before the next entry may come."""
        with _explained(self.path), _held(self._lock):
            self._appended = []
            with transaction(self._db):
                if check:
                    self._settle()
                yield
            self._known.update(self._appended)
            if self._appended:
                self._settle()

    def _settle(self) -> None:
        """Check the head, and let it name an entry that a crash has left unacknowledged."""
        head = _head(self.path)
        if (fresh := _check_head(self._db, head)) is None:
            return
        if self._fast:
            file = os.open(head, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(file, fresh)  # always as long as the last one, and in one go
            os.close(file)
        else:
            write_atomic(head, fresh)

    def _append(  # noqa: PLR0913  (the fields of an entry)
        self, standing: Standing, device: str, task: str, step: Step, number: int = 0, *,
        content: dict[str, Any] | None = None, digest: str = "",
    ) -> Standing:  # fmt: skip
        entry = Entry(
            seq=standing.counter, prev=standing.head, device=device, task=task, step=step, round=number,
            content=content or {}, digest=digest, time=int(time.time()),
        )  # fmt: skip
        after = advance(standing, entry)
        self._db.execute("INSERT INTO entries (device, seq, line) VALUES (?, ?, ?)", (device, entry.seq, entry.line()))
        self._appended.append((device, after))
        return after

    def _standing(self, device: str) -> Standing:
        """What was known of the device, and what has been written since."""
        standing = self._known.get(device, Standing())
        rows = f"SELECT {_COLUMNS} FROM entries WHERE device = ? AND seq >= ? ORDER BY seq"
        for row in self._db.execute(rows, (device, standing.counter)):
            standing = standing.after(device, row)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[device] = standing
        return standing

    def _sealed(self, standing: Standing, device: str, task: str, number: int) -> bytes | None:
        seat = standing.seats.get(task)
        if seat is None or seat.last != number or not seat.digest:
            return None
        row = self._db.execute(
            "SELECT CAST(payload AS BLOB) FROM payloads WHERE device = ? AND task = ? AND round = ?",
            (device, task, number),
        ).fetchone()
        if row is None:
            raise BudgetExceeded("P10", "a round is answered again only while its bytes are kept",
                                 remedy="The device stays out of this round: it never adds noise twice.",
                                 round=number)  # fmt: skip
        if hashlib.sha256(row[0]).hexdigest() != seat.digest:
            raise broken("sealed bytes are what was sealed", round=number)
        return bytes(row[0])


def _reading(db: sqlite3.Connection) -> Reading:
    """The whole file, past every index."""
    if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        raise broken("a device's ledger is a sound database")
    return Reading.of(db.execute(f"SELECT place, {_COLUMNS} FROM entries ORDER BY place"))


def _check_head(db: sqlite3.Connection, head: Path) -> bytes | None:
    """What the head has to become if a crash left it one entry behind; refuses P11 when it is anything but current."""
    rows = db.execute("SELECT place, CAST(line AS BLOB) FROM entries ORDER BY place DESC LIMIT 2").fetchall()
    current, previous = [b"%020d %s\n" % (place, line[:_HASH]) for place, line in rows] + [b""] * (2 - len(rows))
    try:
        found = head.read_bytes()
    except FileNotFoundError:
        found = b""
    if found == current:
        return None
    if found == previous:
        return current
    raise broken("a device's ledger reaches to its acknowledged head", entries=rows[0][0] if rows else 0)


def _tables(db: sqlite3.Connection) -> list[str]:
    return sorted(sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def _head(path: Path) -> Path:
    return path.with_name(path.name + ".head")


@contextmanager
def _reader(path: Path) -> Iterator[sqlite3.Connection]:
    with _explained(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        yield db


@contextmanager
def _held(lock: int) -> Iterator[None]:
    if lock < 0:
        raise sqlite3.ProgrammingError("the ledger was closed")
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Tell a file that was changed from surroundings that do not let it be used."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if speaks_of_damage(error):
            raise broken("a device's ledger is a database that can be read") from error
        raise _unusable(path, str(error)) from error
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from error


def _unusable(path: Path, reason: str) -> RunError:
    remedy = "Nothing was sent. Make room, or let this process read and write the file and the folder around it."
    return RunError("a device's ledger can be used", remedy=remedy, path=str(path), reason=reason)
