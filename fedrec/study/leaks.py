"""Two ways a benchmark lies, and the checks that catch them.

A held-out item in the history gives the answer away at once. A training sampler that *avoids* held-out items
gives it away slowly: after enough rounds the held-out item is the one that was never pushed down. The second
needs no access to the sampler's code, only draws from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, require
from fedrec.population.source import People
from fedrec.randomness import stream
from fedrec.study.holdouts import Holdout, ItemSets, Split
from fedrec.study.splits import mentioned

Draw = Callable[[int], NDArray[np.integer]]
"""Training negatives (or candidates) for one client; a new draw each time it is called."""

Swap = tuple[int, int, int, int]
"""Clients u and v, and a held-out item of each."""

_SIGMAS = 5.0  # two-sided p = 6e-7: a fair sampler is not accused
_INFORMATION = 25.0  # least variance of the statistic: even held-out items at half their rate are past 5 sigmas


def check_split(people: People, split: Split) -> None:
    """Raise `DataError` if a history that is trained on or ranked with can know a held-out item.

    Also: the cuts are inside the histories and in order, no item is a validation and a test item of one client, and a
    hidden item is mentioned before no cut.
    """
    _check_cuts(split, people.sizes)
    leaked = np.zeros(2, np.int64)
    cold, shown = np.flatnonzero(split.cold_items), 0
    for first, block in people.blocks():
        part = split.between(first, first + len(block))
        leaked += [_leaks(block, holdout) for holdout in (part.validation, part.test)]
        # Training and validation histories are shorter than test's, so this covers those too.
        shown += int(np.isin(mentioned(block, part.test.cuts).items, cold).sum()) if len(cold) else 0
    _check_holdout(split.validation, int(leaked[0]), f"{split.name}, validation")
    _check_holdout(split.test, int(leaked[1]), f"{split.name}, test")
    both = len(_common(split.validation.targets, split.test.targets))
    if both:
        raise DataError("a test item is no validation item: settings are chosen by these", split=split.name, both=both)
    if shown:
        raise DataError("a hidden item is mentioned in no history", split=split.name, mentions=shown)


@dataclass(frozen=True)
class Evidence:
    """How much more often held-out items were drawn than by chance, and the variance that chance has."""

    excess: float
    variance: float

    @property
    def enough(self) -> bool:
        """Whether a sampler that draws held-out items at half their rate would show."""
        return self.variance >= _INFORMATION

    @property
    def sigmas(self) -> float:
        """The excess in standard deviations; 0 where nothing was drawn."""
        return self.excess / sqrt(self.variance) if self.variance else 0.0

    def check(self) -> None:
        """Raise `DataError` if the draws depend on what is held out."""
        if abs(self.sigmas) > _SIGMAS:
            raise DataError(
                "training negatives do not depend on what is held out",
                sigmas=round(self.sigmas, 1),
                remedy="Draw from everything outside the training history, held-out items included.",
            )


def check_negatives(draw: Draw, people: People, split: Split, *, draws: int = 20, seed: int = 0) -> None:
    """Raise `DataError` unless training negatives fall on held-out items as often as on any other.

    Also if there are too few draws to tell. Two thousand clients at most are looked at; see `dependence`.
    """
    require(draws >= 1, "at least one draw", draws=draws)
    found = dependence(draw, swaps(people, split.test.targets, seed=seed), draws=draws)
    found.check()
    if not found.enough:
        raise DataError(
            "enough draws to tell a fair sampler from one that avoids held-out items",
            variance=round(found.variance, 1), needed=_INFORMATION, remedy="Raise draws, or use more clients.",
        )  # fmt: skip


def dependence(draw: Draw, swapped: Sequence[Swap], *, draws: int) -> Evidence:
    """What `draws` draws of each of the `swapped` clients show.

    Clients u and v swap their held-out items i and j, neither of which the other ever mentions. If what
    is drawn does not depend on what is held out, counts have the form a_client · b_item, and the table
    (u, v) × (i, j) has odds ratio 1, whatever the items' popularity and the clients' activity. Tables
    are pooled by the Cochran-Mantel-Haenszel statistic (Mantel and Haenszel 1959).
    """
    excess, variance = 0.0, 0.0
    for u, v, i, j in swapped:
        table = np.stack([_counts(draw, u, (i, j), draws), _counts(draw, v, (i, j), draws)])
        cell_excess, cell_variance = _hypergeometric(table)
        # Held-out cells are (u, i) and (v, j): the margins fix one from the other.
        excess, variance = excess + cell_excess, variance + cell_variance
    return Evidence(excess, variance)


def swaps(people: People, targets: ItemSets, *, seed: int, most: int = 1000) -> list[Swap]:
    """At most `most` pairs of clients (u, v) with held-out items (i, j), each unknown to the other client for ever."""
    clients = stream(seed, "swaps").permutation(np.flatnonzero(targets.sizes))[: 2 * most]
    known = mentioned(people.take(clients), people.sizes[clients])
    return list(_swaps(clients, targets, known))


def _check_cuts(split: Split, lengths: NDArray[np.int64]) -> None:
    steps = np.stack([np.zeros_like(lengths), split.train, split.validation.cuts, split.test.cuts, lengths])
    wrong = int((np.diff(steps, axis=0) < 0).any(axis=0).sum())
    if wrong:
        raise DataError("0 <= train <= validation <= test <= events", split=split.name, clients=wrong)


def _leaks(block: People, holdout: Holdout) -> int:
    return len(_common(mentioned(block, holdout.cuts), holdout.targets))


def _check_holdout(holdout: Holdout, leaked: int, name: str) -> None:
    if leaked:
        raise DataError(
            "a held-out item is mentioned nowhere in its history", split=name, leaked=leaked,
            targets=len(holdout.targets.items), remedy="Cut before the first event that names it.",
        )  # fmt: skip
    if holdout.ignored is not None and len(_common(holdout.ignored, holdout.targets)):
        raise DataError("an ignored item is not a target", split=name)


def _common(left: ItemSets, right: ItemSets) -> NDArray[np.int64]:
    """Find the (client, item) pairs in both, as numbers."""
    width = 1 + max(int(left.items.max(initial=0)), int(right.items.max(initial=0)))
    keys = [rows * width + items for rows, items in (sets.pairs(np.arange(len(sets))) for sets in (left, right))]
    return np.intersect1d(keys[0], keys[1])


def _swaps(clients: NDArray[np.int64], targets: ItemSets, known: ItemSets) -> Iterator[Swap]:
    for n in range(0, len(clients) - 1, 2):
        u, v = clients[n], clients[n + 1]
        i, j = int(targets[u][0]), int(targets[v][0])
        if i not in known[n + 1] and j not in known[n] and i not in targets[v] and j not in targets[u]:
            yield int(u), int(v), i, j


def _counts(draw: Draw, client: int, items: tuple[int, int], draws: int) -> NDArray[np.int64]:
    drawn = np.concatenate([draw(client) for _ in range(draws)])
    return np.array([np.count_nonzero(drawn == item) for item in items])


def _hypergeometric(table: NDArray[np.int64]) -> tuple[float, float]:
    """How far the first cell of a 2 x 2 table is above its mean given the margins, and its variance."""
    total = float(table.sum())
    if total < 2:
        return 0.0, 0.0
    rows, columns = table.sum(axis=1).astype(float), table.sum(axis=0).astype(float)
    mean = rows[0] * columns[0] / total
    return float(table[0, 0] - mean), float(rows.prod() * columns.prod() / (total**2 * (total - 1)))
