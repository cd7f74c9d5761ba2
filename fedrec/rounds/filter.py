"""Every reply is checked before it is added; what fails is dropped and counted, never repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Filter:
    """The form of an acceptable update. `within` is the mode's own bound on a vector that has the form."""

    size: int
    dtype: np.dtype[np.generic]
    within: Callable[[Vector], bool]

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers."""
        return self.size * self.dtype.itemsize

    def reason(self, vector: Vector) -> str | None:
        """Why `vector` is refused, in one word or two; None if it is not."""
        if vector.dtype != self.dtype:
            return "wrong type"
        if vector.shape != (self.size,):
            return "wrong shape"
        if not np.isfinite(vector).all():
            return "not finite"
        return None if self.within(vector) else "out of bound"


@dataclass
class Tally:
    """How many clients a round asked, how many updates it accepted, and how many replies it refused by reason."""

    asked: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
