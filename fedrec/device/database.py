"""An SQLite file of ours: changed wholly or not at all, synchronised, and written anew where something was erased.

Changes are journalled by rollback, not by a write-ahead log: whoever cuts a log short silently takes commits back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from fedrec.databases import connected, speaks_of_damage, transaction
from fedrec.errors import DataError, RunError
from fedrec.files import Closing

_OURS = 0x66656472  # "fedr": tells this file from other databases


class Database(Closing):
    """The file at `path`, made if it is not there and brought up to date. Any number of threads and processes.

    Raises `RunError` where the disk does not let the file be used, and `DataError` where the file is not what it was.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.held = path, RLock()
        with _explained(path):
            self._db = connected(path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self.held:
            self._db.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file as it is at one moment."""
        with self._bare() as db:
            if db.in_transaction:
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Everything or nothing: on disk when this ends, or as it was if it raises."""
        with self._bare() as db, transaction(db):
            yield db

    def sweep(self) -> None:
        """Write the file anew: `secure_delete` alone leaves copies where SQLite has moved rows between pages.

        An erasure counts itself in `sweep.erased`; where a crash prevents its sweep, the next opening makes it.
        """
        with self._bare() as db:
            (erased,) = db.execute("SELECT erased FROM sweep").fetchone()
            db.execute("VACUUM")
            db.execute("UPDATE sweep SET swept = max(swept, ?)", (erased,))  # another process may have erased since

    def check(self) -> None:
        """Read the whole file; raises `DataError` where any of it is damaged."""
        with self._bare() as db:
            sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not sound:
            raise damaged(self.path)

    def version(self) -> int:
        """Another number whenever another opening of the file has changed it."""
        with self._bare() as db:
            return _number(db, "data_version")

    def _open(self) -> None:
        with self._bare() as db:
            db.execute("PRAGMA journal_mode = TRUNCATE")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA temp_store = MEMORY")  # no text is written anywhere else
            taken = _number(db, "user_version")
            if taken and _number(db, "application_id") != _OURS:
                raise damaged(self.path)
            if taken != len(MIGRATIONS):
                with self.changing():
                    migrate(db, self.path)
            if db.execute("SELECT swept < erased FROM sweep").fetchone() == (1,):
                self.sweep()

    @contextmanager
    def _bare(self) -> Iterator[sqlite3.Connection]:
        with self.held, _explained(self.path):
            yield self._db


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Take the steps of `MIGRATIONS` that the file has not taken yet."""
    taken = _number(db, "user_version")
    if taken > len(MIGRATIONS):
        remedy = "Upgrade fedrec; the events are untouched."
        raise RunError("a store is not newer than the program that opens it", remedy=remedy, path=str(path),
                       version=taken, known=len(MIGRATIONS))  # fmt: skip
    if taken == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
        raise damaged(path)
    for step in MIGRATIONS[taken:]:
        step(db)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _events(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {_OURS}")
    db.execute(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind INTEGER NOT NULL, "
        "item TEXT NOT NULL, text TEXT NOT NULL, weight REAL NOT NULL, rating REAL)"
    )
    db.execute("CREATE INDEX events_by_time ON events (time, id)")
    db.execute(
        "CREATE TABLE embeddings (task TEXT NOT NULL, round INTEGER NOT NULL, value BLOB NOT NULL, "
        "PRIMARY KEY (task, round))"
    )
    db.execute("CREATE TABLE sweep (erased INTEGER NOT NULL, swept INTEGER NOT NULL, forgets INTEGER NOT NULL)")
    db.execute("INSERT INTO sweep VALUES (0, 0, 0)")


def _wishes(db: sqlite3.Connection) -> None:
    """One sequence numbers events and preferences, and gives no number twice."""
    db.execute("CREATE TABLE sequence (last INTEGER NOT NULL)")
    db.execute("INSERT INTO sequence SELECT coalesce(max(id), 0) FROM events")
    for name in ("preferences", "pages"):
        db.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, content BLOB NOT NULL)")
    db.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
    db.execute("CREATE TABLE seal (proof BLOB NOT NULL)")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_events, _wishes)


def damaged(path: Path) -> DataError:
    """The error of a file that is not what it was."""
    remedy = "It is left as it is. Move it aside and bring back a copy, or start without a history."
    return DataError("a device's events are in a sound file of ours", remedy=remedy, path=str(path))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Tell a file that was damaged from surroundings that do not let it be used."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if speaks_of_damage(error):
            raise damaged(path) from None
        raise _unusable(path, str(error)) from None
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from None


def _unusable(path: Path, reason: str) -> RunError:
    remedy = "What was stored before is still there. Make room, or let this process read and write the file."
    return RunError("a device's events can be read and stored", remedy=remedy, path=str(path), reason=reason)


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])
