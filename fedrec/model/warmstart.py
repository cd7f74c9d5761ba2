"""Warm start: one private round of sums, then a ranking layer in closed form.

Every device sends three things about its choices, each of bounded length (`Shares`): which items were chosen
(popularity), what preceded each chosen item (classes), and how well the decayed views of a history agree with each
other and foretell the next item (summary). Where a plan asks for it, a fourth is how they rated what they wrote
(opinions), from which `WarmStart.beside` makes a sentiment head. From the noised mean `WarmStart.solve` makes shared
parameters:

* popularity is deconvolved: a log-normal prior, fitted to the noised counts themselves, centred on what the item's text
  foretells where that helps (empirical Bayes; Efron 2010, Large-Scale Inference, chapter 1);
* the map of each view is a multiple of the identity: ridge regression towards the public start;
* items move towards what usually precedes them: a linear discriminant whose class means are shrunk towards their
  regression on text, each by its own amount of noise (Hastie, Tibshirani and Friedman 2009, section 4.3).

All of it is post-processing of one release: nothing private is read but the noised mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.errors import WireError, require
from fedrec.model.adapter import TowerInputs
from fedrec.model.ranking import Model
from fedrec.model.sentiment import Survey, public_head
from fedrec.model.warm_estimates import Classes, Floats, Views, popularity, square, unit_square
from fedrec.model.warm_shares import NOTHING, Shares, signal

_SLACK = 1.5  # squared length that is left to the summary; its bound is 4, and most people's is below this
_SHARP = 2.5  # views are far from normal: the discriminant's logits times this over √dim
_PULL = 0.6  # of an item towards what precedes it; above it, rare items drown in common ones
_FAINT = 0.5  # the least strength of queries that items are moved for
_LUCK = 0.1  # how far one person's summary lies from the mean
_UNKNOWN = dict.fromkeys(("agreement", "foresight", "means"), 1e3)  # noise on what was not asked for


@dataclass(frozen=True)
class Block:
    """One part of the statistics: its shape, and the public weight of its entries."""

    shape: tuple[int, ...]
    weight: float

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class WarmStart:
    """What devices compute in a warm start, and what becomes of the noised mean. All of it is public.

    One person's statistics are `size` numbers that depend on nothing shared but the model's public start. `users` is
    how many people the mean is about: it tells how much chance there is in it besides the noise. `length` is how long
    the statistics of most people are, in clip norms.
    """

    model: Model
    shares: Shares = Shares()
    users: int = 1000
    length: float = 1.0

    def __post_init__(self) -> None:
        remedy = "Set model.popularity = true."
        require(self.model.spec.popularity, "a warm start is of popularity first", remedy=remedy, popularity=False)
        require(self.users >= 1, "a mean is about somebody", users=self.users)

    @property
    def axes(self) -> int:
        """How many axes of a view the classes keep."""
        return min(self.shares.axes, self.model.spec.dim)

    @cached_property
    def scale(self) -> float:
        """Root mean square length of the items' vectors at the public start."""
        return max(float(np.sqrt((self._start**2).sum(axis=1).mean())), 1e-6)

    @cached_property
    def vectors(self) -> Floats:
        """(item, dim) vectors at the public start, of root mean square length 1."""
        return self._start / self.scale

    @cached_property
    def stretch(self) -> Floats:
        """(axis,) what makes the first axes of the catalogue equally wide: the noise on them is."""
        widths: Floats = np.sqrt((self.vectors[:, : self.axes] ** 2).mean(axis=0))
        return 1 / np.maximum(widths, 1e-3)

    @cached_property
    def blocks(self) -> Mapping[str, Block]:
        """The parts of the statistics, in order; those without a share are left out."""
        items, axes, shares = len(self.model), self.axes, self.shares
        angles = axes * (axes + 1) // 2
        blocks = {
            "popularity": Block((items,), shares.popularity),
            **{name: Block(shape, shares.summary / math.sqrt(max(shape[0], 1))) for name, shape in self._views.items()},
            "spread": Block((angles,), shares.summary),
            "classes": Block((items, axes), shares.classes),
            "opinions": Block((self.survey.size,), shares.opinions),
        }
        if not (self.model.spec.residuals and shares.classes):  # nowhere to put them
            del blocks["spread"], blocks["classes"]
        return {name: block for name, block in blocks.items() if block.weight}

    @cached_property
    def size(self) -> int:
        """Length of the statistics."""
        return sum(block.size for block in self.blocks.values())

    @property
    def clip(self) -> float:
        """Length that a person's statistics are clipped to; those that are longer are so by a few per cent."""
        classes = self.shares.classes**2 if "classes" in self.blocks else 0.0
        choices = self.shares.popularity**2 + classes + _SLACK * self.shares.summary**2
        return math.sqrt(choices + self.shares.opinions**2)

    @cached_property
    def survey(self) -> Survey:
        """What is asked about rated texts."""
        return Survey(self.model.adapter.encoder.dim)

    def frozen(self, texts: TowerInputs) -> NDArray[np.float32]:
        """(text, width) vectors of the frozen encoder, whatever the adapter may learn later."""
        with torch.no_grad():
            parameters = self.model.layout.views(torch.from_numpy(self.model.initial))
            return np.asarray(self.model.pooled(parameters, texts).numpy())

    def pack(self, parts: Mapping[str, Floats]) -> Floats:
        """(size,) statistics of unweighted parts, which have the shapes of `blocks`."""
        return np.concatenate([block.weight * parts[name].ravel() for name, block in self.blocks.items()])

    def solve(self, mean: Floats, noise: float) -> NDArray[np.float32]:
        """The shared vector after a release: `mean` (size,) with noise of standard deviation `noise` on each number.

        Deterministic. Whatever the noise, the result is finite; the more of it, the closer to the public start. Where
        the noise is longer than all that can be learnt, it is the public start.
        """
        if self._drowned(noise):
            return self.model.initial.copy()
        sd = _UNKNOWN | {name: noise / block.weight for name, block in self.blocks.items()}
        parts = self._parts(mean, noise)
        mass = self._mass(parts, noise)
        centre = mass @ self.vectors / mass.sum()
        luck = _LUCK / math.sqrt(self.users)
        views = Views(
            unit_square(parts["agreement"], len(parts["foresight"])),
            parts["foresight"],
            parts["means"],
            (math.hypot(sd["agreement"], luck), math.hypot(sd["foresight"], luck), sd["means"]),
        )
        sharp = _SHARP * math.sqrt(self.vectors.shape[1])
        strengths = sharp * views.scales(centre, self.scale / (len(parts["foresight"]) * sharp))
        moved = np.zeros_like(self.vectors)
        if "classes" in parts:
            moved[:, : self.axes] = _PULL * self._moves(parts, sd, mass, views) / max(strengths.sum(), _FAINT)
        wanted = strengths @ views.centres(centre)
        prior = np.log(mass / mass.sum()) - (self.vectors + moved) @ wanted
        return self._shared(strengths, moved, prior)

    def beside(self, mean: Floats, noise: float) -> dict[str, NDArray[np.float32]]:
        """What the same release says beside the model; nothing where the noise is longer than all that can be learnt.

        "popularity" (item,), all positive, of sum 1, is the share of each item in what people choose, each person with
        the same length of vote. "sentiment" (width + 1,), where opinions have a share, is what `sentiment.read` takes.
        """
        if self._drowned(noise):
            return {}
        parts = self._parts(mean, noise)
        mass = self._mass(parts, noise)
        said = {"popularity": (mass / mass.sum()).astype(np.float32)}
        if "opinions" in parts:
            public = public_head(lambda texts: self.frozen(self.model.adapter.prepare(texts, public=True)))
            said["sentiment"] = self.survey.solve(parts["opinions"], noise / self.shares.opinions, public)
        return said

    def _drowned(self, noise: float) -> bool:
        """Whether the noise is longer than all that can be learnt."""
        multiplier = noise * self.users / (self.clip * self.length)
        return bool(noise) and signal(self.users, len(self.model), multiplier) < NOTHING

    def _mass(self, parts: Mapping[str, Floats], noise: float) -> Floats:
        """(item,) how popular items are, all positive."""
        sd = noise / self.blocks["popularity"].weight
        return popularity(parts["popularity"], sd, self.vectors, self.users / self.length**2)

    def _moves(self, parts: Mapping[str, Floats], sd: Mapping[str, float], mass: Floats, views: Views) -> Floats:
        """(item, axis) how far items move, for queries of strength 1."""
        # Directions have length 1, mixtures of views are shorter: by this much, if the axes are as wide as they look.
        mixed = math.sqrt(self.axes * max(float(views.agreement.mean()), 0.01))
        centre = views.centres(mass @ self.vectors / mass.sum())[:, : self.axes].mean(axis=0) * self.stretch / mixed
        spread = square(parts["spread"], self.axes)
        classes = Classes(parts["classes"], mass, centre, spread, sd["classes"], sd["spread"])
        text = self.vectors[:, : self.axes] * math.sqrt(self.vectors.shape[1])
        return classes.deviations(text, self.users) * self.stretch / mixed

    def _shared(self, strengths: Floats, moved: Floats, prior: Floats) -> NDArray[np.float32]:
        """(size of the model,) shared vector; adapter and projection stay at the public start."""
        model = self.model
        tensors = dict(model.layout.views(torch.from_numpy(model.initial.copy())))
        one = torch.ones(model.spec.dim) if model.spec.maps == "diagonal" else torch.eye(model.spec.dim)
        tensors["maps"] = torch.stack([strength / self.scale * one for strength in strengths])
        tensors["popularity"] = torch.from_numpy(prior)
        if model.spec.residuals:
            tensors["residuals"] = torch.from_numpy(self.scale * moved)
        return model.layout.flatten(tensors)

    def _parts(self, mean: Floats, noise: float) -> dict[str, Floats]:
        """The unweighted parts of a mean. None of clipped vectors lies far out: a garbled one must not overflow."""
        far = self.clip + 10 * noise
        mean = np.clip(np.nan_to_num(mean), -far, far)
        if mean.shape != (self.size,):
            raise WireError("the mean does not fit the warm start", expected=self.size, shape=mean.shape)
        cuts = np.cumsum([block.size for block in self.blocks.values()])[:-1]
        pieces = np.split(np.asarray(mean, np.float64), cuts)
        return {name: np.zeros(shape) for name, shape in self._views.items()} | {
            name: piece.reshape(block.shape) / block.weight
            for (name, block), piece in zip(self.blocks.items(), pieces, strict=True)
        }

    @property
    def _views(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what the summary says about the decayed views."""
        decays = len(self.model.spec.decays)
        return {"agreement": (decays * (decays - 1) // 2,), "foresight": (decays,), "means": (decays, self.axes)}

    @cached_property
    def _start(self) -> Floats:
        with torch.no_grad():
            parameters = self.model.layout.views(torch.from_numpy(self.model.initial))
            return self.model.item_vectors(parameters).numpy().astype(np.float64)
