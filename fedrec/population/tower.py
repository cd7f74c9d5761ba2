"""The part of the model that all clients of a round share: a table of entry vectors, and the way back from it.

An entry is a catalogue item or a private free text. A client's gradient on the table becomes its gradient on the
tower's parameters without a backward pass of its own: the tower stands at one shared vector for everyone, so one set of
factors (projection, bottleneck) or one Jacobian (LoRA) serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedrec.model.adapter import Bottleneck, Frozen, TowerInputs
from fedrec.model.ranking import ADAPTER, SHORTEST, Model
from fedrec.population.batch import looked_up
from fedrec.population.gradients import Gradients
from fedrec.population.jacobian import TowerJacobian

NOWHERE: Mapping[str, Tensor] = MappingProxyType({})
_UP, _DOWN = "adapter.body.up", "adapter.body.down"
_GATHERED = 2  # how much longer a product with rows takes that are gathered first


class _Factors(NamedTuple):
    """What the bottleneck's way back has in common: φ = gelu(D x)/√r, its slope, φ and U over and along directions."""

    bent: Tensor  # (entry, rank)
    slope: Tensor  # (entry, rank)
    along: Tensor  # (entry, rank) Uᵀ away / length²
    moved: Tensor  # (entry, dim) the text's part of the entry vectors: no adapter moves that of the features
    inverse: Tensor  # (entry, 1) how much a vector of length 1 has of the text's; 0 without words
    follows: Tensor  # (entry, 1) 1 / length where the length follows the text; 0 where it is held at the shortest

    def first(self, entries: int) -> _Factors:
        """Those of the first entries."""
        return _Factors(*(part[:entries] for part in self))


def settle(parts: Iterable[tuple[str, Tensor]], into: Mapping[str, Tensor]) -> None:
    """Named parts to where they belong in `into`, but for those that were made there."""
    for name, part in parts:
        if part is not into[name]:
            into[name].copy_(part)


def _gelu_slope(inner: Tensor) -> Tensor:
    """Of every element: d gelu(x) / dx."""
    with torch.enable_grad():
        at = inner.detach().requires_grad_()
        (slope,) = torch.autograd.grad(functional.gelu(at).sum(), at)
    return slope


class Tower:
    """Entry vectors at one shared vector. `inputs` are the catalogue's, then those of the texts that a cohort wrote."""

    def __init__(self, model: Model, shared: Tensor, texts: TowerInputs, *, clients: int) -> None:
        """`shared` (size,) lies on the model's device, and so do `texts`; `clients` come in all."""
        self.model, self.items, self.clients = model, len(model), clients
        self.inputs = model.items.texts.concat(texts) if len(texts) else model.items.texts
        self.shared = shared.detach()
        absent = model.items.features.new_zeros(len(texts), model.items.features.shape[1])
        self._features = torch.cat([model.items.features, absent])
        self.parameters = model.layout.views(self.shared)
        if isinstance(model.adapter.body, Bottleneck):
            self._unfold()
        else:
            self._trace()
        if model.spec.residuals:
            self.table[: self.items] += self.parameters["residuals"]

    def __len__(self) -> int:
        return len(self.inputs)

    def _trace(self) -> None:
        """The table, whose graph is kept for `backward`."""
        self._leaf = self.shared.clone().requires_grad_()
        parameters = self.model.layout.views(self._leaf)
        away, length = self.model.directions(self.model.pooled(parameters, self.inputs))
        self._text = self.model.project(parameters, (away, length), self._features)
        self.table = self._text.detach().clone()
        self._directions = torch.cat([(away / length).detach(), self._features], dim=1)

    @torch.no_grad()
    def _unfold(self) -> None:
        """The table, and what the bottleneck's way back needs of each entry: now, while all cores are free."""
        model, values, features = self.model, self.inputs.values, self._features
        up, down, width, rank = self.parameters[_UP], self.parameters[_DOWN], self._width, model.spec.rank
        away, length = model.directions(model.pooled(self.parameters, self.inputs))
        self.table = model.project(self.parameters, (away, length), features)
        inner, root, inverse = functional.linear(values, down), rank**0.5, 1 / length
        # (entry, width + feature + rank) what gradients on entries are multiplied with: φ over length at the end.
        self._ahead = values.new_empty(len(self), width + features.shape[1] + rank)
        self._directions = self._ahead[:, :-rank]
        straight, follows = torch.mul(away, inverse, out=self._ahead[:, :width]), inverse.where(length > SHORTEST, 0.0)
        bent, along = functional.gelu(inner) / root, (straight @ up) * follows
        self._ahead[:, width:-rank] = features
        torch.mul(bent, inverse, out=self._ahead[:, -rank:])
        moved = self.table - features @ self.parameters.get("projection", model.axes)[width:]
        parts = bent, _gelu_slope(inner) / root, along, moved, inverse, follows
        self._joined, self._sizes = torch.cat(parts, dim=1), [part.shape[1] for part in parts]  # side by side
        self._factors = _Factors(*torch.split(self._joined, self._sizes, dim=1))

    @property
    def _width(self) -> int:
        """Of a text, without dense features."""
        return self.inputs.values.shape[-1]

    def backward(self, total: Tensor) -> Tensor:
        """(size,) one gradient on the shared vector from one on the table (entry, dim). Once: it lets the graph go."""
        gradient = torch.zeros_like(self.shared)
        if isinstance(self.model.adapter.body, Bottleneck):
            entries = torch.arange(len(self), device=total.device)
            everybody = Gradients(None, total[None, :0], entries[None], total[None], listed=0)
            into = self.model.layout.views(gradient[None])
            settle(self.parts(everybody, into), into)
            return gradient
        if self._text.requires_grad:  # not without projection and adapter
            (found,) = torch.autograd.grad(self._text, self._leaf, total, allow_unused=True)
            gradient = gradient if found is None else found
        if self.model.spec.residuals:
            gradient[self.model.layout.slices["residuals"]] += total[: self.items].flatten()
        return gradient

    def parts(self, gradients: Gradients, into: Mapping[str, Tensor] = NOWHERE) -> Iterator[tuple[str, Tensor]]:
        """Each client's gradient (n, …) on projection, residuals and adapter, by the parameter's name.

        Some are made in place where `into` has room for them: what is yielded is then that room itself.
        """
        spec, body = self.model.spec, self.model.adapter.body
        if isinstance(body, Bottleneck):
            yield from self._through_bottleneck(gradients, into)
            return
        if spec.residuals:
            yield "residuals", gradients.of(self.items, into.get("residuals"))
        if spec.projection:
            found = torch.bmm(self._directions[gradients.entry].transpose(1, 2), gradients.rows)
            if gradients.softmax is not None:
                mixed = gradients.softmax @ self._directions[: self.items]
                found = torch.baddbmm(found, mixed.transpose(1, 2), gradients.queries)
            yield "projection", found
        if not isinstance(body, Frozen):
            yield from self._to_adapter(gradients)

    def _to_adapter(self, gradients: Gradients) -> Iterator[tuple[str, Tensor]]:
        """Any adapter, through its Jacobian."""
        shapes = {name: shape for name, shape in self.model.layout.shapes if name.startswith(ADAPTER)}
        found = self.jacobian.pull(gradients.of(len(self)))
        parts = torch.split(found, [math.prod(shape) for shape in shapes.values()], dim=1)
        for (name, shape), part in zip(shapes.items(), parts, strict=True):
            yield name, part.view(len(part), *shape)

    @cached_property
    def jacobian(self) -> TowerJacobian:
        """How the table moves with an adapter that has no factors of its own."""
        return TowerJacobian(self.model, self.parameters, self.inputs, clients=self.clients)

    def _factors_at(self, entry: Tensor) -> _Factors:
        """Those of some entries (n, M), by one look into one table."""
        return _Factors(*torch.split(looked_up(self._joined, entry), self._sizes, dim=2))

    @cached_property
    def _through(self) -> Tensor:
        """(dim, rank) projectionᵀ U."""
        return self._projection.T @ self.parameters[_UP]

    @property
    def _projection(self) -> Tensor:
        """(width, dim) the projection of text, without that of features."""
        return self.parameters.get("projection", self.model.axes)[: self._width]

    def _through_bottleneck(self, gradients: Gradients, into: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """With dz = (P g)/length − (text·g) away/length² for each entry, U gets Σ dz ⊗ φ and D gets Σ (Uᵀdz ∘ φ') ⊗ x.

        Neither sum forms dz: the first term goes through P after it was summed, the second has one number an entry.
        Where there is a dense part, sparse rows at items join it.
        """
        spec, listed, dense = self.model.spec, gradients.listed, gradients.softmax is not None
        whole = gradients.of(self.items, into.get("residuals")) if spec.residuals or dense else None
        joined = whole if dense and self._full(gradients) else None
        first = 0 if joined is None else listed  # of the sparse rows that are not among `joined`
        ahead = looked_up(self._ahead, gradients.entry[:, first:])
        straight, inner = self._multiplied(gradients, joined, ahead, into.get("projection"))
        texts, rows = gradients.entry[:, listed:], gradients.rows[:, listed:]
        up, down = self._sparse_back(texts, rows, ahead[:, listed - first :])
        if spec.projection:
            yield "projection", straight
        inner = inner.permute(2, 0, 1).flatten(1)  # (dim, n · rank)
        if whole is not None:
            if dense:
                more = self._dense_back(gradients, whole)
                up, down = up.add_(more[0]), down.add_(more[1])
            if spec.residuals:
                yield "residuals", whole
        yield _UP, (self._projection @ inner).view(len(self._projection), len(up), -1).transpose(0, 1) - up
        yield _DOWN, down

    def _full(self, gradients: Gradients) -> bool:
        """Whether the gradients on items are so many that their sum is sooner multiplied than they are one by one."""
        softmax, queries = gradients.softmax, gradients.queries
        assert softmax is not None
        (_, examples, items), dim = softmax.shape, queries.shape[2]
        return items * dim < examples * items + _GATHERED * (examples + gradients.listed) * dim

    def _multiplied(
        self, gradients: Gradients, joined: Tensor | None, ahead: Tensor, out: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(n, width + feature, dim) and (n, rank, dim): what is ahead of entries, times gradients on them, summed.

        The last rows are at what is `ahead`; those before them lie in `joined`, (n, item, dim) the sum on all items.
        """
        clients, rank, table = len(ahead), self.model.spec.rank, self._ahead[: self.items]
        rows = gradients.rows[:, gradients.rows.shape[1] - ahead.shape[1] :]
        mixed = gradients.softmax @ table if gradients.softmax is not None and joined is None else None
        found = []
        for columns, room in ((slice(-rank), out), (slice(-rank, None), None)):
            left = ahead[:, :, columns].transpose(1, 2)
            if joined is not None:
                common = table[:, columns].T.expand(clients, -1, -1)
                found.append(torch.bmm(common, joined, out=room).baddbmm_(left, rows))
            elif mixed is not None:  # T mixed directions, not one for each item
                mine = mixed[:, :, columns].transpose(1, 2)
                found.append(torch.bmm(mine, gradients.queries, out=room).baddbmm_(left, rows))
            else:
                found.append(torch.bmm(left, rows, out=room))
        return found[0], found[1]

    def _sparse_back(self, entry: Tensor, rows: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        """What rows (n, M, dim) at `entry` give: to U behind P (n, width, rank), to D (n, rank, width)."""
        at, known = self._factors_at(entry), ahead[:, :, : self._width]
        along = (at.moved * rows).sum(2, keepdim=True)  # (n, M, 1) text · g
        slid = ((rows @ self._through) * at.inverse - along * at.along) * at.slope
        # x = away + centre − U φ, and `known` is away over its length.
        stretched = slid / at.inverse.where(at.inverse > 0, torch.inf)
        back = torch.bmm(known.transpose(1, 2), torch.cat([along * at.follows * at.bent, stretched], dim=2))
        up, down = torch.split(back, slid.shape[2], dim=2)
        down = down.transpose(1, 2) + slid.sum(1)[:, :, None] * self.model.centre
        return up, down - torch.bmm(slid.transpose(1, 2), at.bent) @ self.parameters[_UP].T

    def _dense_back(self, gradients: Gradients, whole: Tensor) -> tuple[Tensor, Tensor]:
        """The same of gradients on all items, of which `whole` (n, item, dim) is the sum."""
        width, (turned, kept, slid) = self._width, self._back
        along = (whole * self._factors.moved[: self.items]).sum(2)[:, None]  # (n, 1, item) text · g
        up = (along * turned).flatten(0, 1) @ self._directions[: self.items, :width]
        bent = gradients.behind(self._through).mul_(kept).addcmul_(along, slid, value=-1)
        down = bent.flatten(0, 1) @ self.inputs.values[: self.items]
        return up.view(len(whole), -1, width).transpose(1, 2), down.view(len(whole), -1, down.shape[1])

    @cached_property
    def _back(self) -> tuple[Tensor, Tensor, Tensor]:
        """(rank, item) three times, what `_dense_back` multiplies with: of U, and of D before and along the text."""
        at = self._factors.first(self.items)
        parts = at.follows * at.bent, at.inverse * at.slope, at.along * at.slope
        return parts[0].T.contiguous(), parts[1].T.contiguous(), parts[2].T.contiguous()
