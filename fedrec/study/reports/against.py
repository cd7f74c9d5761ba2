"""Figures against ε: accuracy, what lies beyond accuracy, and noise."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fedrec.study.findings import Findings, Point
from fedrec.study.inference import Estimate
from fedrec.study.reports import captions
from fedrec.study.reports.captions import digits, sure
from fedrec.study.reports.document import Figure, Table
from fedrec.study.reports.drawing import (
    Dot,
    Level,
    Panel,
    Style,
    draw_panel,
    legend,
    logarithmic,
    sample,
    sample_level,
    sheet,
    wrapped,
)
from fedrec.study.reports.numbers import count
from fedrec.study.reports.protocol import meaning
from fedrec.study.reports.rendering import INK, Caption, rendered
from fedrec.study.reports.scale import Scale

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure as Drawing

Estimates = Mapping[tuple[Point, str], Estimate]

_CUT = "An interval ends where the metric does."
_ACCURACY = ("hr", "ndcg", "mrr", "recall", "precision", "f1")
_BEYOND = {
    "coverage": "coverage: share of items shown",
    "gini": "Gini: 1 is one item for all",
    "diversity": "diversity: unlike within a list",
    "novelty": "novelty: bits of surprise",
    "popularity": "popularity of what is shown",
    "miscalibration": "miscalibration: unlike the person",
}
_MOST = {"novelty": math.inf, "miscalibration": math.inf, "diversity": 2.0}  # all others end at 1, each begins at 0


@dataclass(frozen=True)
class Cast:
    """Who is drawn against ε, and how: arms with a budget as lines, all others as levels.

    Without any budget every arm is a line, of one point.
    """

    findings: Findings

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """Arms that are lines."""
        return self.findings.private or self.findings.arms

    @cached_property
    def levels(self) -> tuple[Point, ...]:
        """Points that are horizontal lines, the reference first."""
        base, points = self.findings.base, self.findings.points
        others = [at for at in points if at.arm not in self.lines and at != base]
        return (base, *others) if base in points else tuple(others)

    @cached_property
    def scale(self) -> Scale:
        """The axis of budgets."""
        unlimited = any(at.epsilon is None and at.arm in self.lines for at in self.findings.points)
        return Scale(self.findings.budgets, unlimited)

    def panel(self, title: str, metric: str, values: Estimates) -> Panel:
        """Axes with one metric."""
        lines = {arm: [_dot(at, values[at, metric]) for at in self._at(arm)] for arm in self.lines}
        return Panel(title, lines, {at.arm: self._level(at, values[at, metric]) for at in self.levels})

    def handles(self, letters: Mapping[str, str]) -> Iterator[tuple[Artist, str]]:
        """A legend of all lines, and of levels that have a letter."""
        for number, arm in enumerate(self.lines):
            yield sample(Style.of(number)), arm
        for number, at in enumerate(self.levels):
            if at.arm in letters:
                yield sample_level(number, reference=at == self.findings.base), f"{letters[at.arm]}: {at.arm}"

    def _at(self, arm: str) -> list[Point]:
        return [at for at in self.findings.points if at.arm == arm]

    def _level(self, at: Point, value: Estimate) -> Level:
        return Level(value.mean, (value.low, value.high) if at == self.findings.base else None)


def headline(findings: Findings) -> Figure | None:
    """What the study is about, against ε."""
    metric = findings.metric
    values = estimates(findings, (metric,))
    if not _known(values, metric):
        return None
    cast = Cast(findings)
    drawing = sheet(1, 1, 3.9)
    axes = drawing.subplots()
    names = {at.arm: wrapped(at.arm, 20) for at in cast.levels}
    draw_panel(axes, cast.panel("", metric, values), cast.scale, names)
    cast.scale.draw(axes, captions.unit(findings), nearest=0.05)
    axes.set_ylabel(f"{metric} on test items")
    legend(drawing, cast.handles({}))
    title = f"{metric} against the privacy budget"
    rows = tuple(_row(findings, at, values[at, metric]) for at in findings.points)
    header = ("arm", "ε", metric, "95 % from", "to", "seeds", "people", "ε protects")
    table = Table(title, header, rows, f"{meaning(findings)} {_CUT}")
    return rendered(drawing, Caption("headline", title, _alt(findings, (metric,), values), table))


def accuracy(findings: Findings) -> Figure | None:
    """Every other accuracy metric at the same k, unless it says the same as another."""
    k = findings.metric.partition("@")[2].partition("/")[0]
    full = [f"{kind}@{k}" for kind in _ACCURACY]
    sampled = [name for name in findings.metrics if "/" in name and name.partition("/")[0] in (f"ndcg@{k}", f"hr@{k}")]
    asked = [name for name in (*full, *sampled) if name in findings.metrics and name != findings.metric]
    shown, same = distinct(findings, asked)
    told = "; ".join(f"{name} is {other} times a constant" for name, other in same.items())
    note = f" Not drawn again: {told}." if told else ""
    return _multiples(findings, dict(zip(shown, shown, strict=True)), ("accuracy", "Accuracy against ε", note))


def beyond(findings: Findings) -> Figure | None:
    """What lists are like, right or wrong."""
    k = findings.metric.partition("@")[2].partition("/")[0]
    titles = {f"{kind}@{k}": title for kind, title in _BEYOND.items() if f"{kind}@{k}" in findings.metrics}
    return _multiples(findings, titles, ("beyond", "Beyond accuracy, against ε", ""))


def noise(findings: Findings) -> Figure | None:
    """Noise over clip norm, and the signal that the planner expects of a warm start, against ε."""
    told = {at: _foreseen(findings, at) for at in findings.points if at.epsilon is not None}
    names = tuple(dict.fromkeys(name for each in told.values() for name in each))
    if not names:
        return None
    cast = Cast(findings)
    panels = [
        Panel(name, {arm: [Dot(at.epsilon, told[at].get(name, math.nan)) for at in told if at.arm == arm]
                     for arm in findings.private}, {}) for name in names
    ]  # fmt: skip
    drawing = _grid(panels, Scale(findings.budgets, unlimited=False), {}, captions.unit(findings))
    for axes in drawing.axes:
        axes.axhline(1, color=INK, linewidth=1, alpha=0.65)
        logarithmic(axes, along="y")
    legend(drawing, cast.handles({}))
    rows = tuple((at.arm, captions.budget(at.epsilon), *(digits(each.get(name, math.nan)) for name in names))
                 for at, each in told.items() if each)  # fmt: skip
    title = "Noise against ε"
    note = (
        "Foreseen from public numbers before the run. Noise over clip norm: the length of the noise on a round's mean "
        "over the length that one person's update may have; at 1 they are alike. Signal: popularity over the noise on "
        "it."
    )
    return rendered(drawing, Caption("noise", title, _noise_alt(told), Table(title, ("arm", "ε", *names), rows, note)))


def estimates(findings: Findings, metrics: Sequence[str]) -> Estimates:
    """Every point's figures; no interval reaches beyond what a metric can be."""
    return {(at, name): _possible(findings.estimate(at, name), name) for at in findings.points for name in metrics}


def _possible(value: Estimate, metric: str) -> Estimate:
    most = _MOST.get(metric.partition("@")[0], 1.0)
    return replace(value, low=max(value.low, min(value.mean, 0.0)), high=min(value.high, max(value.mean, most)))


def distinct(findings: Findings, metrics: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Metrics that say something of their own, and the others: {name: the one it is a constant times}.

    Cell by cell, with one rounding error's tolerance: with one held-out item a person, precision at k is hit rate / k.
    """
    columns = {
        name: np.array([cell.measured.summary.get(name, math.nan) for cell in findings.cells])
        for name in (findings.metric, *metrics)
    }
    shown, same = [findings.metric], dict[str, str]()
    for name in metrics:
        twin = next((other for other in shown if _proportional(columns[name], columns[other])), None)
        if twin is None:
            shown.append(name)
        else:
            same[name] = twin
    return shown[1:], same


def _proportional(
    one: np.ndarray[tuple[int], np.dtype[np.float64]], other: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> bool:
    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 2 or np.ptp(other[known]) == 0:
        return False
    factor = one[known].sum() / other[known].sum()
    return bool(np.allclose(one[known], factor * other[known], rtol=1e-9, atol=1e-12))


def _multiples(findings: Findings, titles: Mapping[str, str], words: tuple[str, str, str]) -> Figure | None:
    """Small multiples of metrics; `words` are slug, title and what the note adds."""
    metrics = tuple(titles)
    values = estimates(findings, metrics)
    metrics = tuple(name for name in metrics if _known(values, name))
    if not metrics:
        return None
    cast = Cast(findings)
    letters = {at.arm: letter for at, letter in zip(cast.levels, string.ascii_letters, strict=False)}
    panels = [cast.panel(titles[name], name, values) for name in metrics]
    drawing = _grid(panels, cast.scale, letters, captions.unit(findings))
    legend(drawing, cast.handles(letters))
    slug, title, note = words
    rows = tuple(
        (at.arm, captions.budget(at.epsilon), *(sure(values[at, name]) for name in metrics)) for at in findings.points
    )
    table = Table(title, ("arm", "ε", *metrics), rows, f"{meaning(findings)} {_CUT}{note}")
    return rendered(drawing, Caption(slug, title, _alt(findings, metrics, values) + note, table))


def _grid(panels: Sequence[Panel], scale: Scale, letters: Mapping[str, str], label: str) -> Drawing:
    """Panels in two columns, or one above the other if there is but one."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    drawing = sheet(rows, columns, 2.3)
    grid = drawing.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel, scale, letters)
        scale.draw(axes, "", nearest=0.1)
    for axes in grid.flat[: len(panels)][-columns:]:
        axes.set_xlabel(label)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    return drawing


def _dot(at: Point, value: Estimate) -> Dot:
    return Dot(at.epsilon, value.mean, value.low, value.high)


def _known(values: Estimates, metric: str) -> bool:
    return any(math.isfinite(value.mean) for (_, name), value in values.items() if name == metric)


def _row(findings: Findings, at: Point, value: Estimate) -> tuple[str, ...]:
    numbers = (digits(value.mean), digits(value.low), digits(value.high), str(value.seeds), str(value.users))
    return at.arm, captions.budget(at.epsilon), *numbers, captions.protects(findings, at)


def _alt(findings: Findings, metrics: Sequence[str], values: Estimates) -> str:
    """Intervals if there is one metric; all metrics only at the largest budget and for the reference."""
    say = sure if len(metrics) == 1 else lambda value: digits(value.mean)
    points = captions.ends(findings)[0 if len(metrics) == 1 else -2 :] or findings.points[:2]
    told = [f"{at}: {', '.join(f'{name} {say(values[at, name])}' for name in metrics)}" for at in points]
    return f"{'; '.join(told)}. {_who(findings)}"


def _who(findings: Findings) -> str:
    budgets = len(findings.budgets)
    if not budgets:
        return f"{count(len(findings.arms), 'arm')}, all without privacy."
    arms = f"{count(len(findings.private), 'arm')} at {count(budgets, 'budget')}"
    also = ", and the reference" if findings.of(findings.base) else ""
    return f"{arms}; named here: {captions.why(findings)}{also}."


def _foreseen(findings: Findings, at: Point) -> dict[str, float]:
    """{panel: mean over seeds} of what was foreseen for a point."""
    found: dict[str, list[float]] = {}
    for cell in findings.of(at):
        told = cell.measured.manifest.get("foreseen") or {}
        for phase, ratio in told.get("noise over clip", {}).items():
            found.setdefault(f"noise over clip norm: {phase}", []).append(ratio)
        if told.get("signal") is not None:
            found.setdefault("signal of the warm start", []).append(told["signal"])
    return {name: float(np.mean(ratios)) for name, ratios in found.items()}


def _noise_alt(told: Mapping[Point, Mapping[str, float]]) -> str:
    known = [(ratio, at, name) for at, each in told.items() for name, ratio in each.items()]
    noises = [each for each in known if not each[2].startswith("signal")] or known
    (least, quiet, one), (most, loud, other) = min(noises, key=lambda e: e[0]), max(noises, key=lambda e: e[0])
    above = sum(ratio > 1 for ratio, _, _ in noises)
    return (
        f"From {digits(least)} ({quiet}, {one}) to {digits(most)} ({loud}, {other}); "
        f"{above} of {len(noises)} are above 1, where the noise on the mean is longer than any one update may be."
    )
