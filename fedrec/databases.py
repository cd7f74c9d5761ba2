"""SQLite files of ours: readable by their owner alone, changed wholly or not at all, and not blamed for their disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE = 30.0  # seconds that one process waits for another's transaction
_SURROUNDINGS = {  # what the file is not to blame for
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH,
}  # fmt: skip


def connected(path: Path) -> sqlite3.Connection:
    """The database at `path`, made if it is not there. Statements commit by themselves outside of `transaction`."""
    with suppress(FileExistsError):  # SQLite would let others read it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE, check_same_thread=False)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything or nothing: committed when this ends, or as it was if it raises. One process at a time."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def speaks_of_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is not what it was; else its surroundings do not let it be used, or it was closed."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    foreign = code & 0xFF in _SURROUNDINGS and code != sqlite3.SQLITE_IOERR_SHORT_READ
    return not foreign and not isinstance(error, sqlite3.ProgrammingError)
