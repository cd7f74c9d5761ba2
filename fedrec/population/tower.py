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
        whole = None
        if self.softmax is not None:
            whole = torch.bmm(self.softmax.transpose(1, 2), self.queries)
            beyond = whole.new_zeros(len(whole), entries - whole.shape[1], whole.shape[2])
            whole = torch.cat([whole, beyond], dim=1) if beyond.shape[1] else whole
        return self.add_rows(whole, entries)

    def add_rows(self, whole: Tensor | None, entries: int) -> Tensor:
        """The rows added to the dense part `whole` (n, entry, dim), in place; None for nothing."""
        clients, _, dim = self.rows.shape
        whole = self.rows.new_zeros(clients, entries, dim) if whole is None else whole
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
        spec, body = self.model.spec, self.model.adapter.body
        if isinstance(body, Bottleneck):
            yield from self._through_bottleneck(gradients)
            return
        if spec.residuals:
            yield "residuals", gradients.of(self.items)
        if spec.projection:
            found = torch.bmm(self._directions[gradients.entry].transpose(1, 2), gradients.rows)
            if gradients.softmax is not None:
                mixed = gradients.softmax @ self._directions[: self.items]
                found = torch.baddbmm(found, mixed.transpose(1, 2), gradients.queries)
            yield "projection", found
        if not isinstance(body, Frozen):
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

    def _through_bottleneck(self, gradients: Gradients) -> Iterator[tuple[str, Tensor]]:
        """With dz = (P g)/length − (text·g) away/length² for each entry, U gets Σ dz ⊗ φ and D gets Σ (Uᵀdz ∘ φ') ⊗ x.

        Neither sum forms dz: the first term goes through P after it was summed, the second has one number an entry.
        What is multiplied with the same matrix is multiplied at once.
        """
        spec, width, dim = self.model.spec, self._away.shape[1], gradients.rows.shape[2]
        projection, inner, up, down = self._rows_back(gradients)
        whole = None
        if gradients.softmax is not None:
            softmax, queries, factors, items = gradients.softmax, gradients.queries, self._factors, self.items
            mixed = softmax @ self._ahead[:items]  # T mixed directions, not one for each item
            projection = torch.baddbmm(projection, mixed[:, :, : projection.shape[1]].transpose(1, 2), queries)
            inner = torch.baddbmm(inner, queries.transpose(1, 2), mixed[:, :, projection.shape[1] :])
            back = torch.bmm(softmax.transpose(1, 2), torch.cat([queries, queries @ factors.through], dim=2))
            whole = back[:, :, :dim]
            dense = self._dense_back(whole, back[:, :, dim:])
            up, down = up + dense[0], down + dense[1]
        if spec.residuals:
            yield "residuals", gradients.add_rows(whole, self.items)
        if spec.projection:
            yield "projection", projection
        outer = self._projection @ inner.transpose(0, 1).flatten(1)  # (width, n · rank)
        yield _UP, outer.view(width, len(up), -1).transpose(0, 1) - up
        yield _DOWN, down

    def _rows_back(self, gradients: Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the sparse rows give: to the projection, to U before P, to U behind it, to D."""
        entry, rows, factors = gradients.entry, gradients.rows, self._factors
        known, bent, dim = self._directions[entry], factors.bent[entry], rows.shape[2]
        along = (self._moved[entry] * rows).sum(2, keepdim=True)  # (n, M, 1) text · g
        slid = ((rows @ factors.through) * self._inverse[entry] - along * factors.along[entry]) * factors.slope[entry]
        joined = torch.cat([rows, along * self._follows[entry] * bent, slid * self._stretch[entry]], dim=2)
        back = torch.bmm(known.transpose(1, 2), joined)
        (away, rank) = back[:, : self._away.shape[1]], bent.shape[2]
        # x = away + centre − U φ, and `known` is away over its length: one table is looked up, not two.
        down = away[:, :, dim + rank :].transpose(1, 2) + slid.sum(1)[:, :, None] * self.model.centre
        down = down - torch.bmm(slid.transpose(1, 2), bent) @ self.parameters[_UP].T
        inner = torch.bmm(rows.transpose(1, 2), factors.scaled[entry])
        return back[:, :, :dim], inner, away[:, :, dim : dim + rank], down

    def _dense_back(self, whole: Tensor, slid: Tensor) -> tuple[Tensor, Tensor]:
        """What gradients on all items (n, item, dim) give: to U behind P, to D. `slid` (n, item, rank) is Uᵀ P g."""
        clients, items, rank = slid.shape
        factors = self._factors
        along = (whole * self._moved[:items]).sum(2)  # (n, item) text · g
        weighed = (along.T[:, :, None] * factors.bent[:items, None, :]).flatten(1)  # (item, n · rank)
        up = (self._bends[:items].T @ weighed).view(-1, clients, rank).transpose(0, 1)
        slid = (slid * self._inverse[:items] - along[:, :, None] * factors.along[:items]) * factors.slope[:items]
        down = slid.transpose(1, 2).reshape(clients * rank, items) @ self.inputs.values[:items]
        return up, down.view(clients, rank, -1)

    @cached_property
    def _ahead(self) -> Tensor:
        """(entry, width + feature + rank) directions, and φ over length."""
        return torch.cat([self._directions, self._factors.scaled], dim=1)

    @cached_property
    def _moved(self) -> Tensor:
        """(entry, dim) the text's part of the entry vectors: no adapter moves that of the features."""
        projection = self.parameters.get("projection", self.model.axes)
        return self._text.detach() - self._features @ projection[self._away.shape[1] :]
