"""History → examples that share no event, for training that protects single interactions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.history import History
from fedrec.device.profile import Tower
from fedrec.device.weights import signed_weights
from fedrec.model.adapter import TowerInputs
from fedrec.privacy.interaction import Blocks
from fedrec.spec import ProfileSpec

_EMPTY = -1


@dataclass(frozen=True, eq=False)
class Examples:
    """A history cut into blocks, as tensors (example, slot). Never leaves the device.

    Guarantee: an event is in one example, and no example depends on an event outside its block; so "chosen for the
    first time" means within the block. `rows` and `weights` are catalogue rows and signed weights, `targets` marks
    first choices, `text_rows` and `text_weights` say which of `texts` belongs to the slot. Empty slots weigh nothing.
    """

    rows: Tensor
    weights: Tensor
    targets: Tensor
    texts: TowerInputs
    text_rows: Tensor
    text_weights: Tensor

    @classmethod
    def of(cls, history: History, spec: ProfileSpec, tower: Tower, blocks: Blocks) -> Examples:
        """What `history` holds, with the weights of `spec`; free text goes through the frozen `tower`."""
        slots = _slots(history, blocks)
        full, at = slots != _EMPTY, slots[slots != _EMPTY]
        items, weights, written = history.items, signed_weights(history, spec), history.texts
        known = items != NO_ITEM
        texts = [written[position] for position in at if written[position]]
        worded = np.array([bool(text) for text in written], bool)
        beside = np.where(known, spec.text, 1.0)

        def laid(values: NDArray[np.generic]) -> Tensor:
            grid = np.zeros(slots.shape, values.dtype)
            grid[full] = values[at]
            return torch.from_numpy(grid)

        order = np.zeros(len(history), np.int64)
        order[at[worded[at]]] = np.arange(len(texts))
        return cls(
            rows=laid(np.where(known, items, 0).astype(np.int64)),
            weights=laid(np.where(known, weights, 0).astype(np.float32)),
            targets=laid(_first_choices(history, slots)),
            texts=tower(texts),
            text_rows=laid(order),
            text_weights=laid(np.where(worded, weights * beside, 0).astype(np.float32)),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return "Examples(contents withheld)"


def pieces(history: History, blocks: Blocks) -> list[History]:
    """The same examples as histories of their own."""
    slots = _slots(history, blocks)
    return [history.between(int(row[0]), int(row.max()) + 1) for row in slots]


def _slots(history: History, blocks: Blocks) -> NDArray[np.int64]:
    """(example, slot) positions in the history, in order; `_EMPTY` behind the last."""
    positions = np.arange(len(history))
    block = history.times // blocks.seconds if blocks.seconds else positions
    _, starts, sizes = np.unique(block, return_index=True, return_counts=True)
    ends = (starts + sizes)[:, None]
    kept = np.minimum(sizes, blocks.span)[:, None]
    slot = np.arange(blocks.span)
    return np.where(slot < kept, ends - kept + slot, _EMPTY)


def _first_choices(history: History, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(event,) True where an item is chosen for the first time within its example."""
    chooses = np.array([kind.chooses for kind in Kind])[history.kinds] & (history.items != NO_ITEM)
    example, _ = np.nonzero(slots != _EMPTY)
    at = slots[slots != _EMPTY]
    example, at = example[chooses[at]], at[chooses[at]]
    _, first = np.unique(np.stack([example, history.items[at]]), axis=1, return_index=True)
    marks = np.zeros(len(history), bool)
    marks[at[first]] = True
    return marks
