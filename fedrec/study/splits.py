"""What a device knows and what it is asked to foresee: cuts in time, never samples across it.

Every split obeys one rule. *A held-out item is mentioned nowhere in the history it is ranked with*: no view, no
skip, no search result, no review. Only a **fresh** choice can be held out, one whose item no earlier event
mentions; a choice the person had skipped before stays in the history, because its history already names it.
Events at one time keep their order in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedrec.device.history import NO_ITEM, Kind
from fedrec.errors import DataError, require
from fedrec.population.source import Population
from fedrec.randomness import stream


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
        return cls(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), np.asarray(items, np.int32)[order])

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


@dataclass(frozen=True, eq=False)
class Holdout:
    """What is asked of each client: from its first `cuts` events, find `targets`.

    A client without targets is not evaluated, and is counted as such. `ignored` items are neither
    right nor wrong for a client (it chose them, but is not asked for them): they are never ranked.
    """

    cuts: NDArray[np.int64]
    targets: ItemSets
    ignored: ItemSets | None = None


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


def leave_one_out(population: Population) -> Split:
    """Each client's last fresh choice is its test target, the fresh choice before that its validation target.

    The cut is at the target's own event, so a search just before it stays. A client's very first
    choice is never held out: every evaluated history holds at least one choice. So a client with one
    choice is not evaluated, one with two is evaluated on test only; both train on all they have left.
    """
    events = _Events.of(population)
    may = events.fresh & (events.choices_before > 0)
    test = _single(events, _last(may, events.offsets, 1), np.diff(events.offsets))
    validation = _single(events, _last(may, events.offsets, 2), test.cuts)
    return Split("leave-one-out", validation.cuts, validation, test, _no_items(events))


def global_time(population: Population, validation: float = 0.8, test: float = 0.9) -> Split:
    """One pair of dates for everybody: train before t1, validate on [t1, t2), test from t2 on.

    t1 and t2 are the `validation` and `test` quantiles of all event times. Targets are the items first
    chosen in the window and not mentioned before it. A client may have no history at all before the
    date; it is evaluated all the same, as the cold user it is.
    """
    require(0 < validation < test < 1, "0 < validation < test < 1", validation=validation, test=test)
    if population.table.num_rows == 0:
        raise DataError("a split by time needs events", clients=len(population))
    events = _Events.of(population)
    t1, t2 = (int(np.quantile(events.time, share, method="higher")) for share in (validation, test))
    early = _window(events, t1, t2)
    return Split("global-time", early.cuts, early, _window(events, t2, None), _no_items(events))


def hide_items(population: Population, fraction: float, seed: int, catalogue_size: int) -> tuple[Population, Split]:
    """Hide `fraction` of the catalogue, then ask for the hidden items: the cold-item split.

    The population returned has no event on a hidden item, so nothing cut from it can train on one or
    rank with one. A client's test target is the *last* hidden item it chose, with the visible events
    before that choice as history; the hidden items it chose earlier are `ignored`. Validation is
    leave-one-out on visible items before that cut: no hidden item takes part in tuning either.
    """
    require(0 < fraction < 1, "the hidden fraction lies in (0, 1)", fraction=fraction)
    events = _Events.of(population)
    if events.item.max(initial=NO_ITEM) >= catalogue_size:
        raise DataError("every item is in the catalogue", item=int(events.item.max()), catalogue=catalogue_size)
    cold = np.zeros(catalogue_size, bool)
    cold[stream(seed, "hide").permutation(catalogue_size)[: max(1, round(fraction * catalogue_size))]] = True
    hidden = (events.item != NO_ITEM) & cold[events.item]
    visible = np.concatenate([[0], np.cumsum(~hidden)])
    reduced = Population(population.table.filter(pa.array(~hidden)), visible[events.offsets], population.names)
    test = _hidden_targets(events, hidden, visible)
    rest = _Events.of(reduced)
    may = rest.fresh & (rest.choices_before > 0) & (rest.position < test.cuts[rest.owner])
    validation = _single(rest, _last(may, rest.offsets, 1), test.cuts)
    return reduced, Split("cold-items", validation.cuts, validation, test, cold)


def chosen(population: Population, cuts: NDArray[np.int64]) -> ItemSets:
    """List the items each client chose in its first `cuts` events, each once, in order."""
    events = _Events.of(population)
    rows = np.flatnonzero(events.first_choice & (events.position < cuts[events.owner]))
    return ItemSets.of(events.owner[rows], events.item[rows], len(population))


def mentioned(population: Population, cuts: NDArray[np.int64]) -> ItemSets:
    """List the items that any of each client's first `cuts` events names, each once, in order."""
    events = _Events.of(population)
    first = events.first_mention == np.arange(len(events.item))
    rows = np.flatnonzero(first & (events.item != NO_ITEM) & (events.position < cuts[events.owner]))
    return ItemSets.of(events.owner[rows], events.item[rows], len(population))


@dataclass(frozen=True, eq=False, repr=False)
class _Events:
    """All events of a population side by side, one entry a row of its table."""

    offsets: NDArray[np.int64]
    owner: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.int64]
    first_mention: NDArray[np.int64]  # row at which this row's client first mentions this row's item
    first_choice: NDArray[np.bool_]  # the client chooses this item here for the first time

    @classmethod
    def of(cls, population: Population) -> _Events:
        kind, item, time = (population.table.column(name).to_numpy() for name in ("kind", "item", "time"))
        owner = np.repeat(np.arange(len(population)), np.diff(population.offsets))
        pair = owner * (int(item.max(initial=NO_ITEM)) + 2) + item + 1
        _, first, which = np.unique(pair, return_index=True, return_inverse=True)
        chooses = np.array([kind.chooses for kind in Kind])[kind] & (item != NO_ITEM)
        return cls(population.offsets, owner, item, time, first[which], _first(pair, chooses))

    @property
    def position(self) -> NDArray[np.int64]:
        return np.arange(len(self.owner)) - self.offsets[self.owner]

    @property
    def fresh(self) -> NDArray[np.bool_]:
        first: NDArray[np.bool_] = self.first_mention == np.arange(len(self.owner))
        return self.first_choice & first

    @property
    def choices_before(self) -> NDArray[np.int64]:
        return _count_before(self.first_choice, self.offsets, self.owner)


def _first(keys: NDArray[np.int64], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the first row of each key, looking only at rows in `among`."""
    rows = np.flatnonzero(among)
    _, first = np.unique(keys[rows], return_index=True)
    mask: NDArray[np.bool_] = np.zeros(len(keys), bool)
    mask[rows[first]] = True
    return mask


def _count_before(mask: NDArray[np.bool_], offsets: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """(event,) how many of the same client's earlier rows are in `mask`."""
    running: NDArray[np.int64] = np.concatenate([[0], np.cumsum(mask)])
    return running[:-1] - running[offsets[owner]]


def _last(mask: NDArray[np.bool_], offsets: NDArray[np.int64], back: int) -> NDArray[np.int64]:
    """(client,) the row of each client's `back`-th last True, or -1."""
    rows = np.flatnonzero(mask)
    start, stop = np.searchsorted(rows, offsets[:-1]), np.searchsorted(rows, offsets[1:])
    found = stop - start >= back
    last: NDArray[np.int64] = np.full(len(offsets) - 1, -1)
    last[found] = rows[stop[found] - back]
    return last


def _single(events: _Events, rows: NDArray[np.int64], otherwise: NDArray[np.int64]) -> Holdout:
    """Hold out one row a client (-1: none, and the cut is `otherwise`)."""
    clients = np.flatnonzero(rows >= 0)
    cuts = np.where(rows >= 0, rows - events.offsets[:-1], otherwise)
    return Holdout(cuts, ItemSets.of(clients, events.item[rows[clients]], len(rows)))


def _window(events: _Events, start: int, stop: int | None) -> Holdout:
    """Hold out what is first mentioned from `start` on and first chosen in [start, stop)."""
    clients = len(events.offsets) - 1
    inside = events.first_choice & (events.time[events.first_mention] >= start)
    rows = np.flatnonzero(inside if stop is None else inside & (events.time < stop))
    cuts = np.bincount(events.owner[events.time < start], minlength=clients)
    return Holdout(cuts, ItemSets.of(events.owner[rows], events.item[rows], clients))


def _hidden_targets(events: _Events, hidden: NDArray[np.bool_], visible: NDArray[np.int64]) -> Holdout:
    """Hold out each client's last hidden choice; `visible[row]` counts visible rows before `row`."""
    wanted = events.first_choice & hidden
    seen = _count_before(events.first_choice & ~hidden, events.offsets, events.owner)
    last = _last(wanted, events.offsets, 1)
    last[last >= 0] = np.where(seen[last[last >= 0]] > 0, last[last >= 0], -1)
    clients = np.flatnonzero(last >= 0)
    start, stop = visible[events.offsets[:-1]], visible[events.offsets[1:]]
    cuts = np.where(last >= 0, visible[last] - start, stop - start)
    wanted[last[clients]] = False
    others = np.flatnonzero(wanted)
    targets = ItemSets.of(clients, events.item[last[clients]], len(last))
    return Holdout(cuts, targets, ItemSets.of(events.owner[others], events.item[others], len(last)))


def _no_items(events: _Events) -> NDArray[np.bool_]:
    return np.zeros(int(events.item.max(initial=NO_ITEM)) + 1, bool)
