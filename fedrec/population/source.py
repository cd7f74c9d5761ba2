"""Many people's histories in one Arrow table: cheap to slice, cheap to map from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedrec.device.history import SCHEMA, Event, History
from fedrec.errors import DataError

HASHED_ROWS = 1 << 16  # a block of `Population.hash`; part of its definition


class Population:
    """Clients' histories, addressed by position 0 … len − 1.

    `table` holds every event, grouped by client and in time order; client u owns rows
    `offsets[u]:offsets[u + 1]`. `names` are the labels in the source data, for reports that the
    researcher makes at home; they never travel.
    """

    def __init__(self, table: pa.Table, offsets: NDArray[np.int64], names: Sequence[str]) -> None:
        if table.schema != SCHEMA:
            raise DataError("a population's table must have the event schema", got=table.schema.names)
        self.table, self.offsets, self.names = table, offsets, tuple(names)

    @classmethod
    def of(cls, histories: Iterable[Iterable[Event]], names: Sequence[str] | None = None) -> Population:
        """A population from events in memory."""
        tables = [History.of(events)._table for events in histories]
        sizes = [table.num_rows for table in tables]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        whole = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
        return cls(whole, offsets, names or [str(n) for n in range(len(sizes))])

    @classmethod
    def from_columns(cls, owner: NDArray[np.int64], columns: pa.Table, names: Sequence[str]) -> Population:
        """A population from columns of `SCHEMA` in any order, with the client of each row.

        Rows are grouped by client and sorted by time; rows at one time keep their order.
        """
        order = np.lexsort((np.arange(len(owner)), columns.column("time").to_numpy(), owner))
        sizes = np.bincount(owner, minlength=len(names))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(columns.take(pa.array(order)).combine_chunks(), offsets, names)

    def __len__(self) -> int:
        return len(self.names)

    def head(self, clients: int) -> Population:
        """The first `clients` people."""
        if clients > len(self):
            remedy = "Lower clients; 0 takes everybody."
            raise DataError(
                "a plan has at most as many clients as the data", remedy=remedy, clients=clients, people=len(self)
            )
        stop = int(self.offsets[clients])
        return Population(self.table.slice(0, stop), self.offsets[: clients + 1], self.names[:clients])

    def __getitem__(self, client: int) -> History:
        start, stop = self.offsets[client], self.offsets[client + 1]
        return History(self.table.slice(int(start), int(stop - start)))

    def __iter__(self) -> Iterator[History]:
        return (self[client] for client in range(len(self)))

    def __repr__(self) -> str:
        return f"Population({len(self)} clients, {self.table.num_rows} events, contents withheld)"

    @property
    def hash(self) -> str:
        """SHA-256 over every event and its owner (not over the names)."""
        digest = hashlib.sha256(self.offsets.tobytes())
        for name in SCHEMA.names:
            for start in range(0, self.table.num_rows, HASHED_ROWS):
                # Our own blocks, not the table's chunks: how a table is chunked is not content.
                digest.update(_bytes(self.table.column(name).slice(start, HASHED_ROWS)))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file that `open` maps without reading it."""
        metadata = {"offsets": self.offsets.tobytes(), "names": "\n".join(self.names).encode()}
        table = self.table.replace_schema_metadata(metadata)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def open(cls, path: Path) -> Population:
        """Map a saved population; memory does not grow with it."""
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError("cannot open the population file", path=str(path), reason=str(error)) from error
        metadata = table.schema.metadata
        offsets = np.frombuffer(metadata[b"offsets"], dtype=np.int64)
        names = metadata[b"names"].decode().split("\n") if len(offsets) > 1 else []
        return cls(table.replace_schema_metadata(None), offsets, names)


def _bytes(column: pa.ChunkedArray) -> bytes:
    # Buffers of a slice include its neighbours: values, not buffers.
    if pa.types.is_large_string(column.type):
        return repr(column.to_pylist()).encode()
    return bytes(column.to_numpy().tobytes())
