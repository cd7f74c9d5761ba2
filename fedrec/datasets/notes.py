"""An honest account of what in the files could not be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

NUMERIC = re.compile(r"[\d\s.,:/+-]*([AP]M)?")  # numbers and clock times
EXAMPLES = 5  # kept for each reason


class Place(NamedTuple):
    """Where a problem is. `row` counts from 1, as an editor shows it; `value` went through `showable`."""

    file: str
    row: int
    column: str
    value: str

    def __str__(self) -> str:
        return f"{self.file} row {self.row}, {self.column} {self.value!r}"


class Note(NamedTuple):
    """One reason, how many rows (or items, or clients) it concerns, and the first few of them."""

    reason: str
    rows: int
    examples: tuple[Place, ...] = ()

    def __str__(self) -> str:
        shown = f" (for example {'; '.join(map(str, self.examples))})" if self.examples else ""
        return f"{self.reason}: {self.rows:,}{shown}"


@dataclass(frozen=True)
class Notes:
    """Counted reasons in order of appearance. `Notes()` is zero and `+` is associative."""

    entries: tuple[Note, ...] = ()

    @classmethod
    def of(cls, reason: str, count: int, examples: Iterable[Place] = ()) -> Notes:
        """One reason; zero rows are no note."""
        return cls((Note(reason, count, tuple(examples)[:EXAMPLES]),) if count else ())

    def __add__(self, other: Notes) -> Notes:
        merged = {note.reason: note for note in self.entries}
        for note in other.entries:
            mine = merged.get(note.reason, Note(note.reason, 0))
            examples = (mine.examples + note.examples)[:EXAMPLES]
            merged[note.reason] = Note(note.reason, mine.rows + note.rows, examples)
        return Notes(tuple(merged.values()))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def located(self, rows: Callable[[Sequence[int]], Sequence[int]]) -> Notes:
        """The same notes with every `row` passed through `rows`, in one call (it may read a file)."""
        found = iter(rows([place.row for note in self.entries for place in note.examples]))
        return Notes(
            tuple(
                note._replace(examples=tuple(place._replace(row=next(found)) for place in note.examples))
                for note in self.entries
            )
        )

    def count(self, reason: str) -> int:
        """Rows noted for `reason`; 0 when there are none."""
        return sum(note.rows for note in self.entries if note.reason == reason)

    def lines(self) -> list[str]:
        """One readable line for each reason."""
        return [str(note) for note in self.entries]


def showable(value: object) -> str:
    """A value for a message: ids and numbers as they are, anything that could be prose by its length."""
    text = "" if value is None else str(value)
    prose = len(text.split()) > 1 and not NUMERIC.fullmatch(text)
    return f"<{len(text)} characters>" if prose or len(text) > 40 else text
