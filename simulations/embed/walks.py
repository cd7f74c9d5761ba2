"""One person after another meets a model, through the code that runs on a device; what came of it, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from people import Newcomers

from fedrec.device.act import Act, acts_of
from fedrec.device.history import History
from fedrec.embed.effects import effects
from fedrec.embed.local import STRENGTH, embedding
from fedrec.embed.ranker import Ranker, Standing, Wanted
from fedrec.embed.taste import Taste
from fedrec.embed.tell import understand
from fedrec.errors import RunError
from fedrec.model.pack_files import Pack
from fedrec.randomness import stream
from fedrec.study import metrics

K = 10
BEGUN = 5  # events after which a list is asked for: what an app knows from its first minute
ASKED, LISTED = 12, 4  # at most so many events of a person are foretold, and lists composed
DAY = 86_400
DOUBTS = (0.5, 2.0, 4.0, 8.0, 16.0, 32.0)
ALONE = "the model alone"
KNOWN = (0, 1, 3, 5)  # events of somebody who gets a first list
STRENGTHS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
TARGETS = slice(BEGUN, BEGUN + 10)  # choices that a newcomer's first list is asked for
VARIANTS: dict[str, dict[str, float]] = {
    "best first": {},
    **{f"diversity {share}": {"diversity": share} for share in (0.1, 0.3, 0.5, 1.0)},
    **{f"calibration {share}": {"calibration": share} for share in (0.03, 0.1, 0.3, 1.0)},
    **{f"explore {share}": {"explore": share} for share in (0.1, 0.3)},
}

Rows = NDArray[np.int64]
Scores = NDArray[np.floating[Any]]
Record = dict[str, Any]


class Wordless:
    """A `Reader` for people who write nothing: MovieLens has ratings only."""

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Nothing is read."""
        raise RunError("MovieLens holds no texts of people", texts=len(texts))

    pooled = vectors


def tuning(group: Newcomers, seed: int) -> pd.DataFrame:
    """How well the next choice is foretold, by the strength of the local embedding; on the validation people."""
    ranker, found = Ranker(group.pack), list[Record]()
    for person, history in enumerate(group.validation):
        for taste, target in _moments(history, group.pack, ASKED // 2):
            for strength in STRENGTHS:
                place = _place(ranker.scores(_learnt(taste, strength)), target, taste.seen)
                found.append({"seed": seed, "person": person, "arm": str(strength)} | _figures(place))
    return pd.DataFrame(found)


def doubts(group: Newcomers, seed: int) -> pd.DataFrame:
    """First lists and next choices, by how many events count as much as what others choose; on the validation people.

    Each recall is that after so many events.
    """
    rankers = {str(doubt): Ranker(group.pack, doubt) for doubt in DOUBTS} | {ALONE: _alone(group)}
    found = list[Record]()
    for person, history in enumerate(group.validation):
        acts, rows = acts_of(history, group.pack.catalogue.ids), history.items.astype(np.int64)
        firsts = {known: _learnt(_taste(acts[:known], group.pack)) for known in KNOWN}
        for arm, ranker in rankers.items():
            lists = {f"recall {known}": _listed(ranker.scores(firsts[known]), rows)[1].mean() for known in KNOWN}
            found.append({"seed": seed, "person": person, "arm": arm} | lists)
        for taste, target in _moments(history, group.pack, ASKED // 2):
            standing = _learnt(taste)
            places = {arm: _place(ranker.scores(standing), target, taste.seen) for arm, ranker in rankers.items()}
            found += [{"seed": seed, "person": person, "arm": arm} | _figures(at) for arm, at in places.items()]
    return pd.DataFrame(found)


def moves(group: Newcomers, seed: int) -> pd.DataFrame:
    """How well the next choice is foretold by a profile that stands still, one that moves each day, and a live one."""
    ranker, alone, found = Ranker(group.pack), _alone(group), list[Record]()
    for person, history in enumerate(group.test):
        acts = acts_of(history, group.pack.catalogue.ids)
        stale = _daily(acts, group.pack, ranker)
        start = ranker.scores(Standing.bare(_taste(acts[:BEGUN], group.pack)))
        for taste, target in _moments(history, group.pack, ASKED):
            live, learnt = Standing.bare(taste), _learnt(taste)
            arms = {
                "popularity": group.counts.astype(np.float64),
                f"profile of the first {BEGUN} events": start,
                "profile of the day before": stale[len(taste)],
                "live profile": ranker.scores(live),
                "live profile + local embedding": ranker.scores(learnt),
                f"live profile + local embedding, {ALONE}": alone.scores(learnt),
            }
            places = {arm: _place(scores, target, taste.seen) for arm, scores in arms.items()}
            found += [{"seed": seed, "person": person, "arm": arm} | _figures(at) for arm, at in places.items()]
    return pd.DataFrame(found)


def lists(group: Newcomers, seed: int) -> pd.DataFrame:
    """What diversity, calibration and exploring cost and bring, in lists asked for at times of the live profile."""
    ranker, found, tags = Ranker(group.pack), list[Record](), _tags(group.pack)
    for person, history in enumerate(group.test):
        for taste, target in _moments(history, group.pack, LISTED):
            standing, mix = _learnt(taste), tags[taste.choices].mean(axis=0, keepdims=True)
            for arm, wishes in VARIANTS.items():
                rng = stream(seed, "explore", person, len(taste))
                listed = np.array([one.row for one in ranker.rank(standing, Wanted(k=K, **wishes), rng)])
                at = np.flatnonzero(listed == target)
                record = {"seed": seed, "person": person, "arm": arm} | _figures(1 + int(at[0]) if len(at) else K + 1)
                found.append(record | _described(listed, mix, tags, group))
    return pd.DataFrame(found)


def beginnings(group: Newcomers, seed: int) -> pd.DataFrame:
    """The first list of somebody of whom a few events are known, or one sentence; ten later choices are asked for."""
    ranker, alone, found, tags = Ranker(group.pack), _alone(group), list[Record](), _tags(group.pack)
    names = _names(group.pack)
    for person, history in enumerate(group.test):
        acts, rows = acts_of(history, group.pack.catalogue.ids), history.items.astype(np.int64)
        genre = _favourite(rows[TARGETS.stop :], tags, group)
        told = understand(f"I like {names[genre]}", catalogue=group.pack.catalogue).preferences
        wish = effects(told, group.pack, None).bonus
        firsts = {f"{known} events": _learnt(_taste(acts[:known], group.pack)) for known in KNOWN}
        arms: dict[str, Scores] = {"popularity": group.counts.astype(np.float64)}
        arms |= {arm: ranker.scores(standing) for arm, standing in firsts.items()}
        arms |= {f"{arm}, {ALONE}": alone.scores(standing) for arm, standing in firsts.items()}
        arms |= {f"{arm} + a sentence": ranker.scores(standing) + wish for arm, standing in firsts.items()}
        arms |= {f"{arm} + a sentence, {ALONE}": alone.scores(standing) + wish for arm, standing in firsts.items()}
        for arm, scores in arms.items():
            listed, hits = _listed(scores, rows)
            record = {"seed": seed, "person": person, "arm": arm, "asked": (tags[listed, genre] > 0).mean()}
            found.append(record | {"recall": hits.mean(), "any": float(hits.any())})
    return pd.DataFrame(found)


def _moments(history: History, pack: Pack, most: int) -> Iterator[tuple[Taste, int]]:
    """The live profile just before some choices, evenly spread over a person's time, and the row of each choice."""
    acts = acts_of(history, pack.catalogue.ids)
    asked = set(np.linspace(BEGUN, len(acts) - 1, min(most, len(acts) - BEGUN)).astype(int).tolist())
    taste = Taste(pack, Wordless())
    for at, act in enumerate(acts):
        if at in asked:
            yield taste, int(history.items[at])
        taste.add(at + 1, act)


def _daily(acts: Sequence[Act], pack: Pack, ranker: Ranker) -> list[Scores]:
    """Scores before each event, by what was known when its day (UTC) began, but never by less than `BEGUN` events."""
    taste, found, scores = Taste(pack, Wordless()), list[Scores](), np.zeros(0)
    for at, act in enumerate(acts):
        if at <= BEGUN or act.time // DAY != acts[at - 1].time // DAY:
            scores = ranker.scores(Standing.bare(taste))
        found.append(scores)
        taste.add(at + 1, act)
    return found


def _taste(acts: Sequence[Act], pack: Pack) -> Taste:
    taste = Taste(pack, Wordless())
    for at, act in enumerate(acts):
        taste.add(at + 1, act)
    return taste


def _learnt(taste: Taste, strength: float = STRENGTH) -> Standing:
    """What the events say, with a local embedding."""
    bare = Standing.bare(taste)
    return replace(bare, embedding=embedding(taste, taste.pack, strength=strength))


def _place(scores: Scores, target: int, seen: NDArray[np.bool_]) -> int:
    """The target's rank among what the person has not chosen; ties count against it."""
    rivals = ~seen
    rivals[target] = False
    return 1 + int((scores[rivals] >= scores[target]).sum())


def _listed(scores: Scores, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """A newcomer's first list without what they chose first, and which of their choices after those are on it."""
    shut = np.isin(np.arange(len(scores)), rows[:BEGUN])
    listed = np.argsort(np.where(shut, np.inf, -scores), kind="stable")[:K]
    return listed, np.isin(rows[TARGETS], listed)


def _alone(group: Newcomers) -> Ranker:
    """Ranks as if nobody knew how popular items are."""
    return Ranker(replace(group.pack, popularity=None))


def _figures(place: int) -> Record:
    return {"hr": float(place <= K), "ndcg": 1 / np.log2(1 + place) if place <= K else 0.0}


def _described(listed: Rows, mix: Scores, tags: Scores, group: Newcomers) -> Record:
    lists = listed[None, :]
    return {
        "diversity": float(metrics.diversity(lists, group.pack.vectors)[0]),
        "genres": int((tags[listed].sum(axis=0) > 0).sum()),
        "miscalibration": float(metrics.miscalibration(mix, tags[listed].mean(axis=0, keepdims=True))[0]),
        "novelty": float(metrics.novelty(lists, group.counts)[0]),
        "items": listed.tolist(),
    }


def _names(pack: Pack) -> list[str]:
    return sorted({tag for tags in pack.catalogue.tags for tag in tags})


def _tags(pack: Pack) -> Scores:
    """(item, tag) shares of an item's tags."""
    names = _names(pack)
    flags = np.array([[tag in tags for tag in names] for tags in pack.catalogue.tags], float)
    return flags / np.maximum(flags.sum(axis=1, keepdims=True), 1)


def _favourite(rows: Rows, tags: Scores, group: Newcomers) -> int:
    """The genre that stands out most in some choices, beside what others choose."""
    others = group.counts @ (tags > 0) / group.counts.sum()
    return int(np.argmax((tags[rows] > 0).mean(axis=0) - others))
