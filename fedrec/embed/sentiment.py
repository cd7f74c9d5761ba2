"""How much a person liked what they wrote about, read with a pack's head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.reader import Reader
from fedrec.model.pack_files import Pack
from fedrec.model.sentiment import read

Floats = NDArray[np.float32]


def valence(reader: Reader, pack: Pack, texts: Sequence[str]) -> Floats:
    """(text,) the rating in [0, 1] that each text speaks of: 0 dislike, 1 delight.

    NaN where nothing can be said: for a text without words, and for all of them with a pack without a head. Whoever
    gave a rating has said it better: where there is one, use that.
    """
    if pack.sentiment is None or not texts:
        return np.full(len(texts), np.nan, np.float32)
    return read(pack.sentiment, reader.frozen(texts))
