"""What a person said they like or do not like, in the form in which it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Polarity(IntEnum):
    """Which way, and how far."""

    NEVER = -2  # such items are hidden
    LESS = -1
    MORE = 1


class Scope(StrEnum):
    """What a preference is about."""

    TOPIC = "topic"  # whatever means the same as `about`, found by text
    TAG = "tag"  # items that bear the tag `about`
    ITEM = "item"  # the item whose id is `about`, and items like it


@dataclass(frozen=True, kw_only=True)
class Preference:
    """One wish. `said` is what the person wrote, "" where a button said it; `time` is in Unix seconds."""

    polarity: Polarity
    scope: Scope
    about: str
    said: str = ""
    time: int = 0

    def __repr__(self) -> str:
        return f"Preference({self.polarity.name}, {self.scope}, contents withheld)"
