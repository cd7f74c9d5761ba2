"""Contexts and event weights, worked by hand."""

import numpy as np
import pytest
import torch

from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events, contexts
from fedrec.device.weights import signed_weights
from fedrec.model.adapter import TowerInputs
from fedrec.spec import ProfileSpec

SECRET = "what I would tell nobody"
SPEC = ProfileSpec()
VECTORS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -3.0]])  # three events on a plane
CUTS = torch.tensor([0, 1, 2, 3])


def tower(texts):
    """A tower that tells texts apart by their length."""
    return TowerInputs(torch.tensor([[float(len(text))] for text in texts]).view(-1, 1), torch.zeros(len(texts), 0))


def events(*acts, spec=SPEC):
    return Events.of(History.of(acts), spec, tower)


def unit(*rows):
    rows = np.array(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, unit([0, 0], [1, 0], [0, 1], [0, -1])),  # the last event alone, weighing 0⁰ = 1
        (0.5, unit([0, 0], [2, 0], [1, 1], [0.5, -2.5])),
        (1.0, unit([0, 0], [2, 0], [2, 1], [2, -2])),
    ],
)
def test_a_decayed_sum_of_the_events_before_the_cut(decay, expected):
    found = contexts(VECTORS, CUTS, (decay,))
    assert found.shape == (1, 4, 2)
    assert found[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_each_decay_is_a_context_of_its_own():
    both = contexts(VECTORS, CUTS, (1.0, 0.0))
    assert torch.equal(both, torch.cat([contexts(VECTORS, CUTS, (1.0,)), contexts(VECTORS, CUTS, (0.0,))]))


def test_a_context_has_length_one_or_is_zero():
    lengths = contexts(VECTORS, CUTS, (0.0, 0.5, 1.0)).norm(dim=-1)
    assert lengths.numpy() == pytest.approx(np.array([[0, 1, 1, 1]] * 3))
    opposed = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert not contexts(opposed, torch.tensor([2]), (1.0,)).any()  # a sum of zero has no direction


def test_the_empty_history_has_a_zero_context_and_a_finite_gradient():
    nothing = torch.zeros(0, 2, requires_grad=True)
    assert torch.equal(contexts(nothing, torch.tensor([0]), (0.0, 1.0)), torch.zeros(2, 1, 2))
    vectors = torch.zeros(1, 2, requires_grad=True)
    contexts(vectors, torch.tensor([0, 1]), (0.0, 1.0)).sum().backward()
    assert torch.isfinite(vectors.grad).all()


def test_a_skip_pushes_away():
    item_vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    liked_then_skipped = events(Event(kind=Kind.LIKE, item=0, time=0), Event(kind=Kind.SKIP, item=1, time=1))
    seen = liked_then_skipped.vectors(item_vectors, torch.zeros(0, 2))
    assert seen.tolist() == [[1.5, 0.0], [0.0, -0.5]]
    context = contexts(seen, torch.tensor([2]), (1.0,))[0, 0]
    assert context.numpy() == pytest.approx(unit([3, -1])[0])


def test_weights_by_kind_rating_and_the_events_own():
    spec = ProfileSpec(view=0.1, click=0.2, like=0.3, rate=0.4, search=0.5, review=0.6, skip=-0.7, rating=2.0)
    plain = [Event(kind=kind, item=0, weight=2.0) for kind in Kind]
    assert signed_weights(History.of(plain), spec) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.2, -1.4])
    rated = [Event(kind=Kind.RATE, item=0, rating=rating) for rating in (0.0, 0.25, 0.5, 1.0)]
    assert signed_weights(History.of(rated), spec) == pytest.approx([-0.4, 0.0, 0.4, 1.2])  # 1 + 2 (2r − 1)
    assert signed_weights(History.of(rated), ProfileSpec()) == pytest.approx([1.0] * 4)  # ratings ignored


def test_text_beside_an_item_weighs_less_than_text_alone():
    spec = ProfileSpec(search=3.0, review=2.0, rating=1.0, text=0.25)
    found = events(
        Event(kind=Kind.SEARCH, text="abc", time=0),
        Event(kind=Kind.CLICK, item=4, time=1),
        Event(kind=Kind.REVIEW, item=5, text="abcdef", rating=1.0, time=2),
        spec=spec,
    )
    assert (found.rows.tolist(), found.row_at.tolist()) == ([4, 5], [1, 2])
    assert found.row_weights.tolist() == [1.0, 4.0]
    assert (found.texts.values.tolist(), found.text_at.tolist()) == ([[3.0], [6.0]], [0, 2])
    assert found.text_weights.tolist() == [3.0, 1.0]
    vectors = found.vectors(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [5.0, 0.0]]))
    assert vectors.tolist() == [[3.0, 3.0], [1.0, 0.0], [5.0, 4.0]]


def test_only_first_choices_are_learnt_from():
    found = events(
        Event(kind=Kind.SKIP, item=7, time=0),
        Event(kind=Kind.CLICK, item=8, time=1),
        Event(kind=Kind.SEARCH, text="x", time=2),
        Event(kind=Kind.LIKE, item=8, time=3),
        Event(kind=Kind.VIEW, item=7, time=4),
        Event(kind=Kind.CLICK, item=9, time=5),
    )
    assert (found.choices.tolist(), found.chosen.tolist()) == ([1, 4, 5], [8, 7, 9])
    assert found.rows.tolist() == [7, 8, 8, 7, 9]


def test_seen_holds_what_was_chosen_before_each_cut():
    found = events(*(Event(kind=Kind.CLICK, item=item, time=time) for time, item in enumerate([2, 0, 2, 3])))
    assert found.seen(torch.tensor([0, 1, 3, 4]), 5).int().tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
    ]
    assert not events().seen(torch.tensor([0]), 5).any()


def test_an_empty_history():
    nothing = events()
    assert (nothing.size, len(nothing.texts), nothing.choices.tolist()) == (0, 0, [])
    assert nothing.vectors(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0, 2)


def test_no_content_in_a_repr():
    found = events(Event(kind=Kind.SEARCH, text=SECRET, item=4_321))
    assert repr(found) == str(found) == "Events(1, contents withheld)"
