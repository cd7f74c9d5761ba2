"""Cuts and targets of many clients: what a split makes, and everything else asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.population.source import offsets_of


@dataclass(frozen=True, eq=False, repr=False)
class ItemSets:
    """One set of catalogue rows per client: client u's are `items[indptr[u]:indptr[u + 1]]`."""

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]

    @classmethod
    def of(cls, clients: NDArray[np.int64], items: NDArray[np.int32], among: int) -> ItemSets:
        """Gather the pairs (clients[n], items[n]) by client; a client's items keep their order."""
        order = np.argsort(clients, kind="stable")
        sizes = np.bincount(clients, minlength=among)
        return cls(offsets_of(sizes), np.asarray(items, np.int32)[order])

    @classmethod
    def joined(cls, parts: Sequence[ItemSets]) -> ItemSets:
        """The clients of `parts`, one part after the other."""
        sizes = join([part.sizes for part in parts])
        items = np.concatenate([np.zeros(0, np.int32), *(part.items for part in parts)])
        return cls(offsets_of(sizes), items)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, client: int) -> NDArray[np.int32]:
        return self.items[self.indptr[client] : self.indptr[client + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[client] for client in range(len(self)))

    def __repr__(self) -> str:
        return f"ItemSets({len(self)} clients, {len(self.items)} items, contents withheld)"

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(client,) how many items each client has."""
        return np.diff(self.indptr)

    def pairs(self, clients: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(position in `clients`, item) for every item of every one of `clients`."""
        sizes = self.sizes[clients]
        rows = np.repeat(np.arange(len(clients)), sizes)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return rows, self.items[self.indptr[clients][rows] + within]

    def of_clients(self, clients: NDArray[np.int64]) -> ItemSets:
        """The sets of `clients`, in their order."""
        rows, items = self.pairs(clients)
        return ItemSets.of(rows, items, len(clients))

    def between(self, start: int, stop: int) -> ItemSets:
        """The sets of clients `start` … `stop` − 1, numbered from 0."""
        indptr = self.indptr[start : stop + 1]
        return ItemSets(indptr - indptr[0], self.items[indptr[0] : indptr[-1]])


@dataclass(frozen=True, eq=False)
class Holdout:
    """What is asked of each client: from its first `cuts` events, find `targets`.

    A client without targets is not evaluated, and is counted as such. `ignored` items are neither
    right nor wrong for a client (it chose them, but is not asked for them): they are never ranked.
    """

    cuts: NDArray[np.int64]
    targets: ItemSets
    ignored: ItemSets | None = None

    @classmethod
    def joined(cls, parts: Sequence[Holdout]) -> Holdout:
        """The clients of `parts`, one part after the other; none of them ignores an item."""
        return cls(join([part.cuts for part in parts]), ItemSets.joined([part.targets for part in parts]))

    def between(self, start: int, stop: int) -> Holdout:
        """What is asked of clients `start` … `stop` − 1, numbered from 0."""
        ignored = None if self.ignored is None else self.ignored.between(start, stop)
        return Holdout(self.cuts[start:stop], self.targets.between(start, stop), ignored)


@dataclass(frozen=True, eq=False)
class Split:
    """Client u trains on its first `train[u]` events; `validation` tunes; `test` is looked at once.

    `train <= validation.cuts <= test.cuts` for every client. `cold_items` (item,) marks items that
    were hidden from training; it is all False unless the split hides some, and may then be empty.
    """

    name: str
    train: NDArray[np.int64]
    validation: Holdout
    test: Holdout
    cold_items: NDArray[np.bool_]

    def between(self, start: int, stop: int) -> Split:
        """The split of clients `start` … `stop` − 1, numbered from 0."""
        validation, test = self.validation.between(start, stop), self.test.between(start, stop)
        return Split(self.name, self.train[start:stop], validation, test, self.cold_items)


def join(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All of `parts`, which may be none, in one array."""
    return np.concatenate([np.zeros(0, np.int64), *parts])
