"""Whatever the model is made of, a client's gradient is the obvious one.

The oracle below scores one example at a time, item by item, event by event, in float64, and knows
nothing of flat vectors, tables or masks.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events
from fedrec.device.training import LocalTraining, trainable
from fedrec.device.weights import signed_weights
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Items, Model
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

DIM, ITEMS = 3, 8
ENCODER = open_encoder("tiny")
TEXTS = ["red apple", "green apple pie", "red car", "a blue car", "", "old boat", "new green boat", "pie and tea"]
FEATURES = stream(0, "features").normal(size=(ITEMS, 1)).astype(np.float32)
CATALOGUE = Catalogue([f"i{n}" for n in range(ITEMS)], TEXTS, FEATURES)
PROFILE = ProfileSpec(rating=1.5)
HISTORIES = [
    [(Kind.CLICK, 0, ""), (Kind.SKIP, 3, ""), (Kind.SEARCH, NO_ITEM, "a green boat"), (Kind.CLICK, 6, ""),
     (Kind.REVIEW, 4, "no words about pie"), (Kind.LIKE, 0, ""), (Kind.CLICK, 2, "")],
    [(Kind.CLICK, 5, ""), (Kind.CLICK, 1, ""), (Kind.CLICK, 7, "")],
    [(Kind.SEARCH, NO_ITEM, "tea"), (Kind.RATE, 7, "")],
    [(Kind.CLICK, 2, "")],
]  # fmt: skip

every_adapter = pytest.mark.parametrize("adapter", ["none", "bottleneck", "lora"])
EXTRAS = {
    "everything": {},
    "plain": {"residuals": False, "popularity": False},
    "residuals": {"popularity": False},
    "popularity, fixed axes": {"residuals": False, "projection": False},
}
extras = pytest.mark.parametrize("parts", EXTRAS.values(), ids=EXTRAS)


def history(client):
    acts = enumerate(HISTORIES[client])
    rated = {Kind.RATE: 0.9, Kind.REVIEW: 0.1}
    return History.of(
        Event(kind=kind, item=item, text=text, rating=rated.get(kind, float("nan")), time=time)
        for time, (kind, item, text) in acts
    )


def model_of(adapter, parts=EXTRAS["everything"]):
    spec = ModelSpec(encoder="tiny", adapter=adapter, rank=2, dim=DIM, decays=(0.0, 0.6), **parts)
    return Model.build(CATALOGUE, ENCODER, spec, seed=1)


def doubled(model):
    """The same model in float64."""
    wide = copy.copy(model)
    wide.adapter = copy.deepcopy(model.adapter).double()
    texts = replace(model.items.texts, values=model.items.texts.values.double())
    wide.items = Items(texts, model.items.features.double())
    wide.centre, wide.axes = model.centre.double(), model.axes.double()
    return wide


def events_of(model, client):
    dtype = model.centre.dtype

    def tower(texts):
        inputs = model.adapter.prepare(texts)
        return replace(inputs, values=inputs.values.to(dtype))

    return Events.of(history(client), PROFILE, tower)


def moved(model):
    """Shared parameters away from the start, where half of an adapter's gradients are zero."""
    away = stream(2, "moved").normal(0.0, 0.3, model.layout.size)
    return torch.from_numpy(model.initial.astype(np.float64) + away)


EMBEDDING = torch.tensor([0.2, -0.4, 0.1], dtype=torch.float64)


def project(model, named, inputs, features):
    inner = {name.removeprefix("adapter."): value for name, value in named.items() if name.startswith("adapter.")}
    pooled = functional_call(model.adapter, inner, (inputs,))[0]
    away = pooled - model.centre
    text = away / away.norm() if pooled.any() else torch.zeros_like(away)
    return torch.cat([text, features]) @ (named["projection"] if model.spec.projection else model.axes)


def item_vector(model, named, row):
    vector = project(model, named, model.items.texts[row : row + 1], model.items.features[row])
    return vector + named["residuals"][row] if model.spec.residuals else vector


def wanted_after(model, named, client, cut):
    """Σ_k W_k c_k, walking back from the cut."""
    past, absent = history(client), torch.zeros(1, dtype=torch.float64)
    weights, total = signed_weights(past, PROFILE), torch.zeros(DIM, dtype=torch.float64)
    for decay, mapping in zip(model.spec.decays, named["maps"], strict=True):
        context, factor = torch.zeros(DIM, dtype=torch.float64), 1.0
        for position in range(cut - 1, -1, -1):
            weight, item, text = factor * float(weights[position]), int(past.items[position]), past.texts[position]
            if item != NO_ITEM:
                context = context + weight * item_vector(model, named, item)
            if text:
                inputs = model.adapter.prepare([text])
                inputs = replace(inputs, values=inputs.values.double())
                share = PROFILE.text if item != NO_ITEM else 1.0
                context = context + weight * share * project(model, named, inputs, absent)
            factor *= decay
        total = total + (context / context.norm()) @ mapping
    return total


def example_loss(model, named, embedding, client, position, negatives):
    """Cross-entropy of the item chosen at `position`, rival by rival."""
    past = history(client)
    target = int(past.items[position])
    before = set(past.before(position).items[past.before(position).choices()].tolist())
    rivals = set(range(ITEMS) if negatives is None else negatives) - before - {target}
    query = wanted_after(model, named, client, position) + embedding

    def score(row):
        prior = named["popularity"][row] if model.spec.popularity else 0.0
        return query @ item_vector(model, named, row) + prior

    logits = torch.stack([score(row) for row in [target, *sorted(rivals)]])
    return torch.logsumexp(logits, 0) - logits[0]


def examples(client):
    return [int(position) for position in history(client).choices() if position > 0]


def oracle(model, shared, embedding, client, negatives=None):
    """(loss, gradient of the named parameters laid end to end, gradient of the embedding), means over examples."""
    losses, to_shared, to_embedding = [], [], []
    for position in examples(client):
        named = {name: view.clone().requires_grad_() for name, view in model.layout.views(shared.detach()).items()}
        local = embedding.clone().requires_grad_()
        loss = example_loss(model, named, local, client, position, negatives)
        found = torch.autograd.grad(loss, [*named.values(), local], allow_unused=True, materialize_grads=True)
        losses.append(float(loss.detach()))
        to_shared.append(torch.cat([gradient.ravel() for gradient in found[:-1]]))
        to_embedding.append(found[-1])
    return np.mean(losses), torch.stack(to_shared).mean(0), torch.stack(to_embedding).mean(0)


def loss_of(model, shared, embedding, client, negatives=None):
    events, training = events_of(model, client), LocalTraining(model, TrainingSpec())
    drawn = None if negatives is None else torch.tensor(negatives)
    return training.loss(shared, embedding, events, torch.from_numpy(trainable(events)), drawn)


def gradient_of(model, shared, client, negatives=None):
    leaf, local = shared.clone().requires_grad_(), EMBEDDING.clone().requires_grad_()
    return torch.autograd.grad(loss_of(model, leaf, local, client, negatives), (leaf, local))


@every_adapter
@extras
@pytest.mark.parametrize("negatives", [None, [1, 2, 5]], ids=["catalogue", "sampled"])
def test_the_gradient_is_the_mean_of_one_example_at_a_time(adapter, parts, negatives):
    model = doubled(model_of(adapter, parts))
    shared = moved(model)
    for client in range(3):
        value, to_shared, to_embedding = oracle(model, shared, EMBEDDING, client, negatives)
        assert float(loss_of(model, shared, EMBEDDING, client, negatives)) == pytest.approx(value, abs=1e-6)
        found = gradient_of(model, shared, client, negatives)
        for mine, obvious in zip(found, (to_shared, to_embedding), strict=True):
            # 1e-6 and not 1e-12: decays and event weights are float32 numbers.
            assert torch.allclose(mine, obvious, rtol=1e-5, atol=1e-6)
    assert to_shared.abs().max() > 0.01


@every_adapter
@extras
def test_the_gradient_is_the_finite_difference(adapter, parts):
    model, step = doubled(model_of(adapter, parts)), 1e-5
    shared = moved(model)
    gradient, to_embedding = gradient_of(model, shared, 0)
    for name, _ in model.layout.shapes:
        inside = torch.from_numpy(model.layout.mask(name))
        for repeat in range(2):
            random = torch.from_numpy(stream(repeat, "direction", name).normal(size=model.layout.size))
            way = random * inside
            up, down = (loss_of(model, shared + sign * step * way, EMBEDDING, 0) for sign in (1, -1))
            assert float((up - down) / (2 * step)) == pytest.approx(float(gradient @ way), rel=1e-5, abs=1e-8)
        assert gradient[inside].abs().max() > 1e-4
    for axis in torch.eye(DIM, dtype=torch.float64):
        up, down = (loss_of(model, shared, EMBEDDING + sign * step * axis, 0) for sign in (1, -1))
        assert float((up - down) / (2 * step)) == pytest.approx(float(to_embedding @ axis), rel=1e-5, abs=1e-8)


def rounds_of(model, shared, embedding, clients, **spec):
    training = LocalTraining(model, TrainingSpec(**spec))
    start, local = shared.numpy().astype(np.float32), embedding.numpy().astype(np.float32)
    return [training.round(start, local, events_of(model, client), stream(0, "client", client)) for client in clients]


@every_adapter
@extras
def test_the_cohorts_sum_is_the_gradient_of_the_summed_loss(adapter, parts):
    model = model_of(adapter, parts)
    shared = moved(model)
    outcomes = rounds_of(model, shared, EMBEDDING, range(4), learning_rate=0.5)
    total = sum(outcome.delta.astype(np.float64) for outcome in outcomes)

    wide = doubled(model)
    leaf = shared.clone().requires_grad_()
    summed = sum(loss_of(wide, leaf, EMBEDDING, client) for client in range(3))  # the fourth has one choice only
    (gradient,) = torch.autograd.grad(summed, leaf)
    assert total == pytest.approx(-0.5 * gradient.numpy(), abs=2e-5)
    assert not outcomes[3].delta.any()


@every_adapter
def test_several_steps_are_a_loop(adapter):
    model = model_of(adapter)
    shared, rate, pull, decay = moved(model), 0.3, 0.7, 0.2
    (outcome,) = rounds_of(
        model, shared, EMBEDDING, [0], steps=3, learning_rate=rate, embedding_rate=pull, embedding_decay=decay
    )
    wide, now, local = doubled(model), shared.clone(), EMBEDDING.clone()
    for _ in range(3):
        _, to_shared, to_embedding = oracle(wide, now, local, 0)
        now, local = now - rate * to_shared, local - pull * (to_embedding + decay * local)
    assert outcome.delta == pytest.approx((now - shared).numpy(), abs=5e-5)
    assert outcome.embedding == pytest.approx(local.numpy(), abs=5e-5)
    (single,) = rounds_of(model, shared, EMBEDDING, [0], steps=1, learning_rate=rate)
    assert 3 * single.delta != pytest.approx(outcome.delta, abs=1e-3)  # three steps are not one long one


@every_adapter
def test_only_the_trained_part_of_the_tower_is_shared(adapter):
    names = [name for name, _ in model_of(adapter).layout.shapes if name.startswith("adapter.")]
    expected = {"none": [], "bottleneck": ["adapter.body.down", "adapter.body.up"]}
    if adapter == "lora":
        assert len(names) == 2 and all("lora_B" in name for name in names)
    else:
        assert names == expected[adapter]
