"""A head that reads from a text's vector how much its writer liked something. Public numbers only; numpy alone.

Least squares from sums: in a warm start everybody sends moments of their own rated texts, and the server solves for the
ridge regression of ratings on directions of texts. All of it is post-processing of one noised mean. The ridge does not
pull towards silence: it pulls towards what a few public sentences of praise and blame say, which no person is behind.

Vectors are those of the frozen encoder, which no training moves: a head keeps its meaning in every later model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError, require
from fedrec.model.warm_estimates import square, triangle

Floats = NDArray[np.float64]

# Two ways to say the same of anything: their difference is the direction from blame to praise.
OPINIONS = (
    ("I love it", "I hate it"),
    ("This is excellent", "This is terrible"),
    ("It works perfectly", "It does not work at all"),
    ("Highly recommended", "I would not recommend this to anyone"),
    ("Great quality", "Poor quality"),
    ("Worth every penny", "A waste of money"),
    ("I am very happy with it", "I am very disappointed with it"),
    ("It exceeded my expectations", "It fell short of my expectations"),
    ("Well made and reliable", "Badly made and broke quickly"),
    ("A wonderful story", "A boring story"),
    ("I could not put it down", "I gave up after a few pages"),
    ("Exactly what I wanted", "Not what I wanted"),
    ("The best I have ever had", "The worst I have ever had"),
    ("Beautiful and delightful", "Ugly and annoying"),
    ("I would buy it again", "I want my money back"),
    ("Simply perfect", "Full of problems"),
)
FLOOR = 0.01  # the ridge without noise, over the mean eigenvalue of the second moments
STEEP = 0.5  # the ridge that noise adds, over the noise's largest eigenvalue


def public_head(encode: Callable[[Sequence[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """(width + 1,) a head from `OPINIONS` alone: their praise reads as 1 and their blame as 0, on the mean."""
    praise, blame = (_directions(encode(side)).mean(axis=0) for side in zip(*OPINIONS, strict=True))
    way = (praise - blame) / max(float(np.square(praise - blame).sum()), 1e-12)
    head: NDArray[np.float32] = np.append(way, 0.5 - way @ (praise + blame) / 2).astype(np.float32)
    return head


@dataclass(frozen=True)
class Survey:
    """What is asked about rated texts, whose vectors are `width` wide.

    A person's statistics are `size` numbers of length at most 1 by construction. Everybody weighs the same, however
    much they have written.
    """

    width: int
    share: float = 0.5  # of the squared length, that the second moments get

    def __post_init__(self) -> None:
        require(self.width >= 1, "a text's vector has a width", width=self.width)
        require(0 < self.share < 1, "both moments have a share", share=self.share)

    @property
    def features(self) -> int:
        """Numbers of a text: its direction, and one that is always the same."""
        return self.width + 1

    @property
    def size(self) -> int:
        """Length of a person's statistics: the upper triangle of second moments, and the moments with the rating."""
        return self.features * (self.features + 1) // 2 + self.features

    def statistics(self, vectors: NDArray[np.float32], ratings: NDArray[np.float32]) -> Floats:
        """(size,) statistics of one person's rated texts (text, width); zeros for somebody without any.

        Ratings lie in [0, 1]. Texts without words, and texts without a rating (NaN), do not count.
        """
        counts = np.isfinite(ratings) & vectors.any(axis=1)
        if not counts.any():
            return np.zeros(self.size)
        features, liking = _features(vectors[counts]), 2.0 * np.clip(ratings[counts].astype(np.float64), 0, 1) - 1.0
        second, first = features.T @ features / len(liking), features.T @ liking / len(liking)
        return np.concatenate([math.sqrt(self.share) * triangle(second), math.sqrt(1 - self.share) * first])

    def solve(self, mean: Floats, noise: float, start: NDArray[np.float32]) -> NDArray[np.float32]:
        """(width + 1,) weights, the intercept last; `mean` (size,) has noise of standard deviation `noise` on it.

        The more noise, the heavier the ridge, from public numbers alone: what is not learnt stays as in `start`, a
        public head, but for how pleased people are on the whole. Deterministic, and finite whatever the mean.
        """
        require(start.shape == (self.features,), "a public head reads vectors of the same width", width=self.width)
        far = 1 + 10 * noise  # no honest number of a mean lies further out
        second, first = self._moments(np.clip(np.nan_to_num(mean), -far, far))
        values, axes = np.linalg.eigh(second)
        possible = np.clip(values, 0, None)  # second moments are not negative: noise made them so
        # The largest eigenvalue of a symmetric matrix of noise lies near 2σ√n (Wigner 1958).
        wide = 2 * math.sqrt(self.features) * noise / math.sqrt(2 * self.share)
        ridge = np.full(self.features, FLOOR * max(float(possible.sum()), FLOOR) / self.features + STEEP * wide)
        ridge[-1] = FLOOR * ridge[-1] + noise  # the intercept is one number: the noise on it is small
        known, at = (axes * possible) @ axes.T, math.sqrt(8) * (start.astype(np.float64) - self._even)
        solved = at + np.linalg.solve(known + np.diag(ridge), first - known @ at)
        weights: NDArray[np.float32] = (solved / math.sqrt(8) + self._even).astype(np.float32)
        return weights

    @property
    def _even(self) -> Floats:
        """The head for which every text is neither praise nor blame."""
        return np.append(np.zeros(self.width), 0.5)

    def _moments(self, mean: Floats) -> tuple[Floats, Floats]:
        angles = self.size - self.features
        return square(mean[:angles] / math.sqrt(self.share), self.features), mean[angles:] / math.sqrt(1 - self.share)


def read(weights: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(text,) the rating in [0, 1] that texts with these vectors speak of, NaN for a text without words.

    It is ⟨direction of the vector, weights⟩ + intercept, kept within [0, 1].
    """
    if weights.shape != (vectors.shape[1] + 1,):
        remedy = "Use a pack with the head that was learnt for its encoder."
        raise DataError(
            "a head reads vectors of its own width", remedy=remedy, head=len(weights), width=vectors.shape[1]
        )
    wordless = ~vectors.any(axis=1)
    said = np.clip(_directions(vectors) @ weights[:-1].astype(np.float64) + weights[-1], 0, 1)
    ratings: NDArray[np.float32] = np.where(wordless, np.nan, said).astype(np.float32)
    return ratings


def _features(vectors: NDArray[np.float32]) -> Floats:
    """(text, width + 1) directions and a constant, of length 1 together."""
    return np.hstack([_directions(vectors), np.ones((len(vectors), 1))]) / math.sqrt(2)


def _directions(vectors: NDArray[np.float32]) -> Floats:
    wide = vectors.astype(np.float64)
    directions: Floats = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return directions
