"""One person's events on disk, what they said they like, and what the device has learnt of them: one SQLite file.

The file is the person; nobody is named in it. What a method has acknowledged by returning survives a killed process
and a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.device import contents
from fedrec.device.act import Act
from fedrec.device.cells import Cells, Sealed, WrongKey, opened, proof
from fedrec.device.contents import Columns, Contents, Learnt, Shown
from fedrec.device.database import Database, damaged
from fedrec.device.forgetting import CHANGES, HOLDINGS, Which, erase, erase_everything
from fedrec.embed.preference import Preference
from fedrec.errors import RunError, require
from fedrec.files import Closing

__all__ = ["Columns", "Store"]

_EMBEDDINGS = 2  # a round repeated after a crash starts from what it started from the first time
_SURPLUS = "SELECT id FROM pages ORDER BY id DESC LIMIT 1 OFFSET 1000"
_EMPTY = " AND ".join(f"NOT EXISTS (SELECT 1 FROM {table})" for table in HOLDINGS)


class Store(Closing):
    """The events of one person. Any number of threads and processes: one changes it at a time.

    With a `key`, 32 random bytes of the app, a new file is sealed; see `fedrec.device.cells`. Raises `WrongKey` where
    the key does not fit, `RunError` where the disk does not let the file be used, and `DataError` where the file is
    not what it was; either way nothing that was acknowledged is lost, and no message holds anything of an event.
    """

    def __init__(self, path: Path, *, key: bytes | None = None) -> None:
        """Create the store at `path`, or open the one that is there and bring it up to date."""
        sealed = None if key is None else Sealed(key)
        self.path, self._file = path, Database(path)
        try:
            self._proof = self._found(sealed)
            self._cells: Cells = opened(sealed, self._proof)
        except ValueError:
            self.close()
            raise damaged(path) from None
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return "Store(contents withheld)"

    def __len__(self) -> int:
        with self._file.reading() as db:
            return int(db.execute("SELECT count(*) FROM events").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def append(self, acts: Iterable[Act], *, pages: Iterable[Shown] = (), forgets: int | None = None) -> list[int]:
        """Store all of `acts` or, if anything is wrong, none. Their ids, which are never given again.

        In the same breath `pages` that were shown before, under ids of their own, of which the newest thousand are
        kept; none if something was forgotten since then: `forgets` is what it was when they were shown.
        """
        given = list(acts)
        with self._changing() as db:
            ids = _numbers(db, len(given))
            contents.add_events(db, self._cells, zip(ids, given, strict=True))
            for page in pages if forgets in (None, self.forgets) else ():
                contents.add_page(db, self._cells, page)
            db.execute(f"DELETE FROM pages WHERE id <= ({_SURPLUS})")
        return list(ids)

    def columns(self) -> Columns:
        """The events in time order, in the order in which they came where times are equal."""
        with self._reading() as db:
            return contents.events(db, self._cells)

    def forget(
        self, *, item: str | None = None, before: int | None = None, ids: Collection[int] | None = None,
        everything: bool = False,
    ) -> int:  # fmt: skip
        """Erase what is about `item`, from `before` a time, one of `ids`, or all that at once; or `everything`.

        That is events, preferences and pages: a page also goes that shows `item`, or an item of an event in `ids`. How
        many events and preferences there were. What they said is gone from the file when this returns, and so is all
        that the device had learnt: the local embeddings. If the disk fails in between, they are gone and the next
        opening erases what is left of them. Settings, which say nothing of a person's taste, stay.
        """
        said = (item, before, ids) != (None, None, None)
        require(said is not everything, "what to forget is said", remedy="Name it, or say everything=True.")
        if item is not None:
            contents.encoded(item)
        with self._file.held:
            with self._changing() as db:
                db.execute("DELETE FROM embeddings")
                db.execute("UPDATE sweep SET erased = erased + 1, forgets = forgets + 1")
                count = erase_everything(db) if everything else erase(db, self._cells, Which(item, before, ids))
            self._file.sweep()
        return count

    def retain(self, *, newest: int, since: int) -> int:
        """Erase events and pages from before `since`, and all but the `newest` events; how many events there were.

        They are gone as `forget` leaves them gone; the local embeddings stay, and forget in their own time.
        Preferences stay until they are taken back.
        """
        kept = "SELECT id FROM events ORDER BY time DESC, id DESC LIMIT ?2"
        with self._file.held:
            with self._changing() as db:
                count = db.execute(
                    f"DELETE FROM events WHERE time < ?1 OR id NOT IN ({kept})", (since, newest)
                ).rowcount
                gone = count + db.execute("DELETE FROM pages WHERE time < ?", (since,)).rowcount
                db.execute("UPDATE sweep SET erased = erased + ?", (gone > 0,))
            if gone:
                self._file.sweep()
        return count

    def prefer(self, preference: Preference) -> int:
        """Store what the person said; its id, from the same sequence as those of events."""
        with self._changing() as db:
            (number,) = _numbers(db, 1)
            contents.add_preference(db, self._cells, number, preference)
        return number

    def preferences(self) -> list[tuple[int, Preference]]:
        """What the person said, with its ids, in the order in which it came."""
        with self._reading() as db:
            return contents.preferences(db, self._cells)

    def pages(self, *, newest: int) -> list[tuple[int, tuple[str, ...]]]:
        """The last pages that were shown, with their ids, the newest first."""
        with self._reading() as db:
            return [(page.id, page.items) for page in contents.pages(db, self._cells, newest)]

    def undo(self, change: int) -> bool:
        """Erase the event or the preference with this id, as `forget` does; False if there is none."""
        with self._file.held:
            with self._file.reading() as db:
                found = db.execute(f"SELECT ? IN ({CHANGES})", (change,)).fetchone() == (1,)
            return found and self.forget(ids=[change]) > 0

    def last_change(self) -> int:
        """The id of the newest event or preference that is there, 0 if there is none."""
        with self._file.reading() as db:
            return int(db.execute(f"SELECT coalesce(max(id), 0) FROM ({CHANGES})").fetchone()[0])

    def setting(self, name: str) -> str | None:
        """What was last `set` under this name."""
        with self._reading() as db:
            return contents.setting(db, self._cells, name)

    def set(self, name: str, value: str | None) -> None:
        """Store a small text of the app, or take it away; no forgetting does."""
        with self._changing() as db:
            if value is None:
                db.execute("DELETE FROM settings WHERE name = ?", (name,))
            else:
                contents.put_setting(db, self._cells, name, value)

    @property
    def forgets(self) -> int:
        """How often something was forgotten."""
        with self._file.reading() as db:
            return int(db.execute("SELECT forgets FROM sweep").fetchone()[0])

    @property
    def version(self) -> int:
        """Another number whenever anybody else, a process or another `Store`, has changed the file."""
        return self._file.version()

    def before(self, task: str, number: int) -> NDArray[np.float32] | None:
        """(dim,) the local embedding with which the device enters round `number` of `task`; None before the first."""
        with self._reading() as db:
            value = contents.embedding(db, self._cells, task, number)
            return None if value is None else np.frombuffer(value, "<f4").astype(np.float32)

    def keep(self, task: str, number: int, embedding: NDArray[np.float32], *, forgets: int | None = None) -> None:
        """Remember what round `number` of `task` made, and of earlier rounds the last one.

        Not if it was learnt before the last forgetting: `forgets` is what it was when the history was read.
        """
        with self._changing() as db:
            if forgets not in (None, self.forgets):
                return
            db.execute("DELETE FROM embeddings WHERE task = ? AND round >= ?", (task, number))
            contents.add_embedding(db, self._cells, Learnt(task, number, embedding.astype("<f4").tobytes()))
            db.execute(
                "DELETE FROM embeddings WHERE task = ?1 AND round NOT IN "
                "(SELECT round FROM embeddings WHERE task = ?1 ORDER BY round DESC LIMIT ?2)", (task, _EMBEDDINGS),
            )  # fmt: skip

    def check(self) -> None:
        """Read the whole file; raises `DataError` where any of it is damaged."""
        self._file.check()
        self.contents()

    def contents(self) -> Contents:
        """All that the store holds, at one moment."""
        with self._reading() as db:
            return contents.read(db, self._cells)

    def fill(self, held: Contents) -> None:
        """Store all that another store held, under the same ids. Only into a store that holds nothing but settings.

        Its settings stay as they are: a copy brings back no consent that was withdrawn.
        """
        with self._changing() as db:
            if db.execute(f"SELECT {_EMPTY}").fetchone() != (1,):
                remedy = "Bring it back into a new store, or forget everything first."
                raise RunError("a copy is brought back into an empty store", remedy=remedy, path=str(self.path))
            contents.write(db, self._cells, held)

    def seal(self, key: bytes) -> None:
        """Seal a store that is not: from now on it is opened with `key`, and none of it is legible in the file."""
        sealed = Sealed(key)
        with self._file.held:
            with self._changing() as db:
                if self._proof is not None:
                    raise WrongKey("a store is sealed once", remedy="It is sealed already. Open it with its key.")
                held = contents.read(db, self._cells)
                for table in (*HOLDINGS, "settings"):
                    db.execute(f"DELETE FROM {table}")
                contents.write(db, sealed, held)
                fresh = _marked(db, sealed)
                db.execute("UPDATE sweep SET erased = erased + 1")
            self._cells, self._proof = sealed, fresh
            self._file.sweep()

    def _found(self, sealed: Sealed | None) -> bytes | None:
        """The proof of its key that the file keeps. A file that never held anything is sealed by the first key."""
        with self._file.reading() as db:
            found = _proof(db)
        if found is not None or sealed is None:
            return found
        with self._file.changing() as db:
            unused = f"SELECT last = 0 AND NOT EXISTS (SELECT 1 FROM settings) AND {_EMPTY} FROM sequence"
            if _proof(db) is None and db.execute(unused).fetchone() == (1,):
                return _marked(db, sealed)
            return _proof(db)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._file.reading() as db, self._sound(db):
            yield db

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._file.changing() as db, self._sound(db):
            yield db

    @contextmanager
    def _sound(self, db: sqlite3.Connection) -> Iterator[None]:
        """Read and write cells only as the file has them, which another process may have sealed meanwhile."""
        if _proof(db) != self._proof:
            raise WrongKey("a store is as it was when it was opened", remedy="It was sealed. Open it with its key.")
        try:
            yield
        except (ValueError, TypeError):  # a cell holds what was never stored there
            raise damaged(self.path) from None


def _numbers(db: sqlite3.Connection, count: int) -> range:
    """Fresh ids."""
    (last,) = db.execute("SELECT last FROM sequence").fetchone()
    db.execute("UPDATE sequence SET last = ?", (last + count,))
    return range(last + 1, last + 1 + count)


def _proof(db: sqlite3.Connection) -> bytes | None:
    found = db.execute("SELECT proof FROM seal").fetchone()
    return None if found is None else found[0]


def _marked(db: sqlite3.Connection, sealed: Sealed) -> bytes:
    """Write down the proof of the key that the file is sealed with."""
    kept = proof(sealed)
    db.execute("INSERT INTO seal VALUES (?)", (kept,))
    return kept
