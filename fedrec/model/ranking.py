"""What turns text and contexts into scores: shared parameters in, numbers out, nothing remembered.

score(u, i) = ⟨Σ_k W_k c_{u,k} + e_u, V z_i + r_i⟩ + b_i, with z the adapted text vector, W and V
shared maps, r optional item residuals, b the popularity prior (docs/architecture.md).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from fedrec.errors import DataError, require
from fedrec.model.adapter import Adapter, TowerInputs, build_adapter
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import Encoder
from fedrec.model.parameters import Layout
from fedrec.spec import ModelSpec

Parameters = Mapping[str, Tensor]

ADAPTER = "adapter."
SHORTEST = 1e-6  # of a text's way from the centre; below it there is no direction to speak of
_SHARPNESS = 3.0  # inner products of unit vectors are at most 1: this lets a softmax prefer


@dataclass(frozen=True, eq=False)
class Items:
    """The public inputs of every catalogue item: text through the frozen tower, and dense features."""

    texts: TowerInputs
    features: Tensor  # (item, feature), each column standardised


class Model:
    """The public part of a recommender: what is computed from shared parameters and the catalogue.

    `initial` is the shared vector at the start: frozen text under its principal axes, no
    residuals, no popularity. It depends on public items and the plan alone.
    """

    def __init__(self, adapter: Adapter, items: Items, spec: ModelSpec) -> None:
        self.adapter, self.items, self.spec = adapter, items, spec
        with torch.no_grad():
            pooled = _batched(adapter, adapter.trainable(), items.texts)
        self.centre = pooled.mean(dim=0)
        away, length = self.directions(pooled)
        self.axes = self._principal(torch.cat([away / length, items.features], dim=-1))
        start = self._start()
        self.layout = Layout(tuple((name, tuple(value.shape)) for name, value in start.items()))
        self.initial: NDArray[np.float32] = self.layout.flatten(start)

    @classmethod
    def build(cls, catalogue: Catalogue, encoder: Encoder, spec: ModelSpec, *, seed: int) -> Model:
        """The model of `spec` over a catalogue. Encoding the texts takes a while the first time."""
        if len(catalogue) < 2:
            raise DataError("a catalogue needs at least two items to rank", items=len(catalogue))
        adapter = build_adapter(spec.adapter, encoder, rank=spec.rank, blocks=spec.blocks, seed=seed)
        texts = adapter.prepare(catalogue.texts, public=True)
        return cls(adapter, Items(texts, _standardised(catalogue.features)), spec)

    def __len__(self) -> int:
        return len(self.items.texts)

    def text_vectors(self, parameters: Parameters, inputs: TowerInputs) -> Tensor:
        """(text, dim) vectors of free text, in the space of the items."""
        absent = self.items.features.new_zeros(len(inputs), self.items.features.shape[1])
        return self.project(parameters, self.directions(self.pooled(parameters, inputs)), absent)

    def item_vectors(self, parameters: Parameters, rows: Tensor | None = None) -> Tensor:
        """(item, dim) vectors V z + r of the catalogue, or of some rows of it."""
        pick = slice(None) if rows is None else rows
        pooled = self.pooled(parameters, self.items.texts[pick])
        vectors = self.project(parameters, self.directions(pooled), self.items.features[pick])
        return vectors + parameters["residuals"][pick] if self.spec.residuals else vectors

    def queries(self, parameters: Parameters, contexts: Tensor) -> Tensor:
        """(example, dim) Σ_k W_k c_k of contexts (decay, example, dim)."""
        if self.spec.maps == "diagonal":
            return torch.einsum("kpd,kd->pd", contexts, parameters["maps"])
        return torch.einsum("kpd,kde->pe", contexts, parameters["maps"])

    def prior(self, parameters: Parameters, rows: Tensor | None = None) -> Tensor:
        """(item,) popularity prior; zeros in a model without one."""
        if not self.spec.popularity:
            return self.centre.new_zeros(len(self) if rows is None else len(rows))
        return parameters["popularity"] if rows is None else parameters["popularity"][rows]

    def pooled(self, parameters: Parameters, inputs: TowerInputs) -> Tensor:
        """(text, width) adapted text vectors."""
        mine = {name.removeprefix(ADAPTER): p for name, p in parameters.items() if name.startswith(ADAPTER)}
        return _batched(self.adapter, mine, inputs)

    def project(self, parameters: Parameters, directions: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
        """(text, dim) vectors of text, of which `directions` are known, and features (text, feature); no residuals."""
        away, length = directions
        width, projection = away.shape[1], parameters.get("projection", self.axes)
        # Scaling rows after the projection touches dim columns instead of width: most of a client's time.
        text = (away @ projection[:width]) / length
        return text + features @ projection[width:] if features.shape[1] else text

    def directions(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(text, width) vectors from the catalogue's centre, and (text, 1) their lengths; ∞ without words.

        Sentence encoders put all texts into one narrow cone; without its centre, angles tell more.
        """
        away = pooled - self.centre
        length = torch.linalg.vector_norm(away, dim=-1, keepdim=True).clamp(min=SHORTEST)
        # A text without words has no direction, and must not get the centre's.
        wordless = torch.linalg.vector_norm(pooled.detach(), dim=-1, keepdim=True) == 0
        return away, length.masked_fill(wordless, torch.inf)

    def to(self, device: torch.device) -> Model:
        """The same model with everything it computes with on `device`; `initial` stays where it is."""
        moved = copy.copy(self)
        moved.adapter = copy.deepcopy(self.adapter).to(device)
        moved.items = Items(self.items.texts.to(device), self.items.features.to(device))
        moved.centre, moved.axes = self.centre.to(device), self.axes.to(device)
        return moved

    def _principal(self, inputs: Tensor) -> Tensor:
        """(width, dim) the first principal axes of the catalogue."""
        dim, most = self.spec.dim, min(inputs.shape)
        # Beyond them queries and items would both be zero, and stay there: a saddle, paid for in bytes and noise.
        require(
            dim <= most, "a model is no wider than its text and its catalogue", remedy=f"Set model.dim={most}.", dim=dim
        )
        _, _, axes = torch.linalg.svd(inputs.detach().double(), full_matrices=False)
        return (_SHARPNESS * _signed(axes[:dim]).T).float().contiguous()

    def _start(self) -> dict[str, Tensor]:
        decays = len(self.spec.decays)
        start = {"projection": self.axes} if self.spec.projection else {}
        one = torch.ones(self.spec.dim) if self.spec.maps == "diagonal" else torch.eye(self.spec.dim)
        start["maps"] = torch.stack([one] * decays) / decays
        if self.spec.residuals:
            start["residuals"] = torch.zeros(len(self), self.spec.dim)
        if self.spec.popularity:
            start["popularity"] = torch.zeros(len(self))
        return start | {ADAPTER + name: value for name, value in self.adapter.trainable().items()}


def _batched(adapter: Adapter, parameters: Parameters, inputs: TowerInputs, size: int = 4096) -> Tensor:
    # Hidden states of a whole catalogue through a block at once would not fit: the pieces do.
    if not len(inputs):
        return inputs.values.new_zeros(0, adapter.encoder.dim)
    pieces = [inputs[slice(start, start + size)] for start in range(0, len(inputs), size)]
    return torch.cat([functional_call(adapter, dict(parameters), (piece,)) for piece in pieces])


def _signed(axes: Tensor) -> Tensor:
    """Principal axes are known up to sign: make the largest entry positive, so that machines agree."""
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return axes * largest.sign()


def _standardised(features: NDArray[np.float32]) -> Tensor:
    if not features.shape[1]:
        return torch.from_numpy(features)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    # Together the features weigh as much as the text, however many columns there are.
    return torch.from_numpy((scaled / np.sqrt(features.shape[1])).astype(np.float32))
