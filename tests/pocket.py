"""A small untrained model and people who use it: items are alike if their words are."""

from functools import cache
from itertools import product
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from fedrec.embed.recommender import Recommender
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack import write_pack
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.task import Task

GENRES = {
    "Sea": ("sailing", "harbour", "lighthouse", "storm"),
    "Bread": ("baking", "sourdough", "oven", "flour"),
    "Clocks": ("clockwork", "pendulum", "watchmaker", "gears"),
    "Stars": ("telescope", "comet", "planets", "astronomy"),
}
NOW = 1_700_000_000.0


def catalogue():
    """Forty items, ten of each genre: each with three of its genre's words and one of its own."""
    ids, texts, tags = [], [], []
    for (genre, words), number in product(GENRES.items(), range(10)):
        ids.append(f"{genre.lower()}-{number}")
        texts.append(f"{words[number % 4]} {words[(number + 1) % 4]} {words[(number + 2) % 4]} volume{number}{genre}")
        tags.append((genre,))
    return Catalogue(ids, texts, tags=tags)


def task(**model):
    settings = {"encoder": "hash", "dim": 16, "decays": [0.5, 1.0], "rank": 1}
    return Task(Plan.of({"clients": 10, "model": settings | model}), catalogue())


def build(folder, *, seed=0, **model):
    """An unsigned pack of an untrained model; what others choose hangs on the seed."""
    made = task(**model)
    shared = made.model.initial.copy()
    parameters = made.model.layout.views(torch.from_numpy(shared))
    parameters["popularity"][:] = torch.from_numpy(stream(seed, "prior").normal(0.0, 0.1, 40).astype(np.float32))
    write_pack(folder, made, shared, statements(None, simulated=True), round=seed)


@cache
def pack():
    """The one that apps bring along."""
    folder = Path(mkdtemp()) / "pack"
    build(folder)
    return folder


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        self.now += 1.0
        return self.now


def opened(folder, **settings):
    """A person's recommender."""
    return Recommender.open(folder, **({"pack": pack(), "clock": Clock()} | settings))


def items(rec, k=5, **wanted):
    """What is recommended."""
    return [pick.item for pick in rec.recommend(k, **wanted)]


def scores(rec):
    """Every item's score."""
    return {pick.item: pick.score for pick in rec.recommend(40, hide_seen=False)}


def genres(found):
    """Of items."""
    return [item.split("-")[0] for item in found]
