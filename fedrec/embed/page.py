"""What `recommend` returns: a page of picks, each with its score and the reason for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cause:
    """A part of a score. `source`: "event", "preference", "popularity", "embedding" or "rank" (diversity and the like).

    `label` says it for people: the title of an item, the words of a search, a preference. `event` is the event's id, 0
    for other sources. The values of all causes of a pick add up to its score.
    """

    source: str
    label: str
    value: float
    event: int = 0

    def __repr__(self) -> str:
        return f"Cause({self.source}, {self.value:+.3f}, contents withheld)"


@dataclass(frozen=True)
class Reason:
    """Why an item has its score: all causes, the largest first, and as a sentence.

    `words` of its text matter most; `explain` finds them, `Pick.why` does not: they cost a reading each.
    """

    causes: tuple[Cause, ...]
    sentence: str
    words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Reason({len(self.causes)} causes, contents withheld)"


@dataclass(frozen=True)
class Pick:
    """One recommended item. `source`: "taste", "popular" (nothing is known of the person) or "explore"."""

    item: str
    title: str
    score: float
    source: str
    explain: Callable[[], Reason] = field(repr=False, compare=False)

    @property
    def why(self) -> Reason:
        """The reason, computed when it is asked for."""
        return self.explain()


@dataclass(frozen=True)
class Page:
    """Recommended items, best first. `id` names the page in the person's own log."""

    id: int
    picks: tuple[Pick, ...]

    def __iter__(self) -> Iterator[Pick]:
        return iter(self.picks)

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, place: int) -> Pick:
        return self.picks[place]
