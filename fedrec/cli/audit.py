"""`fedrec audit`: attack the release paths, and the attacks themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.data import Format, FormatOption

if TYPE_CHECKING:
    from fedrec.study.audits import Row

CAVEAT = (
    "An audit can falsify a claim. Passing is not proof: it says that these attacks, in so many runs, found no more "
    "than was claimed."
)


def audit(
    thorough: Annotated[bool, typer.Option("--thorough", help="Also audit whole runs and recorded uploads.")] = False,  # noqa: FBT002
    form: FormatOption = Format.TEXT,
) -> None:
    """Attack every mode's release path, and check with planted faults that the attack would see a fault.

    Seconds; minutes with --thorough, which adds the one-run bound, canaries, and membership and reconstruction attacks
    on recorded uploads of a made-up population. Exits with 4 if a claim is falsified or an attack turns out blind.
    """
    rows = list(_watched(_rows(thorough=thorough)))
    if form is Format.JSON:
        content = {"audits": [{**asdict(row), "ok": row.verdict.ok} for row in rows], "caveat": CAVEAT}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _show(rows)
    _judge(rows)


def _rows(*, thorough: bool) -> Iterator[Row]:
    from fedrec.study.audits import quick, whole_runs

    yield from quick()
    if thorough:
        from fedrec.study.exposure import Scale, exposed

        yield from whole_runs()
        yield from exposed(Scale())


def _watched(rows: Iterable[Row]) -> Iterator[Row]:
    from rich.console import Console

    from fedrec.population.workers import one_thread

    with one_thread(), Console(stderr=True).status("Attacking …") as status:
        for row in rows:
            status.update(f"{row.audit}, {row.mode}: {row.verdict} …")
            yield row


def _show(rows: list[Row]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for name in ("audit", "mode", "seen by", "claim", "shown", "could have shown", "power check", "verdict"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(str, asdict(row).values()), style=None if row.verdict.ok else "red")
    # A file or a pipe has no edge at which to break a line.
    console = Console(width=None if sys.stdout.isatty() else 220, highlight=False)
    console.print(table)
    console.print(CAVEAT)


def _judge(rows: list[Row]) -> None:
    from fedrec.errors import AuditFailed

    failed = [f"{row.audit}, {row.mode}: {row.verdict}" for row in rows if not row.verdict.ok]
    if failed:
        remedy = "Claim nothing with this installation, and report it with `fedrec audit --format json`."
        raise AuditFailed("every claim survives, and every attack sees", remedy=remedy, failed=failed)
