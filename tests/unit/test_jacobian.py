"""One Jacobian for all clients: each client's gradient on the adapter is the one that its own backward pass finds."""

import numpy as np
import pytest
import torch

from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.population import jacobian
from fedrec.population.jacobian import TowerJacobian
from fedrec.randomness import stream
from fedrec.spec import ModelSpec

DIM = 3
TEXTS = ["red apple", "a green apple pie", "", "car", "the old boat on a long blue river", "pie and tea", "tea", "tea"]
WORDLESS = TEXTS.index("")
FEATURES = stream(0, "features").normal(size=(len(TEXTS), 2)).astype("f4")

every_adapter = pytest.mark.parametrize("adapter", ["none", "bottleneck", "lora"])
every_way = pytest.mark.parametrize("room", [0, 1 << 20], ids=["again", "kept"])
both_sizes = pytest.mark.parametrize("clients", [DIM - 1, DIM + 2], ids=["few", "many"])


def model_of(adapter, **changes):
    spec = ModelSpec(encoder="tiny", adapter=adapter, rank=2, dim=DIM, decays=(0.0,), **changes)
    items = Catalogue([f"i{n}" for n in range(len(TEXTS))], TEXTS, FEATURES)
    return Model.build(items, open_encoder("tiny"), spec, seed=1)


def moved(model):
    """Away from the start, where half of an adapter's gradients are zero."""
    away = stream(2, "moved").normal(0.0, 0.3, model.layout.size)
    return torch.from_numpy((model.initial + away).astype("f4"))


def gradients_of(clients):
    return torch.from_numpy(stream(3, "gradients").normal(size=(clients, len(TEXTS), DIM)).astype("f4"))


def obvious(model, shared, gradients):
    """(client, adapter) by one backward pass each, through all texts at once."""
    inside = torch.from_numpy(np.sum([model.layout.mask(name) for name in names(model)], axis=0, dtype=bool))
    rows = []
    for gradient in gradients:
        start = shared.clone().requires_grad_()
        vectors = model.text_vectors(model.layout.views(start), model.items.texts)
        rows.append(torch.autograd.grad(vectors, start, gradient)[0][inside])
    return torch.stack(rows)


def names(model):
    return [name for name, _ in model.layout.shapes if name.startswith("adapter.")] or ["none"]


def agree(mine, theirs):
    return mine.shape == theirs.shape and torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def pull(model, parameters, inputs, gradients):
    """For clients that are alone with these parameters."""
    return TowerJacobian(model, parameters, inputs, clients=len(gradients), room=0).pull(gradients)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(jacobian, "_CELLS", {"cpu": 12})
    monkeypatch.setattr(jacobian, "_COTANGENTS", 2)


@every_adapter
@both_sizes
@every_way
def test_each_client_has_the_gradient_of_its_own_backward_pass(adapter, clients, room):
    model, gradients = model_of(adapter), gradients_of(clients)
    shared = moved(model)
    parameters = model.layout.views(shared)
    tower = TowerJacobian(model, parameters, model.items.texts, clients=clients, room=room)
    expected = obvious(model, shared, gradients)
    assert agree(tower.pull(gradients), expected)
    assert agree(tower.pull(gradients.flip(0)), expected.flip(0))
    assert agree(pull(model, parameters, model.items.texts, gradients), expected)
    assert adapter == "none" or expected.abs().amax(1).min() > 1e-2


@pytest.mark.parametrize("adapter", ["bottleneck", "lora"])
def test_gradients_that_are_not_the_clients_own_are_told_apart(adapter):
    model, gradients = model_of(adapter), gradients_of(DIM + 1)
    shared = moved(model)
    expected = obvious(model, shared, gradients)
    for wrong in (gradients.mean(0).expand_as(gradients), gradients.roll(1, dims=1), gradients.roll(1, dims=2)):
        assert not agree(pull(model, model.layout.views(shared), model.items.texts, wrong.contiguous()), expected)
    start = torch.from_numpy(model.initial)
    assert not agree(pull(model, model.layout.views(start), model.items.texts, gradients), expected)


@pytest.mark.parametrize("adapter", ["bottleneck", "lora"])
def test_pieces_are_the_derivatives_of_each_text(adapter):
    model = model_of(adapter, projection=False)
    shared = moved(model)
    tower = TowerJacobian(model, model.layout.views(shared), model.items.texts)
    pieces = list(tower.pieces())
    assert len(pieces) > 1
    rows = torch.cat([rows for rows, _ in pieces])
    assert rows.sort().values.tolist() == list(range(len(TEXTS)))
    whole = torch.cat([piece for _, piece in pieces])[rows.argsort()]
    assert whole.shape == (len(TEXTS), DIM, tower.width)
    assert not whole[WORDLESS].any()
    assert torch.equal(whole[-1], whole[-2]) or agree(whole[-1], whole[-2])

    name = names(model)[0]
    place, step = model.layout.slices[name].start, 1e-2
    ahead, behind = shared.clone(), shared.clone()
    ahead[place] += step
    behind[place] -= step
    with torch.no_grad():
        up, down = (model.text_vectors(model.layout.views(at), model.items.texts) for at in (ahead, behind))
    assert torch.allclose(whole[:, :, 0], (up - down) / (2 * step), rtol=2e-2, atol=1e-4)


def test_a_half_read_jacobian_is_not_kept():
    model, gradients = model_of("lora"), gradients_of(DIM + 1)
    shared = moved(model)
    tower = TowerJacobian(model, model.layout.views(shared), model.items.texts, clients=DIM + 1)
    next(tower.pieces())
    assert agree(tower.pull(gradients), obvious(model, shared, gradients))
    again = [piece for _, piece in tower.pieces()]
    assert all(one is two for one, (_, two) in zip(again, tower.pieces(), strict=True))


def test_nobody_has_no_gradients():
    model = model_of("lora")
    found = pull(model, model.layout.views(moved(model)), model.items.texts, gradients_of(0))
    assert found.shape == (0, 2 * 2 * 32)
