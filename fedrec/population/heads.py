"""One local step of many clients at once: what each asks for, how surprised it is, and the gradient on everything.

Number for number what `device.training.LocalTraining.step` does for one client. The parts are written out because a
client's gradient is needed by itself: autograd adds up over the clients of a chunk what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fedrec.device.weights import FAINTEST
from fedrec.model.ranking import Model
from fedrec.population.batch import Laid, looked_up, recency
from fedrec.population.gradients import Gradients
from fedrec.population.rivals import NEVER, Drawn, barred_among, mute
from fedrec.population.tower import NOWHERE, Tower, settle

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
        softmax, gone = self.table.softmax, factors == 0
        if not gone.any():
            return self._mapped(lambda part: part * _beside(factors, part), softmax)
        kept = None if softmax is None else softmax.masked_fill(_beside(gone, softmax), 0.0)
        return self._mapped(lambda part: (part * _beside(factors, part)).masked_fill_(_beside(gone, part), 0.0), kept)

    def times(self, factor: float) -> Slope:
        """Everybody's gradients times one factor."""
        return self._mapped(lambda part: part * factor, self.table.softmax)

    def _mapped(self, times: Callable[[Tensor], Tensor], softmax: Tensor | None) -> Slope:
        """Every part on which gradients depend linearly is scaled; the softmax is multiplied with such a part."""
        table = self.table
        kept = Gradients(softmax, times(table.queries), table.entry, times(table.rows), table.listed)
        return Slope(kept, times(self.maps), times(self.prior), self.embedding)


class _Scored(NamedTuple):
    """Gradients on scores, spread to where they came from."""

    queries: Tensor  # (n, T, dim) what flows back into the queries
    asked: Tensor  # (n, T, dim) what `softmax` is to be multiplied with
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
        maps, weights = self.tower.parameters["maps"], recency(laid, self.model.spec.decays)
        spread = weights.flatten(2)  # (n, M, T · decay)
        sums = torch.bmm(spread.transpose(1, 2), looked_up(self.tower.table, laid.entry))
        length = torch.linalg.vector_norm(sums, dim=2, keepdim=True)
        past = sums.div_(length.clamp(min=FAINTEST)).view(len(laid), *weights.shape[2:], sums.shape[2])
        queries = self._asked(past, maps) + embeddings[:, None]
        scored = self._whole(laid, queries) if drawn is None else self._among(laid, queries, drawn)
        wanted = scored.queries
        if self.model.spec.maps == "diagonal":
            to_maps = (past * wanted[:, :, None]).sum(1)
            to_past = wanted[:, :, None] * maps
        else:
            to_maps = torch.bmm(past.flatten(2).transpose(1, 2), wanted).view(len(laid), *maps.shape)
            to_past = (wanted @ maps.flatten(0, 1).T).view_as(past)
        rows = torch.bmm(spread, _unstretched(to_past, past, length.view(*past.shape[:3], 1)).flatten(1, 2))
        if scored.entry.shape[1]:
            entry, rows = torch.cat([laid.entry, scored.entry], 1), torch.cat([rows, scored.rows], 1)
        else:
            entry = laid.entry
        table = Gradients(scored.softmax, scored.asked, entry, rows, laid.listed if drawn is None else 0)
        return Slope(table, to_maps, scored.prior, wanted.sum(1))

    def _asked(self, past: Tensor, maps: Tensor) -> Tensor:
        """(n, T, dim) what the views (n, T, decay, dim) of a history ask for: one product for all decays."""
        if self.model.spec.maps == "diagonal":
            return (past * maps).sum(2)
        return past.flatten(2) @ maps.flatten(0, 1)

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

    def parts(self, slope: Slope, into: Mapping[str, Tensor] = NOWHERE) -> Iterator[tuple[str, Tensor]]:
        """Each client's gradient (n, …) on every shared parameter, by its name; large ones lie in `into`, if given."""
        yield "maps", slope.maps
        if self.model.spec.popularity:
            yield "popularity", slope.prior
        yield from self.tower.parts(slope.table, into)

    def write(self, slope: Slope, out: Tensor) -> None:
        """Each client's gradient on the shared vector as a row of `out` (n, size)."""
        into = self.model.layout.views(out)
        settle(self.parts(slope, into), into)

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
        scores = torch.addmm(prior, queries.flatten(0, 1), table.T).view(*laid.targets.shape, len(table))
        spread = functional.softmax(self.mute(scores, laid), dim=2)
        spread.scatter_add_(2, laid.targets[:, :, None], -torch.ones_like(queries[:, :, :1]))
        # What an example weighs goes to the narrower factor.
        shares, nothing = _shares(laid)[:, :, None], laid.entry[:, :0]
        to_prior = torch.bmm(shares.transpose(1, 2), spread)[:, 0]
        return _Scored(spread @ table * shares, queries * shares, to_prior, spread, nothing, queries[:, :0])

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
        return _Scored(mine * own + others @ theirs, queries, to_prior, None, entry, rows)

    def mute(self, scores: Tensor, laid: Laid) -> Tensor:
        """`scores` (n, T, item), in place without those of items that are no rivals of the target."""
        return mute(scores, laid, self._shut, hide_seen=self.hide_seen)

    @cached_property
    def _shut(self) -> Tensor | None:
        return self.shut if self.shut.any() else None


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


def _beside(each: Tensor, part: Tensor) -> Tensor:
    """One number for each client (n,) in as many dimensions as its part (n, …) has."""
    return each.view(-1, *[1] * (part.dim() - 1))


def _unstretched(slope: Tensor, along: Tensor, length: Tensor) -> Tensor:
    """The way back of `slope` (…, dim), in place, through division by length (…, 1), `along` being the result."""
    turned = (along * slope).sum(-1, keepdim=True) * (length >= FAINTEST)
    return slope.addcmul_(along, turned, value=-1).div_(length.clamp(min=FAINTEST))
