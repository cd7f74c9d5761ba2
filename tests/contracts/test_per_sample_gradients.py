"""Opacus, applied to the whole model as one layer, finds the gradient that each example has by itself.

The oracle is the ordinary training: its loss on a history that holds the example's events and nothing else, one at a
time, through plain autograd (itself checked against scores worked item by item in test_local_training.py).
"""

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.examples import Examples
from fedrec.device.history import History
from fedrec.device.private_training import Losses, PrivateTraining, gradients
from fedrec.device.profile import Events
from fedrec.device.training import LocalTraining
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.privacy.interaction import Blocks, InteractionTerms
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

DIM, ITEMS = 3, 8
TEXTS = ["red apple", "green apple pie", "red car", "a blue car", "", "old boat", "new green boat", "pie and tea"]
CATALOGUE = Catalogue(
    [f"i{n}" for n in range(ITEMS)], TEXTS, stream(0, "features").normal(size=(ITEMS, 1)).astype("f4")
)
PROFILE, SPEC = ProfileSpec(rating=1.5), TrainingSpec()
TERMS = InteractionTerms(rate=1.0, steps=1, clip=1.0, multiplier=1.0, examples=5, blocks=Blocks(seconds=100, span=5))
# One list per window of the public clock.
WINDOWS = [
    [(Kind.CLICK, 0, ""), (Kind.SKIP, 3, ""), (Kind.SEARCH, NO_ITEM, "a green boat"), (Kind.CLICK, 6, "")],
    [(Kind.REVIEW, 4, "no words about pie"), (Kind.LIKE, 0, ""), (Kind.CLICK, 2, ""), (Kind.CLICK, 0, "")],
    [(Kind.RATE, 5, "")],
    [(Kind.SEARCH, NO_ITEM, "tea"), (Kind.SKIP, 1, "")],  # chooses nothing
    [(Kind.CLICK, 7, ""), (Kind.CLICK, 1, "tea"), (Kind.CLICK, 6, ""), (Kind.CLICK, 2, ""), (Kind.CLICK, 5, "")],
]
EVERY = range(len(WINDOWS))
RIVALS = {"catalogue": list(range(ITEMS)), "sampled": [1, 2, 5, 6]}

every_adapter = pytest.mark.parametrize("adapter", ["none", "bottleneck", "lora"])
rivals_of = pytest.mark.parametrize("rivals", RIVALS.values(), ids=RIVALS)


def acts(window):
    return [
        Event(kind=kind, item=item, text=text, rating=0.9 if kind is Kind.RATE else float("nan"), time=100 * window + n)
        for n, (kind, item, text) in enumerate(WINDOWS[window])
    ]


HISTORY = History.of(event for window in EVERY for event in acts(window))


def model_of(adapter):
    spec = ModelSpec(encoder="tiny", adapter=adapter, rank=2, dim=DIM, decays=(0.0, 0.6))
    return Model.build(CATALOGUE, open_encoder("tiny"), spec, seed=1)


def start_of(model):
    """Away from the public start, where half of an adapter's gradients are zero; with an embedding."""
    away = stream(2, "moved").normal(0.0, 0.3, model.layout.size)
    return torch.from_numpy((model.initial + away).astype("f4")), torch.tensor([0.2, -0.4, 0.1])


def layer_of(model, rivals, spec=SPEC):
    training = PrivateTraining(model, spec, TERMS)
    examples = Examples.of(HISTORY, PROFILE, model.adapter.prepare, TERMS.blocks)
    shared, embedding = map(nn.Parameter, start_of(model))

    def loss(shared, embedding, place):
        return training.loss(shared, embedding, examples, place, torch.tensor(rivals))

    return Losses(shared, embedding, loss)


def found_in(layer, picked=EVERY, piece=3):
    """(example, size + dim)."""
    return torch.cat(list(gradients(layer, np.array(picked), piece).values()), dim=1)


def alone(model, rivals, spec=SPEC):
    """(example, size + dim) of the oracle."""
    rows, training = [], LocalTraining(model, spec)
    for window in EVERY:
        events = Events.of(History.of(acts(window)), PROFILE, model.adapter.prepare)
        shared, embedding = (start.requires_grad_() for start in start_of(model))
        if not len(events.choices):
            rows.append(torch.zeros(len(shared) + DIM))
            continue
        value = training.loss(shared, embedding, events, torch.arange(len(events.choices)), torch.tensor(rivals))
        rows.append(torch.cat(torch.autograd.grad(value, (shared, embedding))))
    return torch.stack(rows)


def agree(mine, obvious):
    return torch.allclose(mine, obvious, rtol=1e-3, atol=2e-5)


@every_adapter
@rivals_of
@pytest.mark.parametrize("hide", [True, False])
def test_each_example_has_the_gradient_that_it_has_alone(adapter, rivals, hide):
    model, spec = model_of(adapter), TrainingSpec(hide_seen=hide)
    obvious = alone(model, rivals, spec)
    assert agree(found_in(layer_of(model, rivals, spec)), obvious)
    for name, _ in model.layout.shapes:
        inside = torch.from_numpy(np.append(model.layout.mask(name), [False] * DIM))
        assert obvious[:, inside].abs().amax() > 1e-3  # nothing is left out
    assert obvious[:, -DIM:].abs().amax() > 1e-3


@every_adapter
def test_wrong_gradients_are_told_apart(adapter):
    model, rivals = model_of(adapter), RIVALS["sampled"]
    layer, obvious = layer_of(model, rivals), alone(model, rivals)
    mean = obvious.mean(0).expand_as(obvious)  # one gradient for the batch, shared out
    assert not agree(mean, obvious)

    inner = layer._loss

    def without_table(shared, embedding, place):
        """What is left when items belong to no example: the gradient of the user's side."""
        return inner(shared.detach(), embedding, place) + 0 * shared.sum()

    shared, embedding = layer.shared, layer.embedding
    assert not agree(found_in(Losses(shared, embedding, without_table)), obvious)


def test_hooks_on_inner_layers_count_items_and_not_examples():
    """Why the whole model is one layer: Opacus's own hooks take the batch dimension of a table for examples."""
    table = GradSampleModule(nn.Linear(4, DIM, bias=False), loss_reduction="sum")
    vectors = torch.from_numpy(stream(3, "items").normal(size=(ITEMS, 4)).astype("f4")).requires_grad_()
    queries = torch.from_numpy(stream(3, "examples").normal(size=(2, DIM)).astype("f4"))
    torch.logsumexp(queries @ table(vectors).T, dim=1).sum().backward()
    assert len(next(table.parameters()).grad_sample) == ITEMS != len(queries)


@every_adapter
def test_examples_may_come_in_pieces_of_any_size_twice_or_not_at_all(adapter):
    layer = layer_of(model_of(adapter), RIVALS["sampled"])
    whole = found_in(layer, piece=5)
    assert agree(found_in(layer, piece=1), whole)
    assert agree(found_in(layer, [4, 0, 4], piece=2), whole[[4, 0, 4]])
    assert found_in(layer, []).shape == (0, whole.shape[1])
