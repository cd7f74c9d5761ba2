"""Amazon reviews of musical instruments, read by MiniLM once, and how well a head does on some people's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.datasets import load
from fedrec.datasets.dataset import Dataset
from fedrec.files import home
from fedrec.model.encoder import Encoder, open_encoder
from fedrec.randomness import stream

FOLDER = "amazon-musical-instruments"
FIFTH = 0.2  # of the people, that is set aside
LIKED = 0.7  # between three stars and four

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Head = Callable[[Floats], Floats]


@dataclass(frozen=True, eq=False)
class Read:
    """An `Encoder` that has read everybody's texts before: `vectors` (text, width), as `words` numbers them."""

    encoder: Encoder
    words: Mapping[str, int]
    vectors: Floats

    @property
    def name(self) -> str:
        """See `Encoder`."""
        return self.encoder.name

    @property
    def hash(self) -> str:
        """See `Encoder`."""
        return self.encoder.hash

    @property
    def dim(self) -> int:
        """See `Encoder`."""
        return self.encoder.dim

    def encode(self, texts: Sequence[str], *, public: bool = False) -> Floats:
        """See `Encoder.encode`."""
        if public:
            return self.encoder.encode(texts, public=True)
        return self.vectors[np.array([self.words[text] for text in texts], np.int64)]


@dataclass(frozen=True, eq=False)
class Reviews:
    """Rated texts with words: `vectors` (review, width), and `ratings` (review,) in [0, 1]."""

    vectors: Floats
    ratings: Floats

    @classmethod
    def of(cls, corpus: Corpus, people: Ints, cuts: Ints | None = None) -> Reviews:
        """Those of some people, the first `cuts` of each if these are given."""
        histories = [corpus.dataset.population[person] for person in people.tolist()]
        if cuts is not None:
            histories = [history.before(int(cut)) for history, cut in zip(histories, cuts, strict=True)]
        vectors = corpus.encoder.encode([text for history in histories for text in history.texts if text])
        ratings = np.concatenate([history.ratings[np.array(history.texts, bool)] for history in histories])
        counts = vectors.any(axis=1) & np.isfinite(ratings)
        return cls(vectors[counts], ratings[counts])


@dataclass(frozen=True, eq=False)
class Corpus:
    """A data set, and an encoder that knows its texts."""

    dataset: Dataset
    encoder: Read

    @classmethod
    def of(cls, data: Path, keep: Path) -> Corpus:
        """The reviews in the shared data, read by MiniLM once."""
        dataset = load("amazon", data / FOLDER, {})
        texts, encoder = dataset.population.written(), open_encoder("minilm", cache=home() / "cache")
        kept = keep / "vectors.npy"
        if not kept.exists():
            np.save(kept, encoder.encode(texts))
        return cls(dataset, Read(encoder, {text: row for row, text in enumerate(texts)}, np.load(kept)))

    def parted(self, people: Ints, seed: int, purpose: str) -> tuple[Ints, Ints]:
        """Most of the people, and a fifth of them."""
        order = stream(seed, "reviews", purpose).permutation(people)
        cut = round(FIFTH * len(order))
        return np.sort(order[cut:]), np.sort(order[:cut])


@dataclass(frozen=True)
class Figures:
    """Of one head on the reviews of people whom it was not learnt from."""

    auc: float  # four and five stars before three and fewer
    clear: float  # five stars before one and two
    error: float  # mean absolute, of ratings in [0, 1]
    balanced: float  # accuracy, mean of both classes, split where the training people's median prediction lies

    @classmethod
    def of(cls, predicted: Floats, ratings: Floats, threshold: float) -> Figures:
        """`predicted` (review,) against `ratings` (review,)."""
        liked, up = ratings > LIKED, predicted > threshold
        best, worst = ratings > 0.9, ratings < 0.3
        balanced = (up[liked].mean() + (~up[~liked]).mean()) / 2
        return cls(
            auc(predicted[liked], predicted[~liked]), auc(predicted[best], predicted[worst]),
            float(np.abs(predicted - ratings).mean()), float(balanced),
        )  # fmt: skip


def auc(higher: Floats, lower: Floats) -> float:
    """How often one of `higher` is above one of `lower`; ties count half."""
    below = np.searchsorted(np.sort(lower), higher, "left") + np.searchsorted(np.sort(lower), higher, "right")
    return float(below.mean() / (2 * len(lower)))


def central(taught: Reviews, fit: Reviews, tried: Reviews) -> Head:
    """Ridge regression where all reviews lie in one place; learnt from `fit`, the ridge is the best for `tried`."""
    ridges = 10.0 ** np.arange(-3, 3)
    losses = [float(np.square(_ridge(fit, ridge)(tried.vectors) - tried.ratings).mean()) for ridge in ridges]
    return _ridge(taught, float(ridges[int(np.argmin(losses))]))


def _ridge(taught: Reviews, ridge: float) -> Head:
    centre, mean = taught.vectors.mean(axis=0), taught.ratings.mean()
    away = (taught.vectors - centre).astype(np.float64)
    weights = np.linalg.solve(away.T @ away + ridge * np.eye(away.shape[1]), away.T @ (taught.ratings - mean))
    return lambda vectors: np.clip((vectors - centre) @ weights + mean, 0, 1).astype(np.float32)


def constant(known: Reviews) -> Head:
    """The head for which everybody is as pleased as the mean."""
    return lambda vectors: np.full(len(vectors), known.ratings.mean(), np.float32)
