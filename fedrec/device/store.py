"""One person's events on disk, and what the device has learnt of them: one SQLite file, which is the person.

Nobody is named in it. Changes are journalled by rollback and synchronised: what a method has acknowledged by returning
survives a killed process and a power cut.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedrec.device.act import Act
from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.history import SCHEMA, History
from fedrec.errors import DataError, RunError
from fedrec.files import Closing

_OURS = 0x66656472  # "fedr": tells this file from other databases
_COLUMNS = "time, kind, item, text, weight, rating"
_PAGE = 10_000  # events that are read at a time
_EMBEDDINGS = 2  # a round repeated after a crash starts from what it started from the first time
_SURROUNDINGS = {  # what the file is not to blame for
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH,
}  # fmt: skip


class Store(Closing):
    """The events of one person. Any number of threads and processes: one changes it at a time.

    Raises `RunError` where the disk does not let the file be used, and `DataError` where the file is not what it was;
    either way nothing that was acknowledged is lost, and no message holds anything of an event.
    """

    def __init__(self, path: Path) -> None:
        """Create the store at `path`, or open the one that is there and bring it up to date."""
        self.path, self._lock = path, RLock()
        with _explained(path):
            with suppress(FileExistsError):  # SQLite would let others read it
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return "Store(contents withheld)"

    def __len__(self) -> int:
        with self._asked() as db:
            return int(db.execute("SELECT count(*) FROM events").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def append(self, acts: Iterable[Act]) -> None:
        """Store all of `acts` or, if anything is wrong, none."""
        rows = [(act.time, int(act.kind), act.item, act.text, act.weight, _or_null(act.rating)) for act in acts]
        with self._changed() as db:
            db.executemany(f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", rows)

    def history(self, rows: Mapping[str, int]) -> History:
        """The events in time order, in the order in which they came where times are equal.

        `rows` says where a catalogue has its items; events about items that it does not have are left out.
        """
        asked = f"SELECT {_COLUMNS} FROM events ORDER BY time, id"
        with self._asked() as db, closing(db.execute(asked)) as found:
            try:
                tables = [_table(page, rows) for page in iter(lambda: found.fetchmany(_PAGE), [])]
            except (ValueError, TypeError):  # Arrow's among them; a column holds what was never stored there
                raise _damaged(self.path) from None
        return History(pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks())

    def forget(self, *, item: str | None = None, before: int | None = None) -> int:
        """Erase events about `item`, those from `before` a time, or those that are both; all if neither is said.

        How many there were. What they said is gone from the file when this returns, and so is all that the device had
        learnt: the local embeddings. If the disk fails in between, the events are gone and the next opening erases
        what is left of them.
        """
        with self._lock:
            with self._changed() as db:
                db.execute("DELETE FROM embeddings")
                db.execute("UPDATE sweep SET forgets = forgets + 1")
                which = "(?1 IS NULL OR item = ?1) AND (?2 IS NULL OR time < ?2)"
                count = _erase(db, which, (item, before))
            self._sweep()
        return count

    def retain(self, *, newest: int, since: int) -> int:
        """Erase events from before `since`, and all but the `newest`; how many there were.

        They are gone as `forget` leaves them gone; the local embeddings stay, and forget in their own time.
        """
        kept = "SELECT id FROM events ORDER BY time DESC, id DESC LIMIT ?2"
        with self._lock:
            with self._changed() as db:
                count = _erase(db, f"time < ?1 OR id NOT IN ({kept})", (since, newest))
            if count:
                self._sweep()
        return count

    @property
    def forgets(self) -> int:
        """How often something was forgotten."""
        with self._asked() as db:
            return int(db.execute("SELECT forgets FROM sweep").fetchone()[0])

    def before(self, task: str, number: int) -> NDArray[np.float32] | None:
        """(dim,) the local embedding with which the device enters round `number` of `task`; None before the first."""
        with self._asked() as db:
            row = db.execute(
                "SELECT value FROM embeddings WHERE task = ? AND round < ? ORDER BY round DESC LIMIT 1", (task, number)
            ).fetchone()
        return None if row is None else np.frombuffer(row[0], "<f4").astype(np.float32)

    def keep(self, task: str, number: int, embedding: NDArray[np.float32], *, forgets: int | None = None) -> None:
        """Remember what round `number` of `task` made, and of earlier rounds the last one.

        Not if it was learnt before the last forgetting: `forgets` is what it was when the history was read.
        """
        with self._changed() as db:
            if forgets not in (None, self.forgets):
                return
            db.execute("DELETE FROM embeddings WHERE task = ? AND round >= ?", (task, number))
            db.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (task, number, embedding.astype("<f4").tobytes()))
            db.execute(
                "DELETE FROM embeddings WHERE task = ?1 AND round NOT IN "
                "(SELECT round FROM embeddings WHERE task = ?1 ORDER BY round DESC LIMIT ?2)", (task, _EMBEDDINGS),
            )  # fmt: skip

    def check(self) -> None:
        """Read the whole file; raises `DataError` where any of it is damaged."""
        with self._asked() as db:
            sound = db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not sound:
            raise _damaged(self.path)

    def _open(self) -> None:
        with self._asked() as db:
            db.execute("PRAGMA journal_mode = TRUNCATE")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA temp_store = MEMORY")  # no text is written anywhere else
            if _number(db, "user_version") != len(MIGRATIONS):
                with self._changed():
                    migrate(db, self.path)
            if _number(db, "application_id") != _OURS:
                raise _damaged(self.path)
            if db.execute("SELECT swept < erased FROM sweep").fetchone() == (1,):
                self._sweep()

    def _sweep(self) -> None:
        """Write the file anew: `secure_delete` alone leaves copies where SQLite has moved rows between pages."""
        with self._asked() as db:
            (erased,) = db.execute("SELECT erased FROM sweep").fetchone()
            db.execute("VACUUM")
            db.execute("UPDATE sweep SET swept = max(swept, ?)", (erased,))  # another process may have erased since

    @contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _explained(self.path):
            yield self._db

    @contextmanager
    def _changed(self) -> Iterator[sqlite3.Connection]:
        """Everything or nothing."""
        with self._asked() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Take the steps of `MIGRATIONS` that the file has not taken yet."""
    taken = _number(db, "user_version")
    if taken > len(MIGRATIONS):
        remedy = "Upgrade fedrec; the events are untouched."
        raise RunError("a store is not newer than the program that opens it", remedy=remedy, path=str(path),
                       version=taken, known=len(MIGRATIONS))  # fmt: skip
    if taken == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
        raise _damaged(path)
    for step in MIGRATIONS[taken:]:
        step(db)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _first(db: sqlite3.Connection) -> None:
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


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first,)


def _erase(db: sqlite3.Connection, which: str, values: tuple[object, ...]) -> int:
    db.execute("UPDATE sweep SET erased = erased + 1")
    return db.execute(f"DELETE FROM events WHERE {which}", values).rowcount


def _table(page: list[tuple[int, int, str, str, float, float | None]], rows: Mapping[str, int]) -> pa.Table:
    known = [row for row in page if not row[2] or row[2] in rows]
    times, kinds, items, texts, weights, ratings = map(list, zip(*known, strict=True)) if known else ([],) * 6
    if not {*kinds} <= {*map(int, Kind)}:
        raise ValueError
    return pa.table(
        {
            "kind": kinds,
            "item": [rows.get(item, NO_ITEM) for item in items],
            "text": texts,
            "weight": weights,
            "rating": [math.nan if rating is None else rating for rating in ratings],
            "time": times,
        },
        schema=SCHEMA,
    )


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _or_null(rating: float) -> float | None:
    return None if math.isnan(rating) else rating


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Tell a file that was damaged from surroundings that do not let it be used."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        foreign = code & 0xFF in _SURROUNDINGS and code != sqlite3.SQLITE_IOERR_SHORT_READ
        if foreign or isinstance(error, sqlite3.ProgrammingError):
            raise _unusable(path, str(error)) from None
        raise _damaged(path) from None
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from None


def _unusable(path: Path, reason: str) -> RunError:
    remedy = "What was stored before is still there. Make room, or let this process read and write the file."
    return RunError("a device's events can be read and stored", remedy=remedy, path=str(path), reason=reason)


def _damaged(path: Path) -> DataError:
    remedy = "It is left as it is. Move it aside and bring back a copy, or start without a history."
    return DataError("a device's events are in a sound file of ours", remedy=remedy, path=str(path))
