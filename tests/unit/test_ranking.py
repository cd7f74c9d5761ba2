"""The model and its parameters, worked by hand on three items."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest
import torch

from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events, contexts
from fedrec.device.training import queries_at
from fedrec.errors import DataError, SpecError, WireError
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.parameters import Layout
from fedrec.model.ranking import Model
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec


@dataclass(frozen=True)
class Table:
    """An encoder that looks vectors up; a text that it does not know has no words."""

    vectors: dict
    dim: int
    name: str = "table"
    hash: str = "0" * 64

    def encode(self, texts, *, public=False):
        return np.array([self.vectors.get(text, [0.0] * self.dim) for text in texts], np.float32).reshape(-1, self.dim)


PLANE = Table({"east": [1.0, 0.0], "north": [0.0, 1.0], "west": [-1.0, 0.0]}, 2)
TOY = Catalogue(["e", "n", "w"], ["east", "north", "west"])
# The centre of the three is (0, 1/3); from there they lie in the directions:
EAST, NORTH, WEST = np.array([3, -1]) / sqrt(10), np.array([0, 1]), np.array([-3, -1]) / sqrt(10)


def toy(catalogue=TOY, **spec):
    return Model.build(catalogue, PLANE, ModelSpec(adapter="none", **{"dim": 2, "decays": (1.0,)} | spec), seed=0)


def parameters(model, **values):
    start = model.layout.views(torch.from_numpy(model.initial.copy()))
    return start | {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def random_parameters(model, seed=0):
    return torch.from_numpy(stream(seed, "shared").normal(0.0, 0.5, model.layout.size).astype(np.float32))


def test_item_vectors_by_hand():
    model = toy()
    own = parameters(model, projection=[[2.0, 0.0], [0.0, -1.0]], residuals=[[0.0, 0.0], [0.5, 0.0], [0.0, 0.25]])
    expected = np.array([EAST * [2, -1], NORTH * [2, -1] + [0.5, 0], WEST * [2, -1] + [0, 0.25]])
    assert model.item_vectors(own).numpy() == pytest.approx(expected, abs=1e-6)
    some = torch.tensor([2, 0])
    assert model.item_vectors(own, some).numpy() == pytest.approx(expected[[2, 0]], abs=1e-6)


def test_scores_by_hand():
    """⟨W₁c₁ + W₂c₂ + e, V z + r⟩ + b with a quarter turn for W₂."""
    model = toy(decays=(0.0, 1.0))
    own = parameters(
        model, projection=np.eye(2), maps=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [-1.0, 0.0]]],
        residuals=[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], popularity=[0.0, 0.0, -0.5],
    )  # fmt: skip
    seen = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]]])  # (decay, example, dim)
    query = model.queries(own, seen)
    assert query.numpy() == pytest.approx(np.array([[1 - 0.8, 0.0 + 0.6]]))  # c₂ W₂ = (−0.8, 0.6)
    scores = (query + torch.tensor([0.1, 0.0])) @ model.item_vectors(own).T + model.prior(own)
    expected = [(0.9 - 0.6) / sqrt(10), 0.3 + 0.6, (-0.9 - 0.6) / sqrt(10) - 0.5]
    assert scores[0].numpy() == pytest.approx(expected, abs=1e-6)


def random_catalogue(items=30, features=2):
    rng = stream(3, "catalogue")
    words = [f"word{n}" for n in range(40)]
    texts = [" ".join(rng.choice(words, 5)) for _ in range(items - 1)] + [""]
    return Catalogue([f"i{n}" for n in range(items)], texts, rng.normal(3.0, 2.0, (items, features)).astype(np.float32))


def formula(model, catalogue, named, wanted):
    """DESIGN section 4 in plain numpy: scores of the catalogue for `wanted` (dim,)."""
    text = open_encoder("hash").encode(catalogue.texts)
    moved = text - text.mean(axis=0)
    z = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    z[[not words for words in catalogue.texts]] = 0
    features = catalogue.features
    dense = (features - features.mean(axis=0)) / features.std(axis=0) / np.sqrt(features.shape[1])
    vectors = np.concatenate([z, dense], axis=1) @ named["projection"] + named["residuals"]
    return vectors @ wanted + named["popularity"], vectors


def test_the_formula_in_plain_numpy():
    catalogue = random_catalogue()
    spec = ModelSpec(adapter="none", dim=6, decays=(0.0, 0.5, 1.0))
    model = Model.build(catalogue, open_encoder("hash"), spec, seed=0)
    shared = model.layout.views(random_parameters(model))
    named = {name: value.numpy().astype(np.float64) for name, value in shared.items()}
    history = History.of([Event(kind=Kind.CLICK, item=item, time=time) for time, item in enumerate([4, 29, 7])])
    events = Events.of(history, ProfileSpec(), model.adapter.prepare)
    at = (events, torch.tensor([3]))
    found = queries_at(model, shared, at, (model.item_vectors(shared), None)) @ model.item_vectors(shared).T

    _, vectors = formula(model, catalogue, named, np.zeros(6))
    seen = [vectors[7], 0.25 * vectors[4] + 0.5 * vectors[29] + vectors[7], vectors[[4, 29, 7]].sum(axis=0)]
    query = sum(c / np.linalg.norm(c) @ w for c, w in zip(seen, named["maps"], strict=True))
    scores, _ = formula(model, catalogue, named, query)
    assert (found + model.prior(shared))[0].detach().numpy() == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("encoder", ["hash", "tiny"])
def test_the_start_ranks_like_frozen_text(encoder):
    """One plain mean, no residuals: scores are 3 × the cosine of centred text vectors."""
    catalogue, tower = random_catalogue(features=0), open_encoder(encoder)
    spec = ModelSpec(
        encoder=encoder, adapter="bottleneck", dim=min(tower.dim, len(catalogue)), decays=(1.0,), residuals=False
    )
    model = Model.build(catalogue, tower, spec, seed=0)
    start = model.layout.views(torch.from_numpy(model.initial))
    table = model.item_vectors(start)
    past = [3, 11]
    query = model.queries(start, contexts(table[past], torch.tensor([2]), spec.decays))
    scores = (query @ table.T + model.prior(start))[0].detach().numpy()

    text = tower.encode(catalogue.texts)
    z = text - text.mean(axis=0)
    z = np.where(text.any(axis=1, keepdims=True), z / np.linalg.norm(z, axis=1, keepdims=True), 0)
    mean = z[past].sum(axis=0) / np.linalg.norm(z[past].sum(axis=0))
    assert scores == pytest.approx(3 * z @ mean, abs=1e-4)
    raw = text @ text[past].sum(axis=0) / np.linalg.norm(text[past].sum(axis=0))
    assert scores != pytest.approx(3 * raw, abs=0.1)  # the centre matters


def test_a_narrow_model_keeps_the_principal_axes():
    catalogue, tower = random_catalogue(features=0), open_encoder("hash")
    model = Model.build(catalogue, tower, ModelSpec(adapter="none", dim=4, residuals=False), seed=0)
    text = tower.encode(catalogue.texts)[:-1]
    z = text - tower.encode(catalogue.texts).mean(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    _, _, axes = np.linalg.svd(z, full_matrices=False)
    found = model.layout.views(torch.from_numpy(model.initial))["projection"].numpy() / 3
    assert np.abs(axes[:4] @ found) == pytest.approx(np.eye(4), abs=1e-3)  # up to sign, which is ours to choose:
    assert (found[np.abs(found).argmax(axis=0), np.arange(4)] > 0).all()


@pytest.mark.parametrize("dim", [1, 8, 30])
def test_any_width_up_to_the_catalogue_starts_finite(dim):
    model = Model.build(random_catalogue(features=0), open_encoder("hash"), ModelSpec(adapter="none", dim=dim), seed=0)
    start = model.layout.views(torch.from_numpy(model.initial))
    assert np.isfinite(model.initial).all() and model.item_vectors(start).shape == (30, dim)


def test_a_model_wider_than_its_catalogue_is_refused():
    with pytest.raises(SpecError, match="Set model.dim=30"):
        Model.build(random_catalogue(features=0), open_encoder("hash"), ModelSpec(adapter="none", dim=31), seed=0)


def test_dense_features_change_vectors_and_constant_columns_do_not():
    dense = np.array([[1.0], [2.0], [6.0]], np.float32)
    with_dense = Catalogue(TOY.ids, TOY.texts, dense)
    constant = Catalogue(TOY.ids, TOY.texts, np.full((3, 1), 7.0, np.float32))
    spread = (dense[:, 0] - 3) / np.std(dense)
    model = toy(with_dense, dim=3)
    own = parameters(model, projection=np.eye(3))
    assert model.item_vectors(own)[:, 2].numpy() == pytest.approx(spread)
    assert model.item_vectors(own)[:, :2].numpy() == pytest.approx(np.array([EAST, NORTH, WEST]), abs=1e-6)
    flat = toy(constant, dim=3)
    assert not flat.item_vectors(parameters(flat, projection=np.eye(3)))[:, 2].any()
    assert np.isfinite(flat.initial).all()


def test_many_columns_weigh_as_much_as_one():
    dense = np.repeat(np.array([[1.0], [2.0], [6.0]], np.float32), 4, axis=1)
    vectors = toy(Catalogue(TOY.ids, TOY.texts, dense), dim=3).items.features.numpy()
    assert vectors.shape == (3, 4)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.abs(dense[:, 0] - 3) / np.std(dense[:, 0]))


def test_text_without_words_is_the_zero_vector():
    model = toy(Catalogue(["e", "n", "w", "blank"], ["east", "north", "west", ""]))
    own = parameters(model)
    assert not model.item_vectors(own)[3].any()
    assert not model.text_vectors(own, model.adapter.prepare(["", "unheard of"])).any()
    assert model.text_vectors(own, model.adapter.prepare([])).shape == (0, 2)


def test_free_text_lands_where_an_item_of_the_same_words_is():
    dense = Catalogue(TOY.ids, TOY.texts, np.array([[1.0], [2.0], [6.0]], np.float32))
    model = toy(dense, dim=3)
    own = parameters(model, projection=np.eye(3))
    texts = model.text_vectors(own, model.adapter.prepare(["east", "north"]))
    assert torch.allclose(texts[:, :2], model.item_vectors(own)[:2, :2])
    assert not texts[:, 2].any()  # text has no dense features


def test_a_large_catalogue_in_pieces_equals_one_piece(monkeypatch):
    catalogue = random_catalogue()
    model = Model.build(catalogue, open_encoder("tiny"), ModelSpec(adapter="lora", dim=8, rank=2), seed=0)
    shared = model.layout.views(random_parameters(model))
    whole = model.item_vectors(shared)
    monkeypatch.setattr("fedrec.model.ranking._batched.__defaults__", (7,))
    assert torch.allclose(model.item_vectors(shared), whole, atol=1e-5)


def test_a_model_without_extras_has_fewer_parameters():
    names = dict(toy(residuals=False, popularity=False).layout.shapes)
    assert names == {"projection": (2, 2), "maps": (1, 2, 2)}
    assert dict(toy().layout.shapes) == names | {"residuals": (3, 2), "popularity": (3,)}
    plain = toy(popularity=False)
    assert plain.prior(parameters(plain)).tolist() == [0, 0, 0]
    assert plain.prior(parameters(plain), torch.tensor([1])).tolist() == [0]
    own = parameters(toy(), popularity=[1.0, 2.0, 3.0])
    assert toy().prior(own, torch.tensor([2, 0])).tolist() == [3, 1]


def test_without_a_projection_items_keep_their_principal_axes():
    fixed, free = toy(projection=False), toy()
    assert "projection" not in dict(fixed.layout.shapes)
    assert torch.equal(fixed.item_vectors(parameters(fixed)), free.item_vectors(parameters(free)))
    turned = parameters(free, projection=[[0.0, 1.0], [1.0, 0.0]])
    assert not torch.allclose(fixed.item_vectors(parameters(fixed)), free.item_vectors(turned), atol=0.1)


def test_one_item_cannot_be_ranked():
    with pytest.raises(DataError, match="at least two items.*items=1"):
        toy(Catalogue(["e"], ["east"]))


def test_the_start_depends_on_nothing_random():
    torch.manual_seed(0)
    first = toy().initial
    torch.manual_seed(1)
    assert (toy().initial == first).all()


@pytest.mark.parametrize("adapter", ["bottleneck", "lora"])
def test_the_centre_is_a_constant(adapter):
    """A centre with a gradient would keep the whole catalogue's activations alive and could not be published."""
    model = Model.build(random_catalogue(), open_encoder("tiny"), ModelSpec(adapter=adapter, dim=4, rank=2), seed=0)
    assert not model.centre.requires_grad


LAYOUT = Layout((("a", (2, 2)), ("b", ()), ("c", (3,))))


def test_views_share_memory_and_flatten_back():
    vector = torch.arange(8.0, requires_grad=True)
    views = LAYOUT.views(vector)
    assert {name: tuple(view.shape) for name, view in views.items()} == {"a": (2, 2), "b": (), "c": (3,)}
    assert (LAYOUT.flatten(views) == np.arange(8)).all() and LAYOUT.flatten(views).dtype == np.float32
    (gradient,) = torch.autograd.grad(views["a"][1, 0] * 3 + views["c"][2], vector)
    assert gradient.tolist() == [0, 0, 3, 0, 0, 0, 0, 1]


def test_masks_cover_the_vector_once():
    masks = [LAYOUT.mask(name) for name, _ in LAYOUT.shapes]
    assert np.sum(masks, axis=0).tolist() == [1] * 8
    assert np.flatnonzero(LAYOUT.mask("c")).tolist() == [5, 6, 7]


def test_names_and_shapes_are_hashed():
    renamed = Layout((("a", (2, 2)), ("b", ()), ("d", (3,))))
    reshaped = Layout((("a", (4,)), ("b", ()), ("c", (3,))))
    assert len({LAYOUT.hash, renamed.hash, reshaped.hash}) == 3


@pytest.mark.parametrize("shape", [(7,), (9,), (8, 1)])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(WireError, match="does not fit the model; got expected=8"):
        LAYOUT.views(torch.zeros(shape))
