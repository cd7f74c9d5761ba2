"""Lists worked by hand: what may be shown, in which order, and what a varied list gives up."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from shelf import build

from fedrec.device.act import Act
from fedrec.device.event import Kind
from fedrec.embed.ranker import Ranker, Standing, Wanted
from fedrec.embed.taste import Taste
from fedrec.errors import SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_files import read_pack
from fedrec.randomness import stream

IDS = [f"book-{n}" for n in range(6)]
TAGS = [("sea",), ("sea",), ("sea", "war"), ("war",), ("love",), ()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    build(folder)
    return read_pack(folder, None)


@pytest.fixture
def pack(whole):
    """Six items along three axes, more popular the lower the row; a query is the last event's vector."""
    vectors = np.array([[2, 0, 0], [2, 0, 0], [1, 1, 0], [0, 2, 0], [0, 0, 2], [0, 0, 0]], np.float32)
    maps = np.stack([np.eye(3), np.zeros((3, 3))]).astype(np.float32)
    prior = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], np.float32)
    catalogue = Catalogue(IDS, [f"Book {n}" for n in range(6)], tags=TAGS)
    return replace(whole, catalogue=catalogue, vectors=vectors, prior=prior, parameters={"maps": maps})


class Wordless:
    def vectors(self, texts):
        raise AssertionError("nobody wrote anything")

    pooled = vectors


def standing(pack, *items, **changes):
    """Somebody who clicked on these items."""
    taste = Taste(pack, Wordless())
    for number, item in enumerate(items, 1):
        taste.add(number, Act(kind=Kind.CLICK, item=item, time=number))
    return replace(Standing.bare(taste), **changes)


def rows(places):
    return [place.row for place in places]


def mask(*shown):
    return np.isin(np.arange(6), shown)


def test_a_stranger_gets_what_is_popular(pack):
    places = Ranker(pack).rank(standing(pack), Wanted(k=3))
    assert [(place.row, place.source) for place in places] == [(0, "popular"), (1, "popular"), (2, "popular")]
    assert [place.score for place in places] == pytest.approx([0.5, 0.4, 0.3])


def test_an_event_changes_the_next_list(pack):
    places = Ranker(pack).rank(standing(pack, "book-3"), Wanted(k=6))
    # The last event points along the second axis: scores are that coordinate, plus the prior.
    assert [(place.row, place.source) for place in places][:2] == [(2, "taste"), (0, "taste")]
    assert places[0].score == pytest.approx(1.3)
    assert 3 not in rows(places)
    assert rows(Ranker(pack).rank(standing(pack, "book-3"), Wanted(k=6, hide_seen=False)))[0] == 3


def test_a_wish_or_an_embedding_makes_somebody_known(pack):
    wish = standing(pack, bonus=np.array([0, 0, 0, 0, 0, 9], np.float32))
    learnt = standing(pack, embedding=np.array([0, 0, 5], np.float32))
    for known, first in ((wish, 5), (learnt, 4)):
        best = Ranker(pack).rank(known, Wanted(k=1))[0]
        assert (best.row, best.source) == (first, "taste")


@pytest.mark.parametrize(
    ("wanted", "blocked", "shown"),
    [
        (Wanted(k=2), (), [0, 1]),
        (Wanted(k=9), (0, 5), [1, 2, 3, 4]),
        (Wanted(k=9, allowed=mask(1, 3, 5)), (3,), [1, 5]),
        (Wanted(k=9, allowed=mask(), diversity=0.5, calibration=0.5, explore=1.0), (), []),
        (Wanted(k=9, explore=1.0, diversity=1.0), (0, 1, 2, 3, 4, 5), []),
    ],
)
def test_only_what_may_be_shown_is(pack, wanted, blocked, shown):
    assert rows(Ranker(pack).rank(standing(pack, blocked=mask(*blocked)), wanted)) == shown


def test_no_kind_of_list_shows_what_it_may_not(pack):
    person, may = standing(pack, "book-0", blocked=mask(1)), mask(0, 1, 2, 3, 4)
    for seed, shares in enumerate(itertools.product((0.0, 0.7), repeat=3)):
        wanted = Wanted(k=3, allowed=may, **dict(zip(("diversity", "calibration", "explore"), shares, strict=True)))
        shown = rows(Ranker(pack).rank(person, wanted, stream(seed, "explore")))
        assert sorted(shown) == [2, 3, 4]


def test_ties_go_to_the_lower_row(pack):
    even = replace(pack, prior=np.zeros(6, np.float32))
    assert rows(Ranker(even).rank(standing(even), Wanted(k=4))) == [0, 1, 2, 3]


def test_the_scores_are_those_of_the_pack(whole):
    person = standing(whole, "book-1", "book-4", embedding=np.array([0.3, -0.2, 0.1], np.float32))
    expected = whole.scores(person.taste.contexts, person.embedding)
    assert np.allclose(Ranker(whole).scores(person), expected, atol=1e-5)
    assert np.allclose(Ranker(whole).exact(person, np.arange(6)), expected, atol=1e-5)


def test_diversity_sends_a_twin_back(pack):
    """Items 0 and 1 are twins: the best stays first, and 1 comes after all that is unlike both."""
    person = standing(pack, embedding=np.array([1, 0, 0], np.float32))
    assert rows(Ranker(pack).rank(person, Wanted(k=3))) == [0, 1, 2]
    places = Ranker(pack).rank(person, Wanted(k=6, diversity=1.0))
    # Scores run from 2.5 to 0: being a twin costs 2.5, and item 2 lies at 45° to items 0 and 3.
    assert [(place.row, round(place.apart, 2)) for place in places] == [
        (0, 0.0), (3, 0.0), (4, 0.0), (5, 0.0), (1, -2.5), (2, -1.77)
    ]  # fmt: skip
    assert places[4].score == pytest.approx(2.4 - 2.5)
    assert [place.score for place in places] == sorted((place.score for place in places), reverse=True)


def relevance_against_likeness(scores, vectors, diversity, k):
    """Carbonell & Goldstein's own form: λ relevance − (1 − λ) greatest similarity, with relevance in [0, 1]."""
    share = 1 / (1 + diversity)
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    listed = []
    while len(listed) < k:
        value = {}
        for row in set(range(len(scores))) - set(listed):
            alike = max([0.0, *(float(unit[row] @ unit[other]) for other in listed)])
            value[row] = share * relevance[row] - (1 - share) * alike
        listed.append(max(value, key=lambda row: (value[row], -row)))
    return listed


def mix_of(rows, tags):
    mix = dict.fromkeys(("sea", "war", "love"), 0.0)
    for row in rows:
        for tag in tags[row]:
            mix[tag] += 1 / len(tags[row])
    return np.array(list(mix.values()))


def relevance_and_mix(scores, person, tags, weight, k):
    """Steck's greedy choice: the sum of scores minus a weight times the divergence of the list's tags."""
    listed = []
    while len(listed) < k:
        value = {}
        for row in set(range(len(scores))) - set(listed):
            together = [*listed, row]
            mixed = 0.99 * mix_of(together, tags) / len(together) + 0.01 * person
            spread = sum(p * np.log(p / q) for p, q in zip(person, mixed, strict=True) if p)
            value[row] = scores[together].sum() - weight * spread
        listed.append(max(value, key=lambda row: (round(value[row], 9), -row)))
    return listed


@pytest.mark.parametrize("seed", range(8))
def test_diversity_is_maximal_marginal_relevance(pack, seed):
    rng = stream(seed, "vectors")
    odd = replace(pack, vectors=rng.normal(size=(6, 3)).astype(np.float32), prior=rng.normal(size=6).astype(np.float32))
    scores = odd.prior.astype(np.float64)
    for diversity in (0.3, 1.0):
        found = rows(Ranker(odd).rank(standing(odd), Wanted(k=6, diversity=diversity)))
        assert found == relevance_against_likeness(scores, odd.vectors, diversity, 6)


@pytest.mark.parametrize("seed", range(8))
def test_calibration_is_stecks(pack, seed):
    odd = replace(pack, prior=stream(seed, "prior").normal(size=6).astype(np.float32))
    person = standing(odd, "book-2", "book-4", "book-3")
    person = replace(person, embedding=-Ranker(odd).query(person).astype(np.float32))  # scores are the prior alone
    wanted = Wanted(k=4, calibration=0.4, hide_seen=False)
    scores = odd.prior.astype(np.float64)
    weight = 0.4 * 4 * (scores.max() - scores.min())
    mix = mix_of([2, 4, 3], TAGS) / 3
    assert rows(Ranker(odd).rank(person, wanted)) == relevance_and_mix(scores, mix, TAGS, weight, 4)


def test_the_references_are_not_the_plain_order(pack):
    """Both comparisons could fail: on these items a varied list differs from the best first."""
    scores = pack.prior.astype(np.float64)
    assert relevance_against_likeness(scores, pack.vectors, 1.0, 6) != [0, 1, 2, 3, 4, 5]
    assert relevance_and_mix(scores, mix_of([4], TAGS), TAGS, 4.0, 6) != [0, 1, 2, 3, 4, 5]


def test_without_tags_or_choices_calibration_changes_nothing(pack):
    plain = Ranker(pack).rank(standing(pack), Wanted(k=6))
    assert Ranker(pack).rank(standing(pack), Wanted(k=6, calibration=1.0)) == plain
    bare = replace(pack, catalogue=Catalogue(IDS, pack.catalogue.texts))
    known = standing(bare, "book-0")
    assert Ranker(bare).rank(known, Wanted(k=6, calibration=1.0)) == Ranker(bare).rank(known, Wanted(k=6))


def test_exploring_replaces_places_and_repeats_nothing(pack):
    person = standing(pack, "book-0")
    plain = Ranker(pack).rank(person, Wanted(k=2))
    for seed in range(20):
        places = Ranker(pack).rank(person, Wanted(k=2, explore=0.5), stream(seed, "explore"))
        assert len(set(rows(places))) == 2
        for mine, usual in zip(places, plain, strict=True):
            assert mine == usual or (mine.source == "explore" and mine.row not in rows(plain))


def test_exploring_without_a_seed_is_not_foretold(pack):
    lists = {tuple(rows(Ranker(pack).rank(standing(pack), Wanted(k=2, explore=1.0)))) for _ in range(60)}
    assert len(lists) > 1  # of twelve; all alike with a chance below 10⁻²⁰


@pytest.mark.parametrize("name", ["diversity", "calibration", "explore"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_lie_between_0_and_1(name, share):
    with pytest.raises(SpecError, match=f"{name} lies between 0 and 1"):
        Wanted(**{name: share})


def test_a_list_has_a_place():
    with pytest.raises(SpecError, match="at least one place"):
        Wanted(k=0)
