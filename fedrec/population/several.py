"""Several local steps of many clients at once: parameters of each client's own, in one batched computation.

Number for number what `device.training.LocalTraining.round` does for one client. Everyone's first step starts at the
shared vector and is that of `heads`; from the second step on, clients have towers of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from fedrec.device.training import LocalTraining
from fedrec.device.weights import FAINTEST
from fedrec.model.ranking import Model, Parameters
from fedrec.model.trunk import Top
from fedrec.population.batch import Batch, Laid, decayed
from fedrec.population.heads import Heads
from fedrec.population.rivals import NEVER, Drawn, barred_among, draw
from fedrec.population.towers import Towers, pick
from fedrec.spec import TrainingSpec

Rows = NDArray[np.float32]

_PER_TOKEN = 18  # states' widths that a transformer block keeps of a token until the way back


def several_steps(
    heads: Heads, training: LocalTraining, batch: Batch, embeddings: Rows, *, coins: Sequence[Generator]
) -> tuple[Rows, Rows]:
    """(n, size) updates and (n, dim) embeddings of a chunk of clients after their local steps.

    They start at the vector of `heads`, each with its own row of `embeddings` (n, dim) and of `coins`. Entries of
    `batch` are those of the tower. A client without a usable choice moves nothing.
    """
    deltas, kept = np.zeros((len(batch), heads.model.layout.size), np.float32), embeddings.copy()
    active = np.flatnonzero(batch.usable_counts)
    if len(active):
        steps = _Steps(heads, training, batch.pick(active), [coins[int(place)] for place in active])
        deltas[active], kept[active] = steps.run(embeddings[active])
    return deltas, kept


def bytes_per_client(model: Model, spec: TrainingSpec, examples: int, mentions: int) -> int:
    """What one client of a chunk takes at most, with so many examples and mentions; measured, with room to spare."""
    dim, decays = model.spec.dim, len(model.spec.decays)
    drawn = spec.negatives > 0
    entries = mentions + spec.negatives if drawn else len(model)
    scores = 4 * examples * (spec.negatives if drawn else len(model))
    history = mentions * (3 * dim + 3 * decays * examples) + 4 * decays * dim * examples
    return 4 * (3 * model.layout.size + scores + history + entries * _numbers_per_entry(model, gathered=drawn))


def _numbers_per_entry(model: Model, *, gathered: bool) -> int:
    """What a tower of a client's own keeps of one text until the way back."""
    values, vector = model.items.texts.values, 4 * model.spec.dim
    if isinstance(model.adapter.body, Top):
        return vector + _PER_TOKEN * model.spec.blocks * values.shape[1] * values.shape[2]
    return vector + 6 * model.spec.rank + (2 * values.shape[1] if gathered else 0)


@dataclass(frozen=True, eq=False)
class _Steps:
    """Clients with something to learn from, all of them."""

    heads: Heads
    training: LocalTraining
    batch: Batch
    coins: Sequence[Generator]

    @cached_property
    def towers(self) -> Towers:
        """Of the second step and later ones."""
        return Towers(self.heads.model, self.heads.tower.inputs)

    def run(self, embeddings: Rows) -> tuple[Rows, Rows]:
        spec, shared = self.training.spec, self.heads.tower.shared.detach()
        mine, own = shared.expand(len(self.batch), -1), torch.from_numpy(embeddings).to(shared.device)
        for number in range(spec.steps):
            laid, drawn = self._draw()
            to_mine, to_own = (self._slope if number else self._first_slope)(mine, own, laid, drawn)
            mine = mine - spec.learning_rate * to_mine
            own = own - spec.embedding_rate * (to_own + spec.embedding_decay * own)
        return (mine - shared).cpu().numpy(), own.cpu().numpy()

    def _draw(self) -> tuple[Laid, Drawn | None]:
        device = self.heads.tower.shared.device
        laid, drawn = draw(self.training, self.batch, self.coins.__getitem__)
        return laid.to(device), drawn.to(device) if drawn else None

    def _first_slope(self, mine: Tensor, own: Tensor, laid: Laid, drawn: Drawn | None) -> tuple[Tensor, Tensor]:
        slope = self.heads.slope(laid, own, drawn)
        to_mine = torch.empty_like(mine, memory_format=torch.contiguous_format)
        self.heads.write(slope, to_mine)
        return to_mine, slope.embedding

    def _slope(self, mine: Tensor, own: Tensor, laid: Laid, drawn: Drawn | None) -> tuple[Tensor, Tensor]:
        mine, own = mine.detach().requires_grad_(), own.detach().requires_grad_()
        # Nobody's loss depends on another's parameters, so the gradient of the sum is everyone's own.
        to_mine, to_own = torch.autograd.grad(self._losses(mine, own, laid, drawn).sum(), (mine, own))
        return to_mine, to_own

    def _losses(self, mine: Tensor, own: Tensor, laid: Laid, drawn: Drawn | None) -> Tensor:
        parameters = self.heads.model.layout.views(mine)
        if drawn is None:
            scores, targets = self._whole(parameters, own, laid), laid.targets
        else:
            scores, targets = self._among(parameters, own, laid, drawn), torch.zeros_like(laid.targets)
        surprise = functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
        return (surprise.view_as(laid.real) * laid.real).sum(1) / laid.real.sum(1)

    def _whole(self, parameters: Parameters, own: Tensor, laid: Laid) -> Tensor:
        """(n, T, item) scores where the whole catalogue competes."""
        table = self.towers.items(parameters)
        queries = self._queries(parameters, laid, self._mentioned(parameters, laid, table)) + own[:, None]
        scores = queries @ table.transpose(1, 2)
        if self.heads.model.spec.popularity:
            scores = scores + parameters["popularity"][:, None]
        return self.heads.mute(scores, laid)

    def _mentioned(self, parameters: Parameters, laid: Laid, table: Tensor) -> Tensor:
        """(n, M, dim) vectors of what histories mention, given those of the catalogue."""
        listed = pick(table, laid.entry[:, : laid.listed])
        return torch.cat([listed, self.towers.entries(parameters, laid.entry[:, laid.listed :])], 1)

    def _among(self, parameters: Parameters, own: Tensor, laid: Laid, drawn: Drawn) -> Tensor:
        """(n, T, 1 + R) scores of the target and of the rivals that were drawn."""
        mentions = laid.entry.shape[1]
        vectors = self.towers.entries(parameters, torch.cat([laid.entry, drawn.rows], 1))
        queries = self._queries(parameters, laid, vectors[:, :mentions]) + own[:, None]
        chosen = pick(vectors, (laid.entry[:, None] == laid.targets[:, :, None]).byte().argmax(2))
        right, scores = (queries * chosen).sum(2, keepdim=True), queries @ vectors[:, mentions:].transpose(1, 2)
        if self.heads.model.spec.popularity:
            right = right + parameters["popularity"].gather(1, laid.targets)[:, :, None]
            scores = scores + parameters["popularity"].gather(1, drawn.rows)[:, None]
        barred = barred_among(laid, drawn, hide_seen=self.heads.hide_seen)
        return torch.cat([right, scores.masked_fill(barred, NEVER)], 2)

    def _queries(self, parameters: Parameters, laid: Laid, mentioned: Tensor) -> Tensor:
        """(n, T, dim) what each looks for, without its embedding, given the vectors (n, M, dim) of its mentions."""
        past = functional.normalize(decayed(laid, mentioned, self.heads.model.spec.decays), dim=-1, eps=FAINTEST)
        return vmap(self.heads.model.queries)(parameters, past.transpose(1, 2))
