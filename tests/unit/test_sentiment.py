"""The sentiment head: what devices send about their reviews, what is solved from it, and what it then says of texts."""

import json
import shutil

import numpy as np
import pocket
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.embed.reader import open_reader
from fedrec.embed.sentiment import answer, valence
from fedrec.errors import DataError, PrivacyRefusal, SpecError
from fedrec.model.pack_files import read_pack
from fedrec.model.publish import sign_pack
from fedrec.model.sentiment import OPINIONS, Survey, public_head, read
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.rounds.aggregate import OpenRounds, PrivateRounds
from fedrec.rounds.survey import ABOUT, add_head, learn, promise
from fedrec.spec import Plan

GOOD, BAD = ("wonderful", "superb", "delightful"), ("dreadful", "broken", "useless")
FLOATS = st.floats(-1e6, 1e6, width=32)


def reviews(person):
    """Three reviews each: what is praised and what is blamed differs, the words for it do not."""
    rng = stream(3, "reviews", person)
    found = []
    for _ in range(3):
        good = bool(rng.integers(2))
        words = rng.permutation([*(GOOD if good else BAD)[: int(rng.integers(1, 4))], f"thing{rng.integers(50)}"])
        found.append((" ".join(words), float(good)))
    return found


@pytest.fixture(scope="module")
def pack():
    return read_pack(pocket.pack(), None)


@pytest.fixture(scope="module")
def reader(pack):
    return open_reader(pack, None)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(arrays(np.float32, (4, 5), elements=FLOATS), arrays(np.float32, 4, elements=st.floats(0, 1, width=32)))
def test_nobody_is_clipped(vectors, ratings):
    survey = Survey(5, 10)
    assert np.linalg.norm(survey.statistics(vectors, ratings)) <= survey.clip + 1e-9


def test_everybody_sends_as_much():
    survey, vectors = Survey(2, 10), np.eye(2, dtype=np.float32)
    nothing = survey.statistics(vectors, np.array([np.nan, np.nan], np.float32))
    assert nothing.shape == (survey.size,) == (9,)
    assert not nothing.any()
    assert not survey.statistics(np.zeros((1, 2), np.float32), np.ones(1, np.float32)).any()
    once, twice = (survey.statistics(np.tile(vectors, (n, 1)), np.tile([0.0, 1.0], n)) for n in (1, 2))
    np.testing.assert_allclose(once, twice)


def test_moments_by_hand():
    """Text (3, 4) of rating 1: features (.6, .8, 1)/√2, liking 1."""
    sent = Survey(2, 1, share=0.5).statistics(np.array([[3.0, 4.0]], np.float32), np.ones(1, np.float32))
    second = np.array([0.36, 0.48 * 2**0.5, 0.6 * 2**0.5, 0.64, 0.8 * 2**0.5, 1.0]) / 2
    first = np.array([0.6, 0.8, 1.0]) / 2**0.5
    np.testing.assert_allclose(sent, np.concatenate([second, first]) / 2**0.5, rtol=1e-6)


def test_without_noise_it_is_ridge_regression():
    rng, survey = stream(0, "ridge"), Survey(6, 50)
    people = [(rng.normal(size=(3, 6)).astype(np.float32), rng.random(3).astype(np.float32)) for _ in range(50)]
    weights = survey.solve(np.mean([survey.statistics(*one) for one in people], axis=0), 0.0)
    vectors, ratings = (np.concatenate(part).astype(np.float64) for part in zip(*people, strict=True))
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    features = np.hstack([directions, np.ones((150, 1))]) / 2**0.5
    ridge = 0.01 / 7 * 150 * np.diag([1, 1, 1, 1, 1, 1, 0.01])
    expected = np.linalg.solve(features.T @ features + ridge, features.T @ (2 * ratings - 1))
    said = (features @ expected + 1) / 2
    np.testing.assert_allclose(read(weights, vectors.astype(np.float32)), np.clip(said, 0, 1), atol=1e-5)


def test_the_more_noise_the_less_is_said():
    survey, mean = Survey(6, 50), stream(0, "mean").normal(size=Survey(6, 50).size) * 0.1
    lengths = [np.linalg.norm(survey.solve(mean, noise)[:-1]) for noise in (0.0, 0.01, 0.1, 1.0)]
    assert sorted(lengths, reverse=True) == lengths
    assert np.isfinite(survey.solve(np.full(survey.size, np.nan), 0.1)).all()
    assert np.isfinite(survey.solve(np.full(survey.size, np.inf), 0.0)).all()


def test_with_much_noise_it_is_what_public_sentences_say(reader):
    start = public_head(reader.pooled)
    praise, blame = (read(start, reader.pooled(side)) for side in zip(*OPINIONS, strict=True))
    assert praise.mean() > 0.8 > 0.2 > blame.mean()
    survey = Survey(256, 50, start)
    noised = survey.solve(stream(0, "noise").normal(size=survey.size), 1.0)
    assert np.corrcoef(noised[:-1], start[:-1])[0, 1] > 0.9
    silent = Survey(256, 50).solve(stream(0, "noise").normal(size=survey.size), 1.0)
    assert abs(np.corrcoef(silent[:-1], start[:-1])[0, 1]) < 0.3
    with pytest.raises(SpecError, match="of the survey's width"):
        Survey(255, 50, start)


def test_reading():
    weights = np.array([1.0, 0.0, 0.5], np.float32)
    found = read(weights, np.array([[5, 0], [-1, 0], [0, 2], [1, -(3**0.5)], [-1, 3**0.5], [0, 0]], np.float32))
    np.testing.assert_allclose(found, [1, 0, 0.5, 1, 0, np.nan])
    with pytest.raises(DataError, match="of its own width"):
        read(weights, np.zeros((1, 3), np.float32))


def test_a_pack_without_a_head_says_nothing(pack, reader):
    assert np.isnan(valence(reader, pack, ["wonderful"])).all()
    assert valence(reader, pack, []).shape == (0,)


def test_it_is_learnt_and_read(pack, reader, tmp_path):
    survey = Survey(256, 150)
    learnt = learn(survey, OpenRounds(0, 150, everybody=150), lambda n: answer(survey, reader, reviews(n), None))
    assert learnt.answered == 150
    shutil.copytree(pocket.pack(), tmp_path / "pack")
    for _ in range(2):  # adding again replaces
        add_head(tmp_path / "pack", learnt.weights, statements(None, simulated=True))
    headed = read_pack(tmp_path / "pack", None)
    assert [one.get("about") for one in headed.statements] == [None, ABOUT]
    assert (tmp_path / "pack" / "README.md").read_text().count("## The sentiment head") == 1
    strangers = [one for person in range(1000, 1100) for one in reviews(person)]
    said = valence(reader, headed, [text for text, _ in strangers])
    good = np.array([rating for _, rating in strangers]) == 1
    assert ((said > 0.5) == good).mean() > 0.97
    assert np.isnan(valence(reader, headed, ["?!"])).all()


def private(tmp_path, *, mode="user-central", epsilon=8.0, users=150, width=30):
    survey = Survey(width, users)
    privacy = {"mode": mode, "epsilon": epsilon, "noise": "test", "force": True}
    plan = promise(Plan.of({"clients": users, "privacy": privacy, "federation": {"cohort": 20}}), survey)
    ledger = Ledger(tmp_path / "ledger.jsonl", plan)
    return survey, plan, PrivateRounds(plan, ledger, 5, Conduct(schedules=plan.schedules))


@pytest.mark.parametrize("mode", ["user-central", "user-distributed", "user-local"])
def test_a_private_round_is_charged_and_has_its_noise(tmp_path, mode):
    survey, plan, rounds = private(tmp_path, mode=mode)
    rng = stream(1, "people")
    people = [(rng.normal(size=(2, 30)).astype(np.float32), rng.random(2).astype(np.float32)) for _ in range(150)]
    exact = np.array([survey.statistics(*one) for one in people])
    crossing = plan.crossing(1)

    def sent(client):
        noise = plan.noise(stream(5, "share", client)) if crossing.share else None
        return crossing.send(exact[client], noise)

    learnt = learn(survey, rounds, sent)
    assert rounds.ledger.pending == (1, learnt.release.digest)
    rounds.published(1, learnt.release.digest)
    with pytest.raises(PrivacyRefusal):  # once is all that was paid for
        learn(survey, rounds, sent)
    assert plan.epsilon <= 8
    off = (learnt.release.mean - exact.mean(axis=0)) / learnt.release.noise
    tolerance = 5 * (2 / survey.size) ** 0.5  # five standard errors of a variance
    assert abs(off.var() - 1) < tolerance
    assert abs((off / 2).var() - 1) > tolerance  # half the noise would be noticed


def test_bad_replies_are_dropped(tmp_path):
    survey, plan, rounds = private(tmp_path)
    crossing = plan.crossing(1)
    honest = crossing.send(survey.statistics(np.ones((1, 30), np.float32), np.ones(1, np.float32)), None)
    replies = [None, honest[:-1], honest.astype(np.float64), np.full_like(honest, np.iinfo(honest.dtype).max), honest]
    learnt = learn(survey, rounds, lambda client: replies[min(client, 4)])
    assert learnt.answered == 146


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"privacy": {"mode": "interaction-local"}}, "P14"),
        ({"privacy": {"mode": "layered"}}, "P14"),
        ({"privacy": {"mode": "user-distributed"}, "shares": {"masked": True}}, "P13"),
    ],
)
def test_what_cannot_be_honoured_is_refused(settings, code):
    with pytest.raises(PrivacyRefusal, match=code):
        promise(Plan.of({"clients": 100, "federation": {"cohort": 20}} | settings), Survey(4, 100))


def test_the_length_of_an_answer_says_nothing(pack, reader, tmp_path):
    survey, plan, _ = private(tmp_path, width=256)
    crossing = plan.crossing(1)
    many, none = (answer(survey, reader, found, crossing) for found in (reviews(0) * 5, []))
    assert many.nbytes == none.nbytes
    assert not none.any()


def test_a_signed_pack_takes_no_head(tmp_path):
    shutil.copytree(pocket.pack(), tmp_path / "pack")
    sign_pack(tmp_path / "pack", Ed25519PrivateKey.generate(), version=1)
    with pytest.raises(SpecError, match="before a pack is signed"):
        add_head(tmp_path / "pack", np.zeros(257, np.float32), statements(None, simulated=True))
    with pytest.raises(DataError, match="of the pack's encoder"):
        add_head(pocket.pack(), np.zeros(9, np.float32), statements(None, simulated=True))
    assert json.loads((pocket.pack() / "pack.json").read_bytes())["version"] == 0
