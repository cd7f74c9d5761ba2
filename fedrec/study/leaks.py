"""Two ways a benchmark lies, and the checks that catch them.

A held-out item in the history gives the answer away at once. A training sampler that *avoids* held-out items
gives it away slowly: after enough rounds the held-out item is the one that was never pushed down. The second
needs no access to the sampler's code, only draws from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, require
from fedrec.population.source import People
from fedrec.randomness import stream
from fedrec.study.holdouts import Holdout, ItemSets, Split
from fedrec.study.splits import mentioned

Draw = Callable[[int], NDArray[np.int32]]
"""Training negatives (or candidates) for one client; a new draw each time it is called."""

_SIGMAS = 5.0  # two-sided p = 6e-7: a fair sampler is not accused
_INFORMATION = 25.0  # least variance of the statistic: even held-out items at half their rate are past 5 sigmas


def check_split(people: People, split: Split) -> None:
    """Raise `DataError` if a history that is trained on or ranked with can know a held-out item.

    Also: the cuts are inside the histories and in order, and a hidden item is mentioned before no cut.
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
    if shown:
        raise DataError("a hidden item is mentioned in no history", split=split.name, mentions=shown)


def check_negatives(draw: Draw, people: People, split: Split, *, draws: int = 20, seed: int = 0) -> None:
    """Raise `DataError` unless training negatives fall on held-out items as often as on any other.

    Clients u and v swap their held-out items i and j, neither of which the other ever mentions. If what
    is drawn does not depend on what is held out, counts have the form a_client · b_item, and the table
    (u, v) × (i, j) has odds ratio 1, whatever the items' popularity and the clients' activity. Tables
    are pooled by the Cochran-Mantel-Haenszel statistic (Mantel and Haenszel 1959).

    `draws` is how often each client is asked. Two thousand clients at most are looked at.
    """
    require(draws >= 1, "at least one draw", draws=draws)
    excess, variance = 0.0, 0.0
    for u, v, i, j in _swaps(people, split.test.targets, seed):
        table = np.stack([_counts(draw, u, (i, j), draws), _counts(draw, v, (i, j), draws)])
        cell_excess, cell_variance = _hypergeometric(table)
        # Held-out cells are (u, i) and (v, j): the margins fix one from the other.
        excess, variance = excess + cell_excess, variance + cell_variance
    if variance < _INFORMATION:
        raise DataError(
            "enough draws to tell a fair sampler from one that avoids held-out items",
            variance=round(variance, 1), needed=_INFORMATION, remedy="Raise draws, or use more clients.",
        )  # fmt: skip
    sigmas = excess / sqrt(variance)
    if abs(sigmas) > _SIGMAS:
        raise DataError(
            "training negatives do not depend on what is held out",
            sigmas=round(sigmas, 1),
            remedy="Draw from everything outside the training history, held-out items included.",
        )


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


def _swaps(people: People, targets: ItemSets, seed: int) -> Iterator[tuple[int, int, int, int]]:
    """Clients (u, v) with held-out items (i, j), each of them unknown to the other client for ever."""
    clients = stream(seed, "swaps").permutation(np.flatnonzero(targets.sizes))[:2000]
    known = mentioned(people.take(clients), people.sizes[clients])
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
