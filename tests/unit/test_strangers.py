"""Lists of people of whom little is known, by hand: they lean on what others choose, as far as a pack knows it."""

import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from shelf import build, task

import fedrec
from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.embed.explain import decompose, reason
from fedrec.embed.local import embedding
from fedrec.embed.ranker import DOUBT, Ranker, Standing, Wanted
from fedrec.embed.reader import open_reader
from fedrec.embed.taste import Taste
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_files import read_pack

SHARES = np.array([0.05, 0.3, 0.1, 0.15, 0.25, 0.15], np.float32)
ORDER = [1, 4, 3, 5, 2, 0]  # the most popular first, ties to the lower row
USUAL = np.log(6 * SHARES.astype(float))

CLICK = Act(kind=Kind.CLICK, item="book-3")
NOTHING = [
    Act(kind=Kind.CLICK, item="book-1", weight=0.0),
    Act(kind=Kind.CLICK, item="not in the pack"),
    Act(kind=Kind.SEARCH, text="!"),  # no words
]


@pytest.fixture(scope="module", params=["full", "diagonal"])
def pack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    build(folder, of=task(request.param), beside={"popularity": SHARES})
    return read_pack(folder, None)


def standing(pack, *acts, **changes):
    taste = Taste(pack, open_reader(pack, None))
    for number, act in enumerate(acts, 1):
        taste.add(number, replace(act, time=number))
    return replace(Standing.bare(taste), **changes)


def model_scores(pack, person):
    """What the model makes of a person, in double precision."""
    own = Ranker(replace(pack, popularity=None))
    return own.exact(replace(person, bonus=np.zeros(6, np.float32)), np.arange(6))


def test_a_stranger_gets_what_is_popular_less_what_is_hidden(pack):
    person = standing(pack)
    places = Ranker(pack).rank(person, Wanted(k=6))
    assert [place.row for place in places] == ORDER
    assert {place.source for place in places} == {"popular"}
    assert np.allclose([place.score for place in places], USUAL[ORDER], atol=1e-6)
    assert np.argsort(-pack.prior).tolist() != ORDER  # the model's own bias is something else
    blocked, allowed = np.arange(6) == 1, np.arange(6) != 5
    assert [place.row for place in Ranker(pack).rank(replace(person, blocked=blocked), Wanted(allowed=allowed))] == [
        row for row in ORDER if row not in (1, 5)
    ]
    assert reason(Ranker(pack), person, places[0]).sentence == "Many others choose it."


@pytest.mark.parametrize(("events", "share"), [(0, 1.0), (1, 8 / 9), (2, 0.8), (8, 0.5), (72, 0.1)])
def test_with_each_event_others_count_less(pack, events, share):
    assert DOUBT == 8.0
    person = standing(pack, *[CLICK] * events)
    assert Ranker(pack).others(person) == pytest.approx(share)
    expected = (1 - share) * model_scores(pack, person) + share * USUAL
    assert np.allclose(Ranker(pack).exact(person, np.arange(6)), expected, atol=1e-6)
    assert np.allclose(Ranker(pack).scores(person), expected, atol=1e-5)
    for wrong in (share + 0.02, share - 0.02):
        assert not np.allclose((1 - wrong) * model_scores(pack, person) + wrong * USUAL, expected, atol=1e-3)


def test_the_query_and_not_only_the_bias_is_doubted(pack):
    person = standing(pack, CLICK)
    query = pack.vectors.astype(float) @ Ranker(pack).query(person)
    wrong = query + pack.prior / 9 + USUAL * 8 / 9
    assert not np.allclose(Ranker(pack).exact(person, np.arange(6)), wrong, atol=0.01)


def test_what_says_nothing_takes_no_doubt_away(pack):
    assert standing(pack, *NOTHING).taste.evidence == 0
    person = standing(pack, CLICK, *NOTHING, Act(kind=Kind.SKIP, item="book-2"))
    assert person.taste.evidence == 2 and Ranker(pack).others(person) == 0.8
    read = standing(pack, Act(kind=Kind.SEARCH, text="the sea"), Act(kind=Kind.REVIEW, item="book-0", text="!"))
    assert read.taste.evidence == 2
    places = Ranker(pack).rank(standing(pack, *NOTHING), Wanted(k=6, hide_seen=False))
    assert [(place.row, place.source) for place in places] == [(row, "popular") for row in ORDER]


def test_whose_events_cancel_out_is_a_stranger(pack):
    """An item without a place says nothing, though it was clicked on."""
    blank = replace(pack, vectors=pack.vectors * (np.arange(6) != 3)[:, None].astype(np.float32))
    person = standing(blank, CLICK)
    assert person.taste.evidence == 1 and person.unknown
    assert Ranker(blank).others(person) == 1.0


def test_a_wish_is_added_to_what_is_popular(pack):
    bonus = np.array([2, 0, 0, 0, 0, 0], np.float32)
    person = standing(pack, bonus=bonus, labels=(("more sea", bonus),))
    places = Ranker(pack).rank(person, Wanted(k=6))
    assert np.allclose([place.score for place in places], np.sort(USUAL + bonus)[::-1], atol=1e-6)
    assert {place.source for place in places} == {"taste"}
    assert {cause.source for cause in decompose(Ranker(pack), person, places[0])} <= {"popularity", "preference"}


def test_a_pack_without_popularity_ranks_as_ever(pack):
    plain = replace(pack, popularity=None)
    for acts in ([], [CLICK], [CLICK] * 20):
        person = standing(plain, *acts, bonus=np.linspace(0, 1, 6, dtype=np.float32))
        query = Ranker(plain).query(person)
        assert Ranker(plain).others(person) == 0.0
        scores = plain.vectors @ query.astype(np.float32) + plain.prior + person.bonus
        assert np.array_equal(Ranker(plain).scores(person), scores) and Ranker(plain).scores(person).dtype == np.float32
        exact = plain.vectors.astype(np.float64) @ query + plain.prior + person.bonus
        assert np.array_equal(Ranker(plain).exact(person, np.arange(6)), exact)


def test_who_is_known_well_is_ranked_by_the_model(pack):
    person = standing(pack, *[replace(CLICK, item=f"book-{n % 6}") for n in range(3000)])
    model = model_scores(pack, person)
    found = Ranker(pack).exact(person, np.arange(6))
    assert np.abs(found - model).max() < 0.003 * np.abs(USUAL - model).max()
    assert np.argsort(-found).tolist() == np.argsort(-model).tolist() != ORDER


@pytest.mark.parametrize("events", [0, 1, 3, 30])
def test_the_causes_add_up_to_the_score(pack, events):
    acts = [CLICK, Act(kind=Kind.SEARCH, text="a lighthouse"), Act(kind=Kind.REVIEW, item="book-2", text="slow")] * 10
    bonus = np.linspace(0, 2, 6, dtype=np.float32)
    person = standing(pack, *acts[:events], bonus=bonus, labels=(("more sea", bonus),))
    person = replace(person, embedding=embedding(person.taste, pack, strength=0.3))
    places = Ranker(pack).rank(person, Wanted(k=6, hide_seen=False, diversity=0.3, calibration=0.3))
    assert len(places) == 6
    for place in places:
        causes = decompose(Ranker(pack), person, place)
        assert abs(math.fsum(cause.value for cause in causes) - place.score) < 1e-6
        undoubted = math.fsum(cause.value for cause in decompose(Ranker(pack, 1e-9), person, place))
        assert events == 0 or abs(undoubted - place.score) > 1e-3


def test_the_local_embedding_is_that_of_the_model(pack):
    person = standing(pack, *[replace(CLICK, item=f"book-{n}") for n in (1, 3, 4)])
    plain = embedding(standing(replace(pack, popularity=None)).taste, pack)
    assert np.array_equal(embedding(person.taste, pack), embedding(person.taste, replace(pack, popularity=None)))
    assert embedding(person.taste, pack).any() and not plain.any()


def test_an_item_of_today_is_as_popular_as_half_of_all(tmp_path):
    build(tmp_path / "pack", beside={"popularity": SHARES})
    with closing(fedrec.Recommender.open(tmp_path / "me", pack=tmp_path / "pack")) as me:
        assert me.stock(Catalogue(["today"], ["An old boat at sea"])) == 1
        scores = {pick.item: pick.score for pick in me.recommend(7)}
        assert len(scores) == 7
        assert scores["today"] == pytest.approx(np.log(7 * np.median(SHARES)), abs=1e-6)
        me.log("click", "today")
        assert {pick.source for pick in me.recommend(3)} == {"taste"}
