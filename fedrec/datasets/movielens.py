"""MovieLens-100K, -1M and -25M as GroupLens publishes them (Harper & Konstan 2015), in a folder or the zip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from fedrec.datasets.dataset import Dataset
from fedrec.datasets.events import Reading, histories
from fedrec.datasets.files import CSV, Layout, Source, batches, demand, header, nonempty, text_source, unpacked
from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import check_ids

Film = tuple[str, str, tuple[str, ...]]  # (id, title, genres)

COLUMNS = {"user": "user", "item": "item", "rating": "rating", "time": "time"}
COLUMNS_25M = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
TABS = Layout("\t", quoted=False, names=("user", "item", "rating", "time"))
# Arrow separates at one character: between the two of "::" lies an empty column.
COLONS = Layout(":", quoted=False, names=("user", "_1", "item", "_2", "rating", "_3", "time"))

# fmt: off
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on

ARTICLES = "The|A|An|L'|La|Le|Les|El|Los|Las|Il|Lo|I|Der|Die|Das|Ein|Eine|Un|Una|Une|O|Os|De|Den|Det"
INVERTED = re.compile(rf"(^|\()([^()]*?), ({ARTICLES})(?=\)|\s*\(|\s*$)")


def movielens_100k(path: Path) -> Dataset:
    """`u.data` and `u.item`. Whole stars 1 … 5 become (r − 1) / 4."""
    with unpacked(path, ("u.data", "u.item")) as folder:
        catalogue = _catalogue(_films_100k(folder / "u.item"), "u.item")
        reading = Reading(source=text_source(folder / "u.data", TABS), columns=COLUMNS)
        return Dataset("movielens-100k", catalogue, *histories(batches(folder / "u.data", TABS), reading, catalogue))


def movielens_1m(path: Path) -> Dataset:
    """`ratings.dat` and `movies.dat`. Whole stars 1 … 5 become (r − 1) / 4."""
    with unpacked(path, ("ratings.dat", "movies.dat")) as folder:
        catalogue = _catalogue(_films_1m(folder / "movies.dat"), "movies.dat")
        ratings = folder / "ratings.dat"
        reading = Reading(source=text_source(ratings, COLONS), columns=COLUMNS)
        return Dataset("movielens-1m", catalogue, *histories(batches(ratings, COLONS), reading, catalogue))


def movielens_25m(path: Path) -> Dataset:
    """`ratings.csv` and `movies.csv` (also -20M and -32M). Half stars ½ … 5 become (r − ½) / 4½."""
    with unpacked(path, ("ratings.csv", "movies.csv")) as folder:
        ratings, movies = folder / "ratings.csv", folder / "movies.csv"
        demand(list(COLUMNS_25M.values()), header(ratings), ratings.name)
        demand(["movieId", "title", "genres"], header(movies), movies.name)
        films = pa.concat_tables(batches(movies)).select(["movieId", "title", "genres"])
        listed = [(i, t, _genres(g)) for i, t, g in zip(*films.to_pydict().values(), strict=True)]
        catalogue = _catalogue(listed, text_source(movies))
        reading = Reading(source=text_source(ratings, CSV), columns=COLUMNS_25M, scale=(0.5, 5.0))
        return Dataset("movielens-25m", catalogue, *histories(batches(ratings), reading, catalogue))


def film_text(title: str, genres: Sequence[str]) -> str:
    """What the encoder reads, for example `The Usual Suspects (1995) [genre: Crime, Thriller]`."""
    title = INVERTED.sub(_upright, title.strip())
    return f"{title} [genre: {', '.join(genres)}]" if genres else title


def _upright(match: re.Match[str]) -> str:
    start, name, article = match.groups()
    return f"{start}{article}{'' if article.endswith(chr(39)) else ' '}{name}"


def _genres(cell: str) -> tuple[str, ...]:
    return tuple(genre for genre in cell.split("|") if genre and genre != "(no genres listed)")


def _catalogue(films: Sequence[Film], source: Source | str) -> Catalogue:
    if isinstance(source, str):  # a file without header or blank lines
        source = Source(source, lambda records: [record + 1 for record in records])
    check_ids([film[0] for film in films], source, "movie id")
    texts = [film_text(title, genres) for _, title, genres in films]
    return Catalogue([film[0] for film in films], texts, tags=[film[2] for film in films])


def _films_100k(path: Path) -> list[Film]:
    films = []
    for row, line in enumerate(_latin1(path), 1):
        fields = line.split("|")
        if len(fields) != 5 + len(GENRES_100K):
            raise DataError("a film has 24 fields", file=path.name, row=row, fields=len(fields))
        flagged = zip(GENRES_100K, fields[5:], strict=True)
        films.append((fields[0], fields[1], tuple(name for name, flag in flagged if flag == "1" and name != "unknown")))
    return films


def _films_1m(path: Path) -> list[Film]:
    films = []
    for row, line in enumerate(_latin1(path), 1):
        fields = line.split("::")
        if len(fields) < 3:
            raise DataError("a film is `id::title::genres`", file=path.name, row=row, fields=len(fields))
        films.append((fields[0], "::".join(fields[1:-1]), _genres(fields[-1])))
    return films


def _latin1(path: Path) -> list[str]:
    # Not splitlines: it also breaks at control characters, and rows would no longer be an editor's.
    return nonempty(path).read_text("latin-1").rstrip("\r\n").split("\n")
