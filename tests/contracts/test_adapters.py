"""Every adapter keeps the same promises: identity at first, exact gradients, one seed one adapter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedrec.model.adapter import Adapter, TowerInputs, build_adapter
from fedrec.model.encoder import open_encoder

ENCODER = open_encoder("tiny")
TEXTS = ["Star Wars (1977)", "the empire strikes back", "", "Cinderella", "star trek into darkness and back again"]
KINDS = ["none", "bottleneck", "lora, 1 block", "lora, 2 blocks"]
TRAINED = KINDS[1:]
COUNTS = {"none": 0, "bottleneck": 2 * 3 * 32, "lora, 1 block": 2 * 3 * 32, "lora, 2 blocks": 4 * 3 * 32}

Parameters = dict[str, Tensor]


def build(kind: str, seed: int = 7) -> Adapter:
    return build_adapter(kind.split(",")[0], ENCODER, rank=3, blocks=2 if "2" in kind else 1, seed=seed)  # type: ignore[arg-type]


def moved(adapter: Adapter, seed: int = 0) -> Parameters:
    """Trainable parameters away from their start, where half of a bottleneck's gradients are zero."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() + 0.3 * torch.randn(value.shape, generator=source, dtype=torch.float64).to(value)
        for name, value in adapter.trainable().items()
    }


def of_dtype(inputs: TowerInputs, dtype: torch.dtype) -> TowerInputs:
    return replace(inputs, values=inputs.values.to(dtype))


def distance(found: Parameters, truth: Parameters) -> float:
    """Relative error over all parameters together."""
    assert found.keys() == truth.keys()
    error = sum(float((found[name] - truth[name]).pow(2).sum()) for name in truth)
    return (error / sum(float(value.pow(2).sum()) for value in truth.values())) ** 0.5


def truth_of(
    adapter: Adapter, parameters: Parameters, loss: Callable[[Tensor], Tensor], inputs: TowerInputs
) -> Parameters:
    """The gradient by ordinary autograd, one call, one example."""
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    gradients = torch.autograd.grad(loss(functional_call(adapter, leaves, (inputs,))), list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True))


def stack(rows: list[Parameters]) -> Parameters:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_as_the_frozen_encoder(kind: str) -> None:
    adapter = build(kind)
    vectors = adapter(adapter.prepare(TEXTS)).detach().numpy()
    assert np.allclose(vectors, ENCODER.encode(TEXTS), atol=0 if kind in ("none", "bottleneck") else 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_as_many_parameters_as_the_formula_says(kind: str) -> None:
    assert sum(value.numel() for value in build(kind).trainable().values()) == COUNTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_is_one_adapter(kind: str) -> None:
    torch.manual_seed(1)
    first, after_first = build(kind), torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), after_first)  # building drew nothing from the global generator
    second = build(kind)
    assert [name for name, _ in first.named_parameters()] == [name for name, _ in second.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    if kind in TRAINED:
        another = build(kind, seed=8)
        assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), another.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_training_mode_changes_nothing(kind: str) -> None:
    adapter = build(kind)
    inputs, parameters = adapter.prepare(TEXTS), moved(adapter)
    expected = functional_call(adapter.eval(), parameters, (inputs,))
    assert torch.equal(functional_call(adapter.train(), parameters, (inputs,)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_independent_of_each_other(kind: str) -> None:
    adapter = build(kind)
    inputs, parameters = adapter.prepare(TEXTS), moved(adapter)
    whole = functional_call(adapter, parameters, (inputs,))
    for rows in (slice(1, 3), torch.tensor([4, 0]), torch.tensor([True, False, True, False, True])):
        assert torch.allclose(functional_call(adapter, parameters, (inputs[rows],)), whole[rows], atol=1e-6)
    short, long = adapter.prepare(TEXTS[:2]), adapter.prepare(TEXTS[2:])
    for both, expected in ((short.concat(long), whole), (long.concat(short), whole[[2, 3, 4, 0, 1]])):
        assert len(both) == 5
        assert torch.allclose(functional_call(adapter, parameters, (both,)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_without_words_stays_zero(kind: str) -> None:
    adapter = build(kind)
    assert not functional_call(adapter, moved(adapter), (adapter.prepare(["", "  "]),)).any()


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_per_example_gradients_are_those_of_one_at_a_time(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    adapter = build(kind).to(dtype)
    inputs, parameters = of_dtype(adapter.prepare(TEXTS), dtype), moved(adapter)
    target = torch.linspace(-1, 1, 32, dtype=dtype)

    def loss(one: Tensor) -> Tensor:
        return (one @ target).square().sum() + (one @ target).sum()

    def loss_of_row(theta: Parameters, values: Tensor, mask: Tensor) -> Tensor:
        return loss(functional_call(adapter, theta, (TowerInputs(values[None], mask[None]),)))

    found = vmap(grad(loss_of_row), in_dims=(None, 0, 0))(parameters, inputs.values, inputs.mask)
    rows = [truth_of(adapter, parameters, loss, inputs[row : row + 1]) for row in range(len(TEXTS))]
    assert distance(found, stack(rows)) < tolerance
    assert distance(found, stack(rows[::-1])) > 0.1  # the measure can tell one example from another
    assert all(torch.isfinite(value).all() and not value[2].any() for value in found.values())  # the empty text


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_per_client_gradients_are_those_of_one_at_a_time(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    """Clients differ in parameters and in tastes, and share the catalogue, as in a round with local steps."""
    adapter = build(kind).to(dtype)
    inputs = of_dtype(adapter.prepare(TEXTS), dtype)
    clients = [moved(adapter, seed) for seed in range(3)]
    tastes = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    chosen = torch.tensor([0, 3, 4])

    def loss(theta: Parameters, taste: Tensor, item: Tensor) -> Tensor:
        scores = functional_call(adapter, theta, (inputs,)) @ taste
        return scores.logsumexp(0) - scores.gather(0, item[None]).sum()

    found = vmap(grad(loss))(stack(clients), tastes, chosen)
    rows = []
    for theta, taste, item in zip(clients, tastes, chosen, strict=True):
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        loss(leaves, taste, item).backward()
        rows.append({name: value.grad for name, value in leaves.items()})
    assert distance(found, stack(rows)) < tolerance
    assert distance(found, stack(rows[::-1])) > 0.1


@pytest.mark.parametrize("kind", TRAINED)
def test_training_reduces_a_loss_and_leaves_the_rest_alone(kind: str) -> None:
    adapter = build(kind)
    inputs, target = adapter.prepare(TEXTS), ENCODER.encode(["Cinderella"])[0]
    frozen = {name: value.clone() for name, value in adapter.named_parameters() if not value.requires_grad}
    optimiser = torch.optim.Adam(adapter.trainable().values(), lr=0.05)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = -(adapter(inputs)[[0, 1]] @ torch.from_numpy(target)).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    after = dict(adapter.named_parameters())
    assert all(torch.equal(after[name], value) and after[name].grad is None for name, value in frozen.items())
    assert np.allclose(ENCODER.encode(TEXTS), open_encoder("tiny").encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("kind", TRAINED)
def test_saved_parameters_bring_the_same_vectors(kind: str, tmp_path: Path) -> None:
    adapter = build(kind)
    inputs, parameters = adapter.prepare(TEXTS), moved(adapter)
    save_file(parameters, tmp_path / "adapter.safetensors")
    again = build(kind)
    loaded = load_file(tmp_path / "adapter.safetensors")
    assert not again.load_state_dict(loaded, strict=False).unexpected_keys
    assert loaded.keys() == again.trainable().keys()
    assert torch.equal(again(inputs), functional_call(adapter, parameters, (inputs,)))
    assert not torch.allclose(again(inputs), build(kind)(inputs), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_train_apart_and_share_the_encoder(kind: str) -> None:
    adapter = build(kind)
    twin = copy.deepcopy(adapter)
    with torch.no_grad():
        for value in twin.trainable().values():
            value += 1.0
    assert twin.encoder is adapter.encoder
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), build(kind).parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_public_texts_are_prepared_from_disk(kind: str, tmp_path: Path) -> None:
    encoder = open_encoder("tiny", cache=tmp_path)
    adapter = build_adapter(kind.split(",")[0], encoder, rank=3, blocks=1, seed=7)  # type: ignore[arg-type]
    first, second = adapter.prepare(TEXTS, public=True), adapter.prepare(TEXTS, public=True)
    assert len(list(tmp_path.iterdir())) == 1
    assert torch.equal(first.values, second.values) and torch.equal(first.mask, second.mask)
