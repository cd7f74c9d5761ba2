"""An encoder without weights: words and their spelling, hashed."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HashEncoder:
    """Signed feature hashing of words and their character 3-, 4- and 5-grams: alike words, alike vectors.

    Needs no weights and no torch. It knows spelling, not meaning: "film" and "movie" are strangers.
    Source: Weinberger et al. 2009, Feature Hashing for Large Scale Multitask Learning, §2.
    """

    dim: int = 256
    name: str = "hash"

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's version and width."""
        return hashlib.sha256(f"fedrec-hash-encoder 1 dim={self.dim}".encode()).hexdigest()

    def encode(self, texts: Sequence[str], *, public: bool = False) -> NDArray[np.float32]:
        """See `Encoder.encode`. Quicker than a disk, so nothing is cached."""
        vectors = np.zeros((len(texts), self.dim))
        known: dict[str, NDArray[np.float64]] = {}
        for row, text in enumerate(texts):
            for word, count in Counter(split(text)).items():
                if word not in known:
                    known[word] = self._word(word)
                vectors[row] += (1.0 + np.log(count)) * known[word]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

    def _word(self, word: str) -> NDArray[np.float64]:
        """The word itself and the mean of its n-grams, in equal parts."""
        grams = list(_grams(f"<{word}>"))
        vector = np.zeros(self.dim)
        for feature, weight in [(f"={word}", 1.0), *((gram, len(grams) ** -0.5) for gram in grams)]:
            code = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "little")
            vector[code % self.dim] += weight if code >> 63 else -weight
        return vector


def split(text: str) -> list[str]:
    """Words of a text: runs of letters, digits and underscores, without regard to case."""
    return re.findall(r"\w+", text.casefold())


def hashed_ids(text: str, vocabulary: int) -> list[int]:
    """A token id from 1 to `vocabulary` − 1 for each word; 0 is for padding."""
    return [1 + zlib.crc32(word.encode("utf-8", "replace")) % (vocabulary - 1) for word in split(text)]


def _grams(word: str) -> Iterator[str]:
    for size in (3, 4, 5):
        yield from (word[start : start + size] for start in range(len(word) - size + 1))
