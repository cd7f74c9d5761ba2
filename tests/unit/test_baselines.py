"""Baselines, worked by hand, by their own optimality conditions, and on real data."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedrec.device.event import Event, Kind
from fedrec.device.history import SCHEMA, History
from fedrec.errors import SpecError
from fedrec.population import source
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.study.baselines import ease, frozen_text, item_knn, popularity, random_scores, tune
from fedrec.study.evaluate import evaluate
from fedrec.study.splits import leave_one_out

DATA = Path(os.environ.get("FEDREC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ml-100k"
ONE = np.array([0])


def likes(*lists):
    return Population.of(
        [[Event(kind=Kind.LIKE, item=item, time=t) for t, item in enumerate(items)] for items in lists]
    )


def history(*items):
    return History.of([Event(kind=Kind.LIKE, item=item, time=t) for t, item in enumerate(items)])


def whole(population):
    return np.diff(population.offsets)


def test_random_is_the_clients_own_and_uniform():
    score = random_scores(500, seed=3)
    both, one = score(np.array([4, 9]), []), score(np.array([9]), [])
    assert (both[1] == one[0]).all() and (both[0] != both[1]).any()
    assert (random_scores(500, seed=4)(ONE, []) != score(ONE, [])).any()
    tenths = np.bincount((score(np.arange(40), []).ravel() * 10).astype(int), minlength=10)
    assert (np.abs(tenths - 2000) < 5 * np.sqrt(2000)).all()  # 20,000 draws in ten bins


def test_popularity_counts_clients_in_training_only():
    population = likes([0, 1, 0, 2], [0, 2], [1])
    assert popularity(population, np.array([3, 1, 0]), 4)(ONE, [history()]).tolist() == [[2, 1, 0, 0]]


def test_frozen_text_is_the_cosine_with_the_mean():
    vectors = np.array([[2, 0], [0, 5], [1, 1], [0, 0]], np.float32)
    scores = frozen_text(vectors)(np.arange(3), [history(0), history(0, 1, 0), history()])
    half = np.sqrt(0.5)
    assert scores == pytest.approx(np.array([[1, 0, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]), abs=1e-6)


def test_item_knn_by_hand():
    population = likes([0, 1], [0, 1], [0, 2])
    # Clients: 0 has three, 1 two, 2 one. Both: (0, 1) two, (0, 2) one, (1, 2) none.
    near, far = 2 / (np.sqrt(6) + 1), 1 / (np.sqrt(3) + 1)
    score = item_knn(population, whole(population), 3, neighbours=3, shrinkage=1.0)
    assert score(ONE, [history(0, 0)]) == pytest.approx(np.array([[0, near, far]]))
    assert score(ONE, [history(1, 2)]) == pytest.approx(np.array([[near + far, 0, 0]]))
    nearest = item_knn(population, whole(population), 3, neighbours=1, shrinkage=1.0)
    assert nearest(ONE, [history(1, 2)]) == pytest.approx(np.array([[near, 0, 0]]))
    assert nearest(ONE, [history(0)]) == pytest.approx(np.array([[0, near, far]]))  # 0 is the nearest of both others


def test_ease_is_the_minimum_it_claims_to_be(monkeypatch):
    rng = stream(0, "ease")
    taken = rng.random((60, 8)) < 0.3
    population = likes(*(np.flatnonzero(row) for row in taken))
    monkeypatch.setattr(source, "BLOCK", 7)
    score = ease(population, whole(population), 8, l2=2.5)
    weights = np.concatenate([score(ONE, [history(item)]) for item in range(8)]).astype(np.float64)
    x = taken.astype(np.float64)
    gradient = x.T @ (x @ weights - x) + 2.5 * weights
    off = ~np.eye(8, dtype=bool)
    assert np.abs(gradient[off]).max() < 1e-4 and (np.diag(weights) == 0).all()
    assert np.abs((x.T @ (x @ weights - x) + 3.0 * weights)[off]).max() > 1e-2  # another penalty is another minimum


def test_settings_out_of_range_are_refused():
    population = likes([0])
    with pytest.raises(SpecError, match="l2 penalty"):
        ease(population, ONE, 1, l2=0.0)
    with pytest.raises(SpecError, match="at least one neighbour"):
        item_knn(population, ONE, 1, neighbours=0, shrinkage=0.0)


def test_tuning_keeps_the_best_and_lists_what_was_tried():
    population = likes([0, 1, 2], [1, 0, 2])
    split = leave_one_out(population)
    # The validation targets are 1 and 0, in turn; the other of the two is seen. "bad" puts 2 and 3 ahead: rank 3.
    scores = {"bad": [0, 0, 9, 9], "good": [9, 9, 0, 0], "as good": [8, 8, 0, 0]}
    tuned = tune(
        lambda name: lambda clients, histories: np.tile(np.float32(scores[name]), (len(clients), 1)),
        list(scores),
        population,
        split,
    )
    assert tuned.setting == "good" and tuned.scorer(ONE, [history()]).tolist() == [[9, 9, 0, 0]]
    assert [name for name, _ in tuned.tried] == list(scores)
    assert [value for _, value in tuned.tried] == pytest.approx([0.5, 1, 1])
    with pytest.raises(SpecError, match="at least one setting"):
        tune(lambda name: random_scores(4, seed=0), [], population, split)


@pytest.fixture(scope="module")
def movielens():
    if not (DATA / "u.data").exists():
        pytest.skip("MovieLens-100K is not here")
    user, item, rating, time = np.loadtxt(DATA / "u.data", dtype=np.int64).T
    columns = {
        "kind": np.full(len(user), int(Kind.RATE), np.int8),
        "item": (item - 1).astype(np.int32),
        "text": pa.array([""] * len(user), pa.large_string()),
        "weight": np.ones(len(user), np.float32),
        "rating": ((rating - 1) / 4).astype(np.float32),
        "time": time,
    }
    return Population.from_columns(user - 1, pa.table(columns, schema=SCHEMA), [str(n) for n in range(943)])


def test_movielens_numbers_are_where_an_independent_run_had_them(movielens):
    split = leave_one_out(movielens)
    numbers = {}
    for name, scorer in {
        "popularity": popularity(movielens, split.test.cuts, 1682),
        "ease": ease(movielens, split.test.cuts, 1682, l2=100.0),
    }.items():
        numbers[name] = evaluate(scorer, movielens, split.test, train=split.train).summary
    assert 0.38 < numbers["popularity"]["hr@10/99"] < 0.44 and 0.07 < numbers["popularity"]["hr@10"] < 0.10
    assert 0.60 < numbers["ease"]["hr@10/99"] < 0.68 and 0.13 < numbers["ease"]["hr@10"] < 0.17
    assert numbers["ease"]["coverage@10"] > 3 * numbers["popularity"]["coverage@10"]
