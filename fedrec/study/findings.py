"""Everything that a study measured, and the figures that a report asks of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fedrec.errors import RunError
from fedrec.study.cells import Cell, Failure
from fedrec.study.inference import Contrast, Estimate, contrast, estimate
from fedrec.study.metrics import Floats

Who = Callable[[pd.DataFrame], "pd.Series[bool]"]

GROUPS: Mapping[str, Who] = {
    "least active quarter": lambda users: users["quartile"] == 1,
    "second quarter": lambda users: users["quartile"] == 2,
    "third quarter": lambda users: users["quartile"] == 3,
    "most active quarter": lambda users: users["quartile"] == 4,
    "niche taste": lambda users: users["taste"] == 1,
    "mixed taste": lambda users: users["taste"] == 2,
    "mainstream taste": lambda users: users["taste"] == 3,
    "cold users": lambda users: users["cold_user"],
    "asked for a cold item": lambda users: users["cold_targets"] > 0,
}


@dataclass(frozen=True)
class Point:
    """An arm at a budget; None is no privacy. All its seeds together are one point of a figure.

    `freed` is only for its name: an arm that has budgets, without one.
    """

    arm: str
    epsilon: float | None = None
    freed: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.epsilon is None:
            return f"{self.arm}, no privacy" if self.freed else self.arm
        return f"{self.arm}, ε = {self.epsilon:g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """A study's cells and what is to be said of all of them.

    `metric` is what the study is about, `reference` the arm without privacy that others are tested against. `checks`
    are the protocol checks that passed, `audits` the rows of the release paths' audit, `trials` how many settings each
    arm may compare on validation items. `command` and `study` (TOML) make it again; `data` is the data card.
    """

    name: str
    metric: str
    reference: str
    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...] = ()
    checks: tuple[str, ...] = ()
    audits: tuple[Mapping[str, str], ...] = ()
    trials: int = 1
    command: str = ""
    study: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cells:
            remedy = "Mend what stopped them; the same command tries again."
            first = self.failures[0].reason if self.failures else "there are no cells"
            raise RunError("a report has something to show", remedy=remedy, failed=len(self.failures), first=first)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Every arm and budget, arms as declared, budgets rising, no privacy last."""
        arms = list(dict.fromkeys(cell.arm for cell in self.cells))
        bounded = {cell.arm for cell in self.cells if cell.epsilon is not None}
        found = {Point(cell.arm, cell.epsilon, cell.epsilon is None and cell.arm in bounded) for cell in self.cells}
        return tuple(sorted(found, key=lambda at: (arms.index(at.arm), at.epsilon or math.inf)))

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Arms as declared."""
        return tuple(dict.fromkeys(point.arm for point in self.points))

    @cached_property
    def private(self) -> tuple[str, ...]:
        """Arms with at least one budget: the lines of a figure against ε."""
        return tuple(dict.fromkeys(point.arm for point in self.points if point.epsilon is not None))

    @cached_property
    def base(self) -> Point:
        """What others are tested against: the reference without privacy."""
        return Point(self.reference)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all figures, in a summary's order."""
        return tuple(dict.fromkeys(name for cell in self.cells for name in cell.measured.summary))

    def of(self, point: Point) -> tuple[Cell, ...]:
        """The seeds of a point, in their order; none if the study has no such point."""
        return self._cells.get(point, ())

    def estimate(self, point: Point, metric: str, who: Who | None = None) -> Estimate:
        """A figure of a point over its seeds and people, or over those people whom `who` picks from a cell's users."""
        return estimate(table(self.of(point), metric, who).to_numpy())

    def contrast(self, one: Point, other: Point, metric: str, who: Who | None = None) -> Contrast:
        """What `one` has over `other`, for the same people and seeds."""
        return contrast(*self._paired(one, other, metric, who))

    def surplus(self, point: Point, share: float) -> Estimate:
        """What a point has over `share` of the reference, on the study's metric, for the same people and seeds.

        An interval above 0 shows that it keeps so much: a test of a ratio (Fieller 1954), which divides by nothing.
        """
        mine, whole = self._paired(point, self.base, self.metric)
        return contrast(mine, share * whole).difference

    def validation(self, point: Point) -> float:
        """Mean over seeds of the metric on validation items; NaN where they were trained on."""
        values = [cell.measured.validation.get(self.metric, math.nan) for cell in self.of(point)]
        return float(np.mean(values)) if values else math.nan

    def leading(self, epsilon: float | None) -> Point | None:
        """The arm that validation items, not test items, prefer at a budget, or the only one; None if they cannot tell.

        Only arms that have budgets count.
        """
        there = [at for at in self.points if at.epsilon == epsilon and at.arm in self.private]
        able = [at for at in there if not math.isnan(self.validation(at))]
        return there[0] if len(there) == 1 else max(able, key=self.validation, default=None)

    @cached_property
    def leaders(self) -> tuple[Point, ...]:
        """What leads at each budget, rising, where validation items can tell."""
        named = (self.leading(epsilon) for epsilon in self.budgets)
        return tuple(point for point in named if point is not None)

    @cached_property
    def budgets(self) -> tuple[float, ...]:
        """Every ε asked for, rising."""
        return tuple(sorted({point.epsilon for point in self.points if point.epsilon is not None}))

    def _paired(self, one: Point, other: Point, metric: str, who: Who | None = None) -> tuple[Floats, Floats]:
        """(seed, user) of both, row by row and column by column the same."""
        seeds = {cell.seed for cell in self.of(one)} & {cell.seed for cell in self.of(other)}
        mine, theirs = ([cell for cell in self.of(point) if cell.seed in seeds] for point in (one, other))
        one_table, other_table = table(mine, metric, who), table(theirs, metric, who)
        return one_table.to_numpy(), other_table.reindex_like(one_table).to_numpy()

    @cached_property
    def _cells(self) -> dict[Point, tuple[Cell, ...]]:
        found: dict[Point, list[Cell]] = {}
        for cell in sorted(self.cells, key=lambda cell: cell.seed):
            found.setdefault(Point(cell.arm, cell.epsilon), []).append(cell)
        return {point: tuple(cells) for point, cells in found.items()}


def table(cells: Sequence[Cell], metric: str, who: Who | None = None) -> pd.DataFrame:
    """(seed, client) a metric's values, NaN where a client has none.

    A figure of all lists together (coverage, Gini) has one value a seed, under client −1.
    """
    rows: dict[int, pd.Series[float]] = {}
    for cell in cells:
        users = cell.measured.users
        if metric not in users:
            value = cell.measured.summary.get(metric, math.nan) if who is None else math.nan
            rows[cell.seed] = pd.Series([value], index=[-1])
            continue
        picked = users if who is None else users[who(users)]
        rows[cell.seed] = pd.Series(picked[metric].to_numpy(np.float64), index=picked["client"].to_numpy())
    return pd.DataFrame(rows).T if rows else pd.DataFrame()
