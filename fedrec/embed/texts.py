"""A person's texts as vectors, read once each; where they cannot be read they say nothing, and why is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.models import Model
from fedrec.embed.reader import Reader
from fedrec.errors import FedrecError

Floats = NDArray[np.float32]

_MOST = 10_000  # texts that are remembered


class Texts:
    """A `Reader` that never fails. What it remembers is in memory alone, and `forget` empties it."""

    def __init__(self, model: Model) -> None:
        self.model, self._known, self.trouble = model, dict[str, Floats](), ""

    def __repr__(self) -> str:
        return "Texts(contents withheld)"

    def vectors(self, texts: Sequence[str]) -> Floats:
        """See `Reader.vectors`."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(fresh) > _MOST:
            self._known, fresh = {}, list(dict.fromkeys(texts))
        if fresh:
            self._known |= zip(fresh, self.read(fresh), strict=True)
        return np.stack([self._known[text] for text in texts]) if texts else self.model.pack.vectors[:0]

    def frozen(self, texts: Sequence[str]) -> Floats:
        """See `Reader.frozen`."""
        return self._asked(lambda reader: reader.frozen(texts), len(texts), self.model.pack.info.encoder.dim)

    @property
    def passing(self) -> Reader:
        """The same, but remembering nothing: for texts that are not the person's."""
        return _Passing(self)

    def forget(self) -> None:
        """Remember nothing."""
        self._known = {}

    def read(self, texts: Sequence[str]) -> Floats:
        """`vectors`, without remembering them."""
        return self._asked(lambda reader: reader.vectors(texts), len(texts), self.model.pack.vectors.shape[1])

    def _asked(self, how: Callable[[Reader], Floats], count: int, width: int) -> Floats:
        if not self.trouble:
            try:
                return how(self.model.reader)
            except FedrecError as error:
                self.trouble = f"Searches and reviews do not count in lists: {error}"
        return np.zeros((count, width), np.float32)


@dataclass(frozen=True)
class _Passing:
    texts: Texts

    def vectors(self, texts: Sequence[str]) -> Floats:
        return self.texts.read(texts)

    def frozen(self, texts: Sequence[str]) -> Floats:
        return self.texts.frozen(texts)
