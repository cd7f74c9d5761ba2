"""Adapters by hand: the formulas, the frozen half, and what is refused."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from fedrec.errors import EncoderError, SpecError
from fedrec.model.adapter import TowerInputs, build_adapter
from fedrec.model.encoder import open_encoder

TEXTS = ["Star Wars (1977)", "Cinderella"]


def test_the_bottleneck_is_its_formula() -> None:
    adapter = build_adapter("bottleneck", open_encoder("hash"), rank=2, blocks=0, seed=0)
    adapter.load_state_dict({"body.down": torch.eye(2, 256), "body.up": torch.eye(256, 2)})
    z = torch.zeros(1, 256)
    z[0, :3] = torch.tensor([0.6, -0.8, 0.5])
    moved = adapter(TowerInputs(z, torch.zeros(1, 0, dtype=torch.bool)))[0]

    def gelu(x: float) -> float:
        return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))

    assert moved[0].item() == pytest.approx(0.6 + gelu(0.6) / math.sqrt(2))
    assert moved[1].item() == pytest.approx(-0.8 + gelu(-0.8) / math.sqrt(2))
    assert moved[2].item() == 0.5 and not moved[3:].any()


def test_the_bottleneck_bends_at_the_start() -> None:
    """D·z has entries of size 1 for any width, so that gelu is not in its linear part."""
    encoder = open_encoder("hash")
    adapter = build_adapter("bottleneck", encoder, rank=64, blocks=0, seed=0)
    inner = encoder.encode(["Star Wars"]) @ dict(adapter.named_parameters())["body.down"].detach().numpy().T
    assert 0.7 < inner.std() < 1.3


def test_lora_is_the_weight_plus_two_b_a() -> None:
    """Adding 2·B·A to the frozen maps by hand gives the same vectors."""
    encoder = open_encoder("tiny")
    adapter = build_adapter("lora", encoder, rank=3, blocks=1, seed=0)
    inputs, weights = adapter.prepare(TEXTS), dict(adapter.named_parameters())
    source = torch.Generator().manual_seed(0)
    theta = {name: torch.randn(value.shape, generator=source) for name, value in adapter.trainable().items()}
    merged: dict[str, Tensor] = {}
    for name, b in theta.items():
        base = name.replace("lora_B.default", "base_layer")
        merged[base] = weights[base] + 2.0 * b @ weights[name.replace("lora_B", "lora_A")]
    found, expected = functional_call(adapter, theta, (inputs,)), functional_call(adapter, merged, (inputs,))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, adapter(inputs), atol=1e-2)


def test_only_b_of_query_and_value_is_trained() -> None:
    adapter = build_adapter("lora", open_encoder("tiny"), rank=3, blocks=2, seed=0)
    assert sorted(adapter.trainable()) == [
        f"body.blocks.{block}.attention.self.{part}.lora_B.default.weight"
        for block in (0, 1)
        for part in ("query", "value")
    ]
    for name, value in adapter.named_parameters():
        if "lora_A" in name:
            assert 0 < value.abs().max() <= 32**-0.5 and value.std() == pytest.approx((3 * 32) ** -0.5, rel=0.2)


def test_the_mean_of_clients_is_the_mean_of_their_maps() -> None:
    """Because A is common, averaging B averages B·A: what a federation adds up is what it means."""
    adapter = build_adapter("lora", open_encoder("tiny"), rank=3, blocks=1, seed=0)
    (name, _), *_ = adapter.trainable().items()
    a = dict(adapter.named_parameters())[name.replace("lora_B", "lora_A")]
    clients = torch.randn(5, 32, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(clients.mean(0) @ a, (clients @ a).mean(0), atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_inputs_show_nothing_of_the_texts(kind: Literal["none", "lora"]) -> None:
    encoder = open_encoder("tiny")
    inputs = build_adapter(kind, encoder, rank=1, blocks=1, seed=0).prepare(TEXTS)
    assert repr(inputs) == "TowerInputs(2 texts, contents withheld)"
    assert repr(encoder.hidden(TEXTS, 1)) == "Hidden(2 texts, contents withheld)"  # type: ignore[attr-defined]


def test_hidden_states_are_padded_to_the_longest_text() -> None:
    inputs = build_adapter("lora", open_encoder("tiny"), rank=1, blocks=1, seed=0).prepare(["a b c", "", "a"])
    assert inputs.values.shape == (3, 3, 32)
    assert inputs.mask.tolist() == [[True, True, True], [False] * 3, [True, False, False]]
    assert not inputs.values[~inputs.mask].any() and torch.isfinite(inputs.values).all()


def test_lora_needs_blocks() -> None:
    with pytest.raises(
        EncoderError, match="LoRA needs an encoder with transformer blocks; got encoder='hash'.*bottleneck"
    ):
        build_adapter("lora", open_encoder("hash"), rank=1, blocks=1, seed=0)


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
@pytest.mark.parametrize("rank", [0, 33])
def test_a_rank_fits_the_encoder(kind: str, rank: int) -> None:
    with pytest.raises(SpecError, match=f"got rank={rank}, dim=32"):
        build_adapter(kind, open_encoder("tiny"), rank=rank, blocks=1, seed=0)  # type: ignore[arg-type]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SpecError, match="no adapter of this kind; got kind='prefix'"):
        build_adapter("prefix", open_encoder("tiny"), rank=1, blocks=1, seed=0)  # type: ignore[arg-type]
