"""The sentiment head: what is asked about rated texts, what is solved from it, and what it then says of texts."""

import numpy as np
import pocket
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.embed.reader import open_reader
from fedrec.embed.sentiment import valence
from fedrec.errors import DataError, SpecError
from fedrec.model.pack_files import read_pack
from fedrec.model.sentiment import OPINIONS, Survey, public_head, read
from fedrec.randomness import stream

FLOATS = st.floats(-1e6, 1e6, width=32)
EVEN = np.append(np.zeros(6), 0.5).astype(np.float32)  # praise and blame alike


@pytest.fixture(scope="module")
def pack():
    return read_pack(pocket.pack(), None)


@pytest.fixture(scope="module")
def reader(pack):
    return open_reader(pack, None)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(arrays(np.float32, (4, 5), elements=FLOATS), arrays(np.float32, 4, elements=st.floats(0, 1, width=32)))
def test_nobody_says_more_than_one_clip(vectors, ratings):
    assert np.linalg.norm(Survey(5).statistics(vectors, ratings)) <= 1 + 1e-9


def test_everybody_says_as_much():
    survey, vectors = Survey(2), np.eye(2, dtype=np.float32)
    nothing = survey.statistics(vectors, np.array([np.nan, np.nan], np.float32))
    assert nothing.shape == (survey.size,) == (9,)
    assert not nothing.any()
    assert not survey.statistics(np.zeros((1, 2), np.float32), np.ones(1, np.float32)).any()
    once, twice = (survey.statistics(np.tile(vectors, (n, 1)), np.tile([0.0, 1.0], n)) for n in (1, 2))
    np.testing.assert_allclose(once, twice)


def test_moments_by_hand():
    """Text (3, 4) of rating 1: features (.6, .8, 1)/√2, liking 1."""
    said = Survey(2, share=0.5).statistics(np.array([[3.0, 4.0]], np.float32), np.ones(1, np.float32))
    second = np.array([0.36, 0.48 * 2**0.5, 0.6 * 2**0.5, 0.64, 0.8 * 2**0.5, 1.0]) / 2
    first = np.array([0.6, 0.8, 1.0]) / 2**0.5
    np.testing.assert_allclose(said, np.concatenate([second, first]) / 2**0.5, rtol=1e-6)


def test_without_noise_it_is_ridge_regression():
    rng, survey = stream(0, "ridge"), Survey(6)
    people = [(rng.normal(size=(3, 6)).astype(np.float32), rng.random(3).astype(np.float32)) for _ in range(50)]
    weights = survey.solve(np.mean([survey.statistics(*one) for one in people], axis=0), 0.0, EVEN)
    vectors, ratings = (np.concatenate(part).astype(np.float64) for part in zip(*people, strict=True))
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    features = np.hstack([directions, np.ones((150, 1))]) / 2**0.5
    ridge = 0.01 / 7 * 150 * np.diag([1, 1, 1, 1, 1, 1, 0.01])
    expected = np.linalg.solve(features.T @ features + ridge, features.T @ (2 * ratings - 1))
    said = (features @ expected + 1) / 2
    np.testing.assert_allclose(read(weights, vectors.astype(np.float32)), np.clip(said, 0, 1), atol=1e-5)


def test_the_more_noise_the_less_is_said():
    survey, mean = Survey(6), stream(0, "mean").normal(size=Survey(6).size) * 0.1
    lengths = [np.linalg.norm(survey.solve(mean, noise, EVEN)[:-1]) for noise in (0.0, 0.01, 0.1, 1.0)]
    assert sorted(lengths, reverse=True) == lengths
    assert np.isfinite(survey.solve(np.full(survey.size, np.nan), 0.1, EVEN)).all()
    assert np.isfinite(survey.solve(np.full(survey.size, np.inf), 0.0, EVEN)).all()


def test_with_much_noise_it_is_what_public_sentences_say(reader):
    start = public_head(reader.frozen)
    praise, blame = (read(start, reader.frozen(side)) for side in zip(*OPINIONS, strict=True))
    assert praise.mean() > 0.8 > 0.2 > blame.mean()
    survey, even = Survey(256), np.append(np.zeros(256), 0.5).astype(np.float32)
    noise = stream(0, "noise").normal(size=survey.size)
    assert np.corrcoef(survey.solve(noise, 1.0, start)[:-1], start[:-1])[0, 1] > 0.9
    assert abs(np.corrcoef(survey.solve(noise, 1.0, even)[:-1], start[:-1])[0, 1]) < 0.3
    with pytest.raises(SpecError, match="vectors of the same width"):
        Survey(255).solve(noise, 1.0, start)


def test_reading():
    weights = np.array([1.0, 0.0, 0.5], np.float32)
    found = read(weights, np.array([[5, 0], [-1, 0], [0, 2], [1, -(3**0.5)], [-1, 3**0.5], [0, 0]], np.float32))
    np.testing.assert_allclose(found, [1, 0, 0.5, 1, 0, np.nan])
    with pytest.raises(DataError, match="of its own width"):
        read(weights, np.zeros((1, 3), np.float32))


def test_a_pack_without_a_head_says_nothing(pack, reader):
    assert np.isnan(valence(reader, pack, ["wonderful"])).all()
    assert valence(reader, pack, []).shape == (0,)
