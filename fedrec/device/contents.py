"""What a person's store holds, and how it goes into the tables of the file and comes back out of them.

Whatever a table cannot have been given by these functions is a `ValueError` or a `TypeError` when it is read.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.device.act import Act
from fedrec.device.cells import Cells
from fedrec.device.event import Kind
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.errors import DataError

_COLUMNS = "id, time, kind, item, text, weight, rating"
_PAGE = 10_000  # events that are read at a time
_KINDS = {*map(int, Kind)}
_TIMES = 2**63
_Row = tuple[int, int, int, str, str, float, float]


@dataclass(frozen=True, eq=False)
class Columns:
    """Events in time order, in the order in which they came where times are equal."""

    ids: NDArray[np.int64]
    kinds: NDArray[np.int8]
    times: NDArray[np.int64]
    weights: NDArray[np.float32]
    ratings: NDArray[np.float32]  # NaN: none
    items: tuple[str, ...]  # "": none
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Columns({len(self)} events, contents withheld)"

    @classmethod
    def of(cls, acts: Iterable[tuple[int, Act]]) -> Columns:
        """The columns of acts with their ids."""
        rows = sorted(acts, key=lambda pair: (pair[1].time, pair[0]))
        return _page([
            (number, act.time, int(act.kind), act.item, act.text, act.weight, act.rating) for number, act in rows
        ])  # fmt: skip

    def acts(self) -> Iterator[tuple[int, Act]]:
        """The events one by one, with their ids."""
        numbers = (column.tolist() for column in (self.ids, self.kinds, self.times, self.weights, self.ratings))
        for number, kind, time, weight, rating, item, text in zip(*numbers, self.items, self.texts, strict=True):
            yield (
                number,
                Act(kind=Kind(kind), item=item, text=text, weight=weight, rating=rating, time=time),
            )


@dataclass(frozen=True)
class Shown:
    """A page of recommendations that the person has seen: the ids of its items, in their order."""

    id: int
    time: int
    items: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Shown({len(self.items)} items, contents withheld)"


@dataclass(frozen=True)
class Learnt:
    """The local embedding, as little-endian single precision, after a round of a task."""

    task: str
    round: int
    value: bytes

    def __repr__(self) -> str:
        return f"Learnt(round {self.round}, contents withheld)"


@dataclass(frozen=True, eq=False)
class Contents:
    """All that a store holds. `last` is the last id that it gave, `forgets` how often something was forgotten."""

    events: Columns
    preferences: tuple[tuple[int, Preference], ...]
    pages: tuple[Shown, ...]
    embeddings: tuple[Learnt, ...]
    settings: dict[str, str]
    last: int
    forgets: int

    def __repr__(self) -> str:
        return "Contents(withheld)"


def read(db: sqlite3.Connection, cells: Cells) -> Contents:
    """Everything."""
    learnt = db.execute("SELECT task, round, value FROM embeddings ORDER BY task, round")
    names = [name for (name,) in db.execute("SELECT name FROM settings ORDER BY name")]
    last, forgets = db.execute("SELECT (SELECT last FROM sequence), (SELECT forgets FROM sweep)").fetchone()
    return Contents(
        events=events(db, cells),
        preferences=tuple(preferences(db, cells)),
        pages=tuple(pages(db, cells)),
        embeddings=tuple(Learnt(task, number, cells.open(_of(task, number), value)) for task, number, value in learnt),
        settings={name: str(setting(db, cells, name)) for name in names},
        last=last,
        forgets=forgets,
    )


def write(db: sqlite3.Connection, cells: Cells, contents: Contents) -> None:
    """Everything, into tables that hold nothing; settings that are there stay as they are."""
    add_events(db, cells, contents.events.acts())
    for number, preference in contents.preferences:
        add_preference(db, cells, number, preference)
    for page in contents.pages:
        add_page(db, cells, page)
    for learnt in contents.embeddings:
        add_embedding(db, cells, learnt)
    for name, value in contents.settings.items():
        if setting(db, cells, name) is None:
            put_setting(db, cells, name, value)
    db.execute("UPDATE sequence SET last = max(last, ?)", (contents.last,))
    db.execute("UPDATE sweep SET forgets = max(forgets, ?)", (contents.forgets,))


def events(db: sqlite3.Connection, cells: Cells, which: str = "TRUE", values: tuple[object, ...] = ()) -> Columns:
    """Events, or those of which the condition `which` holds."""
    asked = f"SELECT {_COLUMNS} FROM events WHERE {which} ORDER BY time, id"
    with closing(db.execute(asked, values)) as found:
        pages = iter(lambda: found.fetchmany(_PAGE), [])
        return _joined([_page([_event(cells, row) for row in rows]) for rows in pages])


def add_events(db: sqlite3.Connection, cells: Cells, acts: Iterable[tuple[int, Act]]) -> None:
    """Store acts under their ids."""
    db.executemany(
        f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (number, act.time, int(act.kind), *cells.pair(f"event {number}", act.item, act.text), act.weight,
             None if math.isnan(act.rating) else act.rating)
            for number, act in acts
        ),
    )  # fmt: skip


def preferences(db: sqlite3.Connection, cells: Cells) -> list[tuple[int, Preference]]:
    """Preferences with their ids, in the order in which they came."""
    rows = db.execute("SELECT id, time, content FROM preferences ORDER BY id").fetchall()
    return [(number, _preference(time, cells.open(f"preference {number}", cell))) for number, time, cell in rows]


def add_preference(db: sqlite3.Connection, cells: Cells, number: int, preference: Preference) -> None:
    """Store a preference under its id."""
    said = [int(preference.polarity), str(preference.scope), preference.about, preference.said]
    cell = cells.seal(f"preference {number}", encoded(json.dumps(said, ensure_ascii=False)))
    db.execute("INSERT INTO preferences VALUES (?, ?, ?)", (number, timely(preference.time), cell))


def pages(db: sqlite3.Connection, cells: Cells, newest: int = -1) -> list[Shown]:
    """The `newest` pages, or all: the newest first."""
    rows = db.execute("SELECT id, time, content FROM pages ORDER BY id DESC LIMIT ?", (newest,)).fetchall()
    return [Shown(number, time, _items(cells.open(f"page {number}", cell))) for number, time, cell in rows]


def add_page(db: sqlite3.Connection, cells: Cells, page: Shown) -> None:
    """Store a page under its id."""
    cell = cells.seal(f"page {page.id}", encoded(json.dumps(page.items, ensure_ascii=False)))
    db.execute("INSERT INTO pages VALUES (?, ?, ?)", (page.id, timely(page.time), cell))


def embedding(db: sqlite3.Connection, cells: Cells, task: str, before: int) -> bytes | None:
    """The last embedding from before a round."""
    row = db.execute(
        "SELECT round, value FROM embeddings WHERE task = ? AND round < ? ORDER BY round DESC LIMIT 1", (task, before)
    ).fetchone()
    return None if row is None else cells.open(_of(task, row[0]), row[1])


def add_embedding(db: sqlite3.Connection, cells: Cells, learnt: Learnt) -> None:
    """Store the embedding of a round."""
    value = cells.seal(_of(learnt.task, learnt.round), learnt.value)
    db.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (learnt.task, learnt.round, value))


def setting(db: sqlite3.Connection, cells: Cells, name: str) -> str | None:
    """A setting's value."""
    row = db.execute("SELECT content FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else cells.open(f"setting {name}", row[0]).decode()


def put_setting(db: sqlite3.Connection, cells: Cells, name: str, value: str) -> None:
    """Store a setting in the place of the one that is there."""
    encoded(name)
    db.execute("REPLACE INTO settings VALUES (?, ?)", (name, cells.seal(f"setting {name}", encoded(value))))


def encoded(text: str) -> bytes:
    """A text in UTF-8; a `DataError` where there is no such thing."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise DataError("ids and texts are made of characters", remedy="Nothing was stored.") from None


def timely(time: int) -> int:
    """A time that the file can hold; a `DataError` for another."""
    if not -_TIMES <= time < _TIMES:
        raise DataError("a time is in Unix seconds", remedy="Nothing was stored.")
    return time


def _event(cells: Cells, row: tuple[Any, ...]) -> _Row:
    number, time, kind, mark, cell, weight, rating = row
    if kind not in _KINDS or not isinstance(time, int):
        raise ValueError("an event has a kind and a time")
    item, text = cells.parted(f"event {number}", mark, cell)
    return number, time, kind, item, text, weight, math.nan if rating is None else rating


def _page(rows: list[_Row]) -> Columns:
    ids, times, kinds, items, texts, weights, ratings = zip(*rows, strict=True) if rows else ((),) * 7
    return Columns(
        ids=np.array(ids, np.int64),
        kinds=np.array(kinds, np.int8),
        times=np.array(times, np.int64),
        weights=np.array(weights, np.float32),
        ratings=np.array(ratings, np.float32),
        items=items,
        texts=texts,
    )


def _joined(pages: list[Columns]) -> Columns:
    pages = pages or [_page([])]
    return Columns(
        ids=np.concatenate([page.ids for page in pages]),
        kinds=np.concatenate([page.kinds for page in pages]),
        times=np.concatenate([page.times for page in pages]),
        weights=np.concatenate([page.weights for page in pages]),
        ratings=np.concatenate([page.ratings for page in pages]),
        items=tuple(chain.from_iterable(page.items for page in pages)),
        texts=tuple(chain.from_iterable(page.texts for page in pages)),
    )


def _preference(time: object, content: bytes) -> Preference:
    polarity, scope, about, said = json.loads(content)
    if not (isinstance(time, int) and isinstance(about, str) and isinstance(said, str)):
        raise ValueError("a preference is about something and has a time")
    return Preference(polarity=Polarity(polarity), scope=Scope(scope), about=about, said=said, time=time)


def _items(content: bytes) -> tuple[str, ...]:
    items = json.loads(content)
    if not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
        raise ValueError("a page is a list of ids")
    return tuple(items)


def _of(task: str, number: int) -> str:
    return f"embedding {number} {task}"
