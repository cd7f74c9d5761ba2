"""What a device knows and what it is asked to foresee: cuts in time, never samples across it.

Every split obeys one rule. *A held-out item is mentioned nowhere in the history it is ranked with*: no view, no
skip, no search result, no review. Only a **fresh** choice can be held out, one whose item no earlier event
mentions; a choice the person had skipped before stays in the history, because its history already names it.
Events at one time keep their order in the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedrec.device.event import NO_ITEM, Kind
from fedrec.errors import DataError, require
from fedrec.population.source import People, Population
from fedrec.randomness import stream
from fedrec.study.holdouts import Holdout, ItemSets, Split

_SPAN = 16  # bits of a time within a span, see `_time_at`


def leave_one_out(people: People) -> Split:
    """Each client's last fresh choice is its test target, the fresh choice before that its validation target.

    The cut is at the target's own event, so a search just before it stays. A client's very first
    choice is never held out: every evaluated history holds at least one choice. So a client with one
    choice is not evaluated, one with two is evaluated on test only; both train on all they have left.
    """
    return _by_block("leave-one-out", people, _last_two)


def global_time(people: People, validation: float = 0.8, test: float = 0.9) -> Split:
    """One pair of dates for everybody: train before t1, validate on [t1, t2), test from t2 on.

    t1 and t2 are the `validation` and `test` quantiles of all event times. Targets are the items first
    chosen in the window and not mentioned before it. A client may have no history at all before the
    date; it is evaluated all the same, as the cold user it is.
    """
    require(0 < validation < test < 1, "0 < validation < test < 1", validation=validation, test=test)
    events = int(people.sizes.sum())
    if events == 0:
        raise DataError("a split by time needs events", clients=len(people))
    t1, t2 = (_time_at(people, math.ceil((events - 1) * share)) for share in (validation, test))
    return _by_block("global-time", people, lambda part: (_window(part, t1, t2), _window(part, t2, None)))


def hide_items(people: People, fraction: float, seed: int, catalogue_size: int) -> tuple[Population, Split]:
    """Hide `fraction` of the catalogue, then ask for the hidden items: the cold-item split.

    The population returned has no event on a hidden item, so nothing cut from it can train on one or
    rank with one. A client's test target is the *last* hidden item it chose, with the visible events
    before that choice as history; the hidden items it chose earlier are `ignored`. Validation is
    leave-one-out on visible items before that cut: no hidden item takes part in tuning either.

    Errors: `DataError` for people on disk, who would have to be written anew without these items.
    """
    require(0 < fraction < 1, "the hidden fraction lies in (0, 1)", fraction=fraction)
    if not isinstance(people, Population):
        remedy = "Use split.kind leave-one-out or global-time, or data that is not in shards."
        raise DataError("items are hidden from people in memory", remedy=remedy, clients=len(people))
    population, events = people, _Events.of(people)
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


def chosen(people: People, cuts: NDArray[np.int64]) -> ItemSets:
    """List the items each client chose in its first `cuts` events, each once, in order."""
    return ItemSets.joined(list(chosen_by_block(people, cuts)))


def chosen_by_block(people: People, cuts: NDArray[np.int64]) -> Iterator[ItemSets]:
    """`chosen` of everybody, a block of clients at a time."""
    for first, block in people.blocks():
        events, known = _Events.of(block), cuts[first : first + len(block)]
        rows = np.flatnonzero(events.first_choice & (events.position < known[events.owner]))
        yield ItemSets.of(events.owner[rows], events.item[rows], len(block))


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """What a model was trained on: the first `cuts` (client,) events of each of `people`."""

    people: People
    cuts: NDArray[np.int64]

    def counts(self, items: int) -> NDArray[np.int64]:
        """(item,) how many clients chose each of `items` in it; everybody is read once."""
        counts = np.zeros(items, np.int64)
        counts[: len(self._counts)] = self._counts
        return counts

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.zeros(0, np.int64)
        for sets in chosen_by_block(self.people, self.cuts):
            more = np.bincount(sets.items, minlength=len(counts))
            more[: len(counts)] += counts
            counts = more
        return counts


def mentioned(people: People, cuts: NDArray[np.int64]) -> ItemSets:
    """List the items that any of each client's first `cuts` events names, each once, in order."""
    parts = []
    for first, block in people.blocks():
        events, known = _Events.of(block), cuts[first : first + len(block)]
        rows = np.flatnonzero(events.first_mention & (events.position < known[events.owner]))
        parts.append(ItemSets.of(events.owner[rows], events.item[rows], len(block)))
    return ItemSets.joined(parts)


@dataclass(frozen=True, eq=False, repr=False)
class _Events:
    """All events of a block of people side by side, one entry a row of its table."""

    offsets: NDArray[np.int64]
    owner: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.int64]
    pair: NDArray[np.int64]  # one number for each client and item
    chooses: NDArray[np.bool_]  # the client chooses this item here, perhaps not for the first time

    @classmethod
    def of(cls, population: Population) -> _Events:
        kind, item, time = (population.table.column(name).to_numpy() for name in ("kind", "item", "time"))
        owner = np.repeat(np.arange(len(population)), population.sizes)
        pair = owner * (int(item.max(initial=NO_ITEM)) + 2) + item + 1
        chooses = np.array([kind.chooses for kind in Kind])[kind] & (item != NO_ITEM)
        return cls(population.offsets, owner, item, time, pair, chooses)

    @cached_property
    def first_choice(self) -> NDArray[np.bool_]:
        """The client chooses this item here for the first time."""
        return _first(self.pair, self.chooses)

    @cached_property
    def first_mention(self) -> NDArray[np.bool_]:
        """The client mentions this item here for the first time."""
        return _first(self.pair, self.item != NO_ITEM)

    @cached_property
    def mentioned_at(self) -> NDArray[np.int64]:
        """The time at which this row's client first mentions this row's item."""
        _, first, which = np.unique(self.pair, return_index=True, return_inverse=True)
        times: NDArray[np.int64] = self.time[first[which]]
        return times

    @property
    def position(self) -> NDArray[np.int64]:
        return np.arange(len(self.owner)) - self.offsets[self.owner]

    @property
    def fresh(self) -> NDArray[np.bool_]:
        return self.first_choice & self.first_mention

    @property
    def choices_before(self) -> NDArray[np.int64]:
        return _count_before(self.first_choice, self.offsets, self.owner)


def _by_block(name: str, people: People, cut: Callable[[_Events], tuple[Holdout, Holdout]]) -> Split:
    """Cut everybody, a block at a time, into validation and test; train up to the validation cut."""
    parts = [cut(_Events.of(block)) for _, block in people.blocks()]
    validation, test = Holdout.joined([early for early, _ in parts]), Holdout.joined([late for _, late in parts])
    return Split(name, validation.cuts, validation, test, np.zeros(0, bool))


def _last_two(events: _Events) -> tuple[Holdout, Holdout]:
    """Hold out each client's last fresh choice but one, and its last."""
    may = events.fresh & (events.choices_before > 0)
    test = _single(events, _last(may, events.offsets, 1), np.diff(events.offsets))
    return _single(events, _last(may, events.offsets, 2), test.cuts), test


def _time_at(people: People, rank: int) -> int:
    """The time of the event that `rank` events come before, without sorting them all.

    Two passes: how many events each span of 2¹⁶ seconds has, then each second of the right span.
    """
    spans = Counter[int]()
    for time in _times(people):
        numbers, counts = np.unique(time >> _SPAN, return_counts=True)
        spans.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    before, span = 0, min(spans)
    for span in sorted(spans):
        if before + spans[span] > rank:
            break
        before += spans[span]
    inside = sum(
        np.bincount(time[time >> _SPAN == span] - (span << _SPAN), minlength=1 << _SPAN) for time in _times(people)
    )
    return (span << _SPAN) + int(np.searchsorted(before + np.cumsum(inside), rank, side="right"))


def _times(people: People) -> Iterator[NDArray[np.int64]]:
    return (block.table.column("time").to_numpy() for _, block in people.blocks())


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
    inside = events.first_choice & (events.mentioned_at >= start)
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
