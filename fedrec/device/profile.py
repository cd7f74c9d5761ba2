"""History → contexts: several decayed views of what a person did, and what they chose next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedrec.device.event import NO_ITEM
from fedrec.device.history import History
from fedrec.device.weights import FAINTEST, signed_weights
from fedrec.model.adapter import TowerInputs
from fedrec.spec import ProfileSpec

Tower = Callable[[Sequence[str]], TowerInputs]


@dataclass(frozen=True, eq=False)
class Events:
    """A history as tensors: computed once, used in every round. Never leaves the device.

    `rows`, `row_at`, `row_weights` are (item event,): catalogue row, position in the history, signed
    weight. `texts`, `text_at`, `text_weights` are the same for free text, `text_ratings` the ratings that
    came with it, NaN where none did. `choices` and `chosen` are (choice,): positions and rows of first choices.
    """

    size: int
    rows: Tensor
    row_at: Tensor
    row_weights: Tensor
    texts: TowerInputs
    text_at: Tensor
    text_weights: Tensor
    text_ratings: Tensor
    choices: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, history: History, spec: ProfileSpec, tower: Tower) -> Events:
        """What `history` holds, with the weights of `spec`; free text goes through the frozen `tower`."""
        items, weights = history.items, signed_weights(history, spec)
        row_at = np.flatnonzero(items != NO_ITEM)
        written = history.texts
        text_at = np.array([position for position, text in enumerate(written) if text], np.int64)
        beside = np.where(items[text_at] != NO_ITEM, spec.text, 1.0).astype(np.float32)
        choices = history.choices()
        return cls(
            size=len(history),
            rows=_long(items[row_at]),
            row_at=_long(row_at),
            row_weights=torch.from_numpy(weights[row_at]),
            texts=tower([written[position] for position in text_at]),
            text_at=_long(text_at),
            text_weights=torch.from_numpy(weights[text_at] * beside),
            text_ratings=torch.from_numpy(history.ratings[text_at]),
            choices=_long(choices),
            chosen=_long(items[choices]),
        )

    def __repr__(self) -> str:
        return f"Events({self.size}, contents withheld)"

    def vectors(self, item_vectors: Tensor, text_vectors: Tensor) -> Tensor:
        """(event, dim) signed, weighted vectors; `item_vectors` are those of `rows`, in order."""
        empty = item_vectors.new_zeros(self.size, item_vectors.shape[1])
        items = empty.index_add(0, self.row_at, item_vectors * self.row_weights[:, None])
        return items.index_add(0, self.text_at, text_vectors * self.text_weights[:, None])

    def seen(self, cuts: Tensor, items: int) -> Tensor:
        """(example, item) True where the item was chosen among the first `cuts` events."""
        mask = torch.zeros(len(cuts), items, dtype=torch.bool)
        return mask.index_copy(1, self.chosen, self.choices[None, :] < cuts[:, None])


def contexts(vectors: Tensor, cuts: Tensor, decays: Sequence[float]) -> Tensor:
    """(decay, example, dim) views of the first `cuts` of `vectors` (event, dim), each of length 1 or 0.

    An event that lies n events back weighs λⁿ: decay 0 sees the last event only, 1 all alike.
    """
    back = cuts[:, None] - 1 - torch.arange(len(vectors))[None, :]
    known = back >= 0
    # 0⁰ = 1 in torch, which is what decay 0 needs.
    age = back.clamp(min=0).to(vectors.dtype)
    weights = torch.stack([decay**age * known for decay in map(torch.tensor, decays)])
    return functional.normalize(weights @ vectors, dim=-1, eps=FAINTEST)


def _long(values: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
