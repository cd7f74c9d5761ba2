"""Intervals of means over people and seeds, worked by hand and against textbook tests."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from numpy.random import default_rng
from scipy import stats

from fedrec.study.inference import contrast, estimate, holm

NAN = math.nan
probabilities = some.lists(some.floats(0, 1), max_size=12)


def test_a_table_worked_by_hand():
    # Squares about the mean of 3: people 4, seeds 9, rest 1, so mean squares are as much, and N = 4.
    found = estimate(np.array([[1.0, 2.0], [3.0, 6.0]]))
    assert (found.mean, found.seeds, found.users) == (3.0, 2, 2)
    assert found.error**2 == pytest.approx((4 + 9 - 1) / 4)
    freedom = 3**2 / (1**2 + 2.25**2 + 0.25**2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


def test_a_full_table_has_the_variance_that_analysis_of_variance_gives_it():
    seeds, users = 4, 30
    rng = default_rng(3)
    table = rng.normal(0, 1, users) + rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 1, (seeds, users))
    by_seed, by_user = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    rest = ((table - by_seed - by_user + table.mean()) ** 2).sum() / ((seeds - 1) * (users - 1))
    expected = (seeds * by_user.var(ddof=1) + users * by_seed.var(ddof=1) - rest) / table.size
    assert estimate(table).error ** 2 == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 40), (7, 1)])
def test_one_seed_or_one_column_is_a_plain_t_interval(shape):
    table = default_rng(1).normal(3, 1, shape)
    found = estimate(table)
    plain = stats.ttest_1samp(table.ravel(), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert (found.seeds, found.users) == shape


def test_a_seed_that_repeats_another_makes_nothing_surer():
    row = default_rng(2).normal(size=(1, 50))
    once, often = estimate(row), estimate(np.repeat(row, 6, axis=0))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_people_who_repeat_each_other_make_nothing_surer():
    column = default_rng(2).normal(size=(6, 1))
    once, often = estimate(column), estimate(np.repeat(column, 50, axis=1))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_other_people_under_every_seed_are_clustered_by_seed_alone():
    seeds, people = 5, 8
    rows = default_rng(4).normal(size=(seeds, people)) + default_rng(5).normal(size=(seeds, 1))
    table = np.full((seeds, seeds * people), NAN)
    for seed, row in enumerate(rows):
        table[seed, seed * people : (seed + 1) * people] = row
    assert estimate(table).error == pytest.approx(rows.mean(axis=1).std(ddof=1) / math.sqrt(seeds))


def test_values_that_cancel_both_ways_are_not_sure():
    found = estimate(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert found.mean == 0
    assert found.error == pytest.approx(1.0)  # the residual mean square, 4, over four cells


@pytest.mark.parametrize("turn", [np.asarray, np.transpose])
def test_values_that_cancel_one_way_make_the_other_way_no_surer(turn):
    # Mean squares by four cells: 9 one way, 0 the other, 1 for the rest, which would leave 9 + 0 - 1.
    found = estimate(turn(np.array([[1.0, 5.0], [-1.0, 7.0]])))
    assert found.error == pytest.approx(3.0)
    assert found.high == pytest.approx(3 + stats.t.ppf(0.975, 1) * 3)


def test_gaps_are_no_values():
    table = np.array([[1.0, NAN, 3.0, 9.0], [2.0, NAN, NAN, 4.0]])
    found = estimate(table)
    assert found.mean == pytest.approx(19 / 5)
    assert (found.seeds, found.users) == (2, 3)
    assert found == estimate(table[:, [0, 2, 3]])
    assert found == estimate(np.where(np.isnan(table), np.inf, table))


@pytest.mark.parametrize("table", [np.zeros((0, 0)), np.zeros((3, 0)), np.full((2, 3), NAN)])
def test_nobody_has_no_mean(table):
    found = estimate(table)
    assert all(math.isnan(value) for value in (found.mean, found.low, found.high, found.error))
    assert (found.seeds, found.users) == (0, 0)
    assert math.isnan(contrast(table, table).p)


def test_one_cell_has_a_mean_and_no_interval():
    found = estimate(np.array([[NAN, 0.5]]))
    assert found.mean == 0.5
    assert all(math.isnan(value) for value in (found.low, found.high, found.error))
    assert (found.seeds, found.users) == (1, 1)
    assert math.isnan(contrast(np.array([[0.5]]), np.array([[0.25]])).p)


@pytest.mark.parametrize("shape", [(5, 30), (1, 30), (5, 1)])
def test_equal_values_have_an_interval_of_no_width(shape):
    found = estimate(np.full(shape, 0.1))
    assert (found.mean, found.low, found.high, found.error) == (0.1, 0.1, 0.1, 0.0)


def test_a_contrast_is_about_the_cells_that_both_have():
    one = np.array([[1.0, 2.0, NAN, np.inf], [3.0, 6.0, 4.0, 1.0]])
    other = np.array([[0.5, 0.0, 1.0, np.inf], [1.0, NAN, 1.0, 0.0]])
    both = np.array([[0.5, 2.0, NAN, NAN], [2.0, NAN, 3.0, 1.0]])
    assert contrast(one, other).difference == estimate(both)


def test_a_contrast_of_one_seed_is_a_paired_t_test():
    one, other = default_rng(6).normal(0.2, 1, (1, 40)), default_rng(7).normal(0, 1, (1, 40))
    assert contrast(one, other).p == pytest.approx(stats.ttest_rel(one[0], other[0]).pvalue)
    assert contrast(other, one).p == pytest.approx(contrast(one, other).p)


def test_an_arm_does_not_differ_from_itself():
    table = default_rng(8).normal(size=(3, 9))
    found = contrast(table, table)
    assert (found.difference.mean, found.difference.error, found.p) == (0, 0, 1)


@pytest.mark.parametrize(("shape", "p"), [((2, 1), 1 / 2), ((1, 3), 1 / 4), ((5, 11), 1 / 1024)])
def test_one_and_the_same_difference_is_as_sure_as_there_are_people_or_seeds(shape, p):
    assert contrast(np.ones(shape), np.zeros(shape)).p == p


def test_holm_worked_by_hand():
    # Rising: 0.005 × 4, 0.01 × 3, 0.03 × 2, 0.04 × 1 → 0.02, 0.03, 0.06, and 0.04 may not be below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_what_is_no_test():
    adjusted = holm([NAN, 0.01, NAN, 0.2])
    assert math.isnan(adjusted[0])
    assert math.isnan(adjusted[2])
    assert [adjusted[1], adjusted[3]] == pytest.approx([0.02, 0.2])
    assert holm([]) == []


@given(ps=probabilities)
@settings(derandomize=True, deadline=None)
def test_holm_keeps_the_order_and_only_raises(ps):
    adjusted = holm(ps)
    assert all(raw <= new <= 1 for raw, new in zip(ps, adjusted, strict=True))
    assert all(one[1] <= other[1] for one, other in pairwise(sorted(zip(ps, adjusted, strict=True))))


@given(ps=probabilities, level=some.floats(0.001, 0.999))
@settings(derandomize=True, deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects(ps, level):
    rejected = set()
    for done, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        if ps[place] * (len(ps) - done) > level:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(ps)) if p <= level} == rejected


@given(shift=some.floats(-10, 10), scale=some.floats(0.1, 10), seed=some.integers(0, 100))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_an_interval_moves_and_stretches_with_its_values(shift, scale, seed):
    table = default_rng(seed).normal(size=(3, 8))
    before, after = estimate(table), estimate(shift + scale * table)
    expected = [shift + scale * value for value in (before.mean, before.low, before.high)]
    assert [after.mean, after.low, after.high] == pytest.approx(expected, abs=1e-9)
