"""Who has a seat: client numbers, public keys, nodes and invitations. No names, no addresses."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock

from fedrec.databases import connected, transaction
from fedrec.deploy.invitation import digest, new_secret
from fedrec.errors import DataError, SpecError
from fedrec.files import Closing

_SCHEMA = """
CREATE TABLE seat (
    seat INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, node INTEGER, enrolled REAL NOT NULL, revoked REAL
) STRICT;
CREATE TABLE invitation (
    hash BLOB PRIMARY KEY, expires REAL NOT NULL, seat INTEGER REFERENCES seat, withdrawn INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_VERSION = 1


class Reason(StrEnum):
    """Why an invitation bought no seat: for the operator's log, and for nobody else."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    USED = "used by another key"
    WITHDRAWN = "withdrawn"
    REVOKED = "its seat was revoked"
    FULL = "no seat is free"


class Refused(Exception):  # noqa: N818  (an outcome, not a fault)
    """An invitation bought no seat."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Seat:
    """A seat that was given; a revoked one is never given again. `key` is a compressed point (`identity`)."""

    seat: int
    key: bytes
    node: int | None
    enrolled: float
    revoked: float | None


class Roster(Closing):
    """The database of a site's seats. What it acknowledged survives a crash; several processes may have it open."""

    def __init__(self, path: Path, seats: int) -> None:
        self._seats, self._lock = seats, Lock()
        self._db = connected(path)
        try:
            self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except sqlite3.DatabaseError as error:
            self.close()
            remedy = "Bring roster.sqlite back from a backup together with keys/ and run/."
            raise DataError("the roster is a database", remedy=remedy, path=str(path), reason=str(error)) from None
        except DataError:
            self.close()
            raise

    def _migrate(self) -> None:
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise DataError("the roster is not from a newer fedrec", remedy="Upgrade fedrec.", version=version)
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)

    def issue(self, count: int, *, seconds: float, at: float | None = None) -> list[str]:
        """The secrets of `count` new invitations, good for `seconds`; never more than there are seats for."""
        now, made = _now(at), [new_secret() for _ in range(count)]
        with self._transaction():
            free = self._seats - self._taken() - self._open(now)
            if count > free:
                remedy = (
                    "`fedrec server withdraw` frees what open ones hold. The plan's `clients` is the number of seats."
                )
                raise SpecError("there is a seat for every invitation", remedy=remedy, asked=count, free=free)
            rows = [(digest(secret), now + seconds) for secret in made]
            self._db.executemany("INSERT INTO invitation (hash, expires) VALUES (?, ?)", rows)
        return made

    def withdraw(self) -> int:
        """Withdraw all invitations that nobody used yet; how many there were."""
        with self._transaction():
            return self._db.execute("UPDATE invitation SET withdrawn = 1 WHERE seat IS NULL AND NOT withdrawn").rowcount

    def redeem(self, invitation: bytes, key: bytes, *, at: float | None = None) -> int:
        """The seat that the invitation with this hash buys for `key`; else `Refused`.

        A device that lost the answer asks again with the same key, and gets the same seat.
        """
        now = _now(at)
        with self._transaction():
            row = self._db.execute("SELECT expires, seat, withdrawn FROM invitation WHERE hash = ?", (invitation,))
            expires, bought, withdrawn = row.fetchone() or (None, None, None)
            if expires is None:
                raise Refused(Reason.UNKNOWN)
            mine = self._db.execute("SELECT seat, revoked FROM seat WHERE key = ?", (key,)).fetchone()
            if bought is not None and (mine is None or mine[0] != bought):
                raise Refused(Reason.USED)
            if mine is not None:
                if mine[1] is not None:
                    raise Refused(Reason.REVOKED)
                return int(mine[0])
            if withdrawn or expires < now:
                raise Refused(Reason.WITHDRAWN if withdrawn else Reason.EXPIRED)
            seat = self._lowest_free()
            self._db.execute("INSERT INTO seat (seat, key, enrolled) VALUES (?, ?, ?)", (seat, key, now))
            self._db.execute("UPDATE invitation SET seat = ? WHERE hash = ?", (seat, invitation))
        return seat

    def bind(self, seat: int, node: int) -> None:
        """Note under which node id Flower knows the seat's device."""
        with self._transaction():
            self._db.execute("UPDATE seat SET node = ? WHERE seat = ?", (_signed(node), seat))

    def revoke(self, seat: int, *, at: float | None = None) -> None:
        """Never ask this seat again, and never give it again; its row stays."""
        with self._transaction():
            changed = self._db.execute(
                "UPDATE seat SET revoked = ? WHERE seat = ? AND revoked IS NULL", (_now(at), seat)
            ).rowcount
            if not changed and not self._db.execute("SELECT 1 FROM seat WHERE seat = ?", (seat,)).fetchone():
                raise SpecError("a seat that is revoked was given before", remedy="Look at the roster.", seat=seat)

    def nodes(self) -> dict[int, int]:
        """The node id of every seat that may be asked."""
        with self._lock:
            rows = self._db.execute("SELECT seat, node FROM seat WHERE revoked IS NULL AND node IS NOT NULL")
            return {seat: _unsigned(node) for seat, node in rows}

    def seats(self) -> Sequence[Seat]:
        """Every seat that was ever given, in order."""
        with self._lock:
            rows = self._db.execute("SELECT seat, key, node, enrolled, revoked FROM seat ORDER BY seat").fetchall()
        return [Seat(seat, key, None if node is None else _unsigned(node), *times) for seat, key, node, *times in rows]

    def open_invitations(self, *, at: float | None = None) -> int:
        """How many invitations can still be used."""
        with self._lock:
            return self._open(_now(at))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, transaction(self._db):
            yield

    def _taken(self) -> int:
        (taken,) = self._db.execute("SELECT count(*) FROM seat").fetchone()
        return int(taken)

    def _open(self, now: float) -> int:
        query = "SELECT count(*) FROM invitation WHERE seat IS NULL AND NOT withdrawn AND expires >= ?"
        (count,) = self._db.execute(query, (now,)).fetchone()
        return int(count)

    def _lowest_free(self) -> int:
        # Rows are never deleted, so the seats that were given are 0 … taken - 1.
        if (seat := self._taken()) >= self._seats:
            raise Refused(Reason.FULL)
        return seat


def _now(at: float | None) -> float:
    return time.time() if at is None else at


def _signed(node: int) -> int:
    """SQLite's integers have a sign; Flower's node ids are unsigned 64-bit numbers."""
    return node - 2**64 if node >= 2**63 else node


def _unsigned(node: int) -> int:
    return node + 2**64 if node < 0 else node
