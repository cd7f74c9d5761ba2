"""The frozen transformer itself: loading, pooling, and the part above the cached hidden states."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedrec.errors import EncoderError, require
from fedrec.model.cache import content_key
from fedrec.model.encoder import Precision
from fedrec.model.hashing import hashed_ids
from fedrec.model.weights import files_digest, model_files
from fedrec.randomness import stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pooling = Literal["mean", "cls"]

_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_VOCABULARY = 4096  # of the tiny encoder


class Trunk(nn.Module):
    """A transformer with its pooling, frozen and without dropout."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.model, self.pooling = model.train(False).requires_grad_(False), pooling
        for module in self.modules():
            # An adapter in training mode must not bring dropout back: a clipped gradient
            # should vary with the data and with nothing else.
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(text, token) ids and mask → (text, dim) unit vectors, float32 in any precision."""
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return _pool(states.float(), mask, self.pooling)

    def states(self, ids: Tensor, mask: Tensor, blocks: int) -> Tensor:
        """(text, token, dim) states that enter the last `blocks` blocks, float32 in any precision."""
        found = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        states: Tensor = found.hidden_states[-1 - blocks].float()
        return states

    def placed(self, device: torch.device, precision: Precision) -> Trunk:
        """A copy on `device` with weights and activations of that precision; itself where that changes nothing."""
        if device.type == "cpu" and precision == "float32":
            return self
        placed = copy.deepcopy(self)
        for parameter in placed.parameters():
            # Not the buffers: with rounded frequencies, rotary positions put words in the wrong places.
            parameter.data = parameter.data.to(_DTYPES[precision])
        return placed.to(device)

    @property
    def blocks(self) -> nn.ModuleList:
        """The stack of transformer blocks, bottom first; empty where the model has no such stack."""
        depth = self.model.config.num_hidden_layers
        stacks = (part for part in self.model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth)
        return next(stacks, nn.ModuleList())


class Top(nn.Module):
    """The last blocks of a trunk, pooling and normalisation. A copy, so that an adapter may change it."""

    def __init__(self, trunk: Trunk, blocks: int) -> None:
        super().__init__()
        self.blocks, self.pooling = copy.deepcopy(trunk.blocks[-blocks:]), trunk.pooling

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(text, token, dim) states and (text, token) mask, True at tokens → (text, dim) unit vectors.

        A text without tokens gives the zero vector, and no gradient.
        """
        lowest = torch.finfo(states.dtype).min
        bias = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, lowest)[:, None, None, :]
        for block in self.blocks:
            states = block(states, bias)
        return _pool(states, mask, self.pooling)


@dataclass(frozen=True)
class Loaded:
    """A trunk, the function from texts to token ids, and the hash of all that a vector depends on.

    `folder` is where the tokenizer comes from, None for a made-up one; it reads `max_tokens` of a text.
    """

    trunk: Trunk
    tokenise: Callable[[list[str]], list[list[int]]]
    hash: str
    folder: Path | None
    max_tokens: int


def load(folder: Path, *, max_tokens: int) -> Loaded:
    """The encoder in a model folder. Never uses the network, never runs code or pickles from the folder."""
    files = model_files(folder)
    with _quiet():
        try:
            pooling, (tokenizer, model) = _pooling(folder), _pretrained(folder)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            remedy = "Check that the folder is a complete copy of an encoder that transformers can load."
            raise EncoderError("cannot load the encoder", remedy=remedy, reason=str(error)) from error
    longest = getattr(model.config, "max_position_embeddings", max_tokens)
    require(max_tokens <= longest, "the encoder reads no longer texts", max_tokens=max_tokens, longest=longest)

    def tokenise(texts: list[str]) -> list[list[int]]:
        return list(tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)["input_ids"])

    digest = content_key("transformer 1", pooling, str(max_tokens), files_digest(folder, files), texts=())
    return Loaded(Trunk(model, pooling), tokenise, digest, folder, max_tokens)


def tiny(*, max_tokens: int) -> Loaded:
    """A two-block BERT with weights from a fixed stream: alike words, alike vectors, no meaning."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=_VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=max_tokens,
    )  # fmt: skip
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        model = BertModel(config, add_pooling_layer=False)
    digest = hashlib.sha256(f"tiny 1 {max_tokens}".encode())
    for name, parameter in model.named_parameters():
        values = _made_up(name, tuple(parameter.shape))
        parameter.data = torch.from_numpy(values)
        digest.update(name.encode() + values.tobytes())

    def tokenise(texts: list[str]) -> list[list[int]]:
        return [hashed_ids(text, _VOCABULARY)[:max_tokens] for text in texts]

    return Loaded(Trunk(model, "mean"), tokenise, digest.hexdigest(), None, max_tokens)


def _made_up(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Strong word vectors under weak blocks, so that the words of a text decide its vector."""
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "LayerNorm" in name:
        return np.ones(shape, np.float32)
    size = 1.0 if "word_embeddings" in name else 0.1
    return stream(0, "tiny encoder", name).uniform(-size, size, shape).astype(np.float32)


def _pretrained(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model. Attention is "eager": the only kind with plain per-client gradients under vmap."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModel.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
        dtype=torch.float32, attn_implementation="eager",
    )  # fmt: skip
    return tokenizer, model


def _pooling(folder: Path) -> Pooling:
    """How the folder says to pool, in the files of sentence-transformers; the mean where it says nothing."""
    if any(folder.glob("*_Dense")):
        remedy = "Use an encoder whose vectors are its pooled states."
        raise EncoderError("fedrec does not apply the dense layer of this encoder", remedy=remedy)
    path = folder / "1_Pooling" / "config.json"
    said = json.loads(path.read_text()) if path.is_file() else {"pooling_mode_mean_tokens": True}
    match [mode for mode, on in said.items() if mode.startswith("pooling_mode_") and on is True]:
        case ["pooling_mode_mean_tokens"]:
            return "mean"
        case ["pooling_mode_cls_token"]:
            return "cls"
        case modes:
            remedy = "Use an encoder that pools by the mean or by the first token."
            raise EncoderError("fedrec does not know this pooling", remedy=remedy, pooling=modes)


def _pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    real = mask.to(states.dtype)[..., None]
    pooled = (states * real).sum(1) / real.sum(1).clamp_min(1) if pooling == "mean" else states[:, 0] * real[:, 0]
    return functional.normalize(pooled, dim=-1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the load report and bars of transformers; with tokenizers that survive a fork."""
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    report: Any = logging  # its functions carry no types
    level, bars = report.get_verbosity(), report.is_progress_bar_enabled()
    report.set_verbosity_error()
    report.disable_progress_bar()
    try:
        yield
    finally:
        report.set_verbosity(level)
        if bars:
            report.enable_progress_bar()
