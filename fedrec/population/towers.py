"""Towers that went apart: the entry vectors of clients that took a step each, in one batched computation.

Every client's tower is a function of the same frozen inputs, so a bottleneck's share is what is multiplied with them:
one matrix product for all clients, and small ones of its rank for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from fedrec.model.adapter import Bottleneck, TowerInputs
from fedrec.model.ranking import SHORTEST, Model, Parameters

_UP, _DOWN = "adapter.body.up", "adapter.body.down"


@dataclass(frozen=True, eq=False)
class Towers:
    """Vectors of entries under parameters (n, …) of each client's own. `inputs` are items' texts, then other texts."""

    model: Model
    inputs: TowerInputs

    def items(self, parameters: Parameters) -> Tensor:
        """(n, item, dim) each client's vectors of the whole catalogue."""
        model = self.model
        if not isinstance(model.adapter.body, Bottleneck):
            found: Tensor = vmap(model.item_vectors)(parameters)
            return found
        items = len(model)
        texts = self._bent(parameters, self._away[:items], self._worded[:items])
        vectors = texts + self._worn(parameters, model.items.features)
        return vectors + parameters["residuals"] if model.spec.residuals else vectors

    def entries(self, parameters: Parameters, entries: Tensor) -> Tensor:
        """(n, R, dim) each client's vectors of its own `entries` (n, R)."""
        model, items = self.model, len(self.model)
        row, listed = entries.clamp(max=items - 1), (entries < items)[:, :, None]
        if isinstance(model.adapter.body, Bottleneck):
            texts = self._bent(parameters, self._away[entries], self._worded[entries])
        else:
            texts = vmap(self._plain)(parameters, entries)
        vectors = texts + self._worn(parameters, model.items.features[row] * listed)
        return vectors + pick(parameters["residuals"], row) * listed if model.spec.residuals else vectors

    def _plain(self, parameters: Parameters, entries: Tensor) -> Tensor:
        """One client's vectors of some texts, as the model computes them."""
        return self.model.text_vectors(parameters, self.inputs[entries])

    def _worn(self, parameters: Parameters, features: Tensor) -> Tensor:
        """The part of dense features (…, feature), which no adapter moves."""
        projection = parameters.get("projection", self.model.axes)
        return features @ projection[..., projection.shape[-2] - features.shape[-1] :, :]

    @cached_property
    def _away(self) -> Tensor:
        """(entry, width) from the catalogue's centre, before any adapter."""
        return self.inputs.values - self.model.centre

    @cached_property
    def _worded(self) -> Tensor:
        """(entry, 1) 1.0 where a text has words."""
        return (self.inputs.values != 0).any(1, keepdim=True).to(self.inputs.values.dtype)

    def _bent(self, parameters: Parameters, away: Tensor, worded: Tensor) -> Tensor:
        """(n, place, dim) text vectors through each client's bottleneck; `away` is (place, width) or (n, place, width).

        With φ = gelu(D x)/√r, an adapted text is away + U φ. Neither it nor its length is formed: products of `away`
        with D, U and the projection, all in one, are enough.
        """
        down, up = parameters[_DOWN], parameters[_UP]
        rank, width = down.shape[-2:]
        projection = parameters.get("projection", self.model.axes.expand(len(up), -1, -1))[:, :width]
        factors = torch.cat([down.transpose(1, 2), up, projection], 2)
        lowered, along, straight = torch.split(away @ factors, [rank, rank, projection.shape[2]], 2)
        bent = functional.gelu(lowered + (down @ self.model.centre)[:, None]) / rank**0.5
        both = bent @ (up.transpose(1, 2) @ torch.cat([up, projection], 2))
        moved, sideways = torch.split(both, [rank, projection.shape[2]], 2)
        squared = (away * away).sum(-1, keepdim=True) + ((2 * along + moved) * bent).sum(2, keepdim=True)
        scale: Tensor = worded / squared.clamp(min=SHORTEST**2).sqrt()
        return (straight + sideways) * scale


def pick(vectors: Tensor, places: Tensor) -> Tensor:
    """(n, M, dim) of `vectors` (n, place, dim), at `places` (n, M)."""
    clients, width, dim = vectors.shape
    first = torch.arange(clients, device=vectors.device)[:, None] * width
    # Whole rows along the first dimension: a gather within each client takes twice as long, and its way back more.
    return vectors.reshape(-1, dim).index_select(0, (first + places).flatten()).view(*places.shape, dim)
