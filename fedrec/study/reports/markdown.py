"""A report as GitHub Markdown, for a CI summary or a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fedrec.study.reports.document import Card, Figure, Line, Report, Section, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_NUMERIC = re.compile(r"[<+−–]?\d|–$")


def markdown(report: Report) -> str:
    """Verdict, tables, cards and how to make it again; pictures are links to `figures/SLUG.png`.

    Whatever came from data is escaped: it is shown, never rendered.
    """
    blocks = [f"# {plain(report.title)}", plain(report.subtitle)]
    blocks += [block for section in report.sections for block in _section(section)]
    return "\n\n".join(blocks) + "\n"


def plain(text: str) -> str:
    """`text` on one line, shown as it is."""
    safe = _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    return " ".join(safe.split())


def _section(section: Section) -> Iterator[str]:
    yield f"## {plain(section.title)}"
    yield from map(plain, section.text)
    if section.lines:
        yield "\n".join(map(_line, section.lines))
    yield from map(_figure, section.figures)
    for table in section.tables:
        yield from _table(table)
    for card in section.cards:
        yield from _card(card)
    for caption, text in section.code:
        yield f"{plain(caption)}:"
        yield _code(text)


def _line(line: Line) -> str:
    return f"- **{line.tone}**: {plain(line.text)}"


def _figure(figure: Figure) -> str:
    return f"![{plain(figure.alt)}](figures/{figure.slug}.png)"


def _table(table: Table) -> Iterator[str]:
    yield f"**{plain(table.title)}**"
    ruler = ("---", *map(_ruled, list(zip(*table.rows, strict=True))[1:]))
    body = [tuple(map(plain, row)) for row in (table.header, *table.rows)]
    yield "\n".join(f"| {' | '.join(row)} |" for row in (body[0], ruler, *body[1:]))
    if table.note:
        yield plain(table.note)


def _ruled(column: tuple[str, ...]) -> str:
    """Numbers to the right, words to the left."""
    return "---:" if all(_NUMERIC.match(cell) for cell in column) else "---"


def _card(card: Card) -> Iterator[str]:
    yield f"### {plain(card.title)}"
    yield f"**{plain(card.label)}** {plain(card.sentence)}"
    if card.facts:
        yield "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in card.facts)
    for title, lines in (("It assumes:", card.assumptions), ("It does not protect:", card.not_protected)):
        if lines:
            yield title
            yield "\n".join(f"- {plain(line)}" for line in lines)


def _code(text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
