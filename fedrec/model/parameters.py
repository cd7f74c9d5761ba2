"""Shared parameters as one flat vector: what the wire carries, what is clipped, what is averaged."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.errors import WireError


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the shared parameters, in the order in which they lie in the vector."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @cached_property
    def size(self) -> int:
        """Length of the vector."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in the vector."""
        ends = list(itertools.accumulate(math.prod(shape) for _, shape in self.shapes))
        return {name: slice(end - math.prod(shape), end) for (name, shape), end in zip(self.shapes, ends, strict=True)}

    @property
    def hash(self) -> str:
        """SHA-256 of names and shapes."""
        return hashlib.sha256(repr(self.shapes).encode()).hexdigest()

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Named views (…, *shape) into `vector` (…, size); gradients flow back into it."""
        if vector.shape[-1:] != (self.size,):
            raise WireError("the vector does not fit the model", expected=self.size, shape=tuple(vector.shape))
        parts = torch.split(vector, [math.prod(shape) for _, shape in self.shapes], dim=-1)
        several = vector.shape[:-1]
        return {name: part.view((*several, *shape)) for (name, shape), part in zip(self.shapes, parts, strict=True)}

    def flatten(self, tensors: Mapping[str, Tensor]) -> NDArray[np.float32]:
        """One (size,) float32 vector of the named tensors."""
        parts = [tensors[name].detach().numpy().ravel() for name, _ in self.shapes]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)

    def mask(self, name: str) -> NDArray[np.bool_]:
        """(size,) True where the parameter called `name` lies."""
        return np.concatenate([np.full(math.prod(shape), own == name) for own, shape in self.shapes])
