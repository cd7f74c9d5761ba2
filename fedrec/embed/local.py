"""The local user embedding: what a person's choices have in common beyond what the shared model makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.ranker import highest
from fedrec.errors import require

if TYPE_CHECKING:
    from fedrec.embed.taste import Taste
    from fedrec.model.pack_files import Pack

Doubles = NDArray[np.float64]

STRENGTH = 0.03  # chosen on the validation people of simulations/embed/replay.py

_NEWEST = 32  # choices that are fitted
_RIVALS = 2048  # items that they compete with, at most: the most popular ones
_STEPS = 30
_CLOSE = 1e-3  # of the gradient's length, where Newton's method stops
_GONE = -1e9  # the score of an item that is no rival


def embedding(taste: Taste, pack: Pack, *, strength: float = STRENGTH) -> NDArray[np.float32]:
    """(dim,) the embedding e with which the person's newest choices are likeliest, and it is not too long.

    Maximises Σ_t w_t log softmax(⟨Σ_k W_k c_{t,k} + e, v⟩ + b)[i_t] − ‖e‖² / (2·strength) over the newest choices t,
    each foretold from the events before it among popular items that were not chosen before: the loss of training with
    the shared parameters held fixed, where w_t is what the choice weighs in the profile. It is concave, so there is one
    answer, whatever was learnt before. How far a list leans on what others choose is no part of it: that shrinks e with
    the rest of the query, and e fitted to the shrunk scores made no better lists for the validation people. `strength`
    is the variance of a Gaussian prior, and 0 gives zeros. `pack` is the one that `taste` is of.
    """
    require(strength >= 0, "the strength of an embedding is a variance", strength=strength)
    if not strength or not len(taste.choices):
        return np.zeros(pack.info.ranking.dim, np.float32)
    return _Fit.of(taste, pack, strength).best().astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Fit:
    """`items` (rival, dim); `offsets` (choice, rival) scores without embedding; `targets` are rivals' positions."""

    items: Doubles
    offsets: Doubles
    targets: NDArray[np.int64]
    weights: Doubles
    strength: float

    @classmethod
    def of(cls, taste: Taste, pack: Pack, strength: float) -> _Fit:
        chosen, views = taste.choices, taste.before_choices(_NEWEST)
        earlier, fitted = np.split(chosen, [len(chosen) - len(views)])
        rows, maps = _rivals(pack, fitted), pack.parameters["maps"].astype(np.float64)
        items = pack.vectors[rows].astype(np.float64)
        queries = np.einsum("tkd,kde->te" if maps.ndim == 3 else "tkd,kd->td", views, maps)
        offsets = queries @ items.T + pack.prior[rows]
        seen = np.isin(rows, earlier)
        targets = np.searchsorted(rows, fitted)
        for at, target in enumerate(targets):
            offsets[at, seen] = _GONE
            seen[target] = True
        return cls(items, offsets, targets, np.maximum(taste.choice_weights[len(earlier) :], 0.0), strength)

    def best(self) -> Doubles:
        """(dim,) where the loss is least, by Newton's method; a step that overshoots is halved."""
        at = np.zeros(self.items.shape[1])
        loss, gradient, curvature = self.slopes(at)
        step = np.linalg.solve(curvature, gradient)
        for _ in range(_STEPS):
            if np.linalg.norm(gradient) < _CLOSE:
                break
            reached = self.slopes(at - step)
            if reached[0] <= loss:
                at = at - step
                loss, gradient, curvature = reached
                step = np.linalg.solve(curvature, gradient)
            else:
                step = step / 2
        return at

    def slopes(self, at: Doubles) -> tuple[float, Doubles, Doubles]:
        """The loss, its gradient (dim,) and its Hessian (dim, dim)."""
        scores = self.offsets + self.items @ at
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        sums = odds.sum(axis=1, keepdims=True)
        odds /= sums
        missed = np.log(sums[:, 0]) - scores[np.arange(len(scores)), self.targets]
        loss = float(self.weights @ missed + at @ at / (2 * self.strength))
        means = odds @ self.items
        gradient = self.weights @ (means - self.items[self.targets]) + at / self.strength
        second = self.items.T @ (self.items * (self.weights @ odds)[:, None])
        spread = second - means.T @ (means * self.weights[:, None])
        return loss, gradient, spread + np.eye(len(at)) / self.strength


def _rivals(pack: Pack, fitted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted rows of the most popular items, and of those whose choice is fitted."""
    if len(pack.prior) <= _RIVALS:
        return np.arange(len(pack.prior))
    return np.union1d(highest(pack.prior, _RIVALS), fitted)
