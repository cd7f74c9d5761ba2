"""What is planted in the embedded data set, and the law by which its readers choose.

A reader chooses the next item i at time t with probability proportional to

    popularity_i · favour_i · (CURIOSITY + Σ_s share_is · ((1 − STAY) · taste_s(t) + STAY · [s is on the mind]))

where the strand s (sub-topic) on the mind is that of the last search or, without one since, of the last
choice; `favour` rises for followed authors and for the last author; only released, unread items count.
This is a softmax over log-utilities plus Gumbel noise, drawn by inverting its distribution function.
What the law reads is rounded first, so that the last bit of a machine does not decide a choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedrec.datasets import synthetic_text as words
from fedrec.device.event import Kind
from fedrec.device.history import History
from fedrec.errors import require
from fedrec.randomness import stream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOPIC = np.array([strand.topic for strand in words.STRANDS])  # of each strand
TOPICS, STRANDS = len(words.TOPICS), len(words.STRANDS)

DAY = 86_400
END = 1_735_689_600  # 2025-01-01 00:00 UTC
START = END - 364 * DAY
PERIODS = 13  # of 28 days; a taste is constant within one

COLD_ITEMS, COLD_WINDOW = 0.05, 10 * DAY  # released in the last days
COLD_USERS = 0.05  # with one or two choices
ZIPF = 0.65  # popularity falls as rank^−ZIPF
RELATED = 0.7  # P[one more interest is related to an earlier one]
WALK = 12.0  # shape of the gamma factors of the monthly random walk: relative step 1/√WALK
JUMP = 0.12  # P[a month moves most of one interest to a related topic]
CURIOSITY = 0.003  # taste for everything; an even taste would be 1/64 everywhere
STAY = 0.3  # share of attention on the strand on the mind
FOLLOWED, SAME = 4.0, 2.0  # how many times likelier: a followed author, the last author again

BLOCK = 256  # people drawn together: memory is BLOCK × items; part of what a seed means


@dataclass(frozen=True, eq=False)
class Shelf:
    """What is true of the items; rows are catalogue rows."""

    strands: Ints  # (item, 2) main strand, and a second one or the same again
    shares: Floats  # (item, 2) how much of the item each one is; rows sum to 1
    authors: Ints  # (item,)
    quality: Floats  # (item,) in [0, 1]
    popularity: Floats  # (item,) positive; the largest is 1
    released: Ints  # (item,) Unix seconds
    cold: NDArray[np.bool_]  # (item,) released in the last `COLD_WINDOW`

    @property
    def topics(self) -> Floats:
        """(item, topic) mixture; rows sum to 1."""
        mixture = np.zeros((len(self.authors), TOPICS))
        np.add.at(mixture, (np.arange(len(mixture))[:, None], TOPIC[self.strands]), self.shares)
        return mixture


class People(NamedTuple):
    """What is true of the people; rows are population positions."""

    tastes: NDArray[np.float32]  # (user, period, topic) the drift path; rows sum to 1
    leanings: NDArray[np.float32]  # (user, strand) preference within each topic; each topic sums to 1
    follows: Ints  # (user, 3) authors
    choices: Ints  # (user,) how many items a person chooses
    cold: NDArray[np.bool_]  # (user,) one or two choices and no other event

    def taste(self, rows: Ints, times: Ints) -> Floats:
        """(row, strand) taste of each of `rows` at its time; sums to 1."""
        period = np.clip((times - START) * PERIODS // (END - START), 0, PERIODS - 1)
        return np.asarray(self.tastes[rows, period][:, TOPIC] * self.leanings[rows], np.float64)


@dataclass(frozen=True, eq=False)
class Truth:
    """The planted structure behind `generate` with the same arguments.

    `relatedness` is (topic, topic): P[an interest in the column grows out of one in the row].
    """

    shelf: Shelf
    people: People
    relatedness: Floats

    def odds(self, client: int, past: History, time: int) -> Floats:
        """(item,) true probabilities of the person's next choice at `time` after `past`.

        Zero for items already chosen or not yet released.
        """
        chosen = past.items[past.choices()].astype(np.int64)
        taste = self.people.taste(np.array([client]), np.array([time]))
        favour = favoured(self.people.follows[[client]], self.shelf)
        if len(chosen):
            favour[0, self.shelf.authors[chosen[-1]]] *= SAME
        odds = appeal(self.shelf, minded(taste, np.array([_on_mind(past, self.shelf)])), favour)[0]
        odds[chosen] = 0.0
        odds[self.shelf.released > time] = 0.0
        law: NDArray[np.float64] = odds / odds.sum()
        return law


def truth(*, users: int = 1000, items: int = 800, seed: int = 0) -> Truth:
    """What `generate` planted for the same arguments."""
    check(users, items)
    shelf = plant_shelf(items, seed)
    columns = zip(*(people for _, people in blocks(users, seed, shelf)), strict=True)
    return Truth(shelf, People(*map(np.concatenate, columns)), relatedness())


def relatedness() -> Floats:
    """(topic, topic) P[an interest in the column grows out of one in the row]: a ring, see `TOPICS`."""
    ring = np.eye(TOPICS, k=1) + np.eye(TOPICS, k=-1)
    ring[0, -1] = ring[-1, 0] = 1.0
    return RELATED * ring / 2 + (1 - RELATED) / TOPICS


def appeal(shelf: Shelf, attention: Floats, favour: Floats) -> Floats:
    """(row, item) the choice law before release dates and items already chosen; not normalised.

    `attention` is (row, strand) from `minded`; `favour` is (row, author).
    """
    (main, other), (most, rest) = shelf.strands.T, shelf.shares.T
    # In place: the arrays are large, and most of the time of a large population is spent here.
    law, second = attention.take(main, axis=1), attention.take(other, axis=1)
    law *= most
    second *= rest
    law += second
    law += CURIOSITY
    law *= shelf.popularity
    law *= favour.take(shelf.authors, axis=1)
    return np.asarray(law)


def minded(taste: Floats, mind: Ints) -> Floats:
    """(row, strand) attention: `taste` drawn towards the strand on the mind, −1 for none."""
    attention = taste * np.where(mind < 0, 1.0, 1.0 - STAY)[:, None]
    attention[np.arange(len(mind)), mind] += np.where(mind < 0, 0.0, STAY)
    return attention


def favoured(follows: Ints, shelf: Shelf) -> Floats:
    """(row, author) how many times likelier each author is for people who follow `follows`."""
    table = np.ones((len(follows), int(shelf.authors.max()) + 1))
    table[np.arange(len(follows))[:, None], follows] = FOLLOWED
    return table


def draw(odds: Floats, rng: Generator) -> Ints:
    """One column for each row, with probability proportional to `odds`."""
    below = np.cumsum(odds, axis=1)
    return np.asarray((below <= rng.random((len(odds), 1)) * below[:, -1:]).sum(axis=1))


def _on_mind(past: History, shelf: Shelf) -> int:
    for kind, item, text in zip(past.kinds[::-1], past.items[::-1], reversed(past.texts), strict=True):
        if kind == Kind.SEARCH:
            return words.strand_of(text)
        if Kind(kind).chooses:
            return int(shelf.strands[item, 0])
    return -1


def check(users: int, items: int) -> None:
    """Refuse sizes that the library cannot have."""
    require(users >= 1, "a population has at least one person", remedy="Ask for users=1 or more.", users=users)
    remedy = f"Ask for items={STRANDS} or more."
    require(items >= STRANDS, f"the library has {STRANDS} sub-topics and an item in each", remedy=remedy, items=items)


def plant_shelf(items: int, seed: int) -> Shelf:
    """The library, without its words."""
    rng = stream(seed, "shelf")
    main = rng.permutation(items) % STRANDS
    other = np.where(rng.random(items) < 0.3, rng.integers(STRANDS, size=items), main)
    quality = rng.random(items)
    rank = np.empty(items)
    rank[np.argsort(-(quality + rng.normal(0.0, 0.3, items)))] = np.arange(1, items + 1)
    cold = rng.permutation(items) < round(COLD_ITEMS * items)
    # Most of the library is older than the year; the rest arrives evenly until the cold items do.
    released = rng.integers(START, END - COLD_WINDOW, items) - (rng.random(items) < 0.7) * 400 * DAY
    released[cold] = rng.integers(END - COLD_WINDOW, END - DAY, items)[cold]
    return Shelf(
        strands=np.stack([main, other], axis=1),
        shares=np.tile([0.7, 0.3], (items, 1)),
        authors=_authors(TOPIC[main], rng),
        quality=quality,
        popularity=np.round(rank**-ZIPF, 9),
        released=released,
        cold=cold,
    )


def _authors(topic: Ints, rng: Generator) -> Ints:
    """An author for each item: nine in ten by one whose home is the topic; some authors write far more."""
    each = min(max(2, len(topic) // 128), words.MOST_AUTHORS // TOPICS)
    home = np.where(rng.random(len(topic)) < 0.9, topic, rng.integers(TOPICS, size=len(topic)))
    return home + TOPICS * (each * rng.random(len(topic)) ** 2).astype(np.int64)


def blocks(users: int, seed: int, shelf: Shelf) -> Iterator[tuple[int, People]]:
    """The people, `BLOCK` at a time, with the position of the first."""
    for block, first in enumerate(range(0, users, BLOCK)):
        yield first, _people(min(BLOCK, users - first), shelf, stream(seed, "people", block))


def _people(size: int, shelf: Shelf, rng: Generator) -> People:
    tastes = _drift(_interests(size, rng), rng)
    leanings = rng.gamma(0.4, size=(size, TOPICS, STRANDS // TOPICS)) + 0.01
    leanings = np.round(leanings / leanings.sum(axis=2, keepdims=True), 5).reshape(size, STRANDS)
    choices = np.clip(rng.lognormal(np.log(26), 0.8, size), 3, len(shelf.authors) // 4).astype(np.int64)
    cold = rng.random(size) < COLD_USERS
    choices[cold] = rng.integers(1, 3, size)[cold]
    # People follow authors of items that they would like: draw items by the first period's taste.
    liked = appeal(shelf, tastes[:, 0][:, TOPIC] * leanings, favoured(np.zeros((size, 0), np.int64), shelf))
    follows = np.stack([shelf.authors[draw(liked, rng)] for _ in range(3)], axis=1)
    return People(tastes.astype(np.float32), leanings.astype(np.float32), follows, choices, cold)


def _interests(size: int, rng: Generator) -> Floats:
    """(user, topic) two to four interests each, most of them related to an earlier one."""
    person = np.arange(size)
    grown = np.cumsum(relatedness(), axis=1)
    interests = rng.integers(TOPICS, size=(size, 1))
    for n in range(1, 4):
        parent = interests[person, rng.integers(n, size=size)]
        child = (grown[parent] <= rng.random((size, 1))).sum(axis=1).clip(max=TOPICS - 1)
        interests = np.column_stack([interests, child])
    weights = rng.gamma(2.0, size=(size, 4)) * (np.arange(4) < rng.integers(2, 5, size=(size, 1)))
    tastes = np.full((size, TOPICS), 1e-3)
    np.add.at(tastes, (person[:, None], interests), weights)
    return np.asarray(tastes / tastes.sum(axis=1, keepdims=True))


def _drift(tastes: Floats, rng: Generator) -> Floats:
    """(user, period, topic) a multiplicative random walk with jumps to a related topic."""
    person, path = np.arange(len(tastes)), [tastes]
    for _ in range(1, PERIODS):
        tastes = tastes * (rng.gamma(WALK, size=tastes.shape) / WALK) + 1e-4
        source = draw(tastes, rng)
        target = (source + rng.choice([-1, 1], len(tastes))) % TOPICS
        moved = 0.8 * tastes[person, source] * (rng.random(len(tastes)) < JUMP)
        tastes[person, source] -= moved
        tastes[person, target] += moved
        tastes = tastes / tastes.sum(axis=1, keepdims=True)
        path.append(tastes)
    return np.asarray(np.round(np.stack(path, axis=1), 5))
