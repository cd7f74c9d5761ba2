"""How much a person liked what they wrote about: read with a pack's head, and taught by their own rated reviews."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.reader import Reader
from fedrec.model.pack_files import Pack
from fedrec.model.sentiment import Survey, read
from fedrec.privacy.crossing import Crossing
from fedrec.privacy.noise import Source

Floats = NDArray[np.float32]


def valence(reader: Reader, pack: Pack, texts: Sequence[str]) -> Floats:
    """(text,) the rating in [0, 1] that each text speaks of: 0 dislike, 1 delight.

    NaN where nothing can be said: for a text without words, and for all of them with a pack without a head. Whoever
    gave a rating has said it better: where there is one, use that.
    """
    if pack.sentiment is None or not texts:
        return np.full(len(texts), np.nan, np.float32)
    return read(pack.sentiment, reader.pooled(texts))


def answer(
    survey: Survey, reader: Reader, reviews: Sequence[tuple[str, float]], crossing: Crossing | None,
    noise: Source | None = None,
) -> NDArray[Any]:  # fmt: skip
    """What leaves the device in the survey, of (text, rating) pairs: clipped, on the grid, with its share of the noise.

    Without a `crossing` nothing is promised, and the moments leave as they are. The length says nothing of the person:
    somebody without a review sends as much.
    """
    texts = [text for text, _ in reviews]
    vectors = reader.pooled(texts) if texts else np.zeros((0, survey.width), np.float32)
    moments = survey.statistics(vectors, np.array([rating for _, rating in reviews], np.float32))
    return moments.astype(np.float32) if crossing is None else crossing.send(moments, noise)
