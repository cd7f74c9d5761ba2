"""How models learnt, round by round, and what ε they had spent by then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedrec.runs import Row
from fedrec.study.findings import Findings, Point
from fedrec.study.reports import captions
from fedrec.study.reports.captions import digits
from fedrec.study.reports.document import Figure, Table
from fedrec.study.reports.drawing import Style, legend, sample, sheet, wrapped
from fedrec.study.reports.numbers import DASH, count, mean
from fedrec.study.reports.rendering import Caption, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 8  # lines that can be told apart


@dataclass(frozen=True)
class Course:
    """By round: the mean over the seeds that told a figure there, the least and the greatest of them."""

    mean: Mapping[int, float]
    low: Mapping[int, float]
    high: Mapping[int, float]

    @classmethod
    def of(cls, findings: Findings, point: Point, told: Callable[[Row], float | None]) -> Course:
        """Of one point, what `told` finds in a round's row."""
        found: dict[int, list[float]] = {}
        for row in (row for cell in findings.of(point) for row in cell.measured.rounds):
            if (value := told(row)) is not None:
                found.setdefault(row["round"], []).append(value)
        rounds = sorted(found)
        return cls(*({n: pick(found[n]) for n in rounds} for pick in (mean, min, max)))


def curves(findings: Findings) -> Figure | None:
    """The metric on validation items by round, and the ε spent by then, for points with more than one round."""
    able = [at for at in findings.points if any(len(cell.measured.rounds) > 1 for cell in findings.of(at))]
    wanted = dict.fromkeys((findings.base, *captions.picked(findings, findings.budgets)))
    shown = [at for at in wanted if at in able][:_MOST]
    learnt = {at: Course.of(findings, at, lambda row: row.get(findings.metric)) for at in shown}
    spent = {at: Course.of(findings, at, _spent) for at in shown}
    parts = {f"{findings.metric} on validation items": learnt, _spent_label(findings, shown): spent}
    told = {label: part for label, part in parts.items() if any(len(each.mean) > 1 for each in part.values())}
    if not told:
        return None
    title = "Learning curves and spent ε"
    note = (
        f"Shown: {' and '.join(filter(None, ('the reference', captions.why(findings))))}; left out: "
        f"{count(len(able) - len(shown), 'other')}. "
        "Means over seeds; bands reach from the worst seed to the best. No test item was looked at."
    )
    header = ("arm and budget", "round", f"validation {findings.metric}", "least", "greatest", "spent ε")
    rows = (row for at in shown for row in _rows(at, learnt[at], spent[at]))
    alt = f"{'; '.join(_sentence(at, learnt[at], spent[at]) for at in shown)}."
    return _drawn(
        told,
        findings.base,
        Caption("curves", title, alt, Table(title, header, tuple(rows), note + _protects(findings, spent))),
    )


def _drawn(told: Mapping[str, Mapping[Point, Course]], base: Point, caption: Caption) -> Figure:
    from matplotlib.ticker import MaxNLocator

    points = next(iter(told.values()))
    others = [at for at in points if at != base]
    styles = [Style.reference() if at == base else Style.of(others.index(at)) for at in points]
    drawing = sheet(len(told), 1, 2.6)
    grid = drawing.subplots(len(told), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, part) in zip(grid, told.items(), strict=True):
        _draw(axes, zip(part.values(), styles, strict=True))
        axes.set_ylabel(wrapped(label, 30))
    grid[-1].set_xlabel("round")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(drawing, ((sample(style), str(at)) for at, style in zip(points, styles, strict=True)))
    return rendered(drawing, caption)


def _draw(axes: Axes, courses: Iterable[tuple[Course, Style]]) -> None:
    for number, (each, style) in enumerate(courses):
        rounds = list(each.mean)
        axes.fill_between(
            rounds, list(each.low.values()), list(each.high.values()), color=style.colour, alpha=0.15, linewidth=0
        )
        # One marker in eight rounds or so, the first of each line elsewhere: lines that lie together are told apart.
        step = max(1, len(rounds) // 8)
        axes.plot(
            rounds, list(each.mean.values()), color=style.colour, marker=style.marker, linestyle=style.dash,
            markersize=4.5, linewidth=1.4, markevery=(number % step, step),
        )  # fmt: skip


def _spent(row: Row) -> float | None:
    return row["spent"]["epsilon"] if "spent" in row else None


def _spent_label(findings: Findings, shown: Iterable[Point]) -> str:
    promises = dict.fromkeys(captions.promise(findings, at) for at in shown if at.epsilon is not None)
    return f"spent ε ({next(iter(promises))})" if len(promises) == 1 else "spent ε (units differ: see the note)"


def _protects(findings: Findings, spent: Mapping[Point, Course]) -> str:
    said: dict[str, list[str]] = {}
    for at in (at for at, course in spent.items() if course.mean):
        said.setdefault(captions.promise(findings, at), []).append(str(at))
    return "".join(f" Spent ε protects {text} ({'; '.join(points)})." for text, points in said.items())


def _rows(at: Point, learnt: Course, spent: Course) -> Iterator[tuple[str, ...]]:
    for n in sorted({*learnt.mean, *spent.mean}):
        figures = (part.get(n) for part in (learnt.mean, learnt.low, learnt.high, spent.mean))
        yield str(at), str(n), *(DASH if value is None else digits(value) for value in figures)


def _sentence(at: Point, learnt: Course, spent: Course) -> str:
    rounds = list(learnt.mean)
    if not rounds:
        return f"{at}: no validation figures"
    first, last = rounds[0], rounds[-1]
    paid = f", ε {digits(list(spent.mean.values())[-1])} spent" if spent.mean else ""
    return (
        f"{at}: from {digits(learnt.mean[first])} in round {first} to {digits(learnt.mean[last])} in round {last}{paid}"
    )
