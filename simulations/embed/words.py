"""How well `tell` understands sentences, and how well the sentiment head reads reviews. Writes results/words.md.

    python simulations/embed/words.py [--data FOLDER] [--keep FOLDER]

`--data` holds amazon-musical-instruments/ (default: FEDREC_SHARED_DATA, or ../shared/data beside the repository);
`--keep` is where the reviews' vectors are kept from one call to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reviews import measured

from fedrec.embed.tell import understand
from fedrec.model.catalogue import Catalogue

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
CATALOGUE = Catalogue(
    ["dispossessed", "scream", "shining", *GENRES],
    ["The Dispossessed (1974)", "Scream (1996)", "The Shining (1977)", *(f"Item {genre}" for genre in GENRES)],
    tags=[
        ("Sci-Fi", "author:Ursula K. Le Guin"),
        ("Horror",),
        ("Horror", "author:Stephen King"),
        *((g,) for g in GENRES),
    ],
)
SETS = {
    "first": "before the parser, which was written with it in mind: development",
    "second": "before the first repair: development since",
    "third": "before the second repair: development since",
    "fourth": "after the last change to the parser: **held out**",
}
FIRST_RUN = {"first": (0.986, 0.972), "second": (0.706, 0.507), "third": (0.851, 0.533), "fourth": (0.833, 0.738)}

HEAD = """# What was said, and how it was meant

`FEDREC_SHARED_DATA=… python simulations/embed/words.py` wrote this file. docs/words.md says what the columns mean.

## tell()

Precision and recall are of (polarity, scope, about), all three right. "At its first run" is what the parser of that
moment made of a set that nobody had looked at while writing it; the columns before it are today's. All sentences are by
one author. "Reversed": wishes taken for their opposite. "Left alone": sentences in other languages, nonsense, questions
and the like, from which nothing was taken.
"""

Wish = tuple[str, str, str]


@dataclass(frozen=True)
class Heard:
    """One sentence: what it asks for, what was taken from it, and whether anything was said not to be understood."""

    kind: str
    wanted: frozenset[Wish]
    got: frozenset[Wish]
    doubted: bool

    @property
    def reversed(self) -> int:
        """Wishes that were taken for their opposite."""
        for_or_against = {(scope, about): polarity == "more" for polarity, scope, about in self.wanted}
        return sum(for_or_against.get((s, a), p == "more") != (p == "more") for p, s, a in self.got)


def heard(name: str) -> list[Heard]:
    """The sentences of one set, through `understand`."""
    lines = map(json.loads, (HERE / "sentences.jsonl").read_text(encoding="utf-8").splitlines())
    return [_heard(line) for line in lines if line["set"] == name]


def _heard(line: dict[str, object]) -> Heard:
    told = understand(str(line["said"]), catalogue=CATALOGUE, item=str(line["item"]))
    got = {(one.polarity.name.lower(), str(one.scope), one.about) for one in told.preferences}
    return Heard(str(line["kind"]), frozenset(map(tuple, line["wants"])), frozenset(got), bool(told.unclear))  # type: ignore[call-overload]


def sentences() -> Iterator[str]:
    """The table about `tell`, and what follows from its last row."""
    yield "| set | written | sentences | wishes | precision | recall | at its first run | reversed | left alone |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, written in SETS.items():
        found = heard(name)
        hits, taken = sum(len(one.got & one.wanted) for one in found), sum(len(one.got) for one in found)
        wanted = sum(len(one.wanted) for one in found)
        first = " / ".join(f"{figure:.3f}" for figure in FIRST_RUN[name])
        empty = [one for one in found if not one.wanted]
        yield (
            f"| {name} | {written} | {len(found)} | {wanted} | {hits / taken:.3f} | {hits / wanted:.3f} | {first} | "
            f"{sum(one.reversed for one in found)} | {sum(not one.got for one in empty)} of {len(empty)} |"
        )
    last = [one for one in heard("fourth") if one.wanted]
    right, wrong = sum(one.got == one.wanted for one in last), sum(bool(one.got - one.wanted) for one in last)
    silent = sum(not one.got and one.doubted for one in last)
    yield ""
    yield (
        f"Of the {len(last)} held-out sentences that ask for something, {right} were understood whole; from {wrong} "
        f"something else was taken; from {silent} nothing was taken, and that was said."
    )


def report(data: Path, keep: Path) -> Iterator[str]:
    """All of results/words.md."""
    yield HEAD
    yield from sentences()
    yield from ("", "## Sentiment", "")
    yield from measured(data, keep)


def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Measure tell() and the sentiment head.")
    shared = os.environ.get("FEDREC_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(shared))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--sentences", action="store_true", help="print the table about tell() and stop")
    asked = parser.parse_args(arguments)
    if asked.sentences:
        return _print(sentences())
    with tempfile.TemporaryDirectory() as scratch:
        text = "\n".join(report(asked.data, asked.keep or Path(scratch))) + "\n"
    (HERE / "results" / "words.md").write_text(text, encoding="utf-8")
    return print(text)


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines))


if __name__ == "__main__":
    _main(sys.argv[1:])
