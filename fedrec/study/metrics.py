"""How good a ranking is, in plain numpy.

Conventions, all of them: ranks are 1-based; a tie with an item that is not a target counts against us; a query
without targets is NaN, never 0; a score of -inf means "not a candidate"; NaN or +inf scores are an error, since a
model that diverged must not rank. Accuracy follows trec_eval (`ir-measures`: Success, R, P, nDCG, RR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, require
from fedrec.randomness import stream

NO_RANK = -1  # fills a top-k list that has fewer than k candidates
MIXED_IN = 0.01  # of the wanted tags, in what was shown: else one missing tag is infinitely far
ACCURACY = ("ndcg", "hr", "recall", "precision", "f1", "mrr")  # by client, against what it should have been shown
LISTS = ("coverage", "gini", "diversity", "novelty", "popularity", "miscalibration")  # of lists, right or wrong
_CELLS = 1 << 24  # most (target, item) comparisons held in memory at once

Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Ranked:
    """Where the targets of `queries` queries came: target n, of query `rows[n]`, came `ranks[n]`-th."""

    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    queries: int

    @property
    def relevant(self) -> NDArray[np.int64]:
        """(query,) how many targets each query has."""
        return np.bincount(self.rows, minlength=self.queries)

    def total(self, values: NDArray[Any]) -> Floats:
        """(query,) the sum of `values` (target,) by query; NaN where there is no target."""
        sums = np.bincount(self.rows, values, minlength=self.queries).astype(np.float64)
        sums[self.relevant == 0] = np.nan
        return sums


def rank(scores: Scores, rows: NDArray[np.int64], items: NDArray[np.int32]) -> Ranked:
    """Rank each target `items[n]` of query `rows[n]` among the candidates of `scores` (query, item).

    Targets of one query take different ranks; a target that is not a candidate is an error.
    """
    _check(scores)
    own = scores[rows, items]
    if np.isneginf(own).any():
        raise DataError(
            "every target is a candidate",
            masked=int(np.isneginf(own).sum()),
            remedy="A held-out item is in the history it is ranked with; run fedrec.study.leaks.check_split.",
        )
    places = _at_least(scores, rows, own) - _tied_behind(rows, own)
    return Ranked(np.asarray(rows, np.int64), places, len(scores))


def rank_among(own: Scores, rivals: Scores) -> NDArray[np.int64]:
    """(target,) rank of the score `own[n]` among `rivals[n]`; NaN marks a rival that is not there."""
    above: NDArray[np.int64] = np.count_nonzero(rivals >= own[:, None], axis=1)
    return above + 1


def top(scores: Scores, k: int) -> NDArray[np.int64]:
    """(query, k) best candidates, best first; ties by catalogue row; `NO_RANK` where candidates run out."""
    _check(scores)
    queries, items = scores.shape
    width = min(k, items)
    edge = -np.partition(-scores, width - 1, axis=1)[:, width - 1 : width]
    above, level = scores > edge, scores == edge
    room = width - above.sum(axis=1, keepdims=True)
    taken = np.nonzero(above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room)))[1].reshape(queries, width)
    values = np.take_along_axis(scores, taken, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.where(np.isneginf(values), NO_RANK, taken)
    return np.pad(np.take_along_axis(best, order, axis=1), ((0, 0), (0, k - width)), constant_values=NO_RANK)


def hit(ranked: Ranked, k: int) -> Floats:
    """1 if any target is in the top k, else 0."""
    return np.minimum(ranked.total(ranked.ranks <= k), 1.0)


def recall(ranked: Ranked, k: int) -> Floats:
    """How much of the targets is in the top k."""
    return ranked.total(ranked.ranks <= k) / np.maximum(ranked.relevant, 1)


def precision(ranked: Ranked, k: int) -> Floats:
    """How much of the top k is targets."""
    return ranked.total(ranked.ranks <= k) / k


def f1(ranked: Ranked, k: int) -> Floats:
    """Harmonic mean of precision and recall at k: 2 hits / (k + targets)."""
    return 2 * ranked.total(ranked.ranks <= k) / (k + ranked.relevant)


def ndcg(ranked: Ranked, k: int) -> Floats:
    """Binary gains, discount 1 / log2(1 + rank), over the best that this many targets allow."""
    gains = np.where(ranked.ranks <= k, 1 / np.log2(1.0 + ranked.ranks), 0.0)
    ideal: Floats = np.cumsum(1 / np.log2(np.arange(2.0, k + 2)))
    return ranked.total(gains) / ideal[np.clip(ranked.relevant, 1, k) - 1]


def mrr(ranked: Ranked, k: int) -> Floats:
    """One over the rank of the first target, 0 when that is past k."""
    first = np.full(ranked.queries, np.inf)
    np.minimum.at(first, ranked.rows, ranked.ranks)
    return np.where(ranked.relevant > 0, np.where(first <= k, 1 / first, 0.0), np.nan)


def accuracy(ranked: Ranked, k: int) -> dict[str, Floats]:
    """Every accuracy metric at k, by its column name."""
    return {
        f"hr@{k}": hit(ranked, k),
        f"recall@{k}": recall(ranked, k),
        f"precision@{k}": precision(ranked, k),
        f"f1@{k}": f1(ranked, k),
        f"ndcg@{k}": ndcg(ranked, k),
        f"mrr@{k}": mrr(ranked, k),
    }


def exposure(lists: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    """(item,) in how many of the top-k `lists` (query, k) each item is."""
    return np.bincount(lists[lists != NO_RANK], minlength=items)


def coverage(exposed: NDArray[np.int64]) -> float:
    """How much of the catalogue at least one list shows; NaN for an empty catalogue."""
    return float(np.mean(exposed > 0)) if len(exposed) else float("nan")


def gini(exposed: NDArray[np.int64]) -> float:
    """How unequally lists show items: 0 all alike, 1 - 1/n one item only; NaN when nothing is shown."""
    if exposed.sum() == 0:
        return float("nan")
    n = len(exposed)
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(exposed) / (n * exposed.sum()))


def diversity(lists: NDArray[np.int64], vectors: Scores) -> Floats:
    """(query,) 1 - mean cosine over the pairs of a list, by public item vectors; NaN below two items.

    A zero vector is like nothing: its cosine with every other is 0. (Intra-list similarity, Ziegler et al. 2005.)
    """
    shown = lists != NO_RANK
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chosen = unit[lists] * shown[:, :, None]
    # The squared norm of a sum holds each pair twice, and each item's own square once.
    pairs = (chosen.sum(axis=1) ** 2).sum(axis=1) - (chosen**2).sum(axis=(1, 2))
    size = shown.sum(axis=1)
    return np.where(size > 1, 1 - pairs / np.maximum(size * (size - 1), 1), np.nan)


def novelty(lists: NDArray[np.int64], counts: NDArray[np.int64]) -> Floats:
    """(query,) mean -log2 of the shown items' shares of all choices, in bits; NaN for an empty list.

    `counts` (item,) is how many clients chose each item. Shares are (count + 1) / (total + items), so an
    item that nobody chose is finitely novel. (Self-information, Vargas and Castells 2011.)
    """
    bits = np.log2(counts.sum() + len(counts)) - np.log2(counts + 1.0)
    return _mean_shown(lists, bits)


def popularity(lists: NDArray[np.int64], shares: Floats) -> Floats:
    """(query,) mean of the shown items' `shares` (item,), of all clients, who chose them; NaN for an empty list.

    (Average recommendation popularity, Yin et al. 2012, who give the number of clients, not their share.)
    """
    return _mean_shown(lists, shares)


def miscalibration(wanted: Floats, shown: Floats) -> Floats:
    """(query,) how far the tags `shown` are from those `wanted`, both (query, tag) shares, in bits.

    The Kullback-Leibler divergence of (1 - α) shown + α wanted from wanted, with α = 0.01: 0 when alike, at most
    log2(1/α) = 6.64 when nothing wanted is shown. NaN where either row is all 0. (Steck 2018, section 3.)
    """
    mixed = (1 - MIXED_IN) * shown + MIXED_IN * wanted
    ratios = np.divide(wanted, mixed, out=np.ones_like(mixed), where=wanted > 0)
    known = wanted.any(axis=1) & shown.any(axis=1)
    bits = (wanted * np.log2(ratios)).sum(axis=1)
    return np.where(known, np.maximum(bits, 0.0), np.nan)  # rounding may fall below 0


def interval(values: Scores, level: float = 0.95, *, seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users. NaNs (users without truth) are left out.

    For two arms give the differences user by user: that is the paired bootstrap.
    """
    require(0 < level < 1, "a confidence level lies in (0, 1)", level=level)
    known = np.asarray(values, np.float64)[~np.isnan(values)]
    if len(known) == 0:
        return float("nan"), float("nan")
    rng = stream(seed, "bootstrap")
    means = [known[rng.integers(0, len(known), len(known))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean_shown(lists: NDArray[np.int64], values: Floats) -> Floats:
    """(query,) mean of `values` (item,) over the shown items; NaN for an empty list."""
    shown = lists != NO_RANK
    size = shown.sum(axis=1)
    return np.where(size > 0, np.where(shown, values[lists], 0.0).sum(axis=1) / np.maximum(size, 1), np.nan)


def _check(scores: Scores) -> None:
    wrong = int(np.count_nonzero(np.isnan(scores) | np.isposinf(scores)))
    if wrong:
        raise DataError(
            "a score is a finite number, or -inf for no candidate",
            remedy="The model diverged: lower the learning rate, or go back to an earlier round.",
            wrong=wrong,
        )


def _at_least(scores: Scores, rows: NDArray[np.int64], own: Scores) -> NDArray[np.int64]:
    """(target,) how many candidates score at least as high, the target itself among them."""
    step = max(1, _CELLS // max(1, scores.shape[1]))
    starts = range(0, len(rows), step)
    parts = [rank_among(own[n : n + step], scores[rows[n : n + step]]) - 1 for n in starts]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _tied_behind(rows: NDArray[np.int64], own: Scores) -> NDArray[np.int64]:
    """(target,) how many targets of the same query tie with this one and come after it."""
    order = np.lexsort((own, rows))
    starts = (np.diff(rows[order]) != 0) | (np.diff(own[order]) != 0)
    run = np.cumsum(np.concatenate([[False], starts])[: len(order)])
    behind = np.empty(len(order), np.int64)
    behind[order] = np.cumsum(np.bincount(run))[run] - 1 - np.arange(len(order))
    return behind
