"""People meet a model that was trained without them: `python simulations/embed/replay.py PATH`, with MovieLens-100K.

PATH holds `u.data` and `u.item`. For each seed a model is trained on 643 of the 943 people; of the others 100 choose
the one setting and 200 are the test. Each of these replays their events through the device's own code
(`fedrec.embed`). Writes `simulations/embed/results/replay.md` and `.json`. What is done is kept in `--runs`. Ten
minutes of one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import walks
from people import Newcomers, newcomers

from fedrec.embed.local import STRENGTH
from fedrec.embed.ranker import DOUBT
from fedrec.study.metrics import interval

HERE = Path(__file__).parent
Walk = Callable[[Newcomers, int], pd.DataFrame]


def private(walk: Walk) -> Walk:
    """The same walk with the private pack."""
    return lambda group, seed: walk(replace(group, pack=group.private), seed)


WALKS: dict[str, Walk] = {
    "doubts": walks.doubts,
    "doubts-private": private(walks.doubts),
    "tuning": walks.tuning,
    "moves": walks.moves,
    "moves-private": private(walks.moves),
    "beginnings": walks.beginnings,
    "beginnings-private": private(walks.beginnings),
    "lists": walks.lists,
}
NAMES = {"hr": "hr@10", "ndcg": "ndcg@10", "recall": "recall@10", "asked": "asked for"}
LIVE, BOTH = "live profile", "live profile + local embedding"
INTRODUCTION = """# MovieLens-100K, replayed on the device

Made by `python simulations/embed/replay.py PATH-TO-ML-100K` (seeds {seeds}; plan `simulations/movielens-100k.toml`,
with a warm start). For each seed a model is trained on 643 people. None of the 200 test people is among them, and
others, who are in no seed's test, chose the two settings (the last tables). Whatever a device knows here it has from
its own events, at the moment of the list. Mean over people (each the mean over their lists) and seeds, ± standard
deviation between seeds. Films that the person rated before are no candidates; ties count against us. Chance would be
{chance:.3f} in HR@10. "The model alone" ranks with the same pack as if it did not hold how popular items are. Private:
a second pack of the same people, a warm start alone under user-level differential privacy at ε = 4."""
MOVES = """## The next choice

At up to {moments} moments of each person's time, from the sixth event on, the film that they rated next. All arms leave
out what was rated before that moment. Most people rated most of their films in one sitting: a profile of the day before
is then that of the first 5 events."""
STARTS = """## The first list

Ten films are listed for somebody of whom so many events are known, or one sentence besides. Recall: how much of their
sixth to fifteenth choice is on it; any: whether some of it is. The sentence is `I like` and the genre that stands out
in what they chose after those, given to `understand` and `effects` as an app would; asked for: how much of the list is
of that genre. `popularity` counts choices of the 643 people, which no pack holds; with 0 events a list follows the
pack's own popularity, which the warm start released. A sentence costs recall: it asks for one genre, and people choose
several. It weighs more beside a doubted taste than beside the model alone, so that lists have more of that genre, and
after a few events less of the rest."""
LISTS = """## What a varied list costs

At {moments} moments of each person's time, with the local embedding. Diversity: 1 − mean cosine of the model's item
vectors. Genres: different ones on a list. Miscalibration: in bits, of the list's genres from those of the person's
choices so far. Novelty: bits. Coverage: share of the catalogue on any list."""
PRIVATE = "With the private pack:"
DOUBTS = """## How long a person is doubted

Items are ranked by what others choose with weight d / (d + events), and by the model with the rest; here by d. For the
validation people: recall@10 of first lists after so many events, and the next choice at up to {moments} moments. The
device uses {doubt}: its recalls after 1, 3 and 5 events, summed over both packs, are the highest. Its neighbours are
near."""
TUNING = """## The strength of the local embedding

The strength of the local embedding, the variance of its prior, by the next choice at up to {moments} moments of the
validation people's time. The device uses {strength}, which was chosen with packs without a warm start: here all
differences lie within the deviations. 0.0 is a live profile without an embedding."""


def main() -> None:
    """Measure what is not measured yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/replay"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    groups = {seed: newcomers(given.data, seed, given.seeds, given.runs) for seed in given.seeds}
    tables = {name: pd.concat([walked(name, seed, groups[seed], given.runs) for seed in groups]) for name in WALKS}
    write(tables, len(groups[given.seeds[0]].pack.catalogue), given.out)


def walked(name: str, seed: int, group: Newcomers, runs: Path) -> pd.DataFrame:
    """What came of one walk of one seed, made now or before."""
    path = runs / f"{name}-{seed}.parquet"
    if not path.exists():
        WALKS[name](group, seed).to_parquet(path)
        print(path.name, flush=True)
    return pd.read_parquet(path)


def write(tables: dict[str, pd.DataFrame], items: int, out: Path) -> None:
    """The page, and the numbers behind it."""
    moves, lists = tables["moves"], tables["lists"]
    next_choice, first = ["hr", "ndcg"], ["recall", "any", "asked"]
    shown = [*next_choice, "diversity", "genres", "miscalibration", "novelty"]
    doubted = [*(f"recall {known}" for known in walks.KNOWN), *next_choice]
    seeds = ", ".join(map(str, sorted(moves["seed"].unique())))
    pages = [
        INTRODUCTION.format(seeds=seeds, chance=walks.K / (items - 50)),
        MOVES.format(moments=walks.ASKED),
        markdown(summary(moves, next_choice)),
        "\n".join(f"- {line}" for line in differences(moves)),
        PRIVATE,
        markdown(summary(tables["moves-private"], next_choice)),
        STARTS,
        markdown(summary(tables["beginnings"], first)),
        PRIVATE,
        markdown(summary(tables["beginnings-private"], first)),
        LISTS.format(moments=walks.LISTED),
        markdown(summary(lists, shown).join(coverage(lists, items))),
        DOUBTS.format(moments=walks.ASKED // 2, doubt=DOUBT),
        markdown(summary(tables["doubts"], doubted)),
        PRIVATE,
        markdown(summary(tables["doubts-private"], doubted)),
        TUNING.format(moments=walks.ASKED // 2, strength=STRENGTH),
        markdown(summary(tables["tuning"], next_choice)),
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "replay.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    numbers = {
        name: json.loads(means(frame).to_json(orient="table", index=True))["data"] for name, frame in tables.items()
    }
    (out / "replay.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def means(found: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and seed: means over people of their means."""
    people = found.groupby(["arm", "seed", "person"], sort=False).mean(numeric_only=True)
    return people.groupby(level=["arm", "seed"], sort=False).mean()


def summary(found: pd.DataFrame, shown: list[str]) -> pd.DataFrame:
    """(arm, figure) "mean ±deviation between seeds"."""
    by_seed = means(found)[shown].groupby(level="arm", sort=False)
    middle, spread = by_seed.mean(), by_seed.std().fillna(0.0)
    return middle.map("{:.3f}".format) + " ±" + spread.map("{:.3f}".format)


def differences(moves: pd.DataFrame) -> list[str]:
    """What the live profile and the local embedding are worth, person by person."""
    people = moves.groupby(["arm", "seed", "person"], sort=False)["ndcg"].mean().unstack("arm")
    lines = []
    for one, other in (
        (LIVE, f"profile of the first {walks.BEGUN} events"),
        (LIVE, "profile of the day before"),
        (BOTH, LIVE),
        (BOTH, f"{BOTH}, {walks.ALONE}"),
    ):
        gain = (people[one] - people[other]).to_numpy()
        low, high = interval(gain)
        found = f"NDCG@10 {gain.mean():+.4f}, 95 % of bootstraps over people and seeds {low:+.4f} … {high:+.4f}"
        lines.append(f"{one} − {other}: {found}")
    return lines


def coverage(lists: pd.DataFrame, items: int) -> pd.DataFrame:
    """(arm, 1) the share of the catalogue that is on any list, mean over seeds."""
    rows = lists.groupby(["arm", "seed"], sort=False)["items"].agg(
        lambda those: len(np.unique(np.concatenate(list(those))))
    )
    return (rows.groupby(level="arm", sort=False).mean() / items).map("{:.3f}".format).to_frame("coverage")


def markdown(table: pd.DataFrame) -> str:
    """A table with its index as the first column."""
    shown = table.rename(columns=NAMES)
    lines = ["| arm | " + " | ".join(shown.columns) + " |", "| --- |" + " ---: |" * len(shown.columns)]
    return "\n".join(
        [
            *lines,
            *(f"| {arm} | " + " | ".join(row) + " |" for arm, row in zip(shown.index, shown.to_numpy(), strict=True)),
        ]
    )


if __name__ == "__main__":
    main()
