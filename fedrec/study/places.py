"""Where every held-out item came in its client's ranking: who is asked, what may be ranked, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.device.history import History
from fedrec.errors import DataError, require
from fedrec.population.source import People
from fedrec.randomness import stream
from fedrec.study import metrics
from fedrec.study.holdouts import Holdout, ItemSets
from fedrec.study.metrics import Ranked
from fedrec.study.splits import chosen

_BATCH = 256  # clients scored at once: bounds memory, changes no number


class Scorer(Protocol):
    """Anything that scores the whole catalogue for a client's history."""

    def __call__(self, clients: NDArray[np.int64], histories: Sequence[History], /) -> NDArray[np.float32]:
        """(client, item) finite scores, higher is better, from histories that are already cut."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """How to rank and what to report. Every field is public.

    `candidates` (item,) bool limits what may be ranked (None: every item); a target outside it is not
    asked for. `vectors` (item, dim) are public item vectors and turn on diversity. A client with fewer
    than `few` training choices is a cold user. `negatives=0` leaves the sampled protocol out. At most
    `people` of those with a target are asked, drawn with the seed; 0 for all of them.
    """

    k: tuple[int, ...] = (10,)
    negatives: int = 99
    seed: int = 0
    candidates: NDArray[np.bool_] | None = None
    vectors: NDArray[np.float32] | None = None
    few: int = 5
    people: int = 0

    def __post_init__(self) -> None:
        require(len(self.k) > 0 and min(self.k) > 0, "there is at least one k, and each is at least 1", k=self.k)
        require(self.negatives >= 0, "the number of negatives is 0 (none) or more", negatives=self.negatives)
        require(self.people >= 0, "the number of people asked is 0 (all) or more", people=self.people)


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """What is asked, of whom."""

    people: People
    train: NDArray[np.int64]
    holdout: Holdout
    targets: ItemSets
    able: int  # how many clients have a target
    clients: NDArray[np.int64]  # those of them who are asked
    ranking: Ranking

    @classmethod
    def of(cls, people: People, holdout: Holdout, train: NDArray[np.int64], ranking: Ranking) -> Asked:
        """Everybody with a target, or those whom `ranking` draws; `train` (client,) are the scorer's cuts."""
        targets = _askable(holdout.targets, ranking.candidates)
        able = np.flatnonzero(targets.sizes)
        if len(able) == 0:
            raise DataError(
                "an evaluation needs a client with a held-out item",
                clients=len(people),
                remedy="Use clients with at least two distinct choices, or another split.",
            )
        return cls(people, train, holdout, targets, len(able), _panel(able, ranking, len(people)), ranking)


@dataclass(frozen=True, eq=False, repr=False)
class _Batch:
    """Some of the clients who are asked, and what they know. Item sets are by position in `clients`."""

    clients: NDArray[np.int64]
    histories: tuple[History, ...]
    targets: ItemSets
    barred: tuple[ItemSets, ...]  # never ranked
    ever: tuple[ItemSets, ...]  # never a sampled negative: chosen before or after the cut
    activity: NDArray[np.int64]  # choices in training

    @classmethod
    def of(cls, task: Asked, clients: NDArray[np.int64]) -> _Batch:
        people, holdout, own = task.people.take(clients), task.holdout, np.arange(len(clients))
        cuts = holdout.cuts[clients]
        targets = task.targets.of_clients(clients)
        ignored = () if holdout.ignored is None else (holdout.ignored.of_clients(clients),)
        return cls(
            clients, tuple(people[int(n)].before(cuts[n]) for n in own), targets, (chosen(people, cuts), *ignored),
            (chosen(people, people.sizes), targets, *ignored), chosen(people, task.train[clients]).sizes,
        )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Places:
    """Where every target came, and what every client was shown."""

    candidates: NDArray[np.bool_]  # (item,)
    items: NDArray[np.int32]  # (target,)
    full: Ranked
    sampled: NDArray[np.int64]  # (target,) rank among the sampled negatives
    fewest: int  # negatives drawn for the worst-off target
    lists: NDArray[np.int64]  # (client, max k)
    activity: NDArray[np.int64]  # (client,) choices in training


def _panel(able: NDArray[np.int64], ranking: Ranking, clients: int) -> NDArray[np.int64]:
    """Who of `able` is asked, in order. One order of everybody, so that two holdouts ask nearly the same people."""
    if not 0 < ranking.people < len(able):
        return able
    turn = stream(ranking.seed, "panel").permutation(clients)
    return np.sort(able[np.argsort(turn[able])[: ranking.people]])


def _askable(targets: ItemSets, candidates: NDArray[np.bool_] | None) -> ItemSets:
    """`targets` without those that may not be ranked."""
    if candidates is None:
        return targets
    if targets.items.max(initial=-1) >= len(candidates):
        raise DataError("candidates has one entry a catalogue item", candidates=len(candidates))
    rows, items = targets.pairs(np.arange(len(targets)))
    return ItemSets.of(rows[candidates[items]], items[candidates[items]], len(targets))


def places(scorer: Scorer, task: Asked) -> Places:
    """Rank for everybody who is asked, in batches."""
    parts = [
        _rank(scorer, _Batch.of(task, task.clients[n : n + _BATCH]), task.ranking)
        for n in range(0, len(task.clients), _BATCH)
    ]
    rows, items = task.targets.pairs(task.clients)
    ranks = np.concatenate([part.full.ranks for part in parts])
    return Places(
        parts[0].candidates,
        items,
        Ranked(rows, ranks, len(task.clients)),
        np.concatenate([part.sampled for part in parts]),
        min(part.fewest for part in parts),
        np.concatenate([part.lists for part in parts]),
        np.concatenate([part.activity for part in parts]),
    )


def _rank(scorer: Scorer, batch: _Batch, ranking: Ranking) -> Places:
    scores = scorer(batch.clients, batch.histories)
    candidates = _candidates(scores, batch, ranking.candidates)
    masked, everybody = np.where(candidates, scores, np.float32(-np.inf)), np.arange(len(batch.clients))
    for sets in batch.barred:
        masked[sets.pairs(everybody)] = -np.inf
    rows, items = batch.targets.pairs(everybody)
    full = metrics.rank(masked, rows, items)
    rivals = _rivals(scores, candidates, batch, ranking)
    sampled = metrics.rank_among(scores[rows, items], rivals)
    fewest = int((~np.isnan(rivals)).sum(axis=1).min())
    lists = metrics.top(masked, max(ranking.k))
    return Places(candidates, items, full, sampled, fewest, lists, batch.activity)


def _candidates(scores: NDArray[np.float32], batch: _Batch, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """(item,) what may be ranked, once the scores are seen to be what a scorer promises."""
    wide = scores.ndim == 2 and scores.shape[1] > max(int(sets.items.max(initial=-1)) for sets in batch.ever)
    candidates = np.ones(scores.shape[-1], bool) if mask is None else mask
    if not wide or scores.shape != (len(batch.clients), len(candidates)):
        raise DataError(
            "a scorer returns one row a client and one column a catalogue item",
            shape=scores.shape,
            clients=len(batch.clients),
            candidates=len(candidates),
        )
    if not np.isfinite(scores).all():
        raise DataError(
            "a scorer's scores are finite",
            wrong=int((~np.isfinite(scores)).sum()),
            remedy="The model diverged: lower the learning rate, or go back to an earlier round.",
        )
    return candidates


def _rivals(
    scores: NDArray[np.float32], candidates: NDArray[np.bool_], batch: _Batch, ranking: Ranking
) -> NDArray[np.float32]:
    """(target, negative) scores of the sampled negatives; NaN where a client has fewer items left to draw.

    Drawn without replacement from what the client never chose, before the cut or after it (He et al.
    2017, section 4.1). That looks into the future: it is for evaluation only, and training never sees it.
    """
    drawn = []
    for row, client in enumerate(batch.clients):
        allowed = candidates.copy()
        for sets in batch.ever:
            allowed[sets[row]] = False
        pool, rng = np.flatnonzero(allowed), stream(ranking.seed, "negatives", int(client))
        size = min(ranking.negatives, len(pool))
        for _ in batch.targets[row]:
            negatives = rng.choice(pool, size, replace=False, shuffle=False)
            line = np.full(ranking.negatives, np.nan, np.float32)
            line[:size] = scores[row, negatives]
            drawn.append(line)
    return np.stack(drawn)
