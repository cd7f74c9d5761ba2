"""The catalogue of a pack of format 1 or 2, which was a Parquet file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.listed import AGAIN

_COLUMNS = {"id": pa.string(), "text": pa.string(), "tags": pa.list_(pa.string()), "features": pa.list_(pa.float32())}


def from_parquet(path: Path, *, items: int) -> Catalogue:
    """The catalogue of `items` items in `path`, with exact types. Errors: `DataError`."""
    try:
        with pyarrow.parquet.ParquetFile(str(path)) as file:
            _check_columns(file, items)
            table = file.read()
        if any(column.null_count for column in table.columns):
            raise DataError("a pack's catalogue has no gaps", remedy=AGAIN)
        ids, texts, tags = (table.column(name).to_pylist() for name in ("id", "text", "tags"))
        return Catalogue(ids, texts, _features(table), tags)
    except (pa.ArrowException, OSError, TypeError, ValueError, LookupError) as error:
        raise DataError("a pack's catalogue can be read", remedy=AGAIN, reason=type(error).__name__) from None


def _check_columns(file: pyarrow.parquet.ParquetFile, items: int) -> None:
    # What the file says of itself comes first: more rows than the manifest has items are not read.
    columns = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    needed = {name: kind for name, kind in _COLUMNS.items() if name in columns or name != "features"}
    rows = file.metadata.num_rows
    if rows != items or columns != needed:
        raise DataError("a pack's catalogue has its items and its columns", items=rows, columns=sorted(columns))


def _features(table: pa.Table) -> NDArray[np.float32]:
    if "features" not in table.column_names:
        return np.zeros((len(table), 0), np.float32)
    lists = table.column("features")
    widths = pc.list_value_length(lists).unique().to_pylist()
    if len(widths) != 1:
        raise DataError("all items have equally many features", remedy=AGAIN, widths=widths[:3])
    return pc.list_flatten(lists).to_numpy().reshape(len(table), -1)  # type: ignore[no-any-return]
