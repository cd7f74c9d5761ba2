"""Opinions in a warm start: what a device says of its rated texts, worked by hand, and the head that comes of it."""

from itertools import product
from math import sqrt

import numpy as np
import pytest

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events
from fedrec.device.statistics import statistics
from fedrec.errors import SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.model.sentiment import read
from fedrec.model.warm_shares import Shares
from fedrec.model.warmstart import WarmStart
from fedrec.spec import ModelSpec, ProfileSpec

WORDS = ("sea", "ship", "storm", "whale", "rose", "garden", "bee", "honey")
SPEC = ModelSpec(adapter="none", dim=3, decays=(0.0, 1.0), projection=False)
MODEL = Model.build(
    Catalogue([f"i{n}" for n in range(8)], [f"{one} tale" for one in WORDS]), open_encoder("hash"), SPEC, seed=0
)
SMALL = WarmStart(MODEL, Shares(popularity=0.8, classes=0.5, summary=sqrt(0.11), axes=2), users=100)
ASKED = WarmStart(MODEL, SMALL.shares.making_room(0.36), users=100)


def reviews(*said, spec=ProfileSpec()):  # noqa: B008  (frozen)
    acts = [Event(kind=Kind.REVIEW, item=item, text=text, rating=rating, time=time)
            for time, (item, text, rating) in enumerate(said)]  # fmt: skip
    return Events.of(History.of(acts), spec, MODEL.adapter.prepare)


def test_opinions_by_hand():
    """Two rated texts, one of them on no item; a text without a rating and one without words say nothing."""
    said = [(3, "a fine storm", 1.0), (NO_ITEM, "no ship", 0.25), (5, "rose", float("nan")), (1, "?!", 0.0)]
    vector = statistics(ASKED, reviews(*said))
    encoder = MODEL.adapter.encoder
    features = np.hstack([encoder.encode(["a fine storm", "no ship"]), np.ones((2, 1))]) / sqrt(2)
    second = features.T @ features / 2
    rows, columns = np.triu_indices(257)
    twice = np.where(rows == columns, 1.0, sqrt(2))
    expected = np.concatenate([second[rows, columns] * twice, features.T @ [1.0, -0.5] / 2]) / sqrt(2)
    assert list(ASKED.blocks)[-1] == "opinions"
    assert vector[-len(expected) :] == pytest.approx(0.6 * expected, abs=1e-6)
    rest = statistics(SMALL, reviews(*said))
    assert vector[: -len(expected)] == pytest.approx(0.8 * rest, abs=1e-9)
    assert np.linalg.norm(vector[-len(expected) :]) <= 0.6
    assert ASKED.clip == pytest.approx(sqrt(0.64 * SMALL.clip**2 + 0.36))


def test_a_text_that_weighs_nothing_is_an_opinion_like_any_other():
    blame = [(3, "a dull storm", 0.0)]
    plain = statistics(ASKED, reviews(*blame))
    assert plain.any()
    unweighed = statistics(ASKED, reviews(*blame, spec=ProfileSpec(rating=1.0)))
    assert unweighed.tobytes() == plain.tobytes()


def test_without_opinions_nothing_is_different():
    none = WarmStart(MODEL, SMALL.shares.making_room(0.0), users=100)
    assert none.shares == SMALL.shares
    acts = reviews((3, "a fine storm", 1.0), (5, "no ship", 0.0), (6, "", 0.5))
    one, other = statistics(none, acts), statistics(SMALL, acts)
    assert one.tobytes() == other.tobytes()
    assert "opinions" not in none.blocks
    assert none.beside(one, 0.01).keys() == {"popularity"}


def test_shares_with_opinions_add_up_too():
    made = Shares().making_room(0.2)
    squares = [made.popularity**2, made.classes**2, made.summary**2, made.opinions**2]
    assert sum(squares) == pytest.approx(sum([0.675**2, 0.675**2, 0.3**2]) * 0.8 + 0.2)
    assert made.opinions**2 == pytest.approx(0.2) and made.axes == Shares().axes
    with pytest.raises(SpecError, match="add up to 1"):
        Shares(opinions=0.5)


def test_a_head_is_said_beside_the_model_and_the_rest_is_solved_as_before():
    said = [(0, "fine storm", 1.0), (1, "fine ship", 1.0), (2, "dull rose", 0.0), (3, "dull bee", 0.0)]
    people = [reviews(one, other) for one, other in product(said, said)]
    mean = np.mean([statistics(ASKED, events) for events in people], axis=0)
    found = ASKED.beside(mean, 0.0)
    head = found["sentiment"]
    assert (head.shape, head.dtype) == ((257,), np.float32)
    praise, blame = read(head, MODEL.adapter.encoder.encode(["fine whale", "dull whale"]))
    assert praise > 0.5 > blame and praise - blame > 0.2
    without = np.mean([statistics(SMALL, events) for events in people], axis=0)
    assert found["popularity"] == pytest.approx(SMALL.beside(without, 0.0)["popularity"], rel=1e-5)
    assert ASKED.solve(mean, 0.0) == pytest.approx(SMALL.solve(without, 0.0), abs=1e-5)
    assert ASKED.beside(mean, 1.01 * ASKED.clip / sqrt(8)) == {}
