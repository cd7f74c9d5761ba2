"""The part of the model that all clients of a round share: a table of entry vectors, and the way back from it.

An entry is a catalogue item or a private free text. A client's gradient on the table becomes its gradient on the
tower's parameters without a backward pass of its own: the tower stands at one shared vector for everyone, so one set of
factors (projection, bottleneck) or one Jacobian (LoRA) serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedrec.model.adapter import Bottleneck, Frozen, TowerInputs
from fedrec.model.ranking import ADAPTER, SHORTEST, Model
from fedrec.population.jacobian import TowerJacobian

_UP, _DOWN = "adapter.body.up", "adapter.body.down"


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of n clients on the table of entries.

    `softmax` (n, T, item) times `queries` (n, T, dim) is their dense part, None where rivals were drawn. The others
    are `rows` (n, M, dim) at `entry` (n, M), zero where padded.
    """

    softmax: Tensor | None
    queries: Tensor
    entry: Tensor
    rows: Tensor

    def of(self, entries: int) -> Tensor:
        """(n, entry, dim) each client's whole gradient on the first `entries`; what lies beyond is left out."""
        clients, _, dim = self.rows.shape
        if self.softmax is None:
            whole = self.rows.new_zeros(clients, entries, dim)
        else:
            whole = torch.bmm(self.softmax.transpose(1, 2), self.queries)
            if entries > whole.shape[1]:
                whole = torch.cat([whole, whole.new_zeros(clients, entries - whole.shape[1], dim)], dim=1)
        within = self.entry < entries
        at = torch.where(within, self.entry, 0)[:, :, None].expand_as(self.rows)
        return whole.scatter_add_(1, at, self.rows * within[:, :, None])

    def total(self, entries: int) -> Tensor:
        """(entry, dim) the sum over clients."""
        whole = self.rows.new_zeros(entries, self.rows.shape[2])
        if self.softmax is not None:
            whole[: self.softmax.shape[2]] = self.softmax.flatten(0, 1).T @ self.queries.flatten(0, 1)
        return whole.index_add_(0, self.entry.flatten(), self.rows.flatten(0, 1))


class _Factors(NamedTuple):
    """What the bottleneck's way back has in common: φ = gelu(D x)/√r, its slope, φ and U over and along directions."""

    bent: Tensor  # (entry, rank)
    slope: Tensor  # (entry, rank)
    scaled: Tensor  # (entry, rank) bent / length
    along: Tensor  # (entry, rank) Uᵀ away / length²
    through: Tensor  # (dim, rank) projectionᵀ U


class Tower:
    """Entry vectors at one shared vector. `inputs` are the catalogue's, then those of the texts that a cohort wrote."""

    def __init__(self, model: Model, shared: Tensor, texts: TowerInputs, *, clients: int) -> None:
        """`shared` (size,) lies on the model's device, and so do `texts`; `clients` come in all."""
        self.model, self.items, self.clients = model, len(model), clients
        self.inputs = model.items.texts.concat(texts) if len(texts) else model.items.texts
        self.shared = shared.detach().clone().requires_grad_()
        absent = model.items.features.new_zeros(len(texts), model.items.features.shape[1])
        self._features = torch.cat([model.items.features, absent])
        parameters = model.layout.views(self.shared)
        pooled = model.pooled(parameters, self.inputs)
        self._text = model.project(parameters, pooled, self._features)  # keeps the graph, for `backward`
        self.parameters = {name: part.detach() for name, part in parameters.items()}
        self._away, self._length = model.directions(pooled.detach())
        self.table = self._text.detach().clone()
        if model.spec.residuals:
            self.table[: self.items] += self.parameters["residuals"]

    def __len__(self) -> int:
        return len(self.table)

    def backward(self, total: Tensor) -> Tensor:
        """(size,) one gradient on the shared vector from one on the table (entry, dim). Once: it lets the graph go."""
        found = torch.autograd.grad(self._text, self.shared, total, allow_unused=True)[0]
        gradient = torch.zeros_like(self.shared) if found is None else found
        if self.model.spec.residuals:
            gradient[self.model.layout.slices["residuals"]] += total[: self.items].flatten()
        return gradient

    def parts(self, gradients: Gradients) -> Iterator[tuple[str, Tensor]]:
        """Each client's gradient (n, …) on projection, residuals and adapter, by the parameter's name."""
        body = self.model.adapter.body
        if self.model.spec.residuals:
            yield "residuals", gradients.of(self.items)
        if self.model.spec.projection or isinstance(body, Bottleneck):
            known = self._directions[gradients.entry]
            if self.model.spec.projection:
                yield "projection", self._to_projection(gradients, known)
            if isinstance(body, Bottleneck):
                yield from zip((_UP, _DOWN), self._to_bottleneck(gradients, known), strict=True)
        if not isinstance(body, Bottleneck | Frozen):
            yield from self._to_adapter(gradients)

    @cached_property
    def _directions(self) -> Tensor:
        """(entry, width + feature) what the projection is applied to."""
        return torch.cat([self._away / self._length, self._features], dim=1)

    @cached_property
    def _inverse(self) -> Tensor:
        """(entry, 1) how much a vector of length 1 has of the text's; 0 without words."""
        return 1 / self._length

    @cached_property
    def _stretch(self) -> Tensor:
        """(entry, 1) lengths; 0 without words."""
        return torch.where(self._length.isinf(), 0.0, self._length)

    @cached_property
    def _follows(self) -> Tensor:
        """(entry, 1) 1 / length where the length follows the text; 0 where it is held at the shortest."""
        return torch.where(self._length > SHORTEST, self._inverse, 0.0)

    @cached_property
    def _bends(self) -> Tensor:
        """(entry, width) away / length²: how an entry's length follows its vector."""
        return self._directions[:, : self._away.shape[1]] * self._follows

    def _to_projection(self, gradients: Gradients, known: Tensor) -> Tensor:
        """(n, width + feature, dim) Σ direction ⊗ gradient. Dense: T mixed directions, not one for each item."""
        found = torch.bmm(known.transpose(1, 2), gradients.rows)
        if gradients.softmax is not None:
            mixed = gradients.softmax @ self._directions[: self.items]
            found = torch.baddbmm(found, mixed.transpose(1, 2), gradients.queries)
        return found

    def _to_adapter(self, gradients: Gradients) -> Iterator[tuple[str, Tensor]]:
        """Any adapter, through its Jacobian."""
        sizes = {name: math.prod(shape) for name, shape in self.model.layout.shapes if name.startswith(ADAPTER)}
        found = self.jacobian.pull(gradients.of(len(self)))
        yield from zip(sizes, torch.split(found, list(sizes.values()), dim=1), strict=True)

    @cached_property
    def jacobian(self) -> TowerJacobian:
        """How the table moves with an adapter that has no factors of its own."""
        return TowerJacobian(self.model, self.parameters, self.inputs, clients=self.clients)

    @cached_property
    def _factors(self) -> _Factors:
        up, down = self.parameters[_UP], self.parameters[_DOWN]
        root = len(down) ** 0.5
        bent = functional.linear(self.inputs.values, down)
        slope = torch.func.vmap(torch.func.vmap(torch.func.grad(functional.gelu)))(bent) / root
        phi = functional.gelu(bent) / root
        through = self._projection.T @ up
        return _Factors(phi, slope, phi * self._inverse, self._bends @ up, through)

    @property
    def _projection(self) -> Tensor:
        """(width, dim) the projection of text, without that of features."""
        return self.parameters.get("projection", self.model.axes)[: self._away.shape[1]]

    def _to_bottleneck(self, gradients: Gradients, known: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width, rank) for U and (n, rank, width) for D.

        With dz = (P g)/length − (text·g) away/length² for each entry, U gets Σ dz ⊗ φ and D gets Σ (Uᵀdz ∘ φ') ⊗ x.
        Neither sum forms dz: the first term goes through P after it was summed, the second has one number an entry.
        """
        up, down = self._bottleneck_rows(gradients, known[:, :, : self._away.shape[1]])
        if gradients.softmax is not None:
            dense = self._bottleneck_dense(gradients.softmax, gradients.queries)
            up, down = up + dense[0], down + dense[1]
        return up, down

    def _bottleneck_rows(self, gradients: Gradients, known: Tensor) -> tuple[Tensor, Tensor]:
        entry, rows, factors = gradients.entry, gradients.rows, self._factors
        along = (self._moved[entry] * rows).sum(2, keepdim=True)  # (n, M, 1) text · g
        bent, stretch = factors.bent[entry], self._stretch[entry]
        up = self._projection @ torch.bmm(rows.transpose(1, 2), factors.scaled[entry])
        up -= torch.bmm(known.transpose(1, 2), along * self._follows[entry] * bent)
        slid = (rows @ factors.through) * self._inverse[entry] - along * factors.along[entry]
        slid *= factors.slope[entry]
        # x = away + centre − U φ, and `known` is away over its length: one table is looked up, not two.
        down = torch.bmm((slid * stretch).transpose(1, 2), known) + slid.sum(1)[:, :, None] * self.model.centre
        down -= torch.bmm(slid.transpose(1, 2), bent) @ self.parameters[_UP].T
        return up, down

    def _bottleneck_dense(self, softmax: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        clients, items, factors = len(softmax), self.items, self._factors
        rank = factors.bent.shape[1]
        along = (softmax * (queries @ self._moved[:items].T)).sum(1)  # (n, item) text · g
        up = self._projection @ torch.bmm(queries.transpose(1, 2), softmax @ factors.scaled[:items])
        weighed = (along.T[:, :, None] * factors.bent[:items, None, :]).flatten(1)  # (item, n · rank)
        up -= (self._bends[:items].T @ weighed).view(-1, clients, rank).transpose(0, 1)
        slid = torch.bmm(softmax.transpose(1, 2), queries @ factors.through) * self._inverse[:items]
        slid = (slid - along[:, :, None] * factors.along[:items]) * factors.slope[:items]
        down = slid.transpose(1, 2).reshape(clients * rank, items) @ self.inputs.values[:items]
        return up, down.view(clients, rank, -1)

    @cached_property
    def _moved(self) -> Tensor:
        """(entry, dim) the text's part of the entry vectors: no adapter moves that of the features."""
        projection = self.parameters.get("projection", self.model.axes)
        return self._text.detach() - self._features @ projection[self._away.shape[1] :]
