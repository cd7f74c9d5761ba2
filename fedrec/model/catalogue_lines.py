"""The catalogue of a pack: JSON, an item a line. Needs neither Arrow nor pandas."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.listed import AGAIN


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    id: str
    text: str
    tags: tuple[str, ...]
    features: tuple[float, ...] = ()


_ITEM = TypeAdapter(_Item)


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
    lines = content.removesuffix(b"\n").split(b"\n")
    if len(lines) != items:
        raise DataError("a pack's catalogue has its items", remedy=AGAIN, items=len(lines), expected=items)
    read = [_item(line, number) for number, line in enumerate(lines, 1)]
    tags = [item.tags for item in read]
    return Catalogue([item.id for item in read], [item.text for item in read], _features(read), tags)


def _item(line: bytes, number: int) -> _Item:
    try:
        return _ITEM.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError("a pack's catalogue can be read", remedy=AGAIN, line=number, reason=reason) from None


def _features(items: Sequence[_Item]) -> NDArray[np.float32]:
    widths = sorted({len(item.features) for item in items})
    if len(widths) != 1:
        raise DataError("all items have equally many features", remedy=AGAIN, widths=widths[:3])
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which a catalogue refuses
        return np.array([item.features for item in items], np.float32)
