"""Amazon reviews, JSON lines (McAuley et al. 2015; the releases of 2014, 2018 and 2023): reviews are private text.

Item texts come from the metadata file alone. Without one an item is its id: a catalogue is public, and text taken
from reviews would publish them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from fedrec.datasets.dataset import Dataset
from fedrec.datasets.events import Reading, histories
from fedrec.datasets.files import Source, json_lines
from fedrec.datasets.notes import Notes
from fedrec.device.event import Kind
from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import check_ids

Record = Mapping[str, object]

UNTITLED = "items without a public text, known by their id only (items=METADATA.jsonl gives them one)"
COLUMNS = {name: name for name in ("user", "item", "text", "rating", "time")}
BATCH = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What one release calls things; `ticks` is how many units of its clock make a second."""

    user: str
    item: str
    title: str
    text: str
    rating: str
    time: str
    ticks: int


RELEASE_2014 = Fields(
    user="reviewerID", item="asin", title="summary", text="reviewText", rating="overall", time="unixReviewTime", ticks=1
)
RELEASE_2023 = Fields(
    user="user_id", item="parent_asin", title="title", text="text", rating="rating", time="timestamp", ticks=1000
)


def amazon(path: Path, items: Path | None = None) -> Dataset:
    """Reviews in `path` (a file, or a folder with one), item texts from the metadata file `items`."""
    path = reviews_file(path)
    catalogue, untitled = _titled(items) if items else _untitled(path)
    rows = array("q")
    source = Source(path.name, lambda records: [rows[record] for record in records])
    reading = Reading(source=source, columns=COLUMNS, kind=Kind.REVIEW)
    population, notes = histories(_batches(path, rows), reading, catalogue)
    return Dataset("amazon", catalogue, population, Notes.of(UNTITLED, untitled) + notes)


def reviews_file(path: Path) -> Path:
    """`path`, or the one JSON-lines file in the folder `path`."""
    if not path.is_dir():
        return path
    found = sorted(f for f in path.iterdir() if f.name.removesuffix(".gz").endswith((".json", ".jsonl")))
    if len(found) != 1:
        names = [file.name for file in found]
        raise DataError("a folder of reviews holds one .json or .jsonl file", folder=str(path), found=names)
    return found[0]


def _titled(path: Path) -> tuple[Catalogue, int]:
    rows, ids, texts, tags = array("q"), [], [], []
    for row, record in json_lines(path):
        item = record.get("parent_asin", record.get("asin"))
        if not isinstance(item, str):
            raise DataError("an item has an `asin` or `parent_asin`", file=path.name, row=row)
        rows.append(row)
        ids.append(item)
        tags.append(_categories(record))
        texts.append(_text(record, item, tags[-1]))
    check_ids(ids, Source(path.name, lambda records: [rows[record] for record in records]), "asin")
    return Catalogue(ids, texts, tags=tags), sum(text == _nameless(item) for item, text in zip(ids, texts, strict=True))


def _untitled(path: Path) -> tuple[Catalogue, int]:
    found = (str(_field(record, fields.item, path, row) or "").strip() for row, record, fields in _records(path))
    ids = [item for item in dict.fromkeys(found) if item]
    return Catalogue(ids, [_nameless(item) for item in ids]), len(ids)


def _nameless(item: str) -> str:
    return f"item {item}"


def _categories(record: Record) -> tuple[str, ...]:
    """Distinct categories in order; they are a list in 2018 and 2023, a list of paths in 2014."""
    found = record.get("categories") or record.get("category") or []
    nested = found if isinstance(found, list) else [found]
    flat = [part for entry in nested for part in (entry if isinstance(entry, list) else [entry])]
    return tuple(dict.fromkeys(part.strip() for part in flat if isinstance(part, str) and part.strip()))


def _text(record: Record, item: str, tags: tuple[str, ...]) -> str:
    title, brand = record.get("title"), record.get("brand") or record.get("store")
    parts = [title.strip()] if isinstance(title, str) and title.strip() else []
    parts += [f"[brand: {brand.strip()}]"] if isinstance(brand, str) and brand.strip() else []
    parts += [f"[category: {', '.join(tags)}]"] if tags else []
    return " ".join(parts) or _nameless(item)


def _records(path: Path) -> Iterator[tuple[int, Record, Fields]]:
    """(row, record, what its release calls things), as the first record decides."""
    fields: Fields | None = None
    for row, record in json_lines(path):
        fields = fields or (RELEASE_2023 if RELEASE_2023.user in record else RELEASE_2014)
        yield row, record, fields


def _batches(path: Path, rows: array[int]) -> Iterator[pa.Table]:
    """Raw columns of the reviews; each record's row is appended to `rows`."""
    records = iter(_records(path))
    while some := list(islice(records, BATCH)):
        rows.extend(row for row, _, _ in some)
        table = {
            "user": [str(_field(r, f.user, path, row) or "") for row, r, f in some],
            "item": [str(_field(r, f.item, path, row) or "") for row, r, f in some],
            "text": [_joined(r.get(f.title), r.get(f.text)) for _, r, f in some],
            "rating": [_number(_field(r, f.rating, path, row)) for row, r, f in some],
            "time": [_seconds(_field(r, f.time, path, row), f.ticks) for row, r, f in some],
        }
        yield pa.table({name: pa.array(values, pa.string()) for name, values in table.items()})


def _field(record: Record, name: str, path: Path, row: int) -> object:
    if name not in record:
        raise DataError(
            "a review has this field",
            remedy="Is this another release? Known are those of 2014, 2018 and 2023.",
            file=path.name,
            row=row,
            column=name,
        )
    return record[name]


def _joined(*parts: object) -> str:
    return ". ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _number(value: object) -> str:
    return "nan" if value is None else str(value)  # a review without stars is skipped and counted


def _seconds(value: object, ticks: int) -> str:
    return str(value // ticks) if isinstance(value, int) else "" if value is None else str(value)
