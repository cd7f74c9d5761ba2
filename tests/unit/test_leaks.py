"""Planted leaks are caught, and honest work is not accused."""

from dataclasses import replace

import numpy as np
import pytest

from fedrec.device.event import Event, Kind
from fedrec.errors import DataError
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.study.leaks import check_negatives, check_split
from fedrec.study.splits import ItemSets, chosen, global_time, hide_items, leave_one_out

CLIENTS, ITEMS = 300, 120


@pytest.fixture(scope="module")
def population():
    """Popular items are chosen more, and some clients choose far more than others."""
    rng = stream(0, "leaks")
    weight = 1 / (1 + np.arange(ITEMS))
    lists = [rng.choice(ITEMS, 5 + client % 40, replace=False, p=weight / weight.sum()) for client in range(CLIENTS)]
    return Population.of([[Event(kind=Kind.LIKE, item=int(i), time=t) for t, i in enumerate(line)] for line in lists])


@pytest.fixture(scope="module")
def split(population):
    return leave_one_out(population)


def test_honest_splits_pass(population, split):
    check_split(population, split)
    check_split(population, global_time(population))
    check_split(*hide_items(population, 0.1, 0, ITEMS))


def test_a_future_item_in_a_history_is_caught(population, split):
    cuts = split.test.cuts.copy()
    cuts[7] += 1  # one client of three hundred may look one event ahead
    with pytest.raises(DataError, match="mentioned nowhere in its history.*leaked=1"):
        check_split(population, replace(split, test=replace(split.test, cuts=cuts)))


def test_a_skipped_target_in_a_history_is_caught():
    population = Population.of([[Event(kind=kind, item=1, time=0) for kind in (Kind.SKIP, Kind.LIKE)]])
    split = leave_one_out(population)
    leaky = replace(split.test, cuts=np.array([1]), targets=ItemSets.of(np.array([0]), np.array([1]), 1))
    with pytest.raises(DataError, match="mentioned nowhere"):
        check_split(population, replace(split, train=np.array([0]), validation=leaky, test=leaky))


@pytest.mark.parametrize("move", [1, 10_000])
def test_training_past_validation_and_cuts_past_the_end_are_caught(population, split, move):
    with pytest.raises(DataError, match="0 <= train <= validation <= test <= events"):
        check_split(population, replace(split, train=split.validation.cuts + move))


def test_a_hidden_item_that_stayed_is_caught(population):
    reduced, split = hide_items(population, 0.1, 0, ITEMS)
    shown = split.cold_items.copy()
    shown[reduced.table.column("item").to_numpy()[0]] = True
    with pytest.raises(DataError, match="hidden item is mentioned in no history"):
        check_split(reduced, replace(split, cold_items=shown))


def test_a_hidden_item_between_training_and_test_is_caught():
    population = Population.of([[Event(kind=Kind.LIKE, item=item, time=item) for item in range(4)]])
    split = leave_one_out(population)  # trains on 0 and 1, ranks 3 with 0, 1 and 2
    with pytest.raises(DataError, match="hidden item is mentioned in no history"):
        check_split(population, replace(split, cold_items=np.array([False, False, True, False])))


def test_a_target_that_is_also_ignored_is_caught(population):
    reduced, split = hide_items(population, 0.1, 0, ITEMS)
    both = replace(split.test, ignored=split.test.targets)
    with pytest.raises(DataError, match="ignored item is not a target"):
        check_split(reduced, replace(split, test=both))


def sampler(avoid, weights, size=30):
    """Draw `size` negatives by `weights`, none of them in the client's `avoid` set."""
    rng = stream(1, "draw")

    def draw(client):
        p = weights.copy()
        p[avoid[client]] = 0
        return rng.choice(ITEMS, size, p=p / p.sum())

    return draw


WEIGHTS = {"uniform": np.ones(ITEMS), "popularity": 1 / np.sqrt(1 + np.arange(ITEMS))}
by_weight = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)


@by_weight
def test_samplers_blind_to_the_future_pass(population, split, weights):
    for seed in range(3):
        check_negatives(sampler(chosen(population, split.train), weights), population, split, seed=seed)
    nothing = [np.zeros(0, np.int64)] * CLIENTS
    check_negatives(sampler(nothing, weights), population, split)


def test_the_whole_catalogue_passes(population, split):
    check_negatives(lambda client: np.arange(ITEMS), population, split)


@by_weight
def test_the_published_leak_is_caught(population, split, weights):
    never_chosen = chosen(population, np.diff(population.offsets))
    with pytest.raises(DataError, match="do not depend on what is held out; got sigmas=-.*held-out items included"):
        check_negatives(sampler(never_chosen, weights), population, split)


@by_weight
def test_half_a_leak_is_caught(population, split, weights):
    fair = sampler(chosen(population, split.train), weights)
    leaky = sampler(chosen(population, np.diff(population.offsets)), weights)
    coin = stream(2, "coin")
    with pytest.raises(DataError, match="do not depend"):
        check_negatives(lambda client: (fair if coin.random() < 0.5 else leaky)(client), population, split)


def test_negatives_that_prefer_held_out_items_are_caught(population, split):
    fair = sampler(chosen(population, split.train), WEIGHTS["uniform"])
    with pytest.raises(DataError, match=r"sigmas=\d"):
        check_negatives(lambda client: np.append(fair(client), split.test.targets[client]), population, split)


def test_too_few_draws_are_not_a_pass(population, split):
    fair = sampler(chosen(population, split.train), WEIGHTS["uniform"], size=2)
    with pytest.raises(DataError, match="enough draws.*Raise draws"):
        check_negatives(fair, population, split, draws=1)
