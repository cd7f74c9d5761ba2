"""The warm start's statistics of many clients at once, row for row what `device.statistics` makes of one history.

Decayed views are float32 on both sides, but their sums run in another order: what follows from views agrees to 1e-6,
popularity to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedrec.device.profile import Tower
from fedrec.device.rounds import DeviceRounds, Holding
from fedrec.device.weights import FAINTEST
from fedrec.errors import RunError
from fedrec.model.adapter import TowerInputs
from fedrec.model.warm_estimates import triangle
from fedrec.model.warmstart import WarmStart
from fedrec.population.batch import Batch, Laid, choosing, decayed, lay
from fedrec.population.source import Population
from fedrec.privacy.clipping import clip_to_grid
from fedrec.privacy.interaction import InteractionTerms, noisy_mean
from fedrec.privacy.noise import Level, Noise, noise_source

Ints = NDArray[np.int64]
Rows = NDArray[np.float32]
Noises = Callable[[int], Noise]


@dataclass(frozen=True, eq=False)
class StackedStatistics:
    """Statistics of whole histories. `table` (entry, dim) are vectors of items, then texts, at the public start.

    `frozen` (text, width) are the frozen encoder's vectors of texts, none where nobody is asked for opinions.
    """

    warm: WarmStart
    table: Tensor
    frozen: Rows

    @classmethod
    def over(cls, warm: WarmStart, texts: TowerInputs) -> StackedStatistics:
        """`texts` are the tower's inputs of all that people wrote, in the order of their numbers."""
        model = warm.model
        with torch.no_grad():
            parameters = model.layout.views(torch.from_numpy(model.initial))
            items = torch.from_numpy(warm.scale * warm.vectors).float()
            table = torch.cat([items, model.text_vectors(parameters, texts)])
        return cls(warm, table, warm.frozen(texts if "opinions" in warm.blocks else texts[:0]))

    def budget(self, clients: int, examples: int, mentions: int) -> int:
        """Bytes of a chunk, for `chunked`."""
        decays, dim = len(self.warm.model.spec.decays), self.table.shape[1]
        views = decays * examples * (2 * mentions + 4 * dim) + 2 * mentions * dim if self._looks else 0
        return 4 * clients * (views + self.warm.size)

    def rows(self, batch: Batch) -> Rows:
        """(client, warm.size) statistics, not yet clipped; zeros for someone who chose and rated nothing."""
        rows = np.zeros((len(batch), self.warm.size), np.float32)
        blocks = self._blocks(rows)
        counts = np.diff(batch.choice_starts)
        weight = self.warm.blocks["popularity"].weight
        mass = weight / np.maximum(counts, 1) ** 0.5
        blocks["popularity"][batch.choice_owner, batch.chosen] = mass[batch.choice_owner]
        if self._looks and batch.usable_counts.any():
            with torch.no_grad():
                self._look(lay(batch, batch.all_usable).to(self.table.device), blocks)
        if "opinions" in blocks:
            self._ask(batch, blocks["opinions"])
        return rows

    @property
    def _looks(self) -> bool:
        """Whether anything has a share that follows from decayed views."""
        return bool(self.warm.blocks.keys() - {"popularity", "opinions"})

    def _ask(self, batch: Batch, opinions: Rows) -> None:
        """Write how people rated what they wrote."""
        survey, weight = self.warm.survey, self.warm.blocks["opinions"].weight
        for client in np.unique(batch.rated_owner):
            own = slice(*batch.rated_starts[client : client + 2])
            opinions[client] = weight * survey.statistics(self.frozen[batch.rated[own]], batch.ratings[own])

    def _look(self, laid: Laid, blocks: dict[str, Rows]) -> None:
        """Write what follows from decayed views."""
        sums = decayed(laid, self.table[laid.entry], self.warm.model.spec.decays)
        views = functional.normalize(sums, dim=-1, eps=FAINTEST).transpose(1, 2)
        counts = laid.real.sum(1).clamp(min=1)[:, None]
        parts = self._summary(views, laid, counts)
        if "classes" in blocks:
            directions = self._directions(views)
            parts["spread"] = triangle((directions.transpose(1, 2) @ directions / counts[:, None]).cpu().numpy())
            client, example = (place.cpu().numpy() for place in laid.real.nonzero(as_tuple=True))
            grid = blocks["classes"].reshape(len(laid), *self.warm.blocks["classes"].shape)
            weighed = directions * (self.warm.blocks["classes"].weight / counts[:, :, None] ** 0.5)
            grid[client, laid.targets.cpu().numpy()[client, example]] = weighed[laid.real].cpu().numpy()
        for name in parts.keys() & blocks.keys():
            blocks[name][:] = self.warm.blocks[name].weight * parts[name].reshape(len(laid), -1)

    def _summary(self, views: Tensor, laid: Laid, counts: Tensor) -> dict[str, NDArray[np.floating]]:
        flat = views.flatten(2)
        agreement = flat @ flat.transpose(1, 2) / counts[:, None]
        targets = (self.table[laid.targets] * laid.real[:, :, None]).flatten(1)
        foresight = (flat @ targets[:, :, None])[:, :, 0] / (counts * self.warm.scale)
        means = views[..., : self.warm.axes].sum(2) / counts[:, None]
        above = np.triu_indices(views.shape[1], 1)
        return {
            "agreement": agreement[:, above[0], above[1]].cpu().numpy(),
            "foresight": foresight.cpu().numpy(),
            "means": means.cpu().numpy(),
        }

    def _directions(self, views: Tensor) -> Tensor:
        """(client, example, axis) the mixture of views, of length 1 or 0."""
        stretch = torch.from_numpy(self.warm.stretch).to(views)
        return functional.normalize(views[..., : self.warm.axes].mean(1) * stretch, dim=-1, eps=1e-6)

    def _blocks(self, rows: Rows) -> dict[str, Rows]:
        """Views of the columns of each part."""
        ends = np.cumsum([block.size for block in self.warm.blocks.values()])
        return dict(zip(self.warm.blocks, np.split(rows, ends[:-1], axis=1), strict=True))


def protected_rows(
    rounds: DeviceRounds, people: Population, cuts: Ints, tower: Tower, rng: Callable[[int], Generator]
) -> Rows:
    """(client, warm.size) what devices send that hide every interaction themselves, each with noise of its own.

    `rng(j)` is the generator of client j of `people`, of which the first `cuts[j]` events are known.
    """
    warm, terms = rounds.task.warm, rounds.inside.statistics if rounds.inside else None
    if warm is None or terms is None:
        raise RunError("only a task that protects interactions in a warm start has noisy statistics")
    if not terms.blocks.seconds:
        level = rounds.task.privacy.level if rounds.task.privacy else Level.HARDENED
        return lone_rows(warm, terms, choosing(people, cuts), len(people), lambda client: _noise(level, rng, client))
    nothing = np.zeros(0, np.float32)
    held = (
        Holding(people[client].before(int(cut)), rounds.task.plan.profile, tower) for client, cut in enumerate(cuts)
    )
    rows = [rounds.round(1, (nothing, nothing), holding, rng(client)).delta for client, holding in enumerate(held)]
    return np.array(rows, np.float32).reshape(-1, warm.size)


def lone_rows(warm: WarmStart, terms: InteractionTerms, acts: tuple[Ints, Ints], clients: int, noise: Noises) -> Rows:
    """The same where every event is an example by itself; `acts` are `choosing` ones, `noise(j)` is client j's own.

    Nothing precedes a single event. So an example is popularity of one item or nothing at all, and clipping it to the
    grid makes the same whole number wherever that item stands.
    """
    owner, item = acts
    one = clip_to_grid(np.array([warm.blocks["popularity"].weight]), terms.clip, terms.grid).vector[0]
    totals = np.zeros((clients, warm.size), np.int64)
    np.add.at(totals, (owner, item), one)  # popularity comes first in the statistics
    rows = np.empty(totals.shape, np.float32)
    for client, total in enumerate(totals):
        rows[client] = noisy_mean(total, terms, noise(client))
    return rows


def _noise(level: Level, rng: Callable[[int], Generator], client: int) -> Noise:
    return noise_source(level, rng(client) if level is Level.TEST else None)
