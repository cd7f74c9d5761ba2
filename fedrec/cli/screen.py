"""What a person sees while a run goes on, and when it is over."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fedrec.population.simulate import Results, Simulation
from fedrec.spec import Plan
from fedrec.study.report import cells, columns
from fedrec.task import Task


class Screen:
    """Progress on standard error, results on standard output; nothing at all if `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        # A file or a pipe has no edge at which to break a line.
        self._out = Console(quiet=quiet, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
        self._err = Console(stderr=True, quiet=quiet)

    def heading(self, simulation: Simulation) -> None:
        """Who learns what from whom, before it starts."""
        task, world = simulation.task, simulation.world
        self._out.print(f"[bold]{simulation.run.path}[/bold]")
        events = int(world.population.sizes.sum())
        self._out.print(
            f"{world.dataset.name}: {task.plan.clients:,} clients, {len(task.catalogue):,} items, {events:,} events"
        )
        for line in world.dataset.notes.lines():
            self._out.print(f"  note: {line}", markup=False)
        size, adapter = task.model.layout.size, task.plan.model.adapter
        self._out.print(f"{task.model.adapter.encoder.name} encoder, {adapter} adapter, {size:,} shared parameters")
        for promise in _promises(task):
            self._out.print(f"privacy: {promise}")
        if (ratio := task.check_widths()) > 1:
            self._out.print(f"  warning: noise is {ratio:.1f} clip norms a round; little can be learnt", style="yellow")

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say what takes so long."""
        with self._err.status(f"{what} …"):
            yield

    @contextmanager
    def training(self, simulation: Simulation) -> Iterator[Callable[[dict[str, Any]], None]]:
        """A bar over rounds, with the latest validation figure and the spent ε."""
        plan = simulation.task.plan
        with self._bar("{task.fields[said]}") as bar:
            task = bar.add_task("training", total=plan.rounds, said="")
            said: dict[str, str] = {}

            def told(row: dict[str, Any]) -> None:
                said.update(
                    {name: f"validation {name} {value:.3f}" for name, value in row.items() if name.startswith("ndcg@")}
                )
                if spent := row.get("spent"):
                    what = f"{spent['relation']} {spent['unit']}, δ = {spent['delta']:.1g}, {spent['adversary']}"
                    said["spent"] = f"ε spent {spent['epsilon']:.2f} ({what})"
                bar.update(task, completed=row["round"], said="  ".join(said.values()))

            yield told

    @contextmanager
    def measuring(self) -> Iterator[Callable[[str], None]]:
        """Name the arm that is being measured."""
        with self._err.status("Measuring …") as status:
            yield lambda arm: status.update(f"Measuring {arm} …")

    def results(self, results: Results) -> None:
        """The table, the files, and who is protected from whom."""
        first = results.evaluations["fedrec"]
        shown = columns(first)
        for some in (shown[:4], shown[4:]):
            self._out.print(_grid(results, some))
        said = first.protocol
        asked, left = said["evaluated"], said["not evaluated"]
        note = (
            f"test items of {asked} clients ({left} have none); {said['candidates']} ranked; ± is half a 95 % interval"
        )
        self._out.print(note, style="dim")
        for line in _remarks(results):
            self._out.print(line, style="yellow")
        self._out.print()
        for claim in results.statements:
            self._out.print(claim.text(), markup=False, highlight=False)
            self._out.print()
        path = results.run.path
        self._out.print(f"{path}/curve.png  {path}/table.md  {path}/statement.txt  {path}/users.parquet  {path}/pack/")

    def _bar(self, said: str) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, TextColumn(said), console=self._err)


def _promises(task: Task) -> list[str]:
    if task.privacy is None or not task.privacy.private:
        return ["non-private"]
    return [str(promise.guarantee) for promise in task.privacy.promises]


def _grid(results: Results, shown: list[str]) -> Table:
    grid = Table(box=SIMPLE, pad_edge=False)
    grid.add_column("arm")  # on a narrow screen names are broken, figures never
    for name in shown:
        grid.add_column(name, justify="right", no_wrap=True)
    for arm, evaluation in results.evaluations.items():
        grid.add_row(arm, *cells(evaluation, shown), style="bold" if arm == "fedrec" else None)
    return grid


def _remarks(results: Results) -> list[str]:
    """What did not go as planned."""
    rows, planned = results.run.metrics(), Plan.read(results.run.path / "plan.toml").rounds
    refused = sum((Counter(row.get("refused", {})) for row in rows), Counter[str]())
    lines = [f"{count} updates were refused: {reason}" for reason, count in refused.items()]
    done = rows[-1]["round"] if rows else 0
    early = f"{done} of {planned} rounds: a charge was lost in a crash, and the budget is not exceeded"
    return [*lines, early] if done < planned else lines
