"""What a person did, in the form in which it is kept: items by their ids, for a catalogue may change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedrec.device.event import NO_ITEM, Kind
from fedrec.errors import DataError

if TYPE_CHECKING:
    from fedrec.device.history import History

_TIMES = 2**63
_HEAVIEST = float(2**127)  # more would be infinite in single precision


@dataclass(frozen=True, kw_only=True)
class Act:
    """An `Event` whose item is named by its id in the catalogue, "" for none. A wrong one is a `DataError`."""

    kind: Kind
    item: str = ""
    text: str = ""
    weight: float = 1.0
    rating: float = math.nan  # in [0, 1]; NaN when there is none
    time: int = 0  # Unix seconds

    def __post_init__(self) -> None:
        for rule, kept in (
            ("an event is about an item or holds a text", bool(self.item or self.text.strip())),
            ("ids and texts are made of characters", _encodes(self.item + self.text)),
            ("the weight of an event is a number ≥ 0", 0 <= self.weight <= _HEAVIEST),
            ("a rating lies in [0, 1]", math.isnan(self.rating) or 0 <= self.rating <= 1),
            ("a time is in Unix seconds", -_TIMES <= self.time < _TIMES),
        ):
            if not kept:
                raise DataError(rule, remedy="Nothing was stored.", kind=self.kind.name)

    def __repr__(self) -> str:
        return f"Act({self.kind.name}, contents withheld)"


def acts_of(history: History, ids: Sequence[str]) -> list[Act]:
    """The events of a history over a catalogue with these `ids`."""
    kinds, items, times = history.kinds.tolist(), history.items.tolist(), history.times.tolist()
    weights, ratings = history.weights.tolist(), history.ratings.tolist()
    return [
        Act(
            kind=Kind(kind),
            item="" if item == NO_ITEM else ids[item],
            text=text,
            weight=weight,
            rating=rating,
            time=time,
        )
        for kind, item, text, weight, rating, time in zip(
            kinds, items, history.texts, weights, ratings, times, strict=True
        )
    ]


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
