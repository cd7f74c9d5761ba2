"""One scorer, one holdout, every number: full-catalogue ranking first, sampled negatives beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec.population.source import People
from fedrec.study import metrics
from fedrec.study.holdouts import Holdout
from fedrec.study.metrics import Floats, Ranked
from fedrec.study.places import Asked, Places, Ranking, Scorer, places
from fedrec.study.splits import Trained

__all__ = ["Evaluation", "Ranking", "Scorer", "evaluate"]


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
    people: People,
    holdout: Holdout,
    *,
    train: NDArray[np.int64] | Trained | None = None,
    ranking: Ranking = _DEFAULT,
) -> Evaluation:
    """Rank each client's held-out items with `scorer`, client by client in batches.

    `train` (client,) are the cuts that the scorer was trained with; activity, taste, cold users, cold items,
    novelty, popularity and miscalibration know the choices before them (None: before the holdout's own
    cuts). As `Trained` they are counted once for many evaluations.

    Raises:
        DataError: nobody has a target, a target is in its own history, or a score is not finite.

    """
    trained = train if isinstance(train, Trained) else Trained(people, holdout.cuts if train is None else train)
    task = Asked.of(people, holdout, trained, ranking)
    placed = places(scorer, task)
    counts = trained.counts(len(placed.candidates))
    cold = counts[placed.items] == 0
    values = pd.concat([_accuracy(placed, np.ones_like(cold), task), _lists(placed, counts, task)], axis=1)
    described = _describe(task, placed, cold)
    summary = {str(name): float(mean) for name, mean in values.mean().items()} | _together(placed, task)
    groups = _groups(described, values, _accuracy(placed, cold, task))
    return Evaluation(pd.concat([described, values], axis=1), summary, groups, _protocol(task, placed))


def _accuracy(placed: Places, which: NDArray[np.bool_], task: Asked) -> pd.DataFrame:
    """Every accuracy metric of every client over the targets in `which`; NaN for clients without one.

    In the sampled protocol each target is ranked by itself, then a client's targets are averaged.
    """
    full = Ranked(placed.full.rows[which], placed.full.ranks[which], placed.full.queries)
    single = Ranked(np.arange(len(full.rows)), placed.sampled[which], len(full.rows))
    columns: dict[str, Floats] = {}
    for k in task.ranking.k:
        columns |= metrics.accuracy(full, k)
        if task.ranking.negatives:
            for name, values in metrics.accuracy(single, k).items():
                columns[f"{name}/{task.ranking.negatives}"] = full.total(values) / np.maximum(full.relevant, 1)
    return pd.DataFrame(columns)


def _lists(placed: Places, counts: NDArray[np.int64], task: Asked) -> pd.DataFrame:
    """Describe each client's list, whatever it should have held."""
    columns: dict[str, Floats] = {}
    for n, k in enumerate(task.ranking.k):
        columns[f"novelty@{k}"] = metrics.novelty(placed.lists[:, :k], counts)
        columns[f"popularity@{k}"] = metrics.popularity(placed.lists[:, :k], counts / len(task.people))
        if task.ranking.vectors is not None:
            columns[f"diversity@{k}"] = metrics.diversity(placed.lists[:, :k], task.ranking.vectors)
        if task.ranking.tags is not None:
            columns[f"miscalibration@{k}"] = placed.miscalibration[:, n]
    return pd.DataFrame(columns)


def _together(placed: Places, task: Asked) -> dict[str, float]:
    """Describe all lists together."""
    values: dict[str, float] = {}
    for k in task.ranking.k:
        exposed = metrics.exposure(placed.lists[:, :k], len(placed.candidates))[placed.candidates]
        values |= {f"coverage@{k}": metrics.coverage(exposed), f"gini@{k}": metrics.gini(exposed)}
    return values


def _describe(task: Asked, placed: Places, cold: NDArray[np.bool_]) -> pd.DataFrame:
    """Who each evaluated client is; quartile 1 is the least active, and equals share a quartile and a taste."""
    activity = placed.activity
    edges = np.quantile(activity, [0.25, 0.5, 0.75])
    return pd.DataFrame(
        {
            "client": task.clients,
            "activity": activity,
            "quartile": 1 + np.searchsorted(edges, activity),
            "taste": _taste(placed.mainstream),
            "cold_user": activity < task.ranking.few,
            "targets": placed.full.relevant,
            "cold_targets": np.bincount(placed.full.rows[cold], minlength=len(task.clients)),
        }
    )


def _taste(mainstream: Floats) -> NDArray[np.int64]:
    """(client,) tercile: 1 niche, 2 mixed, 3 mainstream; 0 without a training choice.

    Who chose nothing has shown no taste: among the niche, newcomers would pass for people of a niche taste.
    """
    known, taste = ~np.isnan(mainstream), np.zeros(len(mainstream), np.int64)
    if known.any():
        edges = np.quantile(mainstream[known], [1 / 3, 2 / 3])
        taste[known] = 1 + np.searchsorted(edges, mainstream[known])
    return taste


def _groups(described: pd.DataFrame, values: pd.DataFrame, on_cold: pd.DataFrame) -> pd.DataFrame:
    """Means by group; the last asks only for targets that nobody chose in training."""
    members = {f"activity quartile {n}": values[described["quartile"] == n] for n in range(1, 5)}
    for n, taste in enumerate(("niche", "mixed", "mainstream"), 1):
        members[f"{taste} taste"] = values[described["taste"] == n]
    members["cold users"] = values[described["cold_user"]]
    members["cold items"] = on_cold[described["cold_targets"] > 0]
    means = pd.DataFrame({name: frame.mean() for name, frame in members.items()}).T
    means.insert(0, "clients", [len(frame) for frame in members.values()])
    return means[["clients", *values.columns]].rename_axis("group")


def _protocol(task: Asked, placed: Places) -> dict[str, object]:
    asked, drawn = len(task.clients), len(task.clients) < task.able
    return {
        "people": f"{asked} of {task.able} with a target{', drawn with the seed' if drawn else ''}",
        "candidates": f"{int(placed.candidates.sum())} of {len(placed.candidates)} items",
        "mask": "items chosen before the cut, and the holdout's ignored items",
        "ties": "an item that is not a target ranks above a target it ties with; lists break ties by catalogue row",
        "negatives": f"{task.ranking.negatives} a target, from the items the client never chose, past or future",
        "fewest negatives": placed.fewest,
        "seed": task.ranking.seed,
        "k": list(task.ranking.k),
        "taste": "thirds of those evaluated by how many clients chose what they chose in training, on average",
        "cold user": f"fewer than {task.ranking.few} training choices",
        "evaluated": asked,
        "not evaluated": len(task.people) - task.able,
        "targets": len(placed.items),
    }
