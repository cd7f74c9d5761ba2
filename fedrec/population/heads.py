"""One local step of many clients at once: what each asks for, how surprised it is, and the gradient on everything.

Number for number what `device.training.LocalTraining.step` does for one client. The parts are written out because a
client's gradient is needed by itself: autograd adds up over the clients of a chunk what they share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedrec.device.weights import FAINTEST
from fedrec.model.ranking import Model
from fedrec.population.batch import Laid, recency
from fedrec.population.rivals import NEVER, Drawn, barred, barred_among
from fedrec.population.tower import Gradients, Tower, looked_up

_DEEP = 2 << 30  # bytes of a chunk over a large catalogue under LoRA


@dataclass(frozen=True, eq=False)
class Slope:
    """Gradients of n clients' losses: on the table, on the maps (n, …), the prior (n, item), the embedding (n, dim)."""

    table: Gradients
    maps: Tensor
    prior: Tensor
    embedding: Tensor

    @property
    def finite(self) -> Tensor:
        """(n,) False where a client's numbers ran away."""
        parts = (self.table.rows.flatten(1), self.table.queries.flatten(1), self.maps.flatten(1), self.prior)
        return torch.stack([part.isfinite().all(1) for part in parts]).all(0)

    def scaled(self, factors: Tensor) -> Slope:
        """Each client's gradients times its factor (n,). A client whose factor is 0 leaves nothing, not even NaN."""
        table, gone = self.table, factors == 0

        def times(part: Tensor) -> Tensor:
            shape = (-1, *[1] * (part.dim() - 1))
            return (part * factors.view(shape)).masked_fill(gone.view(shape), 0.0)

        softmax = table.softmax
        if softmax is not None and gone.any():
            softmax = softmax.masked_fill(gone[:, None, None], 0.0)
        kept = Gradients(softmax, times(table.queries), table.entry, times(table.rows), table.listed)
        return Slope(kept, times(self.maps), times(self.prior), self.embedding)


class _Scored(NamedTuple):
    """Gradients on scores, spread to where they came from."""

    queries: Tensor  # (n, T, dim) what flows back into the queries
    prior: Tensor  # (n, item)
    softmax: Tensor | None
    entry: Tensor  # (n, *) sparse rows beside the history's
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Heads:
    """The ranking layer of many clients over one `tower`.

    `shut` (item,) marks items that are not yet public: no rivals. Nor are, if `hide_seen`, items chosen before.
    """

    model: Model
    tower: Tower
    shut: Tensor
    hide_seen: bool

    def slope(self, laid: Laid, embeddings: Tensor, drawn: Drawn | None) -> Slope:
        """The gradient of each client's mean loss over its examples; `drawn` is None for the whole catalogue."""
        clients, maps = len(laid), self.tower.parameters["maps"]
        weights = recency(laid, self.model.spec.decays)
        sums = weights.flatten(1, 2) @ looked_up(self.tower.table, laid.entry)
        length = torch.linalg.vector_norm(sums, dim=2, keepdim=True)
        past = (sums / length.clamp(min=FAINTEST)).view(*weights.shape[:3], sums.shape[2])
        asked = self.model.queries(self.tower.parameters, past.transpose(0, 1).flatten(1, 2))
        queries = asked.view(clients, -1, asked.shape[1]) + embeddings[:, None]
        scored = self._whole(laid, queries) if drawn is None else self._among(laid, queries, drawn)
        wanted = scored.queries
        if self.model.spec.maps == "diagonal":
            to_maps = (past * wanted[:, None]).sum(2)
            to_past = wanted[:, None] * maps[None, :, None]
        else:
            to_maps = past.transpose(2, 3) @ wanted[:, None]
            to_past = wanted[:, None] @ maps.transpose(1, 2)
        rows = weights.flatten(1, 2).transpose(1, 2) @ _unstretched(to_past.flatten(1, 2), past.flatten(1, 2), length)
        entry, rows = torch.cat([laid.entry, scored.entry], 1), torch.cat([rows, scored.rows], 1)
        table = Gradients(scored.softmax, queries, entry, rows, laid.listed if drawn is None else 0)
        return Slope(table, to_maps, scored.prior, wanted.sum(1))

    def bytes(self, examples: int, mentions: int, rivals: int) -> int:
        """What one client of a chunk takes, with so many examples and mentions."""
        tower, spec = self.tower, self.model.spec
        width, dim, decays = tower.inputs.values.shape[-1], spec.dim, len(spec.decays)
        wide = rivals or tower.items
        scores = examples * (3 * wide + width + (3 * decays + 4) * dim)
        history = mentions * (width + 4 * dim + 2 * decays * examples)
        dense = 0 if rivals else tower.items * (dim + 3 * spec.rank)
        dense += len(tower) * dim if self.deep else 0
        return 4 * (scores + history + dense + self.model.layout.size)

    def room(self, budget: int) -> int:
        """The bytes of a chunk: more than the `budget` where each chunk costs a Jacobian that is too large to keep."""
        return max(budget, _DEEP) if self.deep and not self.tower.jacobian.keeps else budget

    @property
    def deep(self) -> bool:
        """Whether the way back goes through blocks of a transformer."""
        return self.model.adapter.blocks > 0

    def parts(self, slope: Slope) -> Iterator[tuple[str, Tensor]]:
        """Each client's gradient (n, …) on every shared parameter, by its name."""
        yield "maps", slope.maps
        if self.model.spec.popularity:
            yield "popularity", slope.prior
        yield from self.tower.parts(slope.table)

    def write(self, slope: Slope, out: Tensor) -> None:
        """Each client's gradient on the shared vector as a row of `out` (n, size)."""
        at = self.model.layout.slices
        for name, part in self.parts(slope):
            out[:, at[name]] = part.flatten(1)

    def part(self, slope: Slope) -> Part:
        """The sum over clients, as far as it is not common to all chunks."""
        return Part(slope.table.total(len(self.tower)), slope.maps.sum(0), slope.prior.sum(0))

    def lengths(self, slope: Slope) -> Tensor:
        """(n,) the length of each client's gradient on the shared vector, which is never written down as a whole."""
        lengths = [torch.linalg.vector_norm(part, dim=tuple(range(1, part.dim()))) for _, part in self.parts(slope)]
        whole: Tensor = torch.linalg.vector_norm(torch.stack(lengths), dim=0)
        return whole

    def _whole(self, laid: Laid, queries: Tensor) -> _Scored:
        """Every item that is open and not yet seen is a rival."""
        table, prior = self.tower.table[: self.tower.items], self.model.prior(self.tower.parameters)
        scores = (queries @ table.T).add_(prior).masked_fill_(self.barred(laid), NEVER)
        spread = functional.softmax(scores, dim=2)
        spread.scatter_add_(2, laid.targets[:, :, None], -torch.ones_like(queries[:, :, :1]))
        spread *= _shares(laid)[:, :, None]
        nothing = laid.entry[:, :0]
        return _Scored(spread @ table, spread.sum(1), spread, nothing, queries[:, :0])

    def _among(self, laid: Laid, queries: Tensor, drawn: Drawn) -> _Scored:
        """The rivals are those that were drawn, but for the target and what was seen."""
        table, prior = self.tower.table, self.model.prior(self.tower.parameters)
        theirs, own = table[drawn.rows], table[laid.targets]
        barred = barred_among(laid, drawn, hide_seen=self.hide_seen)
        scores = (queries @ theirs.transpose(1, 2) + prior[drawn.rows][:, None]).masked_fill(barred, NEVER)
        right = (queries * own).sum(2, keepdim=True) + prior[laid.targets][:, :, None]
        spread = functional.softmax(torch.cat([right, scores], dim=2), dim=2)
        spread[:, :, 0] -= 1.0
        spread = spread * _shares(laid)[:, :, None]
        mine, others = spread[:, :, :1], spread[:, :, 1:]
        entry = torch.cat([laid.targets, drawn.rows], 1)
        to_prior = queries.new_zeros(len(laid), self.tower.items)
        to_prior.scatter_add_(1, entry, torch.cat([mine[:, :, 0], others.sum(1)], 1))
        rows = torch.cat([mine * queries, others.transpose(1, 2) @ queries], 1)
        return _Scored(mine * own + others @ theirs, to_prior, None, entry, rows)

    def barred(self, laid: Laid) -> Tensor:
        """(n, T, item) True where an item is no rival of the target."""
        return barred(laid, self.shut, hide_seen=self.hide_seen)


class Part(NamedTuple):
    """The sum of a chunk's gradients: on the table (entry, dim), the maps, the prior (item,)."""

    table: Tensor
    maps: Tensor
    prior: Tensor


@dataclass(frozen=True, eq=False)
class Whole:
    """The sum of many clients' gradients, one chunk after the other; a single way back through the tower at the end."""

    heads: Heads
    sums: Part

    @classmethod
    def over(cls, heads: Heads) -> Whole:
        """Nothing yet."""
        tower = heads.tower
        shapes = (tower.table.shape, tower.parameters["maps"].shape, (tower.items,))
        return cls(heads, Part(*(tower.table.new_zeros(shape, dtype=torch.float64) for shape in shapes)))

    def add(self, part: Part) -> None:
        """One chunk more."""
        for whole, some in zip(self.sums, part, strict=True):
            whole.add_(some)

    def gradient(self) -> Tensor:
        """(size,) the sum, in float64."""
        model, total = self.heads.model, self.heads.tower.backward(self.sums.table.float()).double()
        at = model.layout.slices
        total[at["maps"]] += self.sums.maps.flatten()
        if model.spec.popularity:
            total[at["popularity"]] += self.sums.prior
        return total


def _shares(laid: Laid) -> Tensor:
    """(n, T) what an example weighs in its client's mean."""
    return laid.real / laid.real.sum(1, keepdim=True).clamp(min=1)


def _unstretched(slope: Tensor, along: Tensor, length: Tensor) -> Tensor:
    """The way back of `slope` (n, k, dim) through division by length (n, k, 1), `along` being the result."""
    turned = slope - along * (along * slope).sum(2, keepdim=True)
    return torch.where(length >= FAINTEST, turned, slope) / length.clamp(min=FAINTEST)
