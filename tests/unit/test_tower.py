"""The way back from a table of entry vectors, against autograd: where lengths are held and words are missing, too."""

import numpy as np
import pytest
import torch

from fedrec.model.adapter import TowerInputs
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import SHORTEST, Model
from fedrec.population.gradients import Gradients
from fedrec.population.tower import Tower
from fedrec.randomness import stream
from fedrec.spec import ModelSpec

ITEMS, DIM = 12, 6


def model_of(adapter, **changes):
    spec = {"encoder": "tiny", "adapter": adapter, "rank": 2, "dim": DIM} | changes
    titles = [f"a {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("lamp", "book", "hat", "cup")]
    dense = stream(0, "features").normal(size=(ITEMS, 2)).astype("f4")
    catalogue = Catalogue([f"i{n}" for n in range(ITEMS)], titles, dense)
    return Model.build(catalogue, open_encoder("tiny"), ModelSpec(**spec), seed=1)


def start_of(model, *, still=False):
    """A shared vector away from the public start; where texts are `still`, no adapter moves them."""
    shared = torch.from_numpy(model.initial + stream(2, "away").normal(0, 0.3, model.layout.size).astype("f4"))
    if still:
        model.layout.views(shared)["adapter.body.up"].zero_()
    return shared


def by_autograd(model, shared, texts, total):
    leaf = shared.clone().requires_grad_()
    parameters = model.layout.views(leaf)
    table = torch.cat([model.item_vectors(parameters), model.text_vectors(parameters, texts)])
    return torch.autograd.grad((table * total).sum(), leaf)[0]


def close(mine, theirs):
    return torch.allclose(mine, theirs, rtol=2e-4, atol=1e-5 * float(theirs.abs().max()))


def gradient_on(tower):
    return torch.from_numpy(stream(3, "total").normal(size=(len(tower), DIM)).astype("f4"))


@pytest.mark.parametrize("changes", [{}, {"projection": False}, {"residuals": False}], ids=str)
@pytest.mark.parametrize("adapter", ["bottleneck", "lora", "none"])
def test_one_gradient_on_the_table(adapter, changes):
    model = model_of(adapter, **changes)
    texts, shared = model.adapter.prepare(["a lamp of glass", "a very old hat", ""]), start_of(model)
    tower = Tower(model, shared, texts, clients=1)
    total = gradient_on(tower)
    assert close(tower.backward(total), by_autograd(model, shared, texts, total))


def test_a_text_at_the_centre_has_a_length_that_follows_nothing():
    model = model_of("bottleneck")
    # Representable steps beside the centre, too short for a direction of their own.
    beside = model.centre + 0.3 * SHORTEST * torch.from_numpy(stream(4, "beside").normal(size=(3, len(model.centre)))
                                                             / len(model.centre) ** 0.5).float()  # fmt: skip
    texts, shared = TowerInputs(beside, torch.zeros(3, 0, dtype=torch.bool)), start_of(model, still=True)
    away, length = model.directions(beside)
    assert away.any() and (length == SHORTEST).all()
    tower = Tower(model, shared, texts, clients=1)
    total = gradient_on(tower)
    total[:ITEMS] = 0
    assert close(tower.backward(total), by_autograd(model, shared, texts, total))


@pytest.mark.parametrize("examples", [1, 40], ids=["few gradients", "many"])
@pytest.mark.parametrize("written", [[], ["a lamp of glass", "a very old hat"]], ids=["no texts", "texts"])
def test_gradients_of_many_are_each_ones_own(examples, written):
    model, clients = model_of("bottleneck"), 3
    texts, shared, rng = model.adapter.prepare(written), start_of(model), stream(5, "gradients")
    tower = Tower(model, shared, texts, clients=clients)
    listed, mentioned = 4, len(written)
    entry = rng.integers(ITEMS, size=(clients, listed))
    entry = np.concatenate([entry, np.tile(ITEMS + np.arange(mentioned), (clients, 1))], axis=1)
    softmax, queries = rng.normal(size=(clients, examples, ITEMS)), rng.normal(size=(clients, examples, DIM))
    rows = rng.normal(size=(clients, listed + mentioned, DIM))
    parts = [torch.from_numpy(part.astype("f4")) for part in (softmax, queries, rows)]
    gradients = Gradients(parts[0], parts[1], torch.from_numpy(entry), parts[2], listed)
    assert tower._full(gradients) == (examples == 40)  # both ways
    found = dict(tower.parts(gradients))
    for client, whole in enumerate(gradients.of(len(tower))):
        theirs = model.layout.views(by_autograd(model, shared, texts, whole))
        assert all(close(part[client], theirs[name]) for name, part in found.items())
    assert set(found) == {"projection", "residuals", "adapter.body.up", "adapter.body.down"}
