"""What can be recommended: public items, their text, and optional dense features."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Public items in a fixed order; a row number is an item's address everywhere else.

    `features` is (item, feature) float32: image, audio or other dense columns, zero columns wide
    when there are none. `tags` are public categories, used only to describe and to report.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    tags: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "tags", tuple(map(tuple, self.tags)) or ((),) * len(self.ids))
        if self.features.size == 0:
            object.__setattr__(self, "features", np.zeros((len(self.ids), 0), np.float32))
        self._check()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} items, {self.features.shape[1]} features, {self.hash[:12]})"

    @cached_property
    def rows(self) -> dict[str, int]:
        """Item id → row."""
        return {item: row for row, item in enumerate(self.ids)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of ids, texts, features and tags in order; any change changes it."""
        # What is hashed is repr((ids, texts, tags)), never all of it in memory at once.
        digest, before = hashlib.sha256(), "("
        for column in (self.ids, self.texts, self.tags):
            digest.update(f"{before}{column!r}".encode())
            before = ", "
        digest.update(f"){self.features.shape!r}".encode() + self.features.tobytes())
        return digest.hexdigest()

    def _check(self) -> None:
        if not len(self.ids) == len(self.texts) == len(self.features) == len(self.tags):
            raise DataError(
                "every item has an id, a text, a feature row and a tag list",
                ids=len(self.ids),
                texts=len(self.texts),
                features=len(self.features),
                tags=len(self.tags),
            )
        odd = next((item for item in self.ids if not item or item != item.strip()), None)
        if odd is not None:
            raise DataError("an item id is not empty and has no space around it", item=odd, row=self.ids.index(odd))
        twice = [item for item, count in Counter(self.ids).items() if count > 1]
        if twice:
            raise DataError("item ids are unique", remedy="Remove or rename the duplicates.", duplicates=twice[:5])
        if not np.isfinite(self.features).all():
            row = int(np.flatnonzero(~np.isfinite(self.features).all(axis=1))[0])
            raise DataError("item features are finite numbers", item=self.ids[row], row=row)
