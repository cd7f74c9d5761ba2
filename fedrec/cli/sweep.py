"""`fedrec sweep` and `fedrec report`: accuracy against privacy budget, and what to read about it."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperCommand

from fedrec.cli.simulate import nested
from fedrec.errors import GateFailed, RunError, require

if TYPE_CHECKING:
    from rich.console import Console

    from fedrec.study.design import Study
    from fedrec.study.findings import Findings
    from fedrec.study.gate import Gate
    from fedrec.study.reports.document import Report


class Form(StrEnum):
    """What a study prints."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class ManyValues(TyperCommand):
    """A command whose repeatable options take all values that follow: --epsilon 1 2 4."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat a repeatable option before each further value."""
        many = {name for each in self.params if getattr(each, "multiple", False) for name in each.opts}
        spread: list[str] = []
        current, given = "", False
        for word in args:
            if word.startswith("-"):
                current, given = (word, False) if word in many else ("", False)
                spread.append(word)
                continue
            spread += [current, word] if current and given else [word]
            given = True
        return super().parse_args(ctx, spread)


OutOption = Annotated[Path | None, typer.Option(help="The folder, instead of one below runs/.")]
FormOption = Annotated[Form, typer.Option("--format", help="Print for people, for programs, or for a CI's summary.")]
GateOption = Annotated[
    list[str] | None,
    typer.Option(help='A figure that must be reached, such as "ndcg@10[eps=2] >= 0.3"; else exit code 7.'),
]


def sweep(  # noqa: PLR0913  (one parameter a flag)
    study: Annotated[Path | None, typer.Argument(help="A study in TOML; flags go on top of it.")] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="Budgets; inf stands for none.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds, from 0.", min=1)] = None,
    arms: Annotated[
        list[str] | None, typer.Option(help="RECIPE, RECIPE:MODE or RECIPE:MODE:ADAPTER, see docs/study.md.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="NAME or NAME:PATH, see `fedrec data list`.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="A setting that all arms share, such as federation.rounds=20."),
    ] = None,
    gate: GateOption = None,
    jobs: Annotated[int, typer.Option(help="Cells side by side; 0 stands for one a core.", min=0)] = 0,
    out: OutOption = None,
    form: FormOption = Form.TEXT,
) -> None:
    """Measure arms × budgets × seeds on the same people, and write one report.

    Cells that the folder holds already are not run again; a failed cell is reported and the rest goes on. Without
    arguments: the synthetic library, every baseline, and a warm start under user-central at six budgets.
    """
    from fedrec.study.design import Study
    from fedrec.study.gate import Gate
    from fedrec.study.index import findings_of
    from fedrec.study.sweep import sweep as run

    gates = [Gate.parse(text) for text in gate or ()]
    asked = _asked(Study.read(study) if study else Study(), _changes(epsilon, seeds, arms), data, settings)
    _check(asked, gates)
    folder = out or Path("runs") / asked.name
    with _watched(quiet=form is not Form.TEXT) as watcher:
        run(asked, folder, workers=jobs or os.cpu_count() or 1, command=_command(), watcher=watcher)
    findings = findings_of(folder)
    _tell(findings, folder / "report", gates, form)
    if findings.failures:
        remedy = "The report says why; the same command tries these again, and nothing else."
        raise RunError("every cell of a study is measured", remedy=remedy, failed=len(findings.failures),
                       measured=len(findings.cells))  # fmt: skip


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of one study.")],
    gate: GateOption = None,
    out: OutOption = None,
    form: FormOption = Form.TEXT,
) -> None:
    """Write a report of a study, or of runs on the same data, without running anything."""
    from fedrec.study.gate import Gate
    from fedrec.study.gather import gathered
    from fedrec.study.index import INDEX, findings_of

    gates = [Gate.parse(text) for text in gate or ()]
    studies = [folder for folder in runs if (folder / INDEX).exists()]
    require(not studies or len(runs) == 1, "a report is of one study, or of runs", remedy="Report them one by one.",
            studies=[str(folder) for folder in studies])  # fmt: skip
    findings = findings_of(studies[0]) if studies else gathered(runs, _command())
    _tell(findings, out or (studies[0] if studies else Path("runs")) / "report", gates, form)


def _changes(epsilon: list[float] | None, seeds: int | None, arms: list[str] | None) -> dict[str, Any]:
    from fedrec.study.design import ArmSpec

    given = {"epsilon": epsilon, "seeds": seeds, "arms": [ArmSpec.parse(arm) for arm in arms] if arms else None}
    return {name: value for name, value in given.items() if value is not None}


def _asked(study: Study, changes: dict[str, Any], data: str | None, settings: Sequence[str] | None) -> Study:
    """The study with what the flags say on top; one with other data takes their name."""
    from fedrec.study.design import narrowed

    plan = study.plan
    if data is not None:
        name, _, path = data.partition(":")
        plan, changes = plan.override({"data": {"source": name, "path": path, "options": {}}}), changes | {"name": name}
    return narrowed(study, changes | {"plan": plan.override(nested(settings or ()))})


def _check(study: Study, gates: Sequence[Gate]) -> None:
    """Refuse a gate about an arm, a budget or a metric that the study will not have, before hours are spent on it."""
    for figure in (figure for gate in gates for figure in (gate.figure, gate.of) if figure):
        remedy = f"There are: {', '.join(study.figures)}."
        known = figure.metric.partition("/")[0] in study.figures
        require(known, "a gate names a metric of the study", remedy=remedy, gate=str(figure))
        arms = [arm.title for arm in study.arms]
        remedy = f"There are: {'; '.join(arms)}."
        require(figure.arm in (None, *arms), "a gate names an arm of the study", remedy=remedy, gate=str(figure))
        there = sorted(math.inf if epsilon is None else epsilon for arm, epsilon in study.points
                       if figure.arm in (None, arm.title))  # fmt: skip
        remedy = f"There are: {', '.join(f'eps={each:g}' for each in dict.fromkeys(there))}."
        fits = figure.epsilon in there if figure.epsilon is not None else len(there) == 1
        require(fits, "a gate is about one arm at one budget of the study", remedy=remedy, gate=str(figure))


def _command() -> str:
    return shlex.join(["fedrec", *sys.argv[1:]])


@contextmanager
def _watched(*, quiet: bool) -> Iterator[Any]:
    """A bar over cells on standard error; failures are named as they come."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from fedrec.study.sweep import Watcher

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[said]}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True, quiet=quiet)) as bar:
        task = bar.add_task("reading data, checking the protocol", total=None, said="")

        class Told(Watcher):
            """The bar."""

            def stage(self, what: str, total: int, cached: int) -> None:
                """Start over with another kind of cell."""
                bar.reset(task, total=total, completed=cached, description=what, said=f"{cached} done before")

            def finished(self, cell: str, reason: str) -> None:
                """One more; a failure gets a line of its own."""
                bar.update(task, advance=1, said=cell)
                if reason:
                    bar.console.print(f"{cell} failed: {reason}", style="red", markup=False,
                                      highlight=False, soft_wrap=True)  # fmt: skip

        yield Told()


def _tell(findings: Findings, folder: Path, gates: Sequence[Gate], form: Form) -> None:
    """Write the report, print its short form, and judge what was asked of it."""
    from rich.console import Console

    from fedrec.study.reports.markdown import markdown
    from fedrec.study.reports.write import write_report

    written = write_report(findings, folder)
    match form:
        case Form.JSON:
            typer.echo((folder / "summary.json").read_text(encoding="utf-8"))
        case Form.MARKDOWN:
            typer.echo(markdown(written))
        case Form.TEXT:
            # A file or a pipe has no edge at which to break a line.
            _short(written, Console(width=None if sys.stdout.isatty() else 200, highlight=False), folder)
    _judge(findings, gates)


def _short(written: Report, console: Console, folder: Path) -> None:
    """The verdict and the main table, as far as a terminal shows them."""
    from rich.table import Table

    colours = {"good": "green", "caution": "yellow", "warning": "red"}
    for line in next((section.lines for section in written.sections if section.slug == "verdict"), ()):
        console.print(f"{line.tone}: {line.text}", style=colours.get(line.tone), markup=False)
    main = next((table for section in written.sections if section.slug == "results" for table in section.tables), None)
    if main:
        grid = Table(title=main.title, caption=main.note or None)
        for at, name in enumerate(main.header):
            grid.add_column(name, justify="right" if at else "left", overflow="fold")
        for row in main.rows:
            grid.add_row(*row)
        console.print(grid)
    console.print(
        f"{folder}/index.html  {folder}/report.md  {folder}/cells.csv  {folder}/summary.json  {folder}/figures/"
    )


def _judge(findings: Findings, gates: Sequence[Gate]) -> None:
    judged = [gate.judge(findings) for gate in gates]
    for one in judged:
        verdict = "holds" if one.holds else "FAILS"
        typer.echo(f"gate {verdict}: {one.gate}: {one.point} has {one.value:.4g}, bound {one.bound:.4g}", err=True)
    if lost := [one for one in judged if not one.holds]:
        remedy = "See the report; figures that were not measured (NaN) hold no gate."
        raise GateFailed("a study reaches every figure that is asked of it", remedy=remedy,
                         failed=[one.gate for one in lost])  # fmt: skip
