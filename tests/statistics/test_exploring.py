"""Exploring gives away as many places as it is told, to items as likely as the model finds them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare
from shelf import build

from fedrec.embed.ranker import Ranker, Standing, Wanted
from fedrec.embed.taste import Taste
from fedrec.model.pack_files import read_pack
from fedrec.randomness import stream

LISTS = 4000


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The first of one place, in many lists that give away a third of places; and the scores of all items."""
    folder = tmp_path_factory.mktemp("pack")
    build(folder)
    pack = replace(read_pack(folder, None), prior=np.linspace(2.0, 0.0, 6, dtype=np.float32))
    person, rng = Standing.bare(Taste(pack, None)), stream(5, "explore")
    return [Ranker(pack).rank(person, Wanted(k=1, explore=1 / 3), rng)[0] for _ in range(LISTS)], pack.prior


def test_so_many_places_are_given_away(places):
    count = sum(place.source == "explore" for place in places[0])
    assert binomtest(count, LISTS, 1 / 3).pvalue > 0.01
    for wrong in (0.29, 0.38):
        assert binomtest(count, LISTS, wrong).pvalue < 0.01


def test_to_items_as_likely_as_the_model_finds_them(places):
    found, prior = places
    drawn = np.bincount([place.row for place in found if place.source == "explore"], minlength=6)
    assert drawn[0] == 0  # it is the best, and listed already

    def pvalue(sharpness):
        odds = np.exp(sharpness * prior[1:].astype(float))
        return chisquare(drawn[1:], odds / odds.sum() * drawn.sum()).pvalue

    assert pvalue(1.0) > 0.01
    for wrong in (0.0, 0.7, 1.3):
        assert pvalue(wrong) < 0.01
