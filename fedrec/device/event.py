"""One private act, and what kinds of them there are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

NO_ITEM = -1


class Kind(IntEnum):
    """What a person did."""

    VIEW = 0
    CLICK = 1
    LIKE = 2
    RATE = 3
    SEARCH = 4
    REVIEW = 5
    SKIP = 6

    @property
    def chooses(self) -> bool:
        """Whether the event says the person chose the item (a search or a skip does not)."""
        return self not in (Kind.SEARCH, Kind.SKIP)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One private act. `rating` is scaled to [0, 1]; `time` is Unix seconds."""

    kind: Kind
    item: int = NO_ITEM
    text: str = ""
    weight: float = 1.0
    rating: float = float("nan")
    time: int = 0

    def __repr__(self) -> str:
        return f"Event({self.kind.name}, contents withheld)"
