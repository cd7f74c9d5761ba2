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
from torch.nn import functional

from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.history import History
from fedrec.device.weights import signed_weights
from fedrec.errors import DataError
from fedrec.population.source import Population
from fedrec.spec import ProfileSpec

Ints = NDArray[np.int64]
Budget = Callable[[int, int, int], int]  # clients, examples, mentions → bytes
_T = TypeVar("_T", bound=np.generic)

_CHOOSES = np.array([kind.chooses for kind in Kind])
_WASTE = 1.25  # padded cells of a chunk over those that are filled
_CHEAP = 600  # cells that a chunk may always pad: another chunk would take longer


@dataclass(frozen=True, eq=False)
class Batch:
    """Several clients' histories, flat and without padding. Never leaves the devices that it stands for.

    A mention is an event's item or its text: `owner`, `at`, `entry`, `weight` (mention,) are the client's position in
    the batch, the event's in its history, the catalogue row (or the number of catalogue rows + the text's number) and
    the signed weight, never 0. They are ordered by client, items before texts, then by event; the last `texts[j]` of
    client j are texts. `choice_owner`, `choice_at`, `chosen` (choice,) are clients, positions and rows of first
    choices, by client, then by event. `rated_owner`, `rated`, `ratings` (opinion,) are clients, numbers and ratings
    of the texts that came with one, in the same order, whatever they weigh.
    """

    texts: Ints
    owner: Ints
    at: Ints
    entry: Ints
    weight: NDArray[np.float32]
    choice_owner: Ints
    choice_at: Ints
    chosen: Ints
    rated_owner: Ints
    rated: Ints
    ratings: NDArray[np.float32]

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
        said = _numbered(people, rows[with_text], words)
        entry = np.concatenate([item[with_item], items + said])
        weights = np.concatenate([weight[with_item], weight[with_text] * beside])
        order = np.argsort(owner[event], kind="stable")
        order = order[weights[order] != 0]  # what weighs nothing need not pass the tower
        event, entry = event[order], entry[order]
        first = _first(owner, np.where(_CHOOSES[flat.kinds[rows]], item, NO_ITEM), items)
        texts = np.bincount(owner[event[entry >= items]], minlength=len(people))
        ratings = flat.ratings[rows[with_text]]
        rated = np.flatnonzero(~np.isnan(ratings))
        return cls(
            texts, owner[event], at[event], entry, weights[order], owner[first], at[first], item[first],
            owner[with_text[rated]], said[rated], ratings[rated],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Batch({len(self)} clients, contents withheld)"

    def pick(self, clients: Ints) -> Batch:
        """Those clients, in that order."""
        mentions, mentioned = _slices(self.mention_starts, clients)
        choices, chose = _slices(self.choice_starts, clients)
        opinions, opined = _slices(self.rated_starts, clients)
        new = np.arange(len(clients))
        return Batch(
            self.texts[clients], np.repeat(new, mentioned), self.at[mentions], self.entry[mentions],
            self.weight[mentions], np.repeat(new, chose), self.choice_at[choices], self.chosen[choices],
            np.repeat(new, opined), self.rated[opinions], self.ratings[opinions],
        )  # fmt: skip

    @cached_property
    def all_usable(self) -> Ints:
        """Which choices have an event before them: places among the batch's choices, in order."""
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
    def mentions(self) -> Ints:
        """(client,) how many mentions each has."""
        return np.diff(self.mention_starts)

    @cached_property
    def choice_starts(self) -> Ints:
        """(client + 1,) where each client's choices start."""
        return np.searchsorted(self.choice_owner, np.arange(len(self) + 1))

    @cached_property
    def rated_starts(self) -> Ints:
        """(client + 1,) where each client's opinions start."""
        return np.searchsorted(self.rated_owner, np.arange(len(self) + 1))


@dataclass(frozen=True, eq=False)
class Laid:
    """A chunk of clients as padded tensors (n client, T example, M mention, C choice). What is padded is 0 or False.

    `entry`, `at`, `weight` (n, M) are mentions: of items in the first `listed` columns, of texts in the others. `cuts`,
    `targets`, `real` (n, T) are examples: the events before a choice, the row chosen, and whether it is one.
    `choice_at`, `chosen`, `chose` (n, C) are all first choices: position, row, and whether it is one.
    """

    entry: Tensor
    at: Tensor
    weight: Tensor
    listed: int
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
        moved = {field.name: getattr(self, field.name).to(device) for field in fields(self) if field.name != "listed"}
        return Laid(listed=self.listed, **moved)


def lay(batch: Batch, places: Ints) -> Laid:
    """A chunk whose examples are `places` among the batch's choices, ordered by client (`batch.all_usable`, say)."""
    of_examples = np.bincount(batch.choice_owner[places], minlength=len(batch))
    items, of_choices = _filled(batch.mentions - batch.texts), np.diff(batch.choice_starts)
    mentions = np.concatenate([items, _filled(batch.texts)], axis=1)
    examples, choices = _filled(of_examples), _filled(of_choices)
    return Laid(
        _padded(batch.entry, mentions), _padded(batch.at, mentions), _padded(batch.weight, mentions), items.shape[1],
        _padded(batch.choice_at[places], examples), _padded(batch.chosen[places], examples), torch.from_numpy(examples),
        _padded(batch.choice_at, choices), _padded(batch.chosen, choices), torch.from_numpy(choices),
    )  # fmt: skip


def recency(laid: Laid, decays: Sequence[float]) -> Tensor:
    """(n, M, T, decay) what each mention weighs before each cut: its own weight, decayed once for every event since."""
    # One more than the age; 0 is still to come, and weighs nothing. Half as many bytes in 32 bits.
    age = (laid.cuts.int()[:, None] - laid.at.int()[:, :, None]).clamp_(min=0)
    latest = int(laid.cuts.max()) if laid.cuts.numel() else 0
    ages = torch.arange(latest, device=age.device, dtype=laid.weight.dtype)[:, None]
    # 0⁰ = 1 in torch, which is what decay 0 needs.
    powers = functional.pad(ages.new_tensor(decays) ** ages, (0, 0, 1, 0))
    return looked_up(powers, age.flatten(1)).view(*age.shape, len(decays)).mul_(laid.weight[:, :, None, None])


def decayed(laid: Laid, vectors: Tensor, decays: Sequence[float]) -> Tensor:
    """(n, T, decay, dim) decayed sums before each cut of what was mentioned, `vectors` (n, M, dim); not of length 1."""
    weights = recency(laid, decays)
    sums = weights.flatten(2).transpose(1, 2) @ vectors
    return sums.view(len(laid), *weights.shape[2:], vectors.shape[2])


def looked_up(table: Tensor, entry: Tensor) -> Tensor:
    """(n, M, …) the rows of `table` at `entry` (n, M)."""
    # Whole rows by one list of numbers: faster than indexing by a matrix of them.
    return table.index_select(0, entry.flatten()).view(*entry.shape, table.shape[1])


def chunked(batch: Batch, examples: Ints, budget: Budget, limit: int) -> Iterator[Ints]:
    """Chunks of clients of like size, each client in one: the largest first, for the others then keep all workers busy.

    `examples[j]` is how many examples client j brings, `budget(n, T, M)` the bytes of n clients padded to T examples
    and M mentions. A chunk of more than one client stays within `limit` bytes. It has at most a quarter more cells
    (examples and mentions) than are filled, or 600 more.
    """
    order = np.lexsort((batch.mentions, examples))[::-1]
    start, filled, most, longest = 0, 0, 0, 0
    for end, (own, mentions) in enumerate(zip(examples[order].tolist(), batch.mentions[order].tolist(), strict=True)):
        n, wider, deeper = end - start + 1, max(most, own), max(longest, mentions)
        needed = filled + own + mentions
        wasteful = n * (wider + deeper) > max(_WASTE * needed, needed + _CHEAP)
        if n > 1 and (wasteful or budget(n, wider, deeper) > limit):
            yield order[start:end]
            start, filled, wider, deeper = end, 0, own, mentions
        filled, most, longest = filled + own + mentions, wider, deeper
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


def _filled(counts: Ints) -> NDArray[np.bool_]:
    """(client, widest) the cells that hold something when each client has so many."""
    return np.arange(counts.max(initial=0)) < counts[:, None]


def _padded(values: NDArray[_T], filled: NDArray[np.bool_]) -> Tensor:
    """`values` in the cells that hold something."""
    grid = np.zeros(filled.shape, values.dtype)
    grid[filled] = values
    return torch.from_numpy(grid)
