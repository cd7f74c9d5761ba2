"""What is planted in the embedded data set can be found in it, and is not found where it was not planted."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from fedrec.datasets import synthetic_text as words
from fedrec.datasets import synthetic_truth as planted
from fedrec.datasets.synthetic import generate, truth
from fedrec.device.event import NO_ITEM, Kind
from fedrec.population.source import Population
from fedrec.randomness import stream

SIZE = {"users": 600, "items": 800, "seed": 5}
TOPIC = planted.TOPIC


@pytest.fixture(scope="module")
def data():
    return generate(**SIZE)


@pytest.fixture(scope="module")
def known():
    return truth(**SIZE)


@pytest.fixture
def rng():
    return stream(11, "tests")


def columns(data):
    """Every event as arrays: owner, kind, item, time, rating, text."""
    table = data.population.table
    owner = np.repeat(np.arange(len(data.population)), np.diff(data.population.offsets))
    arrays = [table.column(name).to_numpy() for name in ("kind", "item", "time", "rating")]
    return owner, *arrays, np.array(table.column("text").to_pylist(), object)


def choices(data):
    """Owner, item and time of every choice."""
    owner, kind, item, time, _, _ = columns(data)
    clicks = kind == Kind.CLICK
    return owner[clicks], item[clicks], time[clicks]


def fit(known, owner, item, time):
    """The person's taste for the item at that time, straight from the planted arrays."""
    taste = known.people.taste(owner, time)
    strands, shares = known.shelf.strands[item], known.shelf.shares[item]
    return (taste[np.arange(len(owner))[:, None], strands] * shares).sum(axis=1)


# Determinism


def test_a_seed_is_a_data_set(data):
    assert generate(**SIZE).hash == data.hash
    other = generate(**SIZE | {"seed": 6})
    assert other.catalogue.hash != data.catalogue.hash and other.population.hash != data.population.hash


def test_people_in_a_full_block_do_not_change_when_the_population_grows(data):
    fewer = generate(**SIZE | {"users": planted.BLOCK}).population
    assert fewer.hash == Population(
        data.population.table.slice(0, fewer.table.num_rows), fewer.offsets, fewer.names
    ).hash  # fmt: skip


def test_choices_come_once_in_order_and_within_the_year(data, known):
    owner, item, time = choices(data)
    assert len(set(zip(owner.tolist(), item.tolist(), strict=True))) == len(owner)
    assert (np.diff(time)[np.diff(owner) == 0] >= 900).all()
    every = columns(data)[3]
    assert every.min() >= planted.START and every.max() <= planted.END
    assert [len(history.choices()) for history in data.population] == known.people.choices.tolist()


# Items


def tfidf(texts):
    documents = [Counter(re.findall(r"[\w'-]+", text.lower())) for text in texts]
    vocabulary = {word: n for n, word in enumerate(sorted({word for document in documents for word in document}))}
    vectors = np.zeros((len(texts), len(vocabulary)))
    for row, document in enumerate(documents):
        for word, count in document.items():
            vectors[row, vocabulary[word]] = 1 + np.log(count)
    vectors *= np.log(len(texts) / (vectors > 0).sum(axis=0))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest_centroid_accuracy(vectors, label):
    fit, test = np.arange(0, len(label), 2), np.arange(1, len(label), 2)
    centroids = np.stack([vectors[fit][label[fit] == topic].mean(axis=0) for topic in range(len(words.TOPICS))])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return np.mean((vectors[test] @ centroids.T).argmax(axis=1) == label[test])


def test_topics_are_in_the_text_itself(data, known, rng):
    vectors = tfidf([text.split(" [topics:")[0] for text in data.catalogue.texts])
    label = TOPIC[known.shelf.strands[:, 0]]
    assert nearest_centroid_accuracy(vectors, label) > 0.8
    assert nearest_centroid_accuracy(vectors, rng.permutation(label)) < 0.2


def test_tags_are_the_planted_topics(data, known):
    for tags, mixture in zip(data.catalogue.tags, known.shelf.topics, strict=True):
        assert not tags or set(tags) == {words.TOPICS[topic].name for topic in np.flatnonzero(mixture)}
    assert np.allclose(known.shelf.topics.sum(axis=1), 1.0)


def test_authors_keep_to_their_topic(known):
    home = np.bincount(known.shelf.authors % len(words.TOPICS) == TOPIC[known.shelf.strands[:, 0]]) / SIZE["items"]
    assert 0.85 < home[1] < 0.96  # nine in ten, and one in sixteen of the rest; 1 in 16 for authors at random


def top_share(item):
    """What the tenth of the items chosen most often has of all choices."""
    counts = np.sort(np.bincount(item, minlength=SIZE["items"]))[::-1]
    return counts[: len(counts) // 10].sum() / counts.sum()


def test_popularity_is_planted_and_long_tailed(data, known, rng):
    _, item, _ = choices(data)
    warm = ~known.shelf.cold
    counts = np.bincount(item, minlength=SIZE["items"])
    assert spearmanr(counts[warm], known.shelf.popularity[warm]).statistic > 0.6
    assert spearmanr(known.shelf.quality, known.shelf.popularity).statistic > 0.5
    assert top_share(item) > 0.25
    assert top_share(rng.integers(SIZE["items"], size=len(item))) < 0.16


def test_cold_items_appear_at_the_end_and_nothing_before_its_release(data, known):
    shelf, (_, kind, item, time, _, _) = known.shelf, columns(data)
    assert shelf.cold.sum() == 40
    assert (shelf.released[shelf.cold] >= planted.END - planted.COLD_WINDOW).all()
    assert (shelf.released[~shelf.cold] < planted.END - planted.COLD_WINDOW).all()
    seen = item != NO_ITEM
    assert (time[seen] >= shelf.released[item[seen]] - 30).all()  # a skip is 30 s before the choice beside it
    counts = np.bincount(item[kind == Kind.CLICK], minlength=SIZE["items"])
    assert counts[shelf.cold].mean() < 0.1 * counts[~shelf.cold].mean()


# People


def test_cold_people_have_one_or_two_clicks_and_nothing_else(data, known):
    cold = known.people.cold
    assert 14 <= cold.sum() <= 46  # binomial(600, 0.05), beyond 3 standard deviations
    for client, history in enumerate(data.population):
        if cold[client]:
            assert 1 <= len(history) <= 2 and set(history.kinds) == {Kind.CLICK}
    assert known.people.choices[~cold].min() >= 3
    assert 20 <= np.median(known.people.choices[~cold]) <= 32


def test_every_kind_but_a_view_occurs_and_ratings_go_with_rates_and_reviews(data):
    _, kind, _, _, rating, text = columns(data)
    assert set(kind.tolist()) == set(Kind) - {Kind.VIEW}
    assert (~np.isnan(rating) == np.isin(kind, (Kind.RATE, Kind.REVIEW))).all()
    assert set(rating[~np.isnan(rating)].tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert ((text != "") == np.isin(kind, (Kind.SEARCH, Kind.REVIEW))).all()


def test_choices_follow_the_taste_of_their_own_time(data, known):
    owner, item, time = choices(data)
    middle = (planted.START + planted.END) // 2
    late = time > middle
    now = fit(known, owner[late], item[late], time[late])
    then = fit(known, owner[late], item[late], np.full(late.sum(), planted.START))
    by_person = np.bincount(owner[late], now - then)[np.unique(owner[late])]
    assert by_person.mean() > 4 * by_person.std() / np.sqrt(len(by_person))


def test_the_next_item_often_continues_the_last(data, known, rng):
    owner, item, _ = choices(data)
    follows = np.diff(owner) == 0

    def continued(item, label):
        return np.mean((label[item[1:]] == label[item[:-1]])[follows])

    shuffled = item[np.lexsort((rng.random(len(item)), owner))]  # each person's choices, in any order
    for label in (known.shelf.strands[:, 0], known.shelf.authors):
        assert continued(item, label) > 1.4 * continued(shuffled, label)


# Ratings and texts


def test_ratings_follow_fit_and_quality(data, known, rng):
    owner, _, item, time, rating, _ = columns(data)
    rated = ~np.isnan(rating)
    owner, item, time, rating = (column[rated] for column in (owner, item, time, rating))
    for cause in (fit(known, owner, item, time), known.shelf.quality[item]):
        assert spearmanr(cause, rating).statistic > 0.3
        assert abs(spearmanr(cause, rng.permutation(rating)).statistic) < 0.06


def test_skips_are_of_what_does_not_fit(data, known):
    owner, kind, item, time, _, _ = columns(data)
    skipped, clicked = kind == Kind.SKIP, kind == Kind.CLICK
    values = fit(known, owner, np.maximum(item, 0), time)
    assert values[skipped].max() < 0.02 < np.median(values[clicked])


def test_searches_say_what_the_person_likes_now(data, known, rng):
    owner, kind, _, time, _, text = columns(data)
    search = kind == Kind.SEARCH
    owner, time, strand = owner[search], time[search], np.array([words.strand_of(each) for each in text[search]])
    rows = np.arange(len(owner))
    own = known.people.taste(owner, time)[rows, strand].mean()
    assert own > 3 * known.people.taste(rng.permutation(owner), time)[rows, strand].mean()
    assert own > 1.1 * known.people.taste(owner, np.full(len(time), planted.START))[rows, strand].mean()


def test_reviews_are_about_the_item_and_agree_with_its_rating(data, known, rng):
    _, kind, item, _, rating, text = columns(data)
    review = kind == Kind.REVIEW
    about = np.array([words.strand_of(each) for each in text[review]])
    assert (about == known.shelf.strands[item[review], 0]).all()
    tones = ((-1, words.HARSH), (0, words.MIXED), (1, words.GLOWING))
    tone = np.array(
        [sum(sign * any(word in each.lower() for word in mood) for sign, mood in tones) for each in text[review]]
    )
    assert (tone == np.sign(rating[review] - 0.5)).all()
    assert abs(pearsonr(tone, rng.permutation(rating[review])).statistic) < 0.15


# Relatedness: in what people do, not in what items say


def neighbours(matrix, ring):
    """Mean of a (topic, topic) matrix over related pairs, over other pairs."""
    related = np.roll(np.eye(16, dtype=bool), 1, axis=1) | np.roll(np.eye(16, dtype=bool), -1, axis=1)
    matrix = matrix[np.ix_(ring, ring)]
    return matrix[related].mean() / matrix[~related & ~np.eye(16, dtype=bool)].mean()


def test_related_topics_are_chosen_together_and_do_not_read_alike(data, known, rng):
    owner, item, _ = choices(data)
    topic = TOPIC[known.shelf.strands[:, 0]]
    share = np.zeros((SIZE["users"], 16))
    np.add.at(share, (owner, topic[item]), 1.0)
    share /= share.sum(axis=1, keepdims=True)
    together = share.T @ share / np.outer(share.mean(axis=0), share.mean(axis=0))
    vectors = tfidf(data.catalogue.texts)
    centroids = np.stack([vectors[topic == each].mean(axis=0) for each in range(16)])
    chance = [
        [neighbours(matrix, rng.permutation(16)) for _ in range(500)] for matrix in (together, centroids @ centroids.T)
    ]
    assert neighbours(together, np.arange(16)) > max(chance[0])
    assert neighbours(centroids @ centroids.T, np.arange(16)) < np.quantile(chance[1], 0.95)


def test_relatedness_is_a_chain_of_interests(known):
    assert np.allclose(known.relatedness.sum(axis=1), 1.0) and np.allclose(known.relatedness, known.relatedness.T)
    assert np.isclose(known.relatedness[0, 15], 0.7 / 2 + 0.3 / 16)


# How hard it is


def hits(scores, item, seen):
    """Whether `item` is among the ten best of what is not in `seen`; a tie counts against it."""
    rivals = np.setdiff1d(np.arange(len(scores)), [*seen, item])
    return (scores[rivals] >= scores[item]).sum() < 10


def test_truth_beats_text_beats_popularity_beats_chance(data, known, rng):
    """Last choice of everybody, full ranking over unread items, as in docs/synthetic.md."""
    vectors = tfidf(data.catalogue.texts)
    alike = vectors @ vectors.T
    _, chosen, _ = choices(data)
    counts = np.bincount(chosen, minlength=SIZE["items"]).astype(float)
    found = {name: [] for name in ("truth", "text", "popularity", "chance")}
    for client, history in enumerate(data.population):
        if known.people.choices[client] == 1:
            continue
        last = history.choices()[-1]
        past, item, time = history.before(last), int(history.items[last]), int(history.times[last])
        seen = past.items[past.choices()].astype(int)
        found["truth"].append(hits(known.odds(client, past, time), item, seen))
        found["text"].append(hits(alike[:, seen].mean(axis=1), item, seen))
        found["popularity"].append(hits(counts - np.eye(len(counts))[item], item, seen))
        found["chance"].append(hits(rng.random(SIZE["items"]), item, seen))
    rate = {name: float(np.mean(values)) for name, values in found.items()}
    assert rate["truth"] - 0.1 > rate["text"] > rate["popularity"] + 0.04, rate
    assert rate["popularity"] > rate["chance"] + 0.03 and rate["chance"] < 0.06, rate
