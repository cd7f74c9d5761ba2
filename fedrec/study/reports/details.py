"""Figures of for whom models are worse than the reference, and what they cost a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fedrec.study.cells import Cost
from fedrec.study.findings import GROUPS, Findings, Point
from fedrec.study.inference import Contrast
from fedrec.study.reports import captions
from fedrec.study.reports.captions import SMALLEST, digits, sure
from fedrec.study.reports.document import Figure, Table
from fedrec.study.reports.drawing import Style, draw_dots, label_dots, legend, logarithmic, sample, sheet
from fedrec.study.reports.numbers import DASH, mean
from fedrec.study.reports.protocol import meaning
from fedrec.study.reports.rendering import INK, Caption, lay_out, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 4  # budgets that can be told apart in one row
_PRICES: Mapping[str, tuple[str, Callable[[Cost], float | None]]] = {
    "moved by a device in the whole run": ("B", lambda cost: _times(_both(cost), cost.participations)),
    "computed by a device in the whole run": ("s", lambda cost: _times(cost.device_seconds, cost.participations)),
}


def groups(findings: Findings) -> Figure | None:
    """For whom the picked arms are better or worse than the reference. Groups of very few people are left out."""
    base, metric = findings.base, findings.metric
    shown = [at for at in captions.picked(findings, _evenly(findings.budgets)) if at != base]
    if not findings.of(base) or not shown:
        return None
    found = {name: {at: findings.contrast(at, base, metric, who) for at in shown} for name, who in GROUPS.items()}
    kept = {name: each for name, each in found.items() if min(map(_people, each.values())) >= SMALLEST}
    if not kept:
        return None
    worst = min(((name, at) for name in kept for at in shown), key=lambda key: kept[key[0]][key[1]].difference.mean)
    title = f"{metric} by group, against the reference"
    rows = tuple(
        (name, str(at), sure(each.difference), str(_people(each)), "worst" if (name, at) == worst else "")
        for name, contrasts in kept.items() for at, each in contrasts.items()
    )  # fmt: skip
    note = (
        f"{meaning(findings)} Differences to {findings.reference}, for the same people and seeds. Shown: "
        f"{captions.why(findings)}. {captions.EQUALS} Groups of fewer than {SMALLEST} people left out: "
        f"{len(found) - len(kept)}."
    )
    told = sure(kept[worst[0]][worst[1]].difference)
    alt = f"Worst off: {worst[0]} with {worst[1]}, {told} in {metric} against {findings.reference}."
    table = Table(title, ("group", "arm and budget", f"difference in {metric}", "people", "mark"), rows, note)
    return _drawn_groups(
        kept, worst, f"difference in {metric} to {findings.reference}", Caption("groups", title, alt, table)
    )


def cost(findings: Findings) -> Figure | None:
    """The metric against what a device gives for it."""
    told = {name: _prices(findings, of) for name, (_, of) in _PRICES.items()}
    told = {name: prices for name, prices in told.items() if prices}
    shown = [at for at in findings.points if any(at in prices for prices in told.values())]
    if not shown:
        return None
    values = {at: findings.estimate(at, findings.metric) for at in shown}
    means = {at: value.mean for at, value in values.items()}
    title = f"{findings.metric} against what a device gives"
    header = ("arm", "ε", findings.metric, *(f"{_PRICES[name][0]} {name}" for name in told))
    rows = tuple(
        (at.arm, captions.budget(at.epsilon), sure(values[at]), *(_digits(prices.get(at)) for prices in told.values()))
        for at in shown
    )
    left = ", ".join(str(at) for at in findings.points if at not in shown) or "nobody"
    note = (
        f"{meaning(findings)} A device takes part as often as the plan has it on average; seconds are of one core "
        f"of the machine that ran the study. Left out, since not trained in rounds: {left}. Arms of one "
        "price stand side by side; an ε for which there is no room is not written."
    )
    extremes = [f"{name}: {_range(prices)} {_PRICES[name][0]}" for name, prices in told.items()]
    best = captions.ends(findings) or shown[:1]
    reached = "; ".join(f"{at} has {findings.metric} {sure(values[at])}" for at in best if at in values)
    alt = f"{reached}. {'; '.join(extremes)}."
    order = (*findings.private, *findings.arms)  # looks as in the figures against ε
    arms = dict.fromkeys(at.arm for at in shown)
    styles = {arm: Style.reference() if arm == findings.reference else Style.of(order.index(arm)) for arm in arms}
    return _drawn_cost(told, means, styles, Caption("cost", title, alt, Table(title, header, rows, note)))


def _drawn_groups(
    kept: Mapping[str, Mapping[Point, Contrast]], worst: tuple[str, Point], label: str, caption: Caption
) -> Figure:
    shown = list(next(iter(kept.values())))
    drawing = sheet(1, 1, 0.9 + len(kept) * (0.16 + 0.13 * len(shown)))
    axes = drawing.subplots()
    axes.axvline(0, color=INK, linewidth=1, alpha=0.65)
    for number, at in enumerate(shown):
        places = [row + min(0.24, 0.7 / len(shown)) * (number - (len(shown) - 1) / 2) for row in range(len(kept))]
        _draw_differences(axes, places, [each[at] for each in kept.values()], Style.of(number).unjoined)
        if at == worst[1]:
            row = list(kept).index(worst[0])
            _mark(axes, kept[worst[0]][at].difference.low, places[row])
    axes.set_yticks(range(len(kept)), list(kept))
    axes.set(xlabel=f"{label}, 95 % interval", ylim=(len(kept) - 0.5, -0.5))
    axes.margins(x=0.15)
    legend(drawing, ((sample(Style.of(n).unjoined), str(at)) for n, at in enumerate(shown)))
    return rendered(drawing, caption)


def _draw_differences(axes: Axes, places: Sequence[float], contrasts: Sequence[Contrast], style: Style) -> None:
    found = [each.difference for each in contrasts]
    axes.plot(
        [each.mean for each in found], places, color=style.colour, marker=style.marker, linestyle="none", markersize=5.5
    )
    axes.hlines(places, [each.low for each in found], [each.high for each in found], color=style.colour, linewidth=1.2)


def _mark(axes: Axes, x: float, y: float) -> None:
    axes.annotate(
        "worst", (x, y), (-4, 0), textcoords="offset points", ha="right", va="center", fontweight="bold", fontsize=9
    )


def _drawn_cost(
    told: Mapping[str, Mapping[Point, float]],
    means: Mapping[Point, float],
    styles: Mapping[str, Style],
    caption: Caption,
) -> Figure:
    drawing = sheet(1, len(told), 3.4)
    grid = drawing.subplots(1, len(told), sharey=True, squeeze=False)[0]
    for axes, (name, prices) in zip(grid, told.items(), strict=True):
        for arm, aside in _aside(prices).items():
            mine = [at for at in prices if at.arm == arm]
            draw_dots(axes, [prices[at] for at in mine], [means[at] for at in mine], styles[arm].unjoined, aside=aside)
        axes.margins(x=0.25)
        logarithmic(axes, along="x", unit=_PRICES[name][0])
        axes.set_xlabel(name + ("\n(equal prices side by side)" if any(_aside(prices).values()) else ""))
    grid[0].set_ylabel(f"{caption.table.header[2]} on test items")
    legend(drawing, ((sample(style.unjoined), arm) for arm, style in styles.items()))
    lay_out(drawing)
    for axes, prices in zip(grid, told.values(), strict=True):
        moved = _aside(prices)
        label_dots(
            axes, [((prices[at], means[at]), moved[at.arm], f"ε = {captions.budget(at.epsilon)}") for at in prices]
        )
    return rendered(drawing, caption)


def _aside(prices: Mapping[Point, float]) -> dict[str, float]:
    """By how many typographic points each arm is moved, so that arms of one price do not cover each other."""
    firsts: dict[str, float] = {}
    for at, price in prices.items():
        firsts.setdefault(at.arm, price)
    moved: dict[str, float] = {}
    for arm, price in firsts.items():
        alike = [other for other, paid in firsts.items() if abs(math.log(paid / price)) < 0.03]
        moved[arm] = min(6, 36 / len(alike)) * (alike.index(arm) - (len(alike) - 1) / 2)
    return moved


def _prices(findings: Findings, of: Callable[[Cost], float | None]) -> dict[Point, float]:
    """Mean over seeds for each point that has a price above 0, which a log scale needs."""
    found: dict[Point, float] = {}
    for at in findings.points:
        costs = [cell.measured.cost for cell in findings.of(at)]
        price = mean([one for cost in costs if cost is not None and (one := of(cost)) is not None])
        if price > 0:
            found[at] = price
    return found


def _both(cost: Cost) -> float | None:
    return None if cost.bytes_up is None or cost.bytes_down is None else cost.bytes_up + cost.bytes_down


def _times(one: float | None, times: float | None) -> float | None:
    return None if one is None or times is None else one * times


def _people(contrast: Contrast) -> int:
    return contrast.difference.users


def _digits(value: float | None) -> str:
    return DASH if value is None else digits(value)


def _range(prices: Mapping[Point, float]) -> str:
    return f"{digits(min(prices.values()))} to {digits(max(prices.values()))}"


def _evenly(budgets: Sequence[float]) -> list[float]:
    """The least, the greatest and some between, if there are too many."""
    if len(budgets) <= _MOST:
        return list(budgets)
    return [budgets[round(n * (len(budgets) - 1) / (_MOST - 1))] for n in range(_MOST)]
