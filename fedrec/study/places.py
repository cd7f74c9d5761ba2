"""Where every held-out item came in its client's ranking: who is asked, what may be ranked, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec.device.history import History
from fedrec.errors import DataError, require
from fedrec.population.source import People
from fedrec.randomness import stream
from fedrec.study import metrics
from fedrec.study.holdouts import Holdout, ItemSets
from fedrec.study.metrics import NO_RANK, Floats, Ranked
from fedrec.study.splits import Trained, chosen

_BATCH = 256  # clients scored at once: bounds memory, changes no number


class Scorer(Protocol):
    """Anything that scores the whole catalogue for a client's history."""

    def __call__(self, clients: NDArray[np.int64], histories: Sequence[History], /) -> NDArray[np.float32]:
        """(client, item) finite scores, higher is better, from histories that are already cut."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """How to rank and what to report. Every field is public.

    `candidates` (item,) bool limits what may be ranked (None: every item); a target outside it is not
    asked for. `vectors` (item, dim) are public item vectors and turn on diversity; `tags`, one list an
    item, turn on miscalibration. A client with fewer than `few` training choices is a cold user.
    `negatives=0` leaves the sampled protocol out. At most `people` of those with a target are asked,
    drawn with the seed; 0 for all of them.
    """

    k: tuple[int, ...] = (10,)
    negatives: int = 99
    seed: int = 0
    candidates: NDArray[np.bool_] | None = None
    vectors: NDArray[np.float32] | None = None
    tags: Sequence[Sequence[str]] | None = None
    few: int = 5
    people: int = 0

    def __post_init__(self) -> None:
        require(len(self.k) > 0 and min(self.k) > 0, "there is at least one k, and each is at least 1", k=self.k)
        require(self.negatives >= 0, "the number of negatives is 0 (none) or more", negatives=self.negatives)
        require(self.people >= 0, "the number of people asked is 0 (all) or more", people=self.people)


@dataclass(frozen=True, eq=False, repr=False)
class Tags:
    """Which of `kinds` tags each item has; an item's weight is split equally over its own."""

    of_items: ItemSets  # one set an item, of tags by number
    kinds: int

    @classmethod
    def of(cls, tags: Sequence[Sequence[str]]) -> Tags:
        """Number the tags; one that an item repeats counts once."""
        pairs = [(item, tag) for item, each in enumerate(tags) for tag in sorted(set(each))]
        numbers = {tag: n for n, tag in enumerate(sorted({tag for _, tag in pairs}))}
        items = np.array([item for item, _ in pairs], np.int64)
        return cls(ItemSets.of(items, np.array([numbers[tag] for _, tag in pairs], np.int32), len(tags)), len(numbers))

    def shares(self, rows: NDArray[np.int64], items: NDArray[np.integer[Any]], among: int) -> Floats:
        """(row, tag) how each row's items spread over tags, of `among` rows; item `items[n]` belongs to `rows[n]`.

        Untagged items do not count: a row sums to 1, or to 0 without a tagged item.
        """
        which, tags = self.of_items.pairs(np.asarray(items, np.int64))
        weights = 1 / self.of_items.sizes[items][which]
        total = np.bincount(rows[which] * self.kinds + tags, weights, among * self.kinds).reshape(among, self.kinds)
        return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """What is asked, of whom. `trained` is what the scorer was trained on."""

    people: People
    trained: Trained
    holdout: Holdout
    targets: ItemSets
    able: int  # how many clients have a target
    clients: NDArray[np.int64]  # those of them who are asked
    ranking: Ranking

    @classmethod
    def of(cls, people: People, holdout: Holdout, trained: Trained, ranking: Ranking) -> Asked:
        """Everybody with a target, or those whom `ranking` draws."""
        targets = _askable(holdout.targets, ranking.candidates)
        able = np.flatnonzero(targets.sizes)
        if len(able) == 0:
            raise DataError(
                "an evaluation needs a client with a held-out item",
                clients=len(people),
                remedy="Use clients with at least two distinct choices, or another split.",
            )
        return cls(people, trained, holdout, targets, len(able), _panel(able, ranking, len(people)), ranking)

    @cached_property
    def tags(self) -> Tags | None:
        """The items' tags, if there are any to measure miscalibration by."""
        return None if self.ranking.tags is None else Tags.of(self.ranking.tags)


@dataclass(frozen=True, eq=False, repr=False)
class _Batch:
    """Some of the clients who are asked, and what they know. Item sets are by position in `clients`."""

    clients: NDArray[np.int64]
    histories: tuple[History, ...]
    targets: ItemSets
    barred: tuple[ItemSets, ...]  # never ranked
    ever: tuple[ItemSets, ...]  # never a sampled negative: chosen before or after the cut
    choices: ItemSets  # in training

    @classmethod
    def of(cls, task: Asked, clients: NDArray[np.int64]) -> _Batch:
        people, holdout, own = task.people.take(clients), task.holdout, np.arange(len(clients))
        cuts = holdout.cuts[clients]
        targets = task.targets.of_clients(clients)
        ignored = () if holdout.ignored is None else (holdout.ignored.of_clients(clients),)
        return cls(
            clients, tuple(people[int(n)].before(cuts[n]) for n in own), targets, (chosen(people, cuts), *ignored),
            (chosen(people, people.sizes), targets, *ignored), chosen(people, task.trained.cuts[clients]),
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
    mainstream: Floats  # (client,) mean over them of how many clients made that choice; NaN without one
    miscalibration: Floats  # (client, k); no column without tags


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
        _rank(scorer, _Batch.of(task, task.clients[n : n + _BATCH]), task) for n in range(0, len(task.clients), _BATCH)
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
        np.concatenate([part.mainstream for part in parts]),
        np.concatenate([part.miscalibration for part in parts]),
    )


def _rank(scorer: Scorer, batch: _Batch, task: Asked) -> Places:
    scores, ranking = scorer(batch.clients, batch.histories), task.ranking
    candidates = _candidates(scores, batch, ranking)
    masked, everybody = np.where(candidates, scores, np.float32(-np.inf)), np.arange(len(batch.clients))
    for sets in batch.barred:
        masked[sets.pairs(everybody)] = -np.inf
    rows, items = batch.targets.pairs(everybody)
    full = metrics.rank(masked, rows, items)
    rivals = _rivals(scores, candidates, batch, ranking)
    sampled = metrics.rank_among(scores[rows, items], rivals)
    fewest = int((~np.isnan(rivals)).sum(axis=1).min())
    lists = metrics.top(masked, max(ranking.k))
    mainstream = _mainstream(batch.choices, task.trained.counts(len(candidates)))
    miscalibration = _miscalibration(lists, batch.choices, task)
    return Places(candidates, items, full, sampled, fewest, lists, batch.choices.sizes, mainstream, miscalibration)


def _mainstream(choices: ItemSets, counts: NDArray[np.int64]) -> Floats:
    """(client,) mean of `counts` (item,) over what each client chose in training."""
    rows, items = choices.pairs(np.arange(len(choices)))
    # Whole numbers until the division: clients with equal means get equal floats, and so one group.
    total, sizes = np.bincount(rows, counts[items], len(choices)), choices.sizes
    return np.where(sizes > 0, total / np.maximum(sizes, 1), np.nan)


def _miscalibration(lists: NDArray[np.int64], choices: ItemSets, task: Asked) -> Floats:
    """(client, k) of each list for what its client chose in training."""
    clients, tags = len(lists), task.tags
    if tags is None:
        return np.zeros((clients, 0))
    wanted = tags.shares(*choices.pairs(np.arange(clients)), clients)
    columns = []
    for k in task.ranking.k:
        rows, places = np.nonzero(lists[:, :k] != NO_RANK)
        columns.append(metrics.miscalibration(wanted, tags.shares(rows, lists[rows, places], clients)))
    return np.stack(columns, axis=1)


def _candidates(scores: NDArray[np.float32], batch: _Batch, ranking: Ranking) -> NDArray[np.bool_]:
    """(item,) what may be ranked, once the scores are seen to be what a scorer promises."""
    wide = scores.ndim == 2 and scores.shape[1] > max(int(sets.items.max(initial=-1)) for sets in batch.ever)
    candidates = np.ones(scores.shape[-1], bool) if ranking.candidates is None else ranking.candidates
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
    if ranking.tags is not None and len(ranking.tags) != len(candidates):
        raise DataError("tags has one list a catalogue item", tags=len(ranking.tags), items=len(candidates))
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
