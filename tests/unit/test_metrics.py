"""Metrics, worked by hand and against trec_eval (through ir-measures)."""

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, R, Success, nDCG

from fedrec.errors import DataError, SpecError
from fedrec.randomness import stream
from fedrec.study import metrics
from fedrec.study.metrics import NO_RANK, Ranked, rank

INF = float("inf")


def ranked(*ranks):
    """One query a tuple of ranks."""
    rows = [row for row, places in enumerate(ranks) for _ in places]
    return Ranked(np.array(rows, np.int64), np.array([p for places in ranks for p in places], np.int64), len(ranks))


def ranks_of(scores, *targets):
    rows = np.zeros(len(targets), np.int64)
    return rank(np.array([scores], np.float32), rows, np.array(targets)).ranks.tolist()


def test_a_rank_counts_from_one_and_ties_count_against_us():
    assert ranks_of([0.5, 0.9, 0.1], 1) == [1]
    assert ranks_of([0.5, 0.9, 0.1], 2) == [3]
    assert ranks_of([0.5, 0.5, 0.5, 0.1], 0) == [3]  # a constant score is not a lucky one


def test_targets_that_tie_take_different_ranks():
    assert sorted(ranks_of([0.5, 0.5, 0.9, 0.1], 0, 1)) == [2, 3]
    assert sorted(ranks_of([0.5, 0.5, 0.5, 0.5], 0, 3)) == [3, 4]  # both behind the two that are no targets


def test_masked_items_are_not_ranked():
    assert ranks_of([-INF, 0.9, 0.1], 2) == [2]


def test_ranks_in_many_blocks_equal_ranks_in_one(monkeypatch):
    rng = stream(0, "blocks")
    scores, rows = rng.integers(0, 5, (6, 30)).astype(np.float32), np.repeat(np.arange(6), 4)
    items = np.concatenate([rng.permutation(30)[:4] for _ in range(6)])
    whole = rank(scores, rows, items).ranks
    monkeypatch.setattr(metrics, "_CELLS", 61)
    assert (rank(scores, rows, items).ranks == whole).all()


@pytest.mark.parametrize("bad", [float("nan"), INF])
def test_a_diverged_model_must_not_rank(bad):
    for call in (lambda s: rank(s, np.array([0]), np.array([0])), lambda s: metrics.top(s, 1)):
        with pytest.raises(DataError, match="finite number.*diverged"):
            call(np.array([[0.0, bad]]))


def test_a_masked_target_is_an_error():
    with pytest.raises(DataError, match="every target is a candidate.*check_split"):
        ranks_of([-INF, 1.0], 0)


def test_accuracy_by_hand():
    # Query 0: targets at 1, 4 and 9. Query 1: its one target at 3. Query 2: past k. Query 3: no targets.
    places = ranked((1, 4, 9), (3,), (50,), ())
    by_hand = {
        metrics.hit: [1, 1, 0],
        metrics.recall: [2 / 3, 1, 0],
        metrics.precision: [2 / 5, 1 / 5, 0],
        metrics.f1: [2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3), 2 * (1 / 5) / (6 / 5), 0],
        metrics.ndcg: [(1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2), 1 / 2, 0],
        metrics.mrr: [1, 1 / 3, 0],
    }
    for metric, expected in by_hand.items():
        assert metric(places, 5) == pytest.approx([*expected, math.nan], nan_ok=True), metric.__name__


def test_ndcg_is_one_when_the_top_is_all_targets_even_if_more_exist():
    assert metrics.ndcg(ranked((1, 2, 3)), 2) == pytest.approx([1.0])


def test_accuracy_names_every_metric():
    names = ["hr@3", "recall@3", "precision@3", "f1@3", "ndcg@3", "mrr@3"]
    assert list(metrics.accuracy(ranked((1,)), 3)) == names


ORACLES = [
    (metrics.hit, Success),
    (metrics.recall, R),
    (metrics.precision, P),
    (metrics.ndcg, nDCG),
    (metrics.mrr, RR),
]


@pytest.fixture(scope="module")
def rankings():
    """Sixty random rankings of fifty items without ties, with one to nine targets each."""
    rng = stream(1, "oracle")
    scores = np.stack([rng.permutation(50) for _ in range(60)]).astype(np.float64)
    targets = [rng.permutation(50)[: 1 + row % 9] for row in range(60)]
    return scores, np.repeat(np.arange(60), [len(items) for items in targets]), np.concatenate(targets)


def oracle(measure, scores, rows, items):
    qrels, run = {}, {}
    for row, item in zip(rows, items, strict=True):
        qrels.setdefault(str(row), {})[str(item)] = 1
    for row, line in enumerate(scores):
        run[str(row)] = {str(item): float(score) for item, score in enumerate(line)}
    found = {result.query_id: result.value for result in ir_measures.iter_calc([measure], qrels, run)}
    return [found[str(row)] for row in range(len(scores))]


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize(("metric", "measure"), ORACLES, ids=lambda value: getattr(value, "__name__", ""))
def test_accuracy_agrees_with_trec_eval(rankings, metric, measure, k):
    expected = oracle(measure @ k, *rankings)
    places = rank(*rankings)
    assert metric(places, k) == pytest.approx(expected, abs=1e-9)
    shifted = Ranked(places.rows, places.ranks + 1, places.queries)
    assert metric(shifted, k) != pytest.approx(expected, abs=1e-3)  # the oracle sees an off-by-one


def test_top_is_sorted_breaks_ties_by_row_and_ends_where_candidates_end():
    scores = np.array([[1.0, 3, 2, 3, 1], [0, 0, 0, 0, 0], [-INF, 5, -INF, -INF, 6]])
    assert metrics.top(scores, 3).tolist() == [[1, 3, 2], [0, 1, 2], [4, 1, NO_RANK]]
    assert metrics.top(scores[:1], 7).tolist() == [[1, 3, 2, 0, 4, NO_RANK, NO_RANK]]


def test_exposure_coverage_and_gini_by_hand():
    exposed = metrics.exposure(np.array([[0, 1], [0, 3], [0, NO_RANK]]), 4)
    assert exposed.tolist() == [3, 1, 0, 1]
    assert metrics.coverage(exposed) == 3 / 4
    # Sorted 0, 1, 1, 3: (-3·0 - 1·1 + 1·1 + 3·3) / (4 · 5).
    assert metrics.gini(exposed) == pytest.approx(9 / 20)
    assert metrics.gini(np.array([2, 2, 2])) == 0
    assert metrics.gini(np.array([0, 0, 0, 7])) == pytest.approx(3 / 4)
    assert math.isnan(metrics.gini(np.zeros(3, np.int64)))
    assert math.isnan(metrics.coverage(np.zeros(0, np.int64)))


def test_diversity_by_hand():
    vectors = np.array([[2.0, 0], [0, 3], [5, 0], [0, 0]])
    lists = np.array([[0, 2, NO_RANK], [0, 1, 2], [0, 3, NO_RANK], [0, NO_RANK, NO_RANK]])
    # Alike: 0. Cosines 0, 1, 0: 1 - 1/3. A zero vector is like nothing: 1. One item: no pair, no truth.
    assert metrics.diversity(lists, vectors) == pytest.approx([0, 2 / 3, 1, math.nan], nan_ok=True)


def test_novelty_by_hand():
    counts = np.array([3, 0, 1])  # with one added: 4, 1 and 2 of 7
    lists = np.array([[0, NO_RANK], [0, 1], [NO_RANK, NO_RANK]])
    expected = [math.log2(7 / 4), (math.log2(7 / 4) + math.log2(7)) / 2, math.nan]
    assert metrics.novelty(lists, counts) == pytest.approx(expected, nan_ok=True)


def test_popularity_by_hand():
    shares = np.array([0.5, 0.0, 0.25])
    lists = np.array([[0, NO_RANK], [2, 0], [1, NO_RANK], [NO_RANK, NO_RANK]])
    assert metrics.popularity(lists, shares) == pytest.approx([0.5, 0.375, 0, math.nan], nan_ok=True)


def test_miscalibration_by_hand():
    wanted = np.array([[0.75, 0.25, 0], [0.75, 0.25, 0], [0.75, 0.25, 0], [0, 0, 0], [1, 0, 0]])
    shown = np.array([[0.75, 0.25, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    # Alike. One tag only, of a mixed taste: 0.99 + 0.0075 and 0.0025 are shown. Nothing in common: log2(1 / 0.01).
    one_tag = 0.75 * math.log2(0.75 / 0.9975) + 0.25 * math.log2(0.25 / 0.0025)
    expected = [0, one_tag, math.log2(100), math.nan, math.nan]
    assert metrics.miscalibration(wanted, shown) == pytest.approx(expected, nan_ok=True)
    assert one_tag > 1.3


def test_miscalibration_asks_what_of_the_wanted_is_missing_not_the_reverse():
    half, one = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    # A list that leaves out half of a taste is worse than one that adds as much to it.
    assert metrics.miscalibration(half, one)[0] == pytest.approx(0.5 * math.log2(0.5 / 0.995) + 0.5 * math.log2(100))
    assert metrics.miscalibration(one, half)[0] == pytest.approx(math.log2(1 / 0.505))


def test_an_interval_is_as_wide_as_theory_says():
    values = stream(2, "interval").normal(0.3, 1.0, 900)
    theory = 2 * 1.96 * values.std() / 30
    low, high = metrics.interval(values, 0.95, seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(theory, rel=0.1)
    narrow = np.subtract(*metrics.interval(values, 0.8, seed=1)[::-1])
    assert narrow != pytest.approx(theory, rel=0.1)  # the wrong level would be noticed


def test_an_interval_leaves_out_users_without_truth():
    assert metrics.interval(np.array([0.5, math.nan, 0.5])) == (0.5, 0.5)
    assert all(map(math.isnan, metrics.interval(np.array([math.nan]))))
    with pytest.raises(SpecError, match="confidence level"):
        metrics.interval(np.array([1.0]), 95)
