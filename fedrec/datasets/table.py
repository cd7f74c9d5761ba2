"""Any events and items in CSV, TSV, Parquet or pandas, by a mapping of columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from fedrec.datasets.dataset import Dataset
from fedrec.datasets.events import REASONS, Reading, histories
from fedrec.datasets.files import (
    CSV,
    TSV,
    Source,
    batches,
    demand,
    frame_source,
    header,
    json_lines,
    parquet,
    parquet_columns,
    text_source,
)
from fedrec.device.event import Kind
from fedrec.device.history import History
from fedrec.errors import DataError, SpecError, require
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import ItemColumns, catalogue_of, read_catalogue

if TYPE_CHECKING:
    import pandas as pd

EVENT_COLUMNS = ("user", "item", "time", "kind", "text", "rating", "weight")
OPTIONS = (*EVENT_COLUMNS, "item_id", "item_text", "item_tags", "features", "rating_scale")
_ONESELF = "\0oneself"  # a column that no file has
UNMAPPED: Mapping[str, str] = {}


def table(path: Path, items: Path, columns: Mapping[str, str] = UNMAPPED) -> Dataset:
    """Events in `path` (CSV, TSV or Parquet), items in `items` (these, or JSON lines).

    `columns` maps names of `OPTIONS` to the files' own; a column that already has our name need not be mapped.
    `features=PREFIX` picks dense item columns. `rating_scale=LOW:HIGH` (default 1:5) is the public range of ratings;
    it is never taken from the data, which is private.
    """
    _only_known(columns)
    catalogue = _tagged(read_catalogue(items, _item_columns(columns)))
    names, events, source = _open(path)
    return Dataset("table", catalogue, *histories(events, _reading(names, columns, source), catalogue))


def from_frames(events: pd.DataFrame, items: pd.DataFrame, columns: Mapping[str, str] = UNMAPPED) -> Dataset:
    """`table` for two pandas frames; row 1 is a frame's first row, whatever its index says."""
    _only_known(columns)
    arrow = _arrow(events, "events")
    catalogue = _tagged(catalogue_of(_arrow(items, "items"), frame_source("items"), _item_columns(columns)))
    reading = _reading(arrow.column_names, columns, frame_source("events"))
    return Dataset("table", catalogue, *histories([arrow], reading, catalogue))


def person(path: Path, catalogue: Catalogue, *, rating_scale: str = "1:5") -> History:
    """One person's own events in `path` (CSV, TSV, JSON lines or Parquet), in time order.

    Columns: `time`, and any of `kind item text rating weight`. All or nothing: one row that cannot be used is a
    `DataError`.
    """
    names, events, source = _json_lines(path) if path.suffix == ".jsonl" else _open(path)
    demand(["time"], names, source.name)
    if "user" in names:
        remedy = "Take one person's events, without the column."
        raise DataError("a file of one person's events names nobody", remedy=remedy, file=source.name, column="user")
    reading = _reading([*names, _ONESELF], {"user": _ONESELF, "rating_scale": rating_scale}, source)
    own = (batch.append_column(_ONESELF, pa.array(["oneself"] * len(batch), pa.string())) for batch in events)
    population, notes = histories(own, reading, catalogue)
    wrong = [str(note) for note in notes.entries if note.reason in REASONS]
    if wrong:
        remedy = "Repair or remove these rows; nothing was stored."
        raise DataError("every event of the file can be used", remedy=remedy, file=source.name, why=wrong)
    return population[0]


def _only_known(columns: Mapping[str, str]) -> None:
    unknown = sorted(set(columns) - set(OPTIONS))
    require(not unknown, f"a table's column options are {', '.join(OPTIONS)}", unknown=unknown)


def _open(path: Path) -> tuple[list[str], Iterable[pa.Table], Source]:
    match path.suffix:
        case ".csv":
            return header(path, CSV), batches(path, CSV), text_source(path, CSV)
        case ".tsv":
            return header(path, TSV), batches(path, TSV), text_source(path, TSV)
        case ".parquet":
            return parquet_columns(path), parquet(path), frame_source(path.name)
    raise SpecError("a table of events is a .csv, .tsv or .parquet file", path=str(path))


def _json_lines(path: Path) -> tuple[list[str], Iterable[pa.Table], Source]:
    """As text columns, which hold what JSON has under these names; the rows are the lines of the file."""
    lines = list(json_lines(path))
    names = [name for name in EVENT_COLUMNS if any(name in found for _, found in lines)]
    table = pa.table({name: _written(found.get(name) for _, found in lines) for name in names})
    return names, [table], Source(path.name, lambda records: [lines[record][0] for record in records])


def _written(values: Iterable[object]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _arrow(frame: pd.DataFrame, name: str) -> pa.Table:
    columns = {}
    for column in frame.columns:
        try:
            columns[str(column)] = pa.chunked_array([pa.Array.from_pandas(frame[column])])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # Arrow's message may quote a value.
            remedy = f"Give it one, for example with `frame.astype({{{column!r}: str}})`."
            raise DataError("a column has one type", remedy=remedy, frame=name, column=str(column)) from None
    return pa.table(columns)


def _reading(names: Sequence[str], columns: Mapping[str, str], source: Source) -> Reading:
    """How to read the events: kind RATE where there are ratings and nothing says otherwise, else CLICK or SEARCH."""
    mapped = {role: columns.get(role, role) for role in EVENT_COLUMNS if role in columns or role in names}
    demand([*mapped.values(), columns.get("user", "user")], names, source.name)
    if not {"item", "text"} & set(mapped):
        demand(["item"], names, source.name)
    kind = Kind.RATE if "rating" in mapped else Kind.CLICK if "item" in mapped else Kind.SEARCH
    return Reading(source=source, columns=mapped, kind=kind, scale=_scale(columns.get("rating_scale", "1:5")))


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        scale = float(low), float(high)
    except ValueError:
        scale = math.nan, math.nan
    ordered = -math.inf < scale[0] < scale[1] < math.inf
    require(ordered, "a rating scale is LOW:HIGH with LOW < HIGH", rating_scale=text, remedy="For example 1:5.")
    return scale


def _item_columns(columns: Mapping[str, str]) -> ItemColumns:
    given = {"id": "item_id", "text": "item_text", "tags": "item_tags", "features": "features"}
    return ItemColumns(**{field: columns[option] for field, option in given.items() if option in columns})


def _tagged(catalogue: Catalogue) -> Catalogue:
    """The catalogue with each tag in its item's text, where the encoder can see it."""
    return replace(
        catalogue, texts=[_with(text, tags) for text, tags in zip(catalogue.texts, catalogue.tags, strict=True)]
    )


def _with(text: str, tags: Sequence[str]) -> str:
    absent = [tag for tag in tags if tag.casefold() not in text.casefold()]
    return f"{text} [tags: {', '.join(absent)}]".lstrip() if absent else text
