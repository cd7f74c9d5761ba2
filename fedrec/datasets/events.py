"""Raw columns → private histories. What cannot be used is left out, counted and reported, never guessed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedrec.datasets.columns import filled, flags, numbers, seconds, words
from fedrec.datasets.files import Source
from fedrec.datasets.notes import EXAMPLES, Notes, Place, showable
from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.history import SCHEMA
from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.population.source import Population

DAY = 86_400

NO_USER = "events skipped, the user id is empty"
UNKNOWN_KIND = f"events skipped, the kind is none of {', '.join(kind.name.lower() for kind in Kind)}"
UNKNOWN_ITEM = "events skipped, the item is not in the catalogue"
NOTHING = "events skipped, there is neither an item nor a text"
BAD_RATING = "events skipped, the rating is missing, not a number, or outside its scale"
BAD_WEIGHT = "events skipped, the weight is not a number ≥ 0"
BAD_TIME = "events skipped, the time is missing or cannot be read (Unix seconds or ISO 8601)"
FUTURE = "events skipped, the time is in the future (are these milliseconds?)"
REASONS = (NO_USER, UNKNOWN_KIND, UNKNOWN_ITEM, NOTHING, BAD_RATING, BAD_WEIGHT, BAD_TIME, FUTURE)  # first one counts

UNTIMED = "events without a time column, kept in file order"
ONE_EVENT = "clients kept with one event, cannot be evaluated: no history before the held-out item"

Bad = tuple[str, str, NDArray[np.bool_]]  # (reason, column, which rows)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source's columns become events.

    `columns` maps `user item kind text weight rating time` to the source's own names; what it leaves out has a
    default. Ratings on `scale` become (r − low) / (high − low). Events later than `now` + 1 day are not believed.
    """

    source: Source
    columns: Mapping[str, str]
    kind: Kind = Kind.RATE
    scale: tuple[float, float] = (1.0, 5.0)
    now: float = field(default_factory=time.time)


def histories(batches: Iterable[pa.Table], reading: Reading, catalogue: Catalogue) -> tuple[Population, Notes]:
    """The usable events of `batches`, by person in order of first appearance, and what was left out.

    Memory: the events kept, plus one batch.
    """
    ids = pa.array(catalogue.ids, pa.string())
    people: dict[str, int] = {}
    owners, tables, notes, start = [np.zeros(0, np.int64)], [SCHEMA.empty_table()], Notes(), 0
    for batch in batches:
        events, bad = _events(batch, reading, ids)
        keep, skipped = _sift(batch, reading, bad, start)
        tables.append(events.filter(pa.array(keep)))
        owners.append(_owners(batch.column(reading.columns["user"]).filter(pa.array(keep)), people))
        notes, start = notes + skipped, start + len(batch)
    # In the order of the checks, not of appearance: that would depend on the size of the batches.
    notes = Notes(tuple(sorted(notes.entries, key=lambda note: REASONS.index(note.reason))))
    notes = notes.located(reading.source.rows)
    if not people:
        remedy = "Repair the rows, or name other columns."
        file, why = reading.source.name, notes.lines()
        raise DataError("no event in the file can be used", remedy=remedy, file=file, rows=start, why=why)
    if "time" not in reading.columns:
        notes += Notes.of(UNTIMED, sum(map(len, owners)))
    population = Population.from_columns(np.concatenate(owners), pa.concat_tables(tables), tuple(people))
    return population, notes + Notes.of(ONE_EVENT, int((np.diff(population.offsets) == 1).sum()))


def _events(batch: pa.Table, reading: Reading, ids: pa.Array) -> tuple[pa.Table, list[Bad]]:
    """Columns of `SCHEMA` for every row, and what is wrong with which rows."""
    columns, rows = reading.columns, len(batch)

    def given(name: str, default: object) -> pa.ChunkedArray:
        return batch.column(columns[name]) if name in columns else pa.chunked_array([pa.repeat(default, rows)])

    names = pa.array([kind.name.lower() for kind in Kind])
    kinds = pc.index_in(pc.utf8_lower(words(given("kind", reading.kind.name))), names)
    labels, texts = words(given("item", "")), given("text", "").cast(pa.large_string()).fill_null("")
    items = pc.index_in(labels, ids)
    unlabelled = flags(pc.equal(labels, ""))
    ratings, rated = numbers(given("rating", ""))
    weights, weighted = numbers(given("weight", 1.0))
    times = seconds(given("time", 0))
    low, high = reading.scale
    kind = filled(kinds, -1).astype(np.int8)
    bad: list[Bad] = [
        (NO_USER, "user", flags(pc.equal(words(given("user", "")), ""))),
        (UNKNOWN_KIND, "kind", kind < 0),
        (UNKNOWN_ITEM, "item", flags(pc.is_null(items)) & ~unlabelled),
        (NOTHING, "item", unlabelled & flags(pc.equal(pc.utf8_trim_whitespace(texts), ""))),
        (BAD_RATING, "rating", (rated | (kind == Kind.RATE)) & ~((ratings >= low) & (ratings <= high))),
        (BAD_WEIGHT, "weight", weighted & ~((weights >= 0) & np.isfinite(weights))),
        (BAD_TIME, "time", ~np.isfinite(times)),
        (FUTURE, "time", times > reading.now + DAY),
    ]
    usable = {
        "kind": kind,
        "item": filled(items, NO_ITEM),
        "text": texts,
        "weight": np.where(weighted, weights, 1.0).astype(np.float32),
        "rating": ((ratings - low) / (high - low)).astype(np.float32),
        "time": np.where(np.abs(times) < 1e15, times, 0).astype(np.int64),
    }
    return pa.table(usable, schema=SCHEMA), bad


def _sift(batch: pa.Table, reading: Reading, bad: Sequence[Bad], start: int) -> tuple[NDArray[np.bool_], Notes]:
    """Which rows to keep, and why not the others; a row counts once, under the first reason that applies."""
    keep, notes = np.ones(len(batch), bool), Notes()
    for reason, name, rows in bad:
        found = np.flatnonzero(rows & keep)
        column = reading.columns.get(name, name)
        places = (
            Place(reading.source.name, start + int(row), column, showable(batch.column(column)[int(row)].as_py()))
            for row in found[:EXAMPLES]
            if column in batch.column_names
        )
        notes += Notes.of(reason, len(found), places)
        keep[found] = False
    return keep, notes


def _owners(users: pa.ChunkedArray, people: dict[str, int]) -> NDArray[np.int64]:
    """Each row's position in `people`, which grows by those seen for the first time."""
    encoded = words(users).combine_chunks().dictionary_encode()
    codes = np.array([people.setdefault(name, len(people)) for name in encoded.dictionary.to_pylist()], np.int64)
    owners: NDArray[np.int64] = codes[encoded.indices.to_numpy()]
    return owners
