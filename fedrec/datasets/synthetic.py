"""The embedded default: a made-up library and a year of its readers, grown from a seed.

`truth` gives what was planted, so that a test can ask whether it was recovered. `synthetic_truth` states
the law of choice, `synthetic_text` holds the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from numpy.typing import NDArray

from fedrec.datasets import synthetic_text as words
from fedrec.datasets.dataset import Dataset, Stream
from fedrec.datasets.synthetic_truth import (
    DAY,
    END,
    SAME,
    START,
    TOPIC,
    Floats,
    Ints,
    People,
    Shelf,
    Truth,
    appeal,
    blocks,
    check,
    draw,
    favoured,
    minded,
    plant_shelf,
    truth,
)
from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.history import SCHEMA
from fedrec.errors import require
from fedrec.model.catalogue import Catalogue
from fedrec.population.source import Population
from fedrec.randomness import stream

__all__ = ["Truth", "generate", "truth"]

TAGGED = 0.85  # P[an item's text ends with its topics]
SEARCHES = 0.2  # P[a choice starts with a search]
RATES, REVIEWS = 0.35, 0.15  # P[a choice is rated], P[it is reviewed]; never both
LIKES = 0.25  # P[a choice worth three or four stars is liked]
SHOWN, DISLIKED = 0.3, 0.02  # P[a popular item is shown beside a choice]; it is skipped when its fit is below
GAP = 900  # seconds between two choices at least: what follows a choice comes before the next search


def generate(*, users: int = 1000, items: int = 800, seed: int = 0, phrases: int = 0) -> Dataset:
    """A library of `items` and a year of its `users`, the same on every machine.

    Memory grows with the events and with the items, not with users × items. Whoever is drawn in a full
    block of people (the first 256, say) stays the same when `users` grows. Searches and reviews have at most
    `phrases` wordings for each sub-topic, or sub-topic and mood; 0 for all that the grammar has.
    """
    made = stream_of(users=users, items=items, seed=seed, phrases=phrases)
    return Dataset(made.name, made.catalogue, Population.joined(list(made.people)), made.notes)


def stream_of(*, users: int = 1000, items: int = 800, seed: int = 0, phrases: int = 0) -> Stream:
    """What `generate` makes, a block of people at a time: memory does not grow with `users`."""
    check(users, items)
    require(phrases >= 0, "the number of wordings is 0 (all) or more", remedy="Try phrases=8.", phrases=phrases)
    shelf = plant_shelf(items, seed)
    spoken = _dice(phrases, stream(seed, "phrases"))
    return Stream("synthetic", _catalogue(shelf, stream(seed, "texts")), _people(users, seed, shelf, spoken))


def _people(users: int, seed: int, shelf: Shelf, spoken: Ints) -> Iterator[Population]:
    for block, (first, people) in enumerate(blocks(users, seed, shelf)):
        choices = _choose(shelf, people, stream(seed, "choices", block))
        owners, tables = zip(*_events(shelf, people, choices, spoken, stream(seed, "events", block)), strict=True)
        names = [f"reader-{first + number:06d}" for number in range(len(people.choices))]
        yield Population.from_columns(np.concatenate(owners), pa.concat_tables(tables), names)


def _catalogue(shelf: Shelf, rng: Generator) -> Catalogue:
    dice, tagged = _dice(len(shelf.authors), rng).tolist(), rng.random(len(shelf.authors)) < TAGGED
    texts, tags, printed = [], [], dict[str, int]()
    for row, ((main, other), author) in enumerate(zip(shelf.strands.tolist(), shelf.authors.tolist(), strict=True)):
        title, name = words.title(main, dice[row]), words.author_name(author)
        printed[title] = printed.get(title, 0) + 1
        volume = f", Volume {printed[title]}" if printed[title] > 1 else ""
        topics = tuple(dict.fromkeys(words.TOPICS[TOPIC[strand]].name for strand in (main, other)))
        tags.append(topics if tagged[row] else ())
        ending = f" [topics: {', '.join(topics)}]" if tagged[row] else ""
        texts.append(f"{title}{volume}, by {name}. {words.description((main, other), name, dice[row])}{ending}")
    return Catalogue([f"b{row + 1:04d}" for row in range(len(texts))], texts, tags=tags)


def _dice(count: int, rng: Generator) -> Ints:
    return rng.integers(2**31, size=(count, words.DICE))


def _rolls(count: int, rng: Generator, spoken: Ints) -> list[list[int]]:
    """Dice for `count` texts: any, or one of the rows of `spoken` if there are any."""
    dice = _dice(count, rng)
    rolls: list[list[int]] = (spoken[dice[:, 0] % len(spoken)] if len(spoken) else dice).tolist()
    return rolls


class Choices(NamedTuple):
    """What a block of people chose, one row a choice, each person's rows in time order."""

    person: Ints  # position in the block
    item: Ints
    time: Ints
    sought: Ints  # strand searched for just before; -1 without a search


def _choose(shelf: Shelf, people: People, rng: Generator) -> Choices:
    """Play the law of choice step by step, everybody in the block at once."""
    order = np.argsort(-people.choices, kind="stable")  # whoever is still active is among the first rows
    when = _visits(people.choices[order], rng)
    unread, favour = np.ones((len(order), len(shelf.authors))), favoured(people.follows[order], shelf)
    mind, last = np.full((2, len(order)), -1)
    steps = []
    for step in range(when.shape[1]):
        active = np.count_nonzero(people.choices > step)
        rows, time = np.arange(active), when[:active, step]
        taste = people.taste(order[:active], time)
        searches = ~people.cold[order[:active]] & (rng.random(active) < SEARCHES)
        sought = np.where(searches, draw(taste, rng), -1)
        attention = minded(taste, np.where(searches, sought, mind[:active]))
        liking = favour[:active].copy()
        liking[rows, last[:active]] *= np.where(last[:active] < 0, 1.0, SAME)
        odds = appeal(shelf, attention, liking)
        odds *= unread[:active]
        odds *= shelf.released <= time[:, None]
        item = draw(odds, rng)
        unread[rows, item] = 0.0
        mind[:active], last[:active] = shelf.strands[item, 0], shelf.authors[item]
        steps.append(Choices(order[:active], item, time, sought))
    return Choices(*map(np.concatenate, zip(*steps, strict=True)))


def _visits(counts: Ints, rng: Generator) -> Ints:
    """(person, choice) ascending times at least `GAP` apart, about half of them in the visit before."""
    size, longest = len(counts), int(counts.max())
    # Everybody stays to the end, so that the last choices of many people see the cold items.
    joined = START + rng.integers(250 * DAY, size=(size, 1))
    stays = END - GAP * (longest + 1) - joined
    when = joined + (rng.random((size, longest)) * stays).astype(np.int64)
    when[np.arange(longest) >= counts[:, None]] = END
    when.sort(axis=1)
    again = rng.random((size, longest)) < 0.5
    again[:, 0] = False
    started = np.maximum.accumulate(np.where(again, 0, when), axis=1)
    apart = GAP * np.arange(longest)
    return np.asarray(np.maximum.accumulate(started - apart, axis=1) + apart)


def _events(
    shelf: Shelf, people: People, choices: Choices, spoken: Ints, rng: Generator
) -> Iterator[tuple[Ints, pa.Table]]:
    """Owners and events. Every choice is a click; who is not cold does more."""
    person, item, time, sought = choices
    warm, stars = ~people.cold[person], _stars(shelf, people, choices, rng)
    likes, rates = rng.random((2, len(item)))
    yield person, _table(Kind.CLICK, item, time)

    rows = np.flatnonzero(warm & (stars >= 3) & (likes < LIKES))
    yield person[rows], _table(Kind.LIKE, item[rows], time[rows] + 60)

    rows = np.flatnonzero(warm & (rates < RATES))
    yield person[rows], _table(Kind.RATE, item[rows], time[rows] + 120, rating=stars[rows] / 4)

    rows = np.flatnonzero(warm & (rates >= 1 - REVIEWS))
    told = zip(shelf.strands[item[rows], 0].tolist(), stars[rows].tolist(), _rolls(len(rows), rng, spoken), strict=True)
    texts = [words.review(strand, star, dice) for strand, star, dice in told]
    yield person[rows], _table(Kind.REVIEW, item[rows], time[rows] + 300, rating=stars[rows] / 4, texts=texts)

    rows = np.flatnonzero(sought >= 0)
    texts = [words.query(*asked) for asked in zip(sought[rows].tolist(), _rolls(len(rows), rng, spoken), strict=True)]
    yield person[rows], _table(Kind.SEARCH, np.full(len(rows), NO_ITEM), time[rows] - 60, texts=texts)

    shown, rows = _skips(shelf, people, choices, rng)
    yield person[rows], _table(Kind.SKIP, shown[rows], time[rows] - 30)


def _stars(shelf: Shelf, people: People, choices: Choices, rng: Generator) -> Ints:
    """(choice,) 0 to 4: fit to the taste of the moment, quality, and noise."""
    fit = _fit(shelf, people, choices)
    worth = 0.1 + 0.5 * fit / (fit + 0.05) + 0.4 * shelf.quality[choices.item]
    return np.rint(4 * np.clip(worth + rng.normal(0.0, 0.12, len(fit)), 0.0, 1.0)).astype(np.int64)


def _skips(shelf: Shelf, people: People, choices: Choices, rng: Generator) -> tuple[Ints, NDArray[np.intp]]:
    """An item shown beside each choice, by popularity, and the rows in which it is passed over."""
    below = np.cumsum(shelf.popularity)
    shown = np.searchsorted(below, rng.random(len(choices.item)) * below[-1], side="right")
    passed = (rng.random(len(shown)) < SHOWN) & (_fit(shelf, people, choices._replace(item=shown)) < DISLIKED)
    passed &= (shelf.released[shown] <= choices.time) & ~people.cold[choices.person]
    read = np.isin(choices.person * len(below) + shown, choices.person * len(below) + choices.item)
    return shown, np.flatnonzero(passed & ~read)


def _fit(shelf: Shelf, people: People, choices: Choices) -> Floats:
    """(choice,) how much the item is of the person's taste at that time, in [0, 1]."""
    taste = people.taste(choices.person, choices.time)
    both = taste[np.arange(len(taste))[:, None], shelf.strands[choices.item]] * shelf.shares[choices.item]
    return np.asarray(both[:, 0] + both[:, 1])


def _table(
    kind: Kind, item: Ints, time: Ints, *, rating: Floats | None = None, texts: list[str] | None = None
) -> pa.Table:
    columns = {
        "kind": np.full(len(item), kind, np.int8),
        "item": item.astype(np.int32),
        "text": texts or [""] * len(item),
        "weight": np.ones(len(item), np.float32),
        "rating": np.full(len(item), np.nan, np.float32) if rating is None else rating.astype(np.float32),
        "time": time,
    }
    return pa.table(columns, schema=SCHEMA)
