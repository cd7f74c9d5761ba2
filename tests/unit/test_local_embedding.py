"""The local embedding is the one best answer to a stated question, whatever way the events came."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from shelf import build, task

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.embed import local
from fedrec.embed.local import embedding
from fedrec.embed.ranker import Ranker, Standing
from fedrec.embed.taste import Taste
from fedrec.errors import SpecError
from fedrec.model.pack_files import read_pack

CHOSEN = [(Kind.VIEW, "book-3"), (Kind.LIKE, "book-1"), (Kind.SKIP, "book-5"), (Kind.RATE, "book-2")]


@pytest.fixture(scope="module", params=["full", "diagonal"])
def pack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    build(folder, of=task(request.param))
    return read_pack(folder, None)


def taste(pack, chosen=CHOSEN):
    made = Taste(pack, None)
    for number, (kind, item) in enumerate(chosen, 1):
        made.add(number, Act(kind=kind, item=item, time=number))
    return made


def loss(at, pack, chosen, strength, usable=range(6)):
    """The definition, choice by choice; profile weights of a view, a like and a rating are 0.5, 1.5 and 1."""
    total, weights = at @ at / (2 * strength), {Kind.VIEW: 0.5, Kind.LIKE: 1.5, Kind.RATE: 1.0}
    gone = set()
    for place, (kind, item) in enumerate(chosen):
        if kind in weights:
            query = Ranker(pack).query(Standing.bare(taste(pack, chosen[:place]))) + at
            scores = pack.vectors.astype(float) @ query + pack.prior
            row = pack.catalogue.rows[item]
            among = [scores[rival] for rival in usable if rival not in gone]
            total -= weights[kind] * (scores[row] - np.log(np.exp(among).sum()))
            gone.add(row)
    return total


@pytest.mark.parametrize("strength", [0.01, 0.3, 100.0])
def test_it_is_where_the_loss_is_least(pack, strength):
    found = embedding(taste(pack), pack, strength=strength)
    best = minimize(loss, np.zeros(3), (pack, CHOSEN, strength), tol=1e-10)
    assert np.allclose(found, best.x, atol=2e-3 * max(1.0, np.abs(best.x).max()))
    assert loss(found.astype(float), pack, CHOSEN, strength) <= best.fun + 1e-5
    for wrong in (found * 0.9, found * 1.1, found + 0.02 * np.sqrt(strength)):
        assert loss(wrong.astype(float), pack, CHOSEN, strength) > best.fun + 1e-7


def test_nothing_chosen_or_no_strength_is_nothing_learnt(pack):
    assert not embedding(Taste(pack, None), pack).any()
    assert not embedding(taste(pack, [(Kind.SKIP, "book-1")]), pack).any()
    assert not embedding(taste(pack), pack, strength=0.0).any()


def test_a_strength_is_no_less_than_nothing(pack):
    with pytest.raises(SpecError, match="variance"):
        embedding(taste(pack), pack, strength=-1.0)


def test_the_order_of_arrival_does_not_matter(pack):
    late = Taste(pack, None)
    for number in (4, 2, 1, 3):
        kind, item = CHOSEN[number - 1]
        late.add(number, Act(kind=kind, item=item, time=number))
    assert np.array_equal(embedding(late, pack), embedding(taste(pack), pack))


def test_on_another_pack_it_is_that_packs(pack):
    newer = replace(pack, vectors=pack.vectors[::-1].copy(), prior=-pack.prior)
    found = embedding(taste(newer), newer, strength=0.3)
    assert np.allclose(found, minimize(loss, np.zeros(3), (newer, CHOSEN, 0.3), tol=1e-10).x, atol=2e-3)
    assert not np.allclose(found, embedding(taste(pack), pack, strength=0.3), atol=0.05)


def test_of_many_choices_the_newest_count(pack, monkeypatch):
    monkeypatch.setattr(local, "_NEWEST", 1)
    found = embedding(taste(pack), pack, strength=0.3)
    ahead = [(kind, item) for kind, item in CHOSEN if kind is not Kind.RATE]

    def last(at):
        return loss(at, pack, CHOSEN, 0.3) - loss(at, pack, ahead, 0.3) + at @ at / 0.6

    assert np.allclose(found, minimize(last, np.zeros(3), tol=1e-10).x, atol=2e-3)


def test_of_many_items_the_popular_and_the_chosen_compete(pack, monkeypatch):
    monkeypatch.setattr(local, "_RIVALS", 2)
    found = embedding(taste(pack), pack, strength=0.3)
    usable = sorted({*np.argsort(-pack.prior)[:2].tolist(), 1, 2, 3})
    assert len(usable) < 6
    assert np.allclose(found, minimize(loss, np.zeros(3), (pack, CHOSEN, 0.3, usable), tol=1e-10).x, atol=2e-3)
    assert not np.allclose(found, minimize(loss, np.zeros(3), (pack, CHOSEN, 0.3), tol=1e-10).x, atol=2e-3)
