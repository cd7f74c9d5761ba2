"""The catalogue of a pack: JSON, an item a line. Needs neither Arrow nor pandas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.listed import AGAIN
from fedrec.strict import Misfit, parsed, read


@dataclass(frozen=True)
class _Item:
    id: str
    text: str
    tags: tuple[str, ...]
    features: tuple[float, ...] = ()


_Row = tuple[str, str, tuple[str, ...], tuple[float, ...]]
_USUAL, _TEXT = {"id", "text", "tags"}, {str}
_KEYS = {each.name for each in fields(_Item)}


def to_lines(catalogue: Catalogue) -> bytes:
    """UTF-8, one object a line in the order of rows: `id`, `text`, `tags`, and `features` where there are any."""
    rows = zip(catalogue.ids, catalogue.texts, catalogue.tags, catalogue.features.tolist(), strict=True)
    records = (
        {"id": item, "text": text, "tags": tags} | ({"features": numbers} if numbers else {})
        for item, text, tags, numbers in rows
    )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def from_lines(content: bytes, *, items: int) -> Catalogue:
    """The catalogue of `items` items that `to_lines` wrote. Errors: `DataError` with the line."""
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if lines != items:
        raise DataError("a pack's catalogue has its items", remedy=AGAIN, items=lines, expected=items)
    ids, texts, tags, features = zip(*_rows(content), strict=True)
    return Catalogue(ids, texts, _features(features), tags)


def _rows(content: bytes) -> Iterator[_Row]:
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # many items have the same tags: they are kept once
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            item, text, tags, features = _row(parsed(line))
        except ValueError as error:
            rule, reason = "a pack's catalogue can be read", str(error)
            raise DataError(rule, remedy=AGAIN, line=number, reason=reason) from None
        yield item, text, same.setdefault(tags, tags), features


def _row(value: object) -> _Row:
    if _is_usual(value):  # as `read` would find, in a tenth of the time
        return value["id"], value["text"], tuple(value["tags"]), ()
    item = read(_Item, value)
    if isinstance(value, dict) and (odd := sorted(value.keys() - _KEYS)):
        raise Misfit("no item has this", odd[0])
    return item.id, item.text, item.tags, item.features


def _is_usual(value: object) -> TypeGuard[dict[str, Any]]:
    if type(value) is not dict or value.keys() != _USUAL or type(value["tags"]) is not list:
        return False
    return type(value["id"]) is type(value["text"]) is str and _TEXT.issuperset(map(type, value["tags"]))


def _features(rows: tuple[tuple[float, ...], ...]) -> NDArray[np.float32]:
    widths = sorted(set(map(len, rows)))
    if len(widths) != 1:
        raise DataError("all items have equally many features", remedy=AGAIN, widths=widths[:3])
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which a catalogue refuses
        return np.array(rows, np.float32)
