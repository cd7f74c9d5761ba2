"""What a recommender must beat: scorers that need no federation, each from the training part alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedrec.device.history import History
from fedrec.errors import require
from fedrec.population.source import People
from fedrec.randomness import stream
from fedrec.study.evaluate import Ranking, Scorer, evaluate
from fedrec.study.holdouts import Split
from fedrec.study.splits import Trained, chosen_by_block

Setting = TypeVar("Setting")

_VALIDATION = Ranking(negatives=0)


def random_scores(items: int, *, seed: int) -> Scorer:
    """Score at random, a client always in the same way: what guessing achieves."""

    def score(clients: NDArray[np.int64], histories: Sequence[History]) -> NDArray[np.float32]:
        return np.stack([stream(seed, "random", int(client)).random(items, np.float32) for client in clients])

    return score


def popularity(people: People, cuts: NDArray[np.int64], items: int) -> Scorer:
    """Score an item by how many clients chose it in training."""
    counts = Trained(people, cuts).counts(items).astype(np.float32)

    def score(clients: NDArray[np.int64], histories: Sequence[History]) -> NDArray[np.float32]:
        return np.tile(counts, (len(clients), 1))

    return score


def frozen_text(vectors: NDArray[np.float32]) -> Scorer:
    """Score an item by the cosine of its text vector with the mean of the client's; no training at all.

    `vectors` is (item, dim). An empty history scores 0 everywhere.
    """
    unit = _unit(vectors)

    def score(clients: NDArray[np.int64], histories: Sequence[History]) -> NDArray[np.float32]:
        means = [unit[_choices(history)].sum(axis=0) for history in histories]
        return np.asarray(_unit(np.stack(means)) @ unit.T, np.float32)

    return score


def item_knn(people: People, cuts: NDArray[np.int64], items: int, *, neighbours: int, shrinkage: float) -> Scorer:
    """Score an item by its similarity to those of its `neighbours` nearest items that the client chose.

    Similarity is the shrunk cosine of the two items' client columns: both / (√(n_i n_j) + shrinkage).
    (Sarwar et al. 2001.)
    """
    return item_knn_of(together(people, cuts, items), neighbours=neighbours, shrinkage=shrinkage)


def item_knn_of(both: NDArray[np.float64], *, neighbours: int, shrinkage: float) -> Scorer:
    """`item_knn` from `both`, what `together` gives."""
    require(neighbours >= 1 and shrinkage >= 0, "at least one neighbour, no negative shrinkage",
            neighbours=neighbours, shrinkage=shrinkage)  # fmt: skip
    norms, items = np.sqrt(np.diag(both)), len(both)
    similar = both / np.maximum(np.outer(norms, norms) + shrinkage, 1e-12)
    np.fill_diagonal(similar, 0.0)
    if neighbours < items:
        # Column i is what item i is scored from.
        edge = np.partition(similar, items - neighbours, axis=0)[items - neighbours]
        similar[similar < edge] = 0.0
    return _linear(similar)


def ease(people: People, cuts: NDArray[np.int64], items: int, *, l2: float) -> Scorer:
    """Score by the closed-form linear item model without self-similarity. (Steck 2019, section 3.)"""
    return ease_of(together(people, cuts, items), l2=l2)


def ease_of(both: NDArray[np.float64], *, l2: float) -> Scorer:
    """`ease` from `both`, what `together` gives."""
    require(l2 > 0, "the l2 penalty is positive, or the matrix has no inverse", l2=l2)
    inverse = np.linalg.inv(both + l2 * np.eye(len(both)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return _linear(weights)


def together(people: People, cuts: NDArray[np.int64], items: int) -> NDArray[np.float64]:
    """(item, item) how many clients chose both among their first `cuts` events."""
    total = np.zeros((items, items))
    for sets in chosen_by_block(people, cuts):
        block = np.zeros((len(sets), items), np.float32)
        block[sets.pairs(np.arange(len(sets)))] = 1.0
        total += block.T @ block
    return total


@dataclass(frozen=True, eq=False)
class Tuned(Generic[Setting]):
    """The best of a grid, its scorer, and the validation NDCG@10 of everything tried, in order."""

    setting: Setting
    scorer: Scorer
    tried: tuple[tuple[Setting, float], ...]


def tune(
    build: Callable[[Setting], Scorer], grid: Sequence[Setting], people: People, split: Split,
    ranking: Ranking = _VALIDATION,
) -> Tuned[Setting]:  # fmt: skip
    """Build a scorer for every setting of `grid` and keep the one that ranks the validation items of `split` best.

    By NDCG@10 over the full catalogue; the first of equals wins. It takes no holdout: it cannot be given the test's.
    """
    require(len(grid) > 0, "a grid holds at least one setting", grid=list(grid))
    tried, best, train = [], None, Trained(people, split.validation.cuts)
    for setting in grid:
        scorer = build(setting)
        quality = evaluate(scorer, people, split.validation, train=train, ranking=ranking).summary["ndcg@10"]
        if best is None or quality > max(value for _, value in tried):
            best = (setting, scorer)
        tried.append((setting, quality))
    assert best is not None
    return Tuned(*best, tuple(tried))


def _choices(history: History) -> NDArray[np.int32]:
    """Distinct items of a history, in the order they were first chosen."""
    return history.items[history.choices()]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at length one; zero rows stay zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _linear(weights: NDArray[np.float64]) -> Scorer:
    """Score item i by the sum of `weights[j, i]` over the client's items j."""
    matrix = np.asarray(weights, np.float32)

    def score(clients: NDArray[np.int64], histories: Sequence[History]) -> NDArray[np.float32]:
        rows = np.zeros((len(histories), len(matrix)), np.float32)
        for row, history in zip(rows, histories, strict=True):
            row[_choices(history)] = 1.0
        return rows @ matrix

    return score
