"""A report as one HTML document that asks nobody for anything: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

from fedrec.study.reports.document import Report, Table

PROSE = 32  # a column with a longer cell is sentences, not words
_GLUED = re.compile(r"(?<=[εδ]) (?== )|(?<=[εδ] =) (?=\d)|(?<=\d) (?=%)")
_NUMBERS = re.compile(r"([-+±≤≥<>~≈–−.,:;%×/()\[\]\s0-9e∞]|\bto\b)*")


def page(report: Report) -> str:
    """The whole document. Everything in it is escaped but the figures' own `svg`, which must come from our code.

    Guarantees: no request of any kind, also by policy, and equal bytes for equal reports.
    """
    from jinja2 import Environment, StrictUndefined

    house = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_unbroken
    )
    return house.from_string(_beside("page.html.j2")).render(report=report, style=_beside("page.css"), kinds=_kinds)


def _beside(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _unbroken(value: object) -> object:
    """Text in which no line ends within “ε = 2” or “95 %”; what is markup or code is left as it is."""
    return _GLUED.sub("\N{NO-BREAK SPACE}", value) if type(value) is str else value


def _kinds(table: Table) -> tuple[str, ...]:
    """For each column, how it is set: "number", "word" or "prose"."""
    return tuple(_kind([row[at] for row in table.rows]) for at in range(len(table.header)))


def _kind(cells: list[str]) -> str:
    if cells and all(_NUMBERS.fullmatch(cell) for cell in cells):
        return "number"
    return "prose" if max(map(len, cells), default=0) > PROSE else "word"
