"""Laws of metrics, over any ranking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.study import metrics
from fedrec.study.metrics import NO_RANK, Ranked, rank, top
from fedrec.study.places import Tags

law = settings(derandomize=True, deadline=None, max_examples=150)
coarse = st.integers(-3, 3).map(float)  # few values: many ties
masked = st.one_of(coarse, st.just(-np.inf))


@st.composite
def boards(draw, values=masked):
    """(scores, rows, items): a few queries, each with some targets among its candidates."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 9)))
    scores = draw(arrays(np.float64, shape, elements=values))
    wanted = draw(arrays(bool, shape)) & ~np.isneginf(scores)
    rows, items = np.nonzero(wanted)
    return scores, rows, items


ranks_lists = st.lists(st.sets(st.integers(1, 30), max_size=6), min_size=1, max_size=5)


def as_ranked(lists):
    rows = np.repeat(np.arange(len(lists)), [len(places) for places in lists])
    return Ranked(rows, np.array([p for places in lists for p in sorted(places)], np.int64), len(lists))


def slow_order(scores, targets):
    """Candidates best first; among equals, those that are no targets come first."""
    candidates = np.flatnonzero(~np.isneginf(scores))
    return sorted(candidates, key=lambda item: (-scores[item], item in targets))


@law
@given(boards())
def test_ranks_are_places_in_the_sorted_list(board):
    scores, rows, items = board
    ranks = rank(scores, rows, items).ranks
    for row in range(len(scores)):
        targets = set(items[rows == row].tolist())
        order = slow_order(scores[row], targets)
        assert sorted(ranks[rows == row]) == [place for place, item in enumerate(order, 1) if item in targets]


@law
@given(boards())
def test_only_the_order_of_scores_matters(board):
    scores, rows, items = board
    assert (rank(scores, rows, items).ranks == rank(3 * scores - 7, rows, items).ranks).all()


@law
@given(boards(), st.integers(1, 12))
def test_the_list_is_the_sorted_candidates(board, k):
    scores, _, _ = board
    for row, line in zip(scores, top(scores, k), strict=True):
        order = slow_order(row, ())[:k]
        assert line.tolist() == order + [NO_RANK] * (k - len(order))


@law
@given(ranks_lists, st.integers(1, 20))
def test_metrics_lie_in_the_unit_interval_or_there_is_no_truth(lists, k):
    empty = np.array([not places for places in lists])
    for values in metrics.accuracy(as_ranked(lists), k).values():
        assert (np.isnan(values) == empty).all()
        assert ((values[~empty] >= 0) & (values[~empty] <= 1 + 1e-12)).all()


@law
@given(ranks_lists, st.integers(1, 20))
def test_a_longer_list_finds_no_less(lists, k):
    places = as_ranked(lists)
    for metric in (metrics.hit, metrics.recall, metrics.mrr):
        shorter, longer = metric(places, k), metric(places, k + 1)
        assert (np.isnan(shorter) | (longer >= shorter)).all()


@law
@given(ranks_lists, st.integers(1, 20))
def test_f1_is_the_harmonic_mean(lists, k):
    places = as_ranked([places for places in lists if places] or [{1}])
    precision, recall = metrics.precision(places, k), metrics.recall(places, k)
    both = precision + recall
    expected = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    assert metrics.f1(places, k) == pytest.approx(expected)


@law
@given(
    arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 9)).filter(lambda x: x.sum() > 0), st.integers(2, 5)
)
def test_gini_is_the_mean_difference_and_ignores_scale(exposed, scale):
    slow = np.abs(exposed[:, None] - exposed[None, :]).sum() / (2 * len(exposed) * exposed.sum())
    assert metrics.gini(exposed) == pytest.approx(slow, abs=1e-12)
    assert metrics.gini(scale * exposed) == pytest.approx(slow, abs=1e-12)


@law
@given(arrays(np.float64, (6, 3), elements=coarse), st.permutations(range(6)), st.integers(2, 6))
def test_diversity_is_the_mean_over_pairs(vectors, order, k):
    line = np.array(order[:k])
    norms = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(norms > 0, norms, 1)[:, None]
    cosines = [unit[i] @ unit[j] for n, i in enumerate(line) for j in line[n + 1 :]]
    assert metrics.diversity(line[None], vectors)[0] == pytest.approx(1 - np.mean(cosines))


@law
@given(st.lists(st.integers(0, 8), max_size=6, unique=True), arrays(np.float64, 9, elements=st.floats(0, 1)))
def test_popularity_is_the_mean_share_in_whatever_order(items, shares):
    line = np.array([[*items, *[NO_RANK] * (6 - len(items))], [*items[::-1], *[NO_RANK] * (6 - len(items))]])
    expected = sum(shares[item] for item in items) / len(items) if items else float("nan")
    found = metrics.popularity(line, shares)
    assert found == pytest.approx([expected] * 2, nan_ok=True)
    assert not items or (shares.min() - 1e-12 <= found[0] <= shares.max() + 1e-12)


tag_lists = st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=6, max_size=6)
picks = st.lists(st.integers(0, 5), max_size=6)


def slow_shares(items, tags):
    """Tag by tag: how much of the tagged items' weight it has."""
    tagged = [set(tags[item]) for item in items if tags[item]]
    return {tag: sum((tag in each) / len(each) for each in tagged) / len(tagged) for tag in set().union(*tagged)}


def slow_divergence(wanted, shown):
    if not wanted or not shown:
        return float("nan")
    return sum(p * np.log2(p / (0.99 * shown.get(tag, 0) + 0.01 * p)) for tag, p in wanted.items())


@law
@given(tag_lists, picks, picks)
def test_miscalibration_is_the_divergence_of_the_two_shares(tags, history, line):
    rows, items = np.repeat([0, 1], [len(history), len(line)]), np.array([*history, *line], np.int64)
    both = Tags.of(tags).shares(rows, items, 2)
    found = metrics.miscalibration(both[:1], both[1:])[0]
    expected = slow_divergence(slow_shares(history, tags), slow_shares(line, tags))
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert np.isnan(found) or 0 <= found <= np.log2(100) + 1e-9


@law
@given(tag_lists, picks, st.integers(1, 3))
def test_a_list_with_the_shares_of_the_history_is_calibrated(tags, history, times):
    rows, items = np.repeat([0, 1], [len(history), times * len(history)]), np.array(history * (1 + times), np.int64)
    both = Tags.of(tags).shares(rows, items, 2)
    found = metrics.miscalibration(both[:1], both[1:])[0]
    assert found == pytest.approx(0, abs=1e-9) if any(tags[item] for item in history) else np.isnan(found)
