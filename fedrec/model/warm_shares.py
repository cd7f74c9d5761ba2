"""How a person's clip is divided in a warm start, and what to ask for, from public numbers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

from fedrec.errors import require
from fedrec.model.sentiment import Survey

SUMMARY = 0.3  # share of the summary, at any noise: a few numbers that everything hangs on
NOTHING = 1.0  # the signal below which a warm start gives the public start back: it would repeat the noise
TASTE = 5.0  # the signal below which only popularity is learnt
HALF = 15.0  # the signal at which classes get half of what popularity gets
AXES = (8, 24)
PER_AXIS = 4.0  # signal that one more axis asks for
DECAYS = (0.0, 0.5, 0.9, 1.0)
DIM = 64


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How one person's clip is divided among popularity, classes, summary and opinions; squares add up to 1.

    `axes` is how many axes of a view the classes keep: the first ones, along which the catalogue's texts differ most.
    """

    popularity: float = 0.675
    classes: float = 0.675
    summary: float = 0.3
    opinions: float = 0.0
    axes: int = 8

    def __post_init__(self) -> None:
        squares = self.popularity**2 + self.classes**2 + self.summary**2 + self.opinions**2
        require(abs(squares - 1) < 0.01, "the squares of the shares add up to 1", squares=squares)
        least = min(self.classes, self.summary, self.opinions)
        require(self.popularity > 0 and least >= 0, "popularity has a share, and no share is negative", least=least)
        require(self.axes >= 1, "class sums have at least one axis", axes=self.axes)

    def making_room(self, opinions: float) -> Shares:
        """The same shares of what is left when opinions get this part of the squared length."""
        rest = sqrt(1 - opinions)
        return replace(
            self, popularity=rest * self.popularity, classes=rest * self.classes, summary=rest * self.summary,
            opinions=sqrt(opinions),
        )  # fmt: skip


# A single event has nothing before it: all that it can tell of is popularity.
ALONE = Shares(popularity=1.0, summary=0.0, classes=0.0)


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """Settings of a warm start. `signal` is what they follow from; below about `TASTE` only popularity is learnt."""

    signal: float
    shares: Shares
    dim: int = DIM
    decays: tuple[float, ...] = DECAYS

    @property
    def axes(self) -> int:
        """The largest learnable dimension: how many axes per item the noise leaves room for."""
        return self.shares.axes


def signal(users: int, items: int, noise_multiplier: float) -> float:
    """The length of the popularity vector that everybody agrees on, over the length of the noise on it.

    A release of `items` numbers from `users`, each clipped to 1, with noise of `noise_multiplier` on their sum.
    """
    require(users > 0 and items > 0, "there are people and items", users=users, items=items)
    require(noise_multiplier >= 0, "a noise multiplier is not negative", noise_multiplier=noise_multiplier)
    return users / (max(noise_multiplier, 1e-3) * sqrt(items))


def recommended(users: int, items: int, noise_multiplier: float) -> Recommended:
    """Settings for one release of full participation, chosen on validation items of three data sets.

    What co-occurs with an item takes more signal to learn than how popular it is: the more noise, the smaller its share
    and the fewer its axes.
    """
    strength = signal(users, items, noise_multiplier)
    ratio = strength**2 / (strength**2 + HALF**2)
    rest = (1 - SUMMARY**2) / (1 + ratio)
    axes = round(min(max(strength / PER_AXIS, AXES[0]), AXES[1]))
    shares = Shares(popularity=sqrt(rest), classes=sqrt(ratio * rest), summary=SUMMARY, axes=axes)
    return Recommended(signal=strength, shares=shares)


def statistics_size(items: int, decays: int, axes: int, *, residuals: bool = True, width: int = 0) -> int:
    """How many numbers a person's statistics are; `axes` is at most the model's width.

    `width` is that of a text's vector where opinions have a share.
    """
    summary = decays * (decays - 1) // 2 + decays + decays * axes
    opinions = Survey(width).size if width else 0
    return items + summary + residuals * (items * axes + axes * (axes + 1) // 2) + opinions
