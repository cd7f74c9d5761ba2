"""The trainable part of the text tower: nothing, a bottleneck over pooled text, or LoRA in the last blocks.

Every adapter starts as the identity: before training, its output is the frozen encoder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec.errors import EncoderError, SpecError, require
from fedrec.model.encoder import Encoder
from fedrec.model.transformer import TransformerEncoder
from fedrec.model.trunk import Top
from fedrec.randomness import stream

Kind = Literal["none", "bottleneck", "lora"]

_SCALE = 2.0  # α / r of LoRA, whatever the rank
# Names of the query and value maps in the BERT, DistilBERT and Llama families.
_QUERY_AND_VALUE = r".*\.(query|value|q_lin|v_lin|q_proj|v_proj)"


@dataclass(frozen=True, eq=False)
class TowerInputs:
    """What the frozen part of the tower makes of some texts: the input of an adapter.

    Pooled: `values` is (text, dim) and `mask` is (text, 0). Hidden states: `values` is
    (text, token, dim) and `mask` is (text, token), True at tokens.
    """

    values: Tensor
    mask: Tensor

    def __repr__(self) -> str:
        return f"TowerInputs({len(self)} texts, contents withheld)"

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> TowerInputs:
        return TowerInputs(self.values[rows], self.mask[rows])

    def to(self, device: torch.device) -> TowerInputs:
        """The same on `device`."""
        return TowerInputs(self.values.to(device), self.mask.to(device))

    def concat(self, other: TowerInputs) -> TowerInputs:
        """The texts of both, padded to the longer ones."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        parts = self._padded(width), other._padded(width)
        return TowerInputs(torch.cat([part.values for part in parts]), torch.cat([part.mask for part in parts]))

    def _padded(self, width: int) -> TowerInputs:
        short = width - self.mask.shape[1]
        if short == 0:
            return self
        return TowerInputs(functional.pad(self.values, (0, 0, 0, short)), functional.pad(self.mask, (0, short)))


class Adapter(nn.Module):
    """Text vectors with a trainable part: `adapter(adapter.prepare(texts))` is (text, dim).

    A pure function of parameters and inputs, the same in training and evaluation mode, so that
    `functional_call`, `grad` and `vmap` apply. Texts are computed independently of each other.
    """

    def __init__(self, encoder: Encoder, body: nn.Module, *, blocks: int) -> None:
        super().__init__()
        self.encoder, self.body, self.blocks = encoder, body, blocks

    def forward(self, inputs: TowerInputs) -> Tensor:
        """(text, dim) vectors."""
        vectors: Tensor = self.body(inputs.values, inputs.mask)
        return vectors

    def prepare(self, texts: Sequence[str], *, public: bool = False) -> TowerInputs:
        """What the frozen part makes of `texts`: compute once, train many steps. On disk only if `public`."""
        if self.blocks == 0:
            values = torch.from_numpy(self.encoder.encode(texts, public=public))
            return TowerInputs(values, torch.zeros(len(texts), 0, dtype=torch.bool))
        hidden = _layered(self.encoder).hidden(texts, self.blocks, public=public)
        return TowerInputs(*map(torch.from_numpy, hidden.padded()))

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that training changes, and all that a federation exchanges of the tower."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


class Frozen(nn.Module):
    """No adapter: pooled vectors as they are."""

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """(text, dim) → (text, dim)."""
        return values


class Bottleneck(nn.Module):
    """z ↦ z + U·gelu(D·z)/√rank, with U = 0 at first. No biases: the zero vector stays zero.

    Source: Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, §2.1, over the
    pooled vector instead of inside the blocks.
    """

    def __init__(self, dim: int, rank: int, seed: int) -> None:
        super().__init__()
        # Rows of variance 1 give D·z, with ‖z‖ = 1, entries of size 1, where gelu bends; √rank then keeps
        # the gradient of U as long as that of the ranking layer, with which it shares one clip.
        self.down = nn.Parameter(_uniform(seed, "bottleneck", (rank, dim), bound=3**0.5))
        self.up = nn.Parameter(torch.zeros(dim, rank))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """(text, dim) → (text, dim), not normalised, so that the start is the identity to the last bit."""
        bent = functional.gelu(functional.linear(values, self.down))
        moved: Tensor = functional.linear(bent, self.up) / len(self.down) ** 0.5
        return values + moved


def build_adapter(kind: Kind, encoder: Encoder, *, rank: int, blocks: int, seed: int) -> Adapter:
    """The adapter of that kind. `blocks` matters to LoRA only, `rank` to all but "none".

    Trainable parameters: none 0 · bottleneck 2·rank·dim · lora 2·blocks·rank·dim (B of query and value).
    Equal arguments give equal bits on every machine, whatever torch's global generator holds.
    """
    match kind:
        case "none":
            return Adapter(encoder, Frozen(), blocks=0)
        case "bottleneck":
            require(
                1 <= rank <= encoder.dim, "a rank lies between 1 and the encoder's width", rank=rank, dim=encoder.dim
            )
            return Adapter(encoder, Bottleneck(encoder.dim, rank, seed), blocks=0)
        case "lora":
            require(
                1 <= rank <= encoder.dim, "a rank lies between 1 and the encoder's width", rank=rank, dim=encoder.dim
            )
            return Adapter(encoder, _lora(_layered(encoder).top(blocks), rank, seed), blocks=blocks)
    raise SpecError("no adapter of this kind", remedy='Use "none", "bottleneck" or "lora".', kind=kind)


def _lora(top: Top, rank: int, seed: int) -> Top:
    """Query and value maps gain B·A: A fixed by the seed, B trained from zero.

    With A common to all, the mean of the clients' B·A is the mean B times A, and noise enters once.
    Source: Sun et al. 2024, Improving LoRA in Privacy-preserving Federated Learning, arXiv 2403.12313.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=int(_SCALE * rank), lora_dropout=0.0, target_modules=_QUERY_AND_VALUE)
    with torch.random.fork_rng(devices=[]):  # peft draws weights that we replace
        try:
            inject_adapter_in_model(config, top)
        except ValueError as error:
            rule = "LoRA finds no query and value maps of a known name in this encoder"
            raise EncoderError(rule, remedy='Use the "bottleneck" adapter.', reason=str(error)) from error
    fixed = [parameter for name, parameter in top.named_parameters() if "lora_A" in name]
    trained = [parameter for name, parameter in top.named_parameters() if "lora_B" in name]
    top.requires_grad_(False)
    for place, (a, b) in enumerate(zip(fixed, trained, strict=True)):
        # Addressed by place, not by name: peft may rename its parameters, and A must not change then.
        a.data = _uniform(seed, f"lora {place}", tuple(a.shape), bound=a.shape[1] ** -0.5)
        b.data.zero_()
        b.requires_grad_(True)
    return top


def _layered(encoder: Encoder) -> TransformerEncoder:
    if not isinstance(encoder, TransformerEncoder):
        remedy = 'Use the "bottleneck" adapter, or a transformer encoder such as minilm.'
        raise EncoderError("LoRA needs an encoder with transformer blocks", remedy=remedy, encoder=encoder.name)
    return encoder


def _uniform(seed: int, name: str, shape: tuple[int, ...], *, bound: float) -> Tensor:
    values = stream(seed, "adapter", name).uniform(-bound, bound, shape)
    return torch.from_numpy(values.astype(np.float32))
