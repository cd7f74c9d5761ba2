"""The parts of a report, before anybody decides whether they become HTML or Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Tone(StrEnum):
    """How a line of the verdict is meant. Never told by colour alone: each has a word of its own."""

    GOOD = "good"
    PLAIN = "note"
    WARN = "caution"
    BAD = "warning"


@dataclass(frozen=True)
class Line:
    """One sentence of the verdict."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names its row. `note` says what the numbers mean."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture with its numbers. `svg` follows the page's colours, `print_svg` and `png` are for paper.

    `alt` says in a sentence what the picture shows; `table` has every number in it.
    """

    slug: str
    title: str
    alt: str
    svg: str = field(repr=False)
    print_svg: str = field(repr=False)
    png: bytes = field(repr=False)
    table: Table = field(repr=False)


@dataclass(frozen=True)
class Card:
    """What an arm promises, to whom, and what it does not: `sentence` and `label` of its statement, and its numbers."""

    title: str
    label: str
    sentence: str
    facts: tuple[tuple[str, str], ...]
    assumptions: tuple[str, ...]
    not_protected: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A chapter. `lines` are for sections that judge; everything may be empty but the title."""

    slug: str
    title: str
    text: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    cards: tuple[Card, ...] = ()
    code: tuple[tuple[str, str], ...] = ()  # (caption, text shown as it is)


@dataclass(frozen=True)
class Report:
    """A whole report: verdict first, how to make it again last."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All of them, in order."""
        return tuple(figure for section in self.sections for figure in section.figures)
