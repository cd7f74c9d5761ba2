"""Which data set a path holds, from the names of its files and the columns in them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fedrec.datasets.files import CSV, TSV, header, json_lines, parquet_columns
from fedrec.errors import DataError

CATALOGUE = "catalogue"


def detect(path: Path) -> str:
    """A name of `fedrec.datasets.NAMES`, or `catalogue` for a file of items.

    Errors: `DataError` when nothing known fits.
    """
    if not path.exists():
        raise DataError("there is no such file or folder", path=str(path))
    inside = _inside(path)
    for name, files in {
        "movielens-100k": {"u.data", "u.item"},
        "movielens-1m": {"ratings.dat", "movies.dat"},
        "movielens-25m": {"ratings.csv", "movies.csv"},
        "mind": {"news.tsv", "behaviors.tsv"},
        "shards": {"people.json", "catalogue.parquet"},
    }.items():
        if files & inside:
            return name
    if path.is_file():
        return _of_file(path)
    if any(name.removesuffix(".gz").endswith((".json", ".jsonl")) for name in inside):
        return "amazon"
    raise DataError(
        "no known data set is here", remedy="Say what it is with --as NAME.", path=str(path), files=sorted(inside)[:10]
    )


def _inside(path: Path) -> set[str]:
    if path.is_dir():
        names = {file.name for folder in (".", "*") for file in path.glob(f"{folder}/*")}
        return names.union(*(_inside(archive) for archive in path.glob("*.zip")))
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as packed:
                return {Path(name).name for name in packed.namelist()}
        except zipfile.BadZipFile as error:
            raise DataError(
                "a zip archive must be whole", remedy="Download it again.", file=str(path), reason=str(error)
            ) from None
    return {path.name}


def _of_file(path: Path) -> str:
    match path.name.removesuffix(".gz").rpartition(".")[2]:
        case "csv":
            return _of_columns(header(path, CSV))
        case "tsv":
            return _of_columns(header(path, TSV))
        case "parquet":
            return _of_columns(parquet_columns(path))
        case "json" | "jsonl":
            _, first = next(json_lines(path), (0, {}))
            return "amazon" if {"reviewerID", "user_id"} & set(first) else CATALOGUE
    raise DataError("no known data set has such a file", remedy="Say what it is with --as NAME.", path=str(path))


def _of_columns(names: list[str]) -> str:
    return CATALOGUE if {"id", "text"} <= set(names) else "table"
