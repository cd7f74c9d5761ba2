"""With which items a target competes in the losses of many clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedrec.device.training import LocalTraining
from fedrec.population.batch import Batch, Laid, lay

Ints = NDArray[np.int64]

NEVER = -1e9  # the score of what is no rival


class Drawn(NamedTuple):
    """Public rivals that each client drew: rows (n, R), and which of them are not padding."""

    rows: Tensor
    real: Tensor

    @classmethod
    def of(cls, rivals: Sequence[NDArray[np.int64]]) -> Drawn:
        """Side by side."""
        rows = pad_sequence([torch.from_numpy(each) for each in rivals], batch_first=True)
        counts = torch.tensor([len(each) for each in rivals])
        return cls(rows, torch.arange(rows.shape[1]) < counts[:, None])

    def to(self, device: torch.device) -> Drawn:
        """The same on `device`."""
        return Drawn(self.rows.to(device), self.real.to(device))


def draw(training: LocalTraining, batch: Batch, coins: Callable[[int], Generator]) -> tuple[Laid, Drawn | None]:
    """The examples and rivals that each client draws from `coins(place)`, as it would draw them by itself.

    Nobody's coins are made, for they take time, who takes all there is or nothing.
    """
    nothing = np.zeros(0, np.int64)
    picked, rivals = np.split(batch.all_usable, np.cumsum(batch.usable_counts)[:-1]), [nothing] * len(batch)
    for place, usable in enumerate(picked[: len(batch)]):
        if len(usable) and training.chooses(len(usable)):
            picked[place], theirs = training.draw(usable, coins(place))
            rivals[place] = nothing if theirs is None else theirs
    laid = lay(batch, np.concatenate(picked))
    return laid, Drawn.of(rivals) if training.spec.negatives else None


def mute(scores: Tensor, laid: Laid, shut: Tensor | None, *, hide_seen: bool) -> Tensor:
    """`scores` (n, T, item), in place `NEVER` where an item is no rival: it is `shut` (item,), or was chosen before.

    The target keeps its own.
    """
    targets = laid.targets[:, :, None]
    if shut is not None:
        closed = shut.repeat(*laid.targets.shape, 1).scatter_(2, targets, False)  # noqa: FBT003
        scores = scores.masked_fill_(closed, NEVER)
    if hide_seen:
        client, example, choice = (_seen(laid) & (laid.chosen[:, None] != targets)).nonzero(as_tuple=True)
        scores[client, example, laid.chosen[client, choice]] = NEVER
    return scores


def barred_among(laid: Laid, drawn: Drawn, *, hide_seen: bool) -> Tensor:
    """(n, T, R) True where what was drawn is no rival of the target: it is padding, the target, or chosen before."""
    found = ~drawn.real[:, None] | (drawn.rows[:, None] == laid.targets[:, :, None])
    if hide_seen:
        same = laid.chosen[:, :, None] == drawn.rows[:, None]
        found = found | ((_seen(laid).float() @ same.float()) > 0)
    return found


def _seen(laid: Laid) -> Tensor:
    """(n, T, C) whether a choice came before an example."""
    return laid.chose[:, None] & (laid.choice_at[:, None] < laid.cuts[:, :, None])
