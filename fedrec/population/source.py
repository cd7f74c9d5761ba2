"""Many people's histories in one Arrow table: cheap to slice, cheap to map from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedrec.device.event import Event
from fedrec.device.history import SCHEMA, History
from fedrec.errors import DataError

BLOCK = 4096  # most clients of a block: bounds memory, changes no number
HASHED_ROWS = 1 << 16  # a block of the hash; part of its definition


class People(Protocol):
    """Clients 0 … len − 1 with a history each, in memory (`Population`) or on disk (`Shards`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, client: int) -> History: ...

    def __iter__(self) -> Iterator[History]: ...

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(client,) how many events each history has."""

    @property
    def hash(self) -> str:
        """SHA-256 over every event and its owner (not over names), wherever they lie."""

    def head(self, clients: int) -> People:
        """The first `clients` people."""

    def take(self, clients: NDArray[np.int64]) -> Population:
        """These clients in this order, in memory: client j of it is `clients[j]`."""

    def blocks(self) -> Iterator[tuple[int, Population]]:
        """Everybody in order, at most `BLOCK` at a time, with the number of the first.

        A block may view a mapped file: keep numbers of it, not views.
        """

    def written(self) -> list[str]:
        """Every distinct free text, sorted; perhaps some more."""


class Population:
    """Clients' histories, addressed by position 0 … len − 1.

    `table` holds every event, grouped by client and in time order; client u owns rows
    `offsets[u]:offsets[u + 1]`. `names` are the labels in the source data, for reports that the
    researcher makes at home; they never travel. They are empty where they were left on disk.
    """

    def __init__(self, table: pa.Table, offsets: NDArray[np.int64], names: Sequence[str]) -> None:
        if table.schema != SCHEMA:
            raise DataError("a population's table must have the event schema", got=table.schema.names)
        self.table, self.offsets, self.names = table, offsets, tuple(names)

    @classmethod
    def of(cls, histories: Iterable[Iterable[Event]], names: Sequence[str] | None = None) -> Population:
        """A population from events in memory."""
        tables = [History.of(events)._table for events in histories]
        sizes = np.array([table.num_rows for table in tables], np.int64)
        whole = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
        return cls(whole, offsets_of(sizes), names or [str(n) for n in range(len(sizes))])

    @classmethod
    def from_columns(cls, owner: NDArray[np.int64], columns: pa.Table, names: Sequence[str]) -> Population:
        """A population from columns of `SCHEMA` in any order, with the client of each row.

        Rows are grouped by client and sorted by time; rows at one time keep their order.
        """
        order = np.lexsort((np.arange(len(owner)), columns.column("time").to_numpy(), owner))
        offsets = offsets_of(np.bincount(owner, minlength=len(names)))
        return cls(columns.take(pa.array(order)).combine_chunks(), offsets, names)

    @classmethod
    def joined(cls, parts: Sequence[Population]) -> Population:
        """The people of `parts`, one part after the other, copied into one table."""
        tables = [SCHEMA.empty_table(), *(part.table for part in parts)]
        names = [name for part in parts for name in part.names]
        sizes = np.concatenate([np.zeros(0, np.int64), *(part.sizes for part in parts)])
        return cls(pa.concat_tables(tables).combine_chunks(), offsets_of(sizes), names)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(client,) how many events each history has."""
        return np.diff(self.offsets)

    def head(self, clients: int) -> Population:
        """The first `clients` people."""
        check_head(clients, len(self))
        return self.between(0, clients)

    def between(self, start: int, stop: int) -> Population:
        """Clients `start` … `stop` − 1, without copying an event."""
        offsets = self.offsets[start : stop + 1]
        table = self.table.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        return Population(table, offsets - offsets[0], self.names[start:stop])

    def take(self, clients: NDArray[np.int64]) -> Population:
        """These clients in this order, copied: client j of it is `clients[j]`."""
        sizes = self.sizes[clients]
        offsets = offsets_of(sizes)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][clients] - offsets[:-1], sizes)
        names = [self.names[client] for client in clients] if self.names else ()
        return Population(self.table.take(pa.array(rows)).combine_chunks(), offsets, names)

    def blocks(self) -> Iterator[tuple[int, Population]]:
        """Everybody in order, at most `BLOCK` at a time, with the number of the first; no event is copied."""
        for first in range(0, len(self), BLOCK):
            yield first, self.between(first, min(first + BLOCK, len(self)))

    def written(self) -> list[str]:
        """Every distinct free text, sorted."""
        return sorted(text for text in self.table.column("text").unique().to_pylist() if text)

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
        return content_hash(self.offsets, lambda: iter([self.table]))

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file that `open` maps without reading it."""
        metadata = {"offsets": self.offsets.tobytes(), "names": "\n".join(self.names).encode()}
        table = self.table.replace_schema_metadata(metadata)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def open(cls, path: Path) -> Population:
        """Map a saved population; memory does not grow with it."""
        table, offsets = mapped(path)
        names = table.schema.metadata.get(b"names", b"").decode()
        return cls(table.replace_schema_metadata(None), offsets, names.split("\n") if names else ())


def mapped(path: Path) -> tuple[pa.Table, NDArray[np.int64]]:
    """The events of a saved population, mapped and not read, and its offsets. The schema's metadata hold the names."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        offsets = np.frombuffer(table.schema.metadata[b"offsets"], dtype=np.int64)
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        remedy = "Write it anew from the data it was made of."
        raise DataError("cannot open the population file", remedy=remedy, path=str(path), reason=str(error)) from None
    return table, offsets


def offsets_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(client + 1,) where each client's events start, given how many each has; the last is their number."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def check_head(clients: int, among: int) -> None:
    """Refuse to take more people than there are."""
    if clients > among:
        remedy = "Lower clients; 0 takes everybody."
        raise DataError("a plan has at most as many clients as the data", remedy=remedy, clients=clients, people=among)


def content_hash(offsets: NDArray[np.int64], tables: Callable[[], Iterator[pa.Table]]) -> str:
    """SHA-256 over every event and its owner, however the events are cut into tables.

    It reads column by column, so `tables` is called once for each.
    """
    digest = hashlib.sha256(offsets.tobytes())
    for name in SCHEMA.names:
        for block in _even(table.column(name) for table in tables()):
            digest.update(_bytes(block))
    return digest.hexdigest()


def _even(columns: Iterable[pa.ChunkedArray]) -> Iterator[pa.ChunkedArray]:
    """Our own blocks of `HASHED_ROWS`: where a table or its chunks end is not content."""
    rest: list[pa.Array] = []
    for column in columns:
        whole = pa.chunked_array([*rest, *column.chunks], column.type)
        full = len(whole) - len(whole) % HASHED_ROWS
        yield from (whole.slice(start, HASHED_ROWS) for start in range(0, full, HASHED_ROWS))
        rest = whole.slice(full).chunks
    if sum(map(len, rest)):
        yield pa.chunked_array(rest)


def _bytes(column: pa.ChunkedArray) -> bytes:
    # Buffers of a slice include its neighbours: values, not buffers.
    if pa.types.is_large_string(column.type):
        return repr(column.to_pylist()).encode()
    return bytes(column.to_numpy().tobytes())
