"""One scorer, one holdout, every number: full-catalogue ranking first, sampled negatives beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec.device.history import History
from fedrec.errors import DataError, require
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.study import metrics
from fedrec.study.metrics import Floats, Ranked
from fedrec.study.splits import Holdout, ItemSets, chosen

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
    than `few` training choices is a cold user. `negatives=0` leaves the sampled protocol out.
    """

    k: tuple[int, ...] = (10,)
    negatives: int = 99
    seed: int = 0
    candidates: NDArray[np.bool_] | None = None
    vectors: NDArray[np.float32] | None = None
    few: int = 5

    def __post_init__(self) -> None:
        require(len(self.k) > 0 and min(self.k) > 0, "there is at least one k, and each is at least 1", k=self.k)
        require(self.negatives >= 0, "the number of negatives is 0 (none) or more", negatives=self.negatives)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a scorer achieved.

    `users`: one row per evaluated client. `summary`: the means of its metrics, and coverage and Gini of
    all lists together; names that end in `/99` are the sampled protocol's. `groups`: one row per group,
    with its number of `clients`; NaN where nobody is in it. `protocol`: what the numbers mean.
    """

    users: pd.DataFrame = field(repr=False)
    summary: dict[str, float]
    groups: pd.DataFrame = field(repr=False)
    protocol: dict[str, object]


_DEFAULT = Ranking()


def evaluate(
    scorer: Scorer,
    population: Population,
    holdout: Holdout,
    *,
    train: NDArray[np.int64] | None = None,
    ranking: Ranking = _DEFAULT,
) -> Evaluation:
    """Rank each client's held-out items with `scorer`, client by client in batches.

    `train` (client,) are the cuts that the scorer was trained with; activity, cold users, cold items and
    novelty count the choices before them (None: before the holdout's own cuts).

    Raises:
        DataError: nobody has a target, a target is in its own history, or a score is not finite.

    """
    task = _Task.of(population, holdout, ranking)
    places = _places(scorer, task)
    known = chosen(population, holdout.cuts if train is None else train)
    counts = np.bincount(known.items, minlength=len(places.candidates))
    cold = counts[places.items] == 0
    values = pd.concat([_accuracy(places, np.ones_like(cold), task), _lists(places, counts, task)], axis=1)
    described = _describe(task, places, cold, known.sizes[task.clients])
    summary = {str(name): float(mean) for name, mean in values.mean().items()} | _together(places, task)
    groups = _groups(described, values, _accuracy(places, cold, task))
    return Evaluation(pd.concat([described, values], axis=1), summary, groups, _protocol(task, places))


@dataclass(frozen=True, eq=False, repr=False)
class _Task:
    """What is asked, of whom."""

    population: Population
    cuts: NDArray[np.int64]
    targets: ItemSets
    barred: tuple[ItemSets, ...]  # never ranked
    ever: tuple[ItemSets, ...]  # never a sampled negative: chosen before or after the cut
    clients: NDArray[np.int64]  # those with a target
    ranking: Ranking

    @classmethod
    def of(cls, population: Population, holdout: Holdout, ranking: Ranking) -> _Task:
        targets = _askable(holdout.targets, ranking.candidates)
        clients = np.flatnonzero(targets.sizes)
        if len(clients) == 0:
            raise DataError(
                "an evaluation needs a client with a held-out item",
                clients=len(population),
                remedy="Use clients with at least two distinct choices, or another split.",
            )
        ignored = () if holdout.ignored is None else (holdout.ignored,)
        whole = chosen(population, np.diff(population.offsets))
        barred = (chosen(population, holdout.cuts), *ignored)
        return cls(population, holdout.cuts, targets, barred, (whole, targets, *ignored), clients, ranking)


@dataclass(frozen=True, eq=False, repr=False)
class _Places:
    """Where every target came, and what every client was shown."""

    candidates: NDArray[np.bool_]  # (item,)
    items: NDArray[np.int32]  # (target,)
    full: Ranked
    sampled: NDArray[np.int64]  # (target,) rank among the sampled negatives
    fewest: int  # negatives drawn for the worst-off target
    lists: NDArray[np.int64]  # (client, max k)


def _askable(targets: ItemSets, candidates: NDArray[np.bool_] | None) -> ItemSets:
    """`targets` without those that may not be ranked."""
    if candidates is None:
        return targets
    if targets.items.max(initial=-1) >= len(candidates):
        raise DataError("candidates has one entry a catalogue item", candidates=len(candidates))
    rows, items = targets.pairs(np.arange(len(targets)))
    return ItemSets.of(rows[candidates[items]], items[candidates[items]], len(targets))


def _places(scorer: Scorer, task: _Task) -> _Places:
    parts = [_rank(scorer, task, task.clients[n : n + _BATCH]) for n in range(0, len(task.clients), _BATCH)]
    rows, items = task.targets.pairs(task.clients)
    ranks = np.concatenate([part.full.ranks for part in parts])
    return _Places(
        parts[0].candidates,
        items,
        Ranked(rows, ranks, len(task.clients)),
        np.concatenate([part.sampled for part in parts]),
        min(part.fewest for part in parts),
        np.concatenate([part.lists for part in parts]),
    )


def _rank(scorer: Scorer, task: _Task, batch: NDArray[np.int64]) -> _Places:
    scores = scorer(batch, [task.population[client].before(task.cuts[client]) for client in batch])
    candidates = _candidates(scores, task, batch)
    masked = np.where(candidates, scores, np.float32(-np.inf))
    for sets in task.barred:
        masked[sets.pairs(batch)] = -np.inf
    rows, items = task.targets.pairs(batch)
    full = metrics.rank(masked, rows, items)
    rivals = _rivals(scores, candidates, task, batch)
    sampled = metrics.rank_among(scores[rows, items], rivals)
    fewest = int((~np.isnan(rivals)).sum(axis=1).min())
    return _Places(candidates, items, full, sampled, fewest, metrics.top(masked, max(task.ranking.k)))


def _candidates(scores: NDArray[np.float32], task: _Task, batch: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(item,) what may be ranked, once the scores are seen to be what a scorer promises."""
    wide = scores.ndim == 2 and scores.shape[1] > max(int(sets.items.max(initial=-1)) for sets in task.ever)
    mask = task.ranking.candidates
    candidates = np.ones(scores.shape[-1], bool) if mask is None else mask
    if not wide or scores.shape != (len(batch), len(candidates)):
        raise DataError(
            "a scorer returns one row a client and one column a catalogue item",
            shape=scores.shape,
            clients=len(batch),
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
    scores: NDArray[np.float32], candidates: NDArray[np.bool_], task: _Task, batch: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(target, negative) scores of the sampled negatives; NaN where a client has fewer items left to draw.

    Drawn without replacement from what the client never chose, before the cut or after it (He et al.
    2017, section 4.1). That looks into the future: it is for evaluation only, and training never sees it.
    """
    drawn = []
    for row, client in enumerate(batch):
        allowed = candidates.copy()
        for sets in task.ever:
            allowed[sets[client]] = False
        pool, rng = np.flatnonzero(allowed), stream(task.ranking.seed, "negatives", int(client))
        size = min(task.ranking.negatives, len(pool))
        for _ in task.targets[client]:
            negatives = rng.choice(pool, size, replace=False, shuffle=False)
            line = np.full(task.ranking.negatives, np.nan, np.float32)
            line[:size] = scores[row, negatives]
            drawn.append(line)
    return np.stack(drawn)


def _accuracy(places: _Places, which: NDArray[np.bool_], task: _Task) -> pd.DataFrame:
    """Every accuracy metric of every client over the targets in `which`; NaN for clients without one.

    In the sampled protocol each target is ranked by itself, then a client's targets are averaged.
    """
    full = Ranked(places.full.rows[which], places.full.ranks[which], places.full.queries)
    single = Ranked(np.arange(len(full.rows)), places.sampled[which], len(full.rows))
    columns: dict[str, Floats] = {}
    for k in task.ranking.k:
        columns |= metrics.accuracy(full, k)
        if task.ranking.negatives:
            for name, values in metrics.accuracy(single, k).items():
                columns[f"{name}/{task.ranking.negatives}"] = full.total(values) / np.maximum(full.relevant, 1)
    return pd.DataFrame(columns)


def _lists(places: _Places, counts: NDArray[np.int64], task: _Task) -> pd.DataFrame:
    """Describe each client's list, whatever it should have held."""
    columns: dict[str, Floats] = {}
    for k in task.ranking.k:
        columns[f"novelty@{k}"] = metrics.novelty(places.lists[:, :k], counts)
        if task.ranking.vectors is not None:
            columns[f"diversity@{k}"] = metrics.diversity(places.lists[:, :k], task.ranking.vectors)
    return pd.DataFrame(columns)


def _together(places: _Places, task: _Task) -> dict[str, float]:
    """Describe all lists together."""
    values: dict[str, float] = {}
    for k in task.ranking.k:
        exposed = metrics.exposure(places.lists[:, :k], len(places.candidates))[places.candidates]
        values |= {f"coverage@{k}": metrics.coverage(exposed), f"gini@{k}": metrics.gini(exposed)}
    return values


def _describe(task: _Task, places: _Places, cold: NDArray[np.bool_], activity: NDArray[np.int64]) -> pd.DataFrame:
    """Who each evaluated client is; quartile 1 is the least active, and equals share a quartile."""
    edges = np.quantile(activity, [0.25, 0.5, 0.75])
    return pd.DataFrame(
        {
            "client": task.clients,
            "activity": activity,
            "quartile": 1 + np.searchsorted(edges, activity),
            "cold_user": activity < task.ranking.few,
            "targets": places.full.relevant,
            "cold_targets": np.bincount(places.full.rows[cold], minlength=len(task.clients)),
        }
    )


def _groups(described: pd.DataFrame, values: pd.DataFrame, on_cold: pd.DataFrame) -> pd.DataFrame:
    """Means by group; the last asks only for targets that nobody chose in training."""
    members = {f"activity quartile {n}": values[described["quartile"] == n] for n in range(1, 5)}
    members["cold users"] = values[described["cold_user"]]
    members["cold items"] = on_cold[described["cold_targets"] > 0]
    means = pd.DataFrame({name: frame.mean() for name, frame in members.items()}).T
    means.insert(0, "clients", [len(frame) for frame in members.values()])
    return means[["clients", *values.columns]].rename_axis("group")


def _protocol(task: _Task, places: _Places) -> dict[str, object]:
    return {
        "candidates": f"{int(places.candidates.sum())} of {len(places.candidates)} items",
        "mask": "items chosen before the cut, and the holdout's ignored items",
        "ties": "an item that is not a target ranks above a target it ties with; lists break ties by catalogue row",
        "negatives": f"{task.ranking.negatives} a target, from the items the client never chose, past or future",
        "fewest negatives": places.fewest,
        "seed": task.ranking.seed,
        "k": list(task.ranking.k),
        "cold user": f"fewer than {task.ranking.few} training choices",
        "evaluated": len(task.clients),
        "not evaluated": len(task.population) - len(task.clients),
        "targets": len(places.items),
    }
