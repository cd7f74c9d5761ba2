"""A person's events: what the device knows and never sends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedrec.device.event import NO_ITEM, Event, Kind

SCHEMA = pa.schema(
    [
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),  # row in the catalogue, or NO_ITEM
        pa.field("text", pa.large_string(), nullable=False),  # "" when there is none
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("rating", pa.float32(), nullable=False),  # in [0, 1]; NaN when there is none
        pa.field("time", pa.int64(), nullable=False),  # Unix seconds
    ]
)


class History:
    """One person's events in time order, as columns.

    A view: it shares memory with the table that it was cut from. Its `repr` never shows contents.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """A history of `events`, sorted by time; events at one time keep their order."""
        rows = sorted(events, key=lambda event: event.time)
        columns = {name: [getattr(event, name) for event in rows] for name in SCHEMA.names}
        columns["kind"] = [int(kind) for kind in columns["kind"]]
        return cls(pa.table(columns, schema=SCHEMA))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"History({len(self)} events, contents withheld)"

    def before(self, cut: int) -> History:
        """The first `cut` events."""
        return History(self._table.slice(0, cut))

    def between(self, start: int, stop: int) -> History:
        """Events `start` … `stop` − 1."""
        return History(self._table.slice(start, stop - start))

    @property
    def kinds(self) -> NDArray[np.int8]:
        """(event,) `Kind` values."""
        return self._column("kind")

    @property
    def items(self) -> NDArray[np.int32]:
        """(event,) catalogue rows, `NO_ITEM` where the event has none."""
        return self._column("item")

    @property
    def weights(self) -> NDArray[np.float32]:
        """(event,) how much the event counts, before signs and ratings."""
        return self._column("weight")

    @property
    def ratings(self) -> NDArray[np.float32]:
        """(event,) in [0, 1], NaN where there is none."""
        return self._column("rating")

    @property
    def times(self) -> NDArray[np.int64]:
        """(event,) Unix seconds, ascending."""
        return self._column("time")

    @property
    def texts(self) -> list[str]:
        """Free text per event, "" where there is none."""
        return list(self._table.column("text").to_pylist())

    def choices(self) -> NDArray[np.int64]:
        """Positions at which an item is chosen for the first time, in order."""
        chosen = np.array([kind.chooses for kind in Kind])[self.kinds] & (self.items != NO_ITEM)
        positions = np.flatnonzero(chosen)
        _, first = np.unique(self.items[positions], return_index=True)
        return positions[np.sort(first)]

    def _column(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self._table.column(name).to_numpy()
        return values
