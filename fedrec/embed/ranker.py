"""What is known of a person → a list: the best first, or varied, in proportion, or with something new among it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import require

if TYPE_CHECKING:
    from numpy.random import Generator

    from fedrec.embed.taste import Taste
    from fedrec.model.pack_files import Pack

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Source = Literal["taste", "popular", "explore"]

# Events: after so many, what a person does counts as much as what others choose. Chosen on the validation people of
# simulations/embed/replay.py, by their first lists after 1, 3 and 5 events, with packs with and without noise.
DOUBT = 8.0

_POOL = 10  # candidates for each place, from which a list that is more than the best items is composed
_LEAST = 100  # of them, however short the list
_SMOOTHING = 0.01  # of a person's mix goes into that of a list, so that a missing tag costs much and not ∞


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What kind of list is asked for. `allowed` (item,) leaves out whatever it says False to; None leaves out nothing.

    `diversity`, `calibration` and `explore` lie in [0, 1]; 0 is none of it. At diversity 1, being the twin of a listed
    item costs as much as lies between the best and the last candidate. At calibration 1, being off the person's mix of
    tags by one nat costs so much for each place of the list. `explore` is the chance of each place to be given away.
    """

    k: int = 10
    hide_seen: bool = True
    allowed: Bools | None = None
    diversity: float = 0.0
    calibration: float = 0.0
    explore: float = 0.0

    def __post_init__(self) -> None:
        require(self.k >= 1, "a list has at least one place", k=self.k)
        for name in ("diversity", "calibration", "explore"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"{name} lies between 0 and 1", **{name: share})


@dataclass(frozen=True, eq=False)
class Standing:
    """All that ranks items for one person now; it never leaves the device.

    `embedding` (dim,) is learnt from their choices (`fedrec.embed.local`). `bonus` (item,) and `blocked` (item,) are
    what their preferences add and forbid; `labels` names each preference with what it adds, together `bonus`.
    """

    taste: Taste
    embedding: Floats
    bonus: Floats
    blocked: Bools
    labels: tuple[tuple[str, Floats], ...] = ()

    @classmethod
    def bare(cls, taste: Taste) -> Standing:
        """What the events alone say."""
        items, dim = taste.pack.vectors.shape
        return cls(taste, np.zeros(dim, np.float32), np.zeros(items, np.float32), np.zeros(items, bool))

    def __repr__(self) -> str:
        return "Standing(contents withheld)"

    @property
    def unknown(self) -> bool:
        """Whether nothing is known that would tell one person from another."""
        return self.taste.empty and not self.embedding.any() and not self.bonus.any()


@dataclass(frozen=True)
class Place:
    """One place of a list: an item's row, its score and where it comes from.

    `score` = the item's own score + `apart` (≤ 0, for being like what is listed before it) + `mix` (≤ 0, for leading
    the list's tags farther from the person's than another item would). Items are listed in the order in which they
    were chosen: without calibration or exploration scores descend.
    """

    row: int
    score: float
    source: Source
    apart: float = 0.0
    mix: float = 0.0


@dataclass(frozen=True, eq=False)
class Ranker:
    """Ranks the items of one pack for one person.

    score(u, i) = (1 − λ) (⟨Σ_k W_k c_k + e, v_i⟩ + b_i) + λ log(p_i · items) + the preferences' bonus, where p_i is the
    item's share in what people choose, and λ = `doubt` / (`doubt` + the events that say something) falls from 1, for
    strangers, to 0. With fewer events the query is less sure: (1 − λ) draws it towards that of everybody together, of
    which log p is the score. In a pack without popularity λ is 0. Ties go to the lower row. It remembers nothing.
    """

    pack: Pack
    doubt: float = DOUBT

    def query(self, standing: Standing) -> Doubles:
        """(dim,) Σ_k W_k c_k + e: what the person looks for."""
        views, maps = standing.taste.views, self.pack.parameters["maps"].astype(np.float64)
        wanted = np.einsum("kd,kde->e", views, maps) if maps.ndim == 3 else np.einsum("kd,kd->d", views, maps)
        query: Doubles = wanted + standing.embedding
        return query

    def others(self, standing: Standing) -> float:
        """λ, how far items are ranked by what others choose, in [0, 1]."""
        if self.usual is None:
            return 0.0
        return 1.0 if standing.unknown else self.doubt / (self.doubt + standing.taste.evidence)

    @cached_property
    def usual(self) -> Floats | None:
        """(item,) log of how many times as often as another item each is chosen; None where a pack does not know."""
        shares = self.pack.popularity
        return None if shares is None else np.log(shares.astype(np.float64) * len(shares)).astype(np.float32)

    def scores(self, standing: Standing) -> Floats:
        """(item,) scores of all items, whatever is blocked or seen."""
        own = self.pack.vectors @ self.query(standing).astype(np.float32) + self.pack.prior
        scores: Floats = self._beside_others(standing, own, slice(None)) + standing.bonus
        return scores

    def exact(self, standing: Standing, rows: Rows) -> Doubles:
        """(row,) the scores of some items in double precision."""
        own = self.pack.vectors[rows].astype(np.float64) @ self.query(standing) + self.pack.prior[rows]
        exact: Doubles = self._beside_others(standing, own, rows) + standing.bonus[rows]
        return exact

    def _beside_others(self, standing: Standing, own: NDArray[Any], rows: Rows | slice) -> NDArray[Any]:
        """The model's `own` scores of some items, or, as far as the person is unknown, what others choose."""
        if self.usual is None:
            return own
        share = self.others(standing)
        return (1 - share) * own + share * self.usual[rows]

    def rank(self, standing: Standing, wanted: Wanted, rng: Generator | None = None) -> tuple[Place, ...]:
        """The list for `wanted`; shorter if fewer items may be shown. Only exploring draws from `rng`.

        Without one the operating system's randomness seeds it: nobody can foretell what is tried on a person.
        """
        scores = np.where(self._open(standing, wanted), self.scores(standing), -np.inf)
        best = highest(scores, max(_LEAST, _POOL * wanted.k) if wanted.diversity or wanted.calibration else wanted.k)
        exact = self.exact(standing, best)
        order = np.lexsort((best, -exact))
        places = self._composed(standing, wanted, best[order], exact[order])
        if not wanted.explore:
            return places
        scores[[place.row for place in places]] = -np.inf
        return self._explored(standing, scores, places, wanted.explore, rng or np.random.default_rng())

    def _open(self, standing: Standing, wanted: Wanted) -> Bools:
        may = ~standing.blocked
        if wanted.hide_seen:
            may &= ~standing.taste.seen
        return may if wanted.allowed is None else may & wanted.allowed

    def _composed(self, standing: Standing, wanted: Wanted, rows: Rows, own: Doubles) -> tuple[Place, ...]:
        """Greedily, from the candidates `rows` with their `own` scores: next comes what is best beside the list so far.

        Sources: Carbonell & Goldstein 1998, §2 (diversity); Steck 2018, §§3–4 (calibration).
        """
        source: Source = "popular" if standing.unknown else "taste"
        if not (wanted.diversity or wanted.calibration) or not len(rows):
            return tuple(Place(int(row), float(score), source) for row, score in zip(rows, own, strict=True))
        scale = float(own[0] - own[-1])
        near = _Nearness.of(self.pack.vectors[rows])
        mix = _Mix.of(self.pack.catalogue.tags, standing.taste.choices, rows)
        left, places = np.ones(len(rows), bool), list[Place]()
        while left.any() and len(places) < wanted.k:
            apart = -wanted.diversity * scale * near.to_listed
            mixed = -wanted.calibration * scale * wanted.k * mix.regrets(left)
            at = int(np.argmax(np.where(left, own + apart + mixed, -np.inf)))
            score = float(own[at] + apart[at] + mixed[at])
            places.append(Place(int(rows[at]), score, source, float(apart[at]), float(mixed[at])))
            left[at] = False
            near.enlist(at)
            mix.enlist(at)
        return tuple(places)

    def _explored(
        self, standing: Standing, rest: Floats, places: tuple[Place, ...], share: float, rng: Generator
    ) -> tuple[Place, ...]:
        """Give each place away with chance `share`, to one of the `rest` (item,): the likelier, the higher its score.

        An item is drawn with the probability that the model's softmax gives it among them (Gumbel 1954: the largest of
        scores plus Gumbel noise). −∞ stands for what may not be shown, or is listed already.
        """
        given = np.flatnonzero(rng.random(len(places)) < share)
        drawn = highest(rest + rng.gumbel(size=len(rest)), len(given))
        scored = zip(drawn.tolist(), self.exact(standing, drawn).tolist(), strict=True)
        fresh = [Place(row, score, "explore") for row, score in scored]
        replaced = dict(zip(given.tolist(), fresh, strict=False))
        return tuple(replaced.get(at, place) for at, place in enumerate(places))


@dataclass(eq=False)
class _Nearness:
    """How alike candidates are; `to_listed` (candidate,) is the cosine to the nearest item listed so far, or 0."""

    directions: Doubles
    to_listed: Doubles

    @classmethod
    def of(cls, vectors: Floats) -> _Nearness:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return cls((vectors / np.maximum(lengths, 1e-12)).astype(np.float64), np.zeros(len(vectors)))

    def enlist(self, at: int) -> None:
        self.to_listed = np.maximum(self.to_listed, self.directions @ self.directions[at])


@dataclass(eq=False)
class _Mix:
    """Whose tags: `person` (tag,) sums to 1, or to 0 where they chose nothing with a tag; `items` (candidate, tag)."""

    person: Doubles
    items: Doubles
    listed: Doubles
    count: int = 0

    @classmethod
    def of(cls, tags: Sequence[Sequence[str]], choices: Rows, rows: Rows) -> _Mix:
        names = {tag: n for n, tag in enumerate(sorted({tag for row in choices for tag in tags[row]}))}
        person, items = _shares(tags, choices, names).sum(axis=0), _shares(tags, rows, names)
        return cls(person / person.sum(), items, np.zeros(len(names)))

    def regrets(self, left: Bools) -> Doubles:
        """(candidate,) nats by which the list with it is farther from the person's mix than with the best of `left`."""
        lists = (self.listed + self.items) / (self.count + 1)
        softened = (1 - _SMOOTHING) * lists + _SMOOTHING * self.person
        nats: Doubles = (self.person * np.log(self.person / softened)).sum(axis=1)
        regrets: Doubles = nats - nats[left].min()
        return regrets

    def enlist(self, at: int) -> None:
        self.listed, self.count = self.listed + self.items[at], self.count + 1


def _shares(tags: Sequence[Sequence[str]], rows: Rows, names: Mapping[str, int]) -> Doubles:
    """(row, tag) an item's tags share it equally; those that are not among `names` are not shown."""
    shares = np.zeros((len(rows), len(names)))
    for place, row in enumerate(rows):
        for tag in tags[row]:
            if tag in names:
                shares[place, names[tag]] += 1 / len(tags[row])
    return shares


def highest(scores: NDArray[np.floating[Any]], count: int) -> Rows:
    """Rows of the `count` highest scores in no order, at ties the lower rows; never one whose score is −∞."""
    count = min(count, int(np.isfinite(scores).sum()))
    if not count:
        return np.zeros(0, np.int64)
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > last)
    return np.concatenate([above, np.flatnonzero(scores == last)[: count - len(above)]])
