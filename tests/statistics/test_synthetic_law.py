"""People in the embedded data set choose by the odds that its truth states, and by no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from fedrec.datasets import synthetic_truth as planted
from fedrec.datasets.synthetic import generate, truth
from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.history import History
from fedrec.randomness import stream

SIZE = {"users": 600, "items": 800, "seed": 5}


@pytest.fixture(scope="module")
def data():
    return generate(**SIZE)


@pytest.fixture(scope="module")
def known():
    return truth(**SIZE)


@pytest.fixture
def rng():
    return stream(11, "tests")


def replay(data, every):
    """(client, past, chosen item, time) for every n-th choice of everybody, counted back from the last."""
    for client, history in enumerate(data.population):
        for position in history.choices()[::-every].tolist():
            yield client, history.before(position), int(history.items[position]), int(history.times[position])


def surprise(data, known, rng):
    """P-value of the choices under the stated odds: the mid-distribution transform is uniform if they are true."""
    values = []
    for client, past, item, time in replay(data, 5):
        odds = known.odds(client, past, time)
        values.append(odds[odds < odds[item]].sum() + rng.random() * odds[odds == odds[item]].sum())
    return kstest(values, "uniform").pvalue


def test_the_stated_odds_are_the_ones_people_choose_by(data, known, rng, monkeypatch):
    assert surprise(data, known, rng) > 0.01
    for law, wrong in (("STAY", 0.1), ("CURIOSITY", 0.012), ("FOLLOWED", 1.5), ("SAME", 1.0)):
        with monkeypatch.context() as patch:
            patch.setattr(planted, law, wrong)
            assert surprise(data, known, rng) < 0.01, law
    for mutant in (np.ones(SIZE["items"]), known.shelf.popularity**2):
        assert surprise(data, replace(known, shelf=replace(known.shelf, popularity=mutant)), rng) < 0.01


def test_odds_sum_to_one_and_leave_out_what_cannot_be_chosen(data, known):
    for client, past, item, time in replay(data, 50):
        odds = known.odds(client, past, time)
        assert np.isclose(odds.sum(), 1.0) and odds[item] > 0
        assert not odds[past.items[past.choices()]].any() and not odds[known.shelf.released > time].any()


def test_odds_by_hand(known):
    """A search moves the mind to its strand; the last author and the followed ones count for more."""
    shelf, client, time = known.shelf, 3, planted.END
    past = History.of(
        [
            Event(kind=Kind.CLICK, item=7, time=time - 9),
            Event(kind=Kind.SEARCH, item=NO_ITEM, text="bebop", time=time - 5),
        ]
    )
    expected = np.zeros(SIZE["items"])
    for item in range(SIZE["items"]):
        fit = planted.CURIOSITY
        for strand, share in zip(shelf.strands[item], shelf.shares[item], strict=True):
            taste = known.people.tastes[client, -1, planted.TOPIC[strand]] * known.people.leanings[client, strand]
            fit += share * ((1 - planted.STAY) * taste + planted.STAY * (strand == 0))
        favour = planted.FOLLOWED if shelf.authors[item] in known.people.follows[client] else 1.0
        favour *= planted.SAME if shelf.authors[item] == shelf.authors[7] else 1.0
        expected[item] = shelf.popularity[item] * favour * fit * (item != 7)
    assert np.allclose(known.odds(client, past, time), expected / expected.sum(), rtol=1e-6)


def halves_apart(seed):
    """(person,) distance between the topics of the first and of the second half of the choices."""
    size = SIZE | {"seed": seed}
    topic = planted.TOPIC[truth(**size).shelf.strands[:, 0]]
    distances = []
    for history in generate(**size).population:
        mine = topic[history.items[history.choices()]]
        if len(mine) >= 20:
            early, late = (np.bincount(half, minlength=16) / len(half) for half in np.array_split(mine, 2))
            distances.append(0.5 * np.abs(early - late).sum())
    return np.array(distances)


def test_tastes_drift(monkeypatch):
    """Against the same law with tastes that stay: chance and sessions alone separate halves less."""

    def gap(some, others):
        return (some.mean() - others.mean()) / np.sqrt(some.var() / len(some) + others.var() / len(others))

    drifting = halves_apart(5)
    monkeypatch.setattr(planted, "_drift", lambda tastes, _: np.repeat(tastes[:, None], planted.PERIODS, axis=1))
    resting = halves_apart(5)
    assert gap(drifting, resting) > 4 > abs(gap(halves_apart(6), resting))
