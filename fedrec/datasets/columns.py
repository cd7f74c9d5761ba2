"""Arrow columns of any type as words, numbers and times; what cannot be read becomes "" or NaN, to be counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids and names as trimmed strings; null and NaN are "", and 12.0 is "12"."""
    if pa.types.is_floating(column.type):
        whole = pc.if_else(pc.is_finite(column), column, None)
        # pandas turns an integer column with gaps into floats.
        column = whole.cast(pa.int64()) if pc.all(pc.equal(pc.floor(whole), whole)).as_py() is not False else whole
    return pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null(""))


def numbers(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(numbers, which rows hold anything at all); NaN where there is nothing or no number."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        values = filled(column.cast(pa.float64()), np.nan)
        return values, ~np.isnan(values)
    text = words(column)
    held = pc.not_equal(text, "")
    try:
        values = filled(pc.if_else(held, text, None).cast(pa.float64()), np.nan)
    except pa.ArrowInvalid:
        values = np.array(pd.to_numeric(text.to_pandas(), errors="coerce"), np.float64)
    return values, flags(held)


def seconds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Unix seconds from numbers, timestamps, dates or ISO 8601 text (UTC unless it says otherwise), else NaN."""
    if pa.types.is_temporal(column.type):
        stamps = column.cast(pa.timestamp("s", getattr(column.type, "tz", None)), safe=False)
        return filled(stamps.cast(pa.int64()).cast(pa.float64()), np.nan)
    values, held = numbers(column)
    prose = np.flatnonzero(held & np.isnan(values))
    if len(prose):
        parsed = pd.to_datetime(column.take(pa.array(prose)).to_pandas(), errors="coerce", utc=True, format="ISO8601")
        stamps = parsed.to_numpy("datetime64[s]")
        values[prose] = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64))
    return values


def filled(column: pa.ChunkedArray, default: float) -> NDArray[np.float64]:
    """The values as numbers, with `default` for null."""
    return np.array(column.fill_null(pa.scalar(default, column.type)))


def flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """A boolean column as a mask."""
    return np.asarray(column, dtype=bool)
