"""Many clients' histories side by side: flat in memory, and padded to tensors one chunk of like size at a time.

What `device.profile.Events` holds for one client, these hold for thousands, number for number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.device.history import NO_ITEM, History, Kind
from fedrec.device.profile import signed_weights
from fedrec.errors import DataError
from fedrec.population.source import Population
from fedrec.spec import ProfileSpec

Ints = NDArray[np.int64]
Budget = Callable[[int, int, int], int]  # clients, examples, events → bytes
_T = TypeVar("_T", bound=np.generic)

_CHOOSES = np.array([kind.chooses for kind in Kind])
_WASTE = 1.25  # padded cells of a chunk over those that are filled
_FEW = 8  # clients that a chunk may pad as it likes: below it, a chunk's own cost is more than its padding's


@dataclass(frozen=True, eq=False)
class Batch:
    """Several clients' histories, flat and without padding. Never leaves the devices that it stands for.

    `sizes` (client,) counts events. A mention is an event's item or its text: `owner`, `at`, `entry`, `weight`
    (mention,) are the client's position in the batch, the event's in its history, the catalogue row (or the number of
    catalogue rows + the text's number) and the signed weight, never 0. `choice_owner`, `choice_at`, `chosen` (choice,)
    are clients, positions and rows of first choices. All are ordered by client, then by event, an item before its text.
    """

    sizes: Ints
    owner: Ints
    at: Ints
    entry: Ints
    weight: NDArray[np.float32]
    choice_owner: Ints
    choice_at: Ints
    chosen: Ints

    @classmethod
    def of(cls, people: Population, cuts: Ints, profile: ProfileSpec, *, items: int, words: Mapping[str, int]) -> Batch:
        """The first `cuts[j]` events of client j of `people`, over a catalogue of `items`; `words` numbers texts."""
        rows, owner = _known(people, cuts)
        at = rows - people.offsets[owner]
        flat = History(people.table)
        item, weight = flat.items[rows].astype(np.int64), signed_weights(flat, profile)[rows]
        with_item, with_text = np.flatnonzero(item != NO_ITEM), np.flatnonzero(_worded(people)[rows])
        beside = np.where(item[with_text] != NO_ITEM, profile.text, 1.0).astype(np.float32)
        event = np.concatenate([with_item, with_text])
        entry = np.concatenate([item[with_item], items + _numbered(people, rows[with_text], words)])
        weights = np.concatenate([weight[with_item], weight[with_text] * beside])
        order = np.argsort(event, kind="stable")
        order = order[weights[order] != 0]  # what weighs nothing need not pass the tower
        event = event[order]
        first = _first(owner, np.where(_CHOOSES[flat.kinds[rows]], item, NO_ITEM), items)
        sizes = np.bincount(owner, minlength=len(people))
        return cls(
            sizes, owner[event], at[event], entry[order], weights[order], owner[first], at[first], item[first]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return f"Batch({len(self)} clients, contents withheld)"

    def pick(self, clients: Ints) -> Batch:
        """Those clients, in that order."""
        mentions, mentioned = _slices(self.mention_starts, clients)
        choices, chose = _slices(self.choice_starts, clients)
        new = np.arange(len(clients))
        return Batch(
            self.sizes[clients], np.repeat(new, mentioned), self.at[mentions], self.entry[mentions],
            self.weight[mentions], np.repeat(new, chose), self.choice_at[choices], self.chosen[choices],
        )  # fmt: skip

    def usable(self, client: int) -> Ints:
        """Which of a client's choices have an event before them: positions among its choices."""
        start, stop = self.choice_starts[client : client + 2]
        return np.flatnonzero(self.choice_at[start:stop] > 0)

    @cached_property
    def all_usable(self) -> Ints:
        """The same of all clients: places among the batch's choices, in order."""
        return np.flatnonzero(self.choice_at > 0)

    @cached_property
    def usable_counts(self) -> Ints:
        """(client,) how many choices are usable."""
        return np.bincount(self.choice_owner[self.all_usable], minlength=len(self))

    @cached_property
    def mention_starts(self) -> Ints:
        """(client + 1,) where each client's mentions start."""
        return np.searchsorted(self.owner, np.arange(len(self) + 1))

    @cached_property
    def choice_starts(self) -> Ints:
        """(client + 1,) where each client's choices start."""
        return np.searchsorted(self.choice_owner, np.arange(len(self) + 1))


@dataclass(frozen=True, eq=False)
class Laid:
    """A chunk of clients as padded tensors (n client, T example, M mention, C choice). What is padded is 0 or False.

    `entry`, `at`, `weight` (n, M) are mentions; no client has more than `events` events. `cuts`, `targets`, `real`
    (n, T) are examples: the events before a choice, the row chosen, and whether it is one. `choice_at`, `chosen`,
    `chose` (n, C) are all first choices: position, row, and whether it is one.
    """

    entry: Tensor
    at: Tensor
    weight: Tensor
    events: int
    cuts: Tensor
    targets: Tensor
    real: Tensor
    choice_at: Tensor
    chosen: Tensor
    chose: Tensor

    def __len__(self) -> int:
        return len(self.entry)

    def __repr__(self) -> str:
        return f"Laid({len(self)} clients, contents withheld)"

    def to(self, device: torch.device | str) -> Laid:
        """The same on another device."""
        moved = {field.name: getattr(self, field.name).to(device) for field in fields(self) if field.name != "events"}
        return Laid(events=self.events, **moved)


def lay(batch: Batch, picked: Sequence[Ints]) -> Laid:
    """A chunk whose examples are `picked[j]`, positions among client j's choices."""
    counts = np.fromiter(map(len, picked), np.int64, len(picked))
    places = np.concatenate([np.zeros(0, np.int64), *picked]) + np.repeat(batch.choice_starts[:-1], counts)
    return lay_flat(batch, places)


def lay_flat(batch: Batch, places: Ints) -> Laid:
    """A chunk whose examples are `places` among the batch's choices, ordered by client (`batch.all_usable`, say)."""
    of_examples = np.bincount(batch.choice_owner[places], minlength=len(batch))
    of_mentions, of_choices = np.diff(batch.mention_starts), np.diff(batch.choice_starts)
    entry, _ = _padded(batch.entry, of_mentions)
    at, _ = _padded(batch.at, of_mentions)
    weight, _ = _padded(batch.weight, of_mentions)
    cuts, real = _padded(batch.choice_at[places], of_examples)
    targets, _ = _padded(batch.chosen[places], of_examples)
    choice_at, chose = _padded(batch.choice_at, of_choices)
    chosen, _ = _padded(batch.chosen, of_choices)
    events = int(batch.sizes.max(initial=0))
    return Laid(entry, at, weight, events, cuts, targets, real, choice_at, chosen, chose)


def event_vectors(laid: Laid, table: Tensor) -> Tensor:
    """(n, E, dim) the sum of what each event mentions, weighted; `table` (entry, dim) holds items, then texts."""
    mentioned = table[laid.entry.flatten()] * laid.weight.view(-1, 1)
    first = torch.arange(len(laid), device=table.device)[:, None] * laid.events
    flat = mentioned.new_zeros(len(laid) * laid.events, table.shape[1])
    # Along the first dimension, with whole rows: twice as fast as a scatter within each client.
    return flat.index_add_(0, (first + laid.at).flatten(), mentioned).view(len(laid), laid.events, table.shape[1])


def decayed(laid: Laid, vectors: Tensor, decays: Sequence[float]) -> Tensor:
    """(n, decay, T, dim) decayed sums of the events before each cut, not yet of length 1, of `vectors` (n, E, dim)."""
    ages = torch.arange(laid.events, device=vectors.device, dtype=vectors.dtype)
    # 0⁰ = 1 in torch, which is what decay 0 needs.
    powers = torch.stack([decay**ages for decay in map(ages.new_tensor, decays)])
    # A window that slides over powers backwards and zeros: at cut c it shows c powers, then events still to come.
    line = torch.cat([powers.flip(1), torch.zeros_like(powers)], dim=1)
    windows = line.unfold(1, laid.events, 1).flip(1)
    weights = windows[:, laid.cuts].movedim(0, 1).flatten(1, 2)
    sums: Tensor = weights @ vectors
    return sums.view(len(laid), len(decays), laid.cuts.shape[1], vectors.shape[2])


def chunked(batch: Batch, examples: Ints, budget: Budget, limit: int) -> Iterator[Ints]:
    """Chunks of clients of like size, each client in one: small ones first.

    `examples[j]` is how many examples client j brings, `budget(n, T, E)` the bytes of n clients padded to T examples
    and E events. A chunk of more than one client stays within `limit` bytes. One of more than eight has at most a
    quarter more cells (examples and events) than are filled.
    """
    order = np.lexsort((batch.sizes, examples))
    start, filled, most, longest = 0, 0, 0, 0
    for end, (own, events) in enumerate(zip(examples[order].tolist(), batch.sizes[order].tolist(), strict=True)):
        n, wider, deeper = end - start + 1, max(most, own), max(longest, events)
        wasteful = n > _FEW and n * (wider + deeper) > _WASTE * (filled + own + events)
        if n > 1 and (wasteful or budget(n, wider, deeper) > limit):
            yield order[start:end]
            start, filled, wider, deeper = end, 0, own, events
        filled, most, longest = filled + own + events, wider, deeper
    if len(order):
        yield order[start:]


def choosing(people: Population, cuts: Ints) -> tuple[Ints, Ints]:
    """(act,) client and catalogue row of each act that chooses an item, again or not, among the first `cuts` events."""
    rows, owner = _known(people, cuts)
    flat = History(people.table)
    item = flat.items[rows].astype(np.int64)
    acts = np.flatnonzero(_CHOOSES[flat.kinds[rows]] & (item != NO_ITEM))
    return owner[acts], item[acts]


def _known(people: Population, cuts: Ints) -> tuple[Ints, Ints]:
    """Rows of the first `cuts` events of each client in the table, and whose they are."""
    sizes = np.minimum(cuts, people.sizes)
    return _spans(people.offsets[:-1], sizes), np.repeat(np.arange(len(sizes)), sizes)


def _worded(people: Population) -> NDArray[np.bool_]:
    lengths: NDArray[Any] = pc.binary_length(people.table.column("text")).to_numpy()
    return lengths > 0


def _numbered(people: Population, rows: Ints, words: Mapping[str, int]) -> Ints:
    """(row,) the numbers of the texts in some rows of the table."""
    coded = people.table.column("text").take(rows).combine_chunks().dictionary_encode()
    known = [words.get(text, -1) for text in coded.dictionary.to_pylist()]
    if -1 in known:
        remedy = "Number the texts of all people."
        raise DataError("every free text has a number", remedy=remedy, without=known.count(-1))
    numbers: Ints = np.array(known, np.int64)[coded.indices.to_numpy()]
    return numbers


def _first(owner: Ints, item: Ints, items: int) -> Ints:
    """Where each client has an item for the first time, in order; `NO_ITEM` is none."""
    places = np.flatnonzero(item != NO_ITEM)
    _, first = np.unique(owner[places] * items + item[places], return_index=True)
    found: Ints = places[np.sort(first)]
    return found


def _spans(starts: Ints, counts: Ints) -> Ints:
    """Numbers from `starts[j]` on, `counts[j]` of them, for one j after the other."""
    skipped = starts - (np.cumsum(counts) - counts)
    return np.repeat(skipped, counts) + np.arange(counts.sum())


def _slices(bounds: Ints, clients: Ints) -> tuple[Ints, Ints]:
    """Places of what belongs to `clients`, and how much that is for each."""
    counts = bounds[clients + 1] - bounds[clients]
    return _spans(bounds[clients], counts), counts


def _padded(values: NDArray[_T], counts: Ints) -> tuple[Tensor, Tensor]:
    """(client, widest) `values`, and where they are."""
    real = np.arange(counts.max(initial=0)) < counts[:, None]
    grid = np.zeros(real.shape, values.dtype)
    grid[real] = values
    return torch.from_numpy(grid), torch.from_numpy(real)
