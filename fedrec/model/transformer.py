"""A transformer as an `Encoder`: batches, pooled vectors, hidden states, and its detachable top."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.errors import EncoderError, require
from fedrec.model.cache import Arrays, content_key, remember
from fedrec.model.encoder import Precision
from fedrec.model.trunk import Loaded, Top, Trunk

_CPU = torch.device("cpu")
_BATCH = 32  # texts in one pass, as a core's cache likes it
_GPU_BATCH = 512  # the same, so that computing takes longer than asking for it
_PATIENCE = 2000  # texts from which a progress bar is worth its line


@dataclass(frozen=True, eq=False)
class Hidden:
    """States of texts below the top, without padding: those of text t are `states[starts[t]:starts[t + 1]]`."""

    states: NDArray[np.float32]  # (token of all texts, width)
    starts: NDArray[np.int64]  # (text + 1,)

    def __repr__(self) -> str:
        return f"Hidden({len(self.starts) - 1} texts, contents withheld)"

    def padded(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(text, token, width) states and the (text, token) mask, as wide as the longest text."""
        lengths = np.diff(self.starts)
        mask = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
        states = np.zeros((*mask.shape, self.states.shape[1]), np.float32)
        states[mask] = self.states
        return states, mask


class TransformerEncoder:
    """An `Encoder` over a trunk. Frozen, hence shared by deep copies of whatever refers to it.

    Texts go through a copy of the trunk of that `precision` on `device`, made when first needed; results are float32
    arrays on the host. The top comes from the float32 weights: it is there to be trained.
    """

    def __init__(
        self, name: str, loaded: Loaded, *, cache: Path | None, precision: Precision = "float32",
        device: torch.device = _CPU,
    ) -> None:  # fmt: skip
        self.name, self.hash, self.trunk = name, _identity(loaded.hash, precision), loaded.trunk
        self.folder, self.max_tokens = loaded.folder, loaded.max_tokens
        self._tokenise, self._cache, self._precision, self._device = loaded.tokenise, cache, precision, device

    def __repr__(self) -> str:
        return f"TransformerEncoder({self.name}, {self.hash[:12]})"

    def __deepcopy__(self, memo: object) -> TransformerEncoder:
        return self

    @property
    def dim(self) -> int:
        """Width of a vector, and of a state."""
        return int(self.trunk.model.config.hidden_size)

    @property
    def depth(self) -> int:
        """How many transformer blocks there are."""
        return len(self.trunk.blocks)

    def encode(self, texts: Sequence[str], *, public: bool = False) -> NDArray[np.float32]:
        """See `Encoder.encode`. Equal lists give equal bits; a text in another list may differ by rounding."""
        found = self._recall("vectors", texts, lambda: {"vectors": self._vectors(texts)}, public=public)
        return found["vectors"].astype(np.float32, copy=False)

    def hidden(self, texts: Sequence[str], blocks: int, *, public: bool = False) -> Hidden:
        """States that enter the last `blocks` blocks; 4 × width bytes a token. On disk only if `public`."""
        self._check(blocks)
        found = self._recall(f"states below {blocks}", texts, lambda: self._states(texts, blocks), public=public)
        return Hidden(found["states"].astype(np.float32, copy=False), found["starts"].astype(np.int64, copy=False))

    def top(self, blocks: int) -> Top:
        """The rest of the computation, in float32 on the CPU; checked here on two sentences.

        `top(states, mask)` equals `encode` up to the rounding of the precision.
        """
        self._check(blocks)
        top = Top(self.trunk, blocks)
        ((_, ids, mask),) = _batches(self._tokens(["one", "two texts of unequal length"]), 2)
        try:
            with torch.inference_mode():
                same = torch.allclose(top(self.trunk.states(ids, mask, blocks), mask), self.trunk(ids, mask), atol=1e-4)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            same = False  # these blocks want more than states and a mask, such as rotary positions
        if not same:
            self._refuse_top()
        return top

    def _check(self, blocks: int) -> None:
        if self.depth == 0:
            self._refuse_top()
        require(1 <= blocks <= self.depth, "the top has between 1 and all blocks", blocks=blocks, depth=self.depth)

    def _refuse_top(self) -> None:
        remedy = "Use the bottleneck adapter, or an encoder of the BERT family."
        rule = "the last blocks of this encoder cannot run by themselves"
        raise EncoderError(rule, remedy=remedy, encoder=self.name)

    def _recall(self, part: str, texts: Sequence[str], compute: Callable[[], Arrays], *, public: bool) -> Arrays:
        folder = self._cache if public else None
        return remember(folder, content_key(self.hash, part, texts=texts) if folder else "", compute)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors, trunk = np.zeros((len(texts), self.dim), np.float32), self._placed
        with torch.inference_mode():
            for rows, ids, mask in self._passes(self._tokens(texts)):
                vectors[rows] = trunk(ids, mask).cpu().numpy()
        return vectors

    def _states(self, texts: Sequence[str], blocks: int) -> Arrays:
        tokens, trunk = self._tokens(texts), self._placed
        starts = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
        states = np.empty((starts[-1], self.dim), np.float32)
        with torch.inference_mode():
            for rows, ids, mask in self._passes(tokens):
                found = trunk.states(ids, mask, blocks)[mask].cpu().numpy()  # one transfer, without the padding
                ends = np.cumsum([len(tokens[row]) for row in rows])
                for row, one in zip(rows, np.split(found, ends[:-1]), strict=True):
                    states[starts[row] : starts[row + 1]] = one
        return {"states": states, "starts": starts}

    @cached_property
    def _placed(self) -> Trunk:
        return self.trunk.placed(self._device, self._precision)

    def _passes(self, tokens: list[list[int]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """What one pass after the other takes, on the device."""
        for rows, ids, mask in _batches(tokens, _BATCH if self._device.type == "cpu" else _GPU_BATCH):
            yield rows, ids.to(self._device), mask.to(self._device)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; none for a blank one, which would otherwise become its two marks."""
        worded = [row for row, text in enumerate(texts) if text.strip()]
        tokens: list[list[int]] = [[] for _ in texts]
        if worded:  # tokenizers refuse an empty list
            for row, ids in zip(worded, self._tokenise([texts[row] for row in worded]), strict=True):
                tokens[row] = ids
        return tokens


def _identity(digest: str, precision: Precision) -> str:
    """The hash of an encoder whose trunk has the hash `digest`; in float32 there is nothing to add."""
    return digest if precision == "float32" else content_key("trunk in", precision, digest, texts=())


def _batches(tokens: list[list[int]], size: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """(rows, ids, mask) of texts of like length, longest first, so that memory peaks at once and padding is little."""
    rows = sorted((row for row, ids in enumerate(tokens) if ids), key=lambda row: -len(tokens[row]))
    for start in _shown(range(0, len(rows), size), texts=len(rows)):
        batch = rows[start : start + size]
        width = len(tokens[batch[0]])
        ids = torch.tensor([tokens[row] + [0] * (width - len(tokens[row])) for row in batch])
        mask = torch.arange(width) < torch.tensor([len(tokens[row]) for row in batch])[:, None]
        yield batch, ids, mask


def _shown(steps: range, *, texts: int) -> Iterator[int]:
    if texts <= _PATIENCE:
        return iter(steps)
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(steps, "Encoding texts", console=console, transient=True, disable=not console.is_terminal))
