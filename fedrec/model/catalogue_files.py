"""Catalogues in Parquet, CSV, TSV and JSON-lines files: an id, a text, tags and dense feature columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from fedrec.datasets.columns import numbers, words
from fedrec.datasets.files import (
    CSV,
    TSV,
    Source,
    batches,
    demand,
    frame_source,
    json_lines,
    parquet,
    text_source,
)
from fedrec.datasets.notes import showable
from fedrec.errors import DataError, SpecError
from fedrec.model.catalogue import Catalogue

HASH = b"fedrec.catalogue"
LARGEST = float(np.finfo(np.float32).max)
SUFFIXES = ".parquet, .csv, .tsv, .jsonl, .json, .jsonl.gz or .json.gz"


@dataclass(frozen=True, kw_only=True)
class ItemColumns:
    """What a file calls things. Columns whose name starts with `features` are numbers, or lists of numbers.

    `tags` may be absent; in a text file it holds `a|b` or a JSON list.
    """

    id: str = "id"
    text: str = "text"
    tags: str = "tags"
    features: str = "feature"


ITEM_COLUMNS = ItemColumns()


def read_catalogue(path: Path, columns: ItemColumns = ITEM_COLUMNS) -> Catalogue:
    """The catalogue in `path`, by its suffix.

    Errors: `DataError` with row, column and value. A Parquet file that `write_catalogue` made is checked against
    the content hash in it.
    """
    table, source = _table(path, columns)
    catalogue = catalogue_of(table, source, columns)
    promised = (table.schema.metadata or {}).get(HASH)
    if promised and columns == ITEM_COLUMNS and promised.decode() != catalogue.hash:
        raise DataError(
            "a catalogue file has the content that its hash names",
            remedy="It was changed after it was written: write it anew with `write_catalogue`.",
            file=path.name,
            promised=promised.decode()[:12],
            found=catalogue.hash[:12],
        )
    return catalogue


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write `path` by its suffix, so that `read_catalogue` gives an equal catalogue (same hash)."""
    match path.suffix:
        case ".parquet":
            table = pa.table(_lists(catalogue)).replace_schema_metadata({HASH: catalogue.hash.encode()})
            pyarrow.parquet.write_table(table, str(path))
        case ".csv" | ".tsv":
            delimiter = "," if path.suffix == ".csv" else "\t"
            pyarrow.csv.write_csv(_flat(catalogue), str(path), pyarrow.csv.WriteOptions(delimiter=delimiter))
        case ".jsonl" | ".json":
            records = pa.table(_lists(catalogue)).to_pylist()
            path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
        case _:
            raise SpecError("a catalogue is written as .parquet, .csv, .tsv, .jsonl or .json", path=str(path))


def catalogue_of(table: pa.Table, source: Source, columns: ItemColumns = ITEM_COLUMNS) -> Catalogue:
    """A catalogue from a table in memory; `source` names its rows in errors."""
    demand([columns.id, columns.text], table.column_names, source.name)
    ids = [item.strip() for item in words(table.column(columns.id)).to_pylist()]
    check_ids(ids, source, columns.id)
    texts = table.column(columns.text).cast(pa.string()).fill_null("").to_pylist()
    tags = _tags(table.column(columns.tags)) if columns.tags in table.column_names else ()
    return Catalogue(ids, texts, _features(table, source, columns.features), tags)


def check_ids(ids: Sequence[str], source: Source, column: str) -> None:
    """Raise `DataError` with both rows when an id comes twice, and with the row when one is empty."""
    first: dict[str, int] = {}
    for record, item in enumerate(ids):
        if not item:
            _refuse("an item has an id", source, (record, column, item))
        if first.setdefault(item, record) != record:
            rows = list(source.rows([first[item], record]))
            raise DataError(
                "item ids are unique",
                remedy="Remove or rename one of the two.",
                file=source.name,
                row=rows[1],
                column=column,
                value=item,
                first_row=rows[0],
            )


def _refuse(rule: str, source: Source, where: tuple[int, str, object]) -> NoReturn:
    record, column, value = where
    [row] = source.rows([record])
    remedy = "Repair the row or remove it."
    raise DataError(rule, remedy=remedy, file=source.name, row=row, column=column, value=showable(value))


def _table(path: Path, columns: ItemColumns) -> tuple[pa.Table, Source]:
    match path.suffixes[-2:]:
        case [*_, ".parquet"]:
            return pa.concat_tables(parquet(path)), frame_source(path.name)
        case [*_, ".csv"]:
            return pa.concat_tables(batches(path, CSV)), text_source(path, CSV)
        case [*_, ".tsv"]:
            return pa.concat_tables(batches(path, TSV)), text_source(path, TSV)
        case [*_, ".jsonl" | ".json"] | [".jsonl" | ".json", ".gz"]:
            return _json_table(path, columns)
    raise SpecError(f"a catalogue file is {SUFFIXES}", path=str(path))


def _json_table(path: Path, columns: ItemColumns) -> tuple[pa.Table, Source]:
    rows, records = zip(*json_lines(path), strict=True)
    source = Source(path.name, lambda wanted: [rows[record] for record in wanted])
    for record, item in enumerate(records):
        for column in (columns.id, columns.text):
            if not isinstance(item.get(column), str | int):
                _refuse("an item has an id and a text", source, (record, column, type(item.get(column)).__name__))
    table = {name: pa.array([str(item[name]) for item in records]) for name in (columns.id, columns.text)}
    if any(columns.tags in item for item in records):
        table[columns.tags] = _json_column(records, columns.tags, source, pa.list_(pa.string()))
    for name in dict.fromkeys(name for item in records for name in item if name.startswith(columns.features)):
        several = any(isinstance(item.get(name), list) for item in records)
        table[name] = _json_column(records, name, source, pa.list_(pa.float64()) if several else pa.float64())
    return pa.table(table), source


def _json_column(records: Sequence[Mapping[str, object]], name: str, source: Source, kind: pa.DataType) -> pa.Array:
    values = [item.get(name) for item in records]
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        for record, value in enumerate(values):
            try:
                pa.array([value], kind)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                _refuse(f"this column holds {kind}", source, (record, name, value))
        raise


def _tags(column: pa.ChunkedArray) -> list[tuple[str, ...]]:
    return [_split(cell) if isinstance(cell, str) else tuple(cell or ()) for cell in column.to_pylist()]


def _split(cell: str) -> tuple[str, ...]:
    if cell.startswith("["):
        try:
            return tuple(map(str, json.loads(cell)))
        except json.JSONDecodeError:
            pass  # a tag may start with a bracket
    return tuple(tag for tag in map(str.strip, cell.split("|")) if tag)


def _joined(tags: Sequence[str]) -> str:
    plain = "|".join(tags)
    return plain if _split(plain) == tuple(tags) else json.dumps(list(tags))


def _features(table: pa.Table, source: Source, prefix: str) -> NDArray[np.float32]:
    names = [name for name in table.column_names if name.startswith(prefix)]
    blocks = [_block(table.column(name), source, name) for name in names]
    return np.hstack([np.zeros((len(table), 0), np.float32), *blocks])


def _block(column: pa.ChunkedArray, source: Source, name: str) -> NDArray[np.float32]:
    """(item, width) numbers of one column."""
    width = 1
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        lengths = pc.list_value_length(column).fill_null(0).to_numpy()
        width = int(lengths[0]) if len(lengths) else 0
        for record in np.flatnonzero(lengths != width)[:1]:
            _refuse(f"every feature list has {width} numbers", source, (int(record), name, f"{lengths[record]}"))
        column = pc.list_flatten(column)
    values, _ = numbers(column)
    for position in np.flatnonzero(~(np.abs(values) <= LARGEST))[:1]:
        where = (int(position) // width, name, column[int(position)].as_py())
        _refuse("item features are finite numbers", source, where)
    return values.astype(np.float32).reshape(-1, width)


def _lists(catalogue: Catalogue) -> dict[str, pa.Array]:
    table = {
        "id": pa.array(catalogue.ids, pa.string()),
        "text": pa.array(catalogue.texts, pa.string()),
        "tags": pa.array([list(tags) for tags in catalogue.tags], pa.list_(pa.string())),
    }
    if catalogue.features.shape[1]:
        table["features"] = pa.array(list(catalogue.features), pa.list_(pa.float32()))
    return table


def _flat(catalogue: Catalogue) -> pa.Table:
    # float64 prints in full, so that reading it back rounds to the same float32.
    features = catalogue.features.astype(np.float64)
    return pa.table(
        {
            "id": pa.array(catalogue.ids, pa.string()),
            "text": pa.array(catalogue.texts, pa.string()),
            "tags": pa.array([_joined(tags) for tags in catalogue.tags], pa.string()),
            **{f"feature_{n}": pa.array(features[:, n]) for n in range(features.shape[1])},
        }
    )
