"""Contexts equal an obvious loop, and nothing after a cut ever enters."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events, contexts
from fedrec.device.training import LocalTraining, queries_at
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

laws = settings(derandomize=True, deadline=None, max_examples=60)

ITEMS = 7
TEXTS = ["red apple", "green apple", "red car", "blue car", "", "old blue boat", "green boat"]
MODEL = Model.build(
    Catalogue([f"i{row}" for row in range(ITEMS)], TEXTS),
    open_encoder("hash"), ModelSpec(adapter="none", dim=5, decays=(0.0, 0.7, 1.0)), seed=0,
)  # fmt: skip
SHARED = torch.from_numpy(stream(0, "shared").normal(0.0, 0.5, MODEL.layout.size).astype(np.float32))

decays = st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=1, max_size=3)
items = st.integers(NO_ITEM, ITEMS - 1)
texts = st.sampled_from(["", "", "apple", "a blue boat", "nothing known"])
acts = st.builds(lambda kind, item, text: (kind, item, text), st.sampled_from(list(Kind)), items, texts)
histories = st.lists(acts, max_size=8)


def vectors_of(seed, size):
    """Random event vectors; every third one is zero, like an item without text."""
    vectors = stream(seed, "vectors").normal(size=(size, 3)).astype(np.float32)
    vectors[2::3] = 0.0
    return torch.from_numpy(vectors)


def slow(vectors, cuts, decay):
    """The definition: walk back from the cut, weighing 1, λ, λ², … ."""
    rows = []
    for cut in cuts.tolist():
        total, weight = np.zeros(3), 1.0
        for position in range(cut - 1, -1, -1):
            total += weight * vectors[position].numpy().astype(np.float64)
            weight *= decay
        length = np.linalg.norm(total)
        rows.append(total / length if length > 1e-6 else total / 1e-6)
    return np.array(rows)


def history(acts):
    events = [Event(kind=kind, item=item, text=text, time=time) for time, (kind, item, text) in enumerate(acts)]
    return Events.of(History.of(events), ProfileSpec(rating=1.0), MODEL.adapter.prepare)


@laws
@given(st.integers(0, 99), st.integers(0, 9), decays)
def test_equal_to_the_loop(seed, size, chosen):
    vectors, cuts = vectors_of(seed, size), torch.arange(size + 1)
    found = contexts(vectors, cuts, chosen)
    assert found.shape == (len(chosen), size + 1, 3)
    for one, decay in zip(found, chosen, strict=True):
        assert np.allclose(one, slow(vectors, cuts, decay), atol=2e-5)
    if size > 1:  # the comparison is sharp: one event too many is noticed
        assert not np.allclose(found[0, :-1], slow(vectors, cuts[1:], chosen[0]), atol=2e-5)


@laws
@given(st.integers(0, 99), st.integers(1, 8), st.data())
def test_what_comes_after_the_cut_changes_nothing(seed, size, data):
    cut = data.draw(st.integers(0, size - 1))
    vectors, later = vectors_of(seed, size), vectors_of(seed, size)
    later[cut:] = 100.0 * vectors_of(seed + 1, size)[cut:] + 1.0
    at = torch.tensor([cut])
    assert torch.equal(contexts(vectors, at, (0.0, 0.5, 1.0)), contexts(later, at, (0.0, 0.5, 1.0)))
    assert not torch.equal(contexts(vectors, at + 1, (0.0,)), contexts(later, at + 1, (0.0,)))


@laws
@given(histories, histories)
def test_a_query_and_a_loss_know_only_the_past(past, future):
    """The target of the last choice of `past` is foreseen alike, whatever the person does afterwards."""
    alone, longer = history(past), history([*past, *future])
    parameters = MODEL.layout.views(SHARED)
    table, at = MODEL.item_vectors(parameters), torch.tensor([len(past)])
    found = [queries_at(MODEL, parameters, (events, at), (table, None)) for events in (alone, longer)]
    assert torch.allclose(*found, atol=1e-6)
    if len(alone.choices):
        last, embedding = torch.tensor([len(alone.choices) - 1]), torch.zeros(5)
        training = LocalTraining(MODEL, TrainingSpec())
        for negatives in (None, torch.tensor([0, 3, 4])):
            losses = [training.loss(SHARED, embedding, events, last, negatives) for events in (alone, longer)]
            assert torch.allclose(*losses, atol=1e-5)


def test_the_law_of_the_past_can_fail():
    """The same comparison one event later tells the two histories apart."""
    past, future = [(Kind.CLICK, 0, "")], [(Kind.CLICK, 3, "a blue boat")]
    parameters = MODEL.layout.views(SHARED)
    table, at = MODEL.item_vectors(parameters), torch.tensor([2])
    peeking = [queries_at(MODEL, parameters, (history(a), at), (table, None)) for a in (past, past + future)]
    assert not torch.allclose(*peeking, atol=1e-2)
