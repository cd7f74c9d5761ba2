"""Panels against ε, lines, whiskers, bands and labels; nothing is told by colour alone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fedrec.study.reports.rendering import COLOURS, INK
from fedrec.study.reports.scale import Scale

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

WIDTH = 7.2  # inches, a text column of most journals
LINE = 0.17  # inches, one line of text
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_QUIET = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (9, 3)))


class Dot(NamedTuple):
    """A figure at a budget (None: no privacy) and its interval; NaN where there is none."""

    epsilon: float | None
    mean: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Level:
    """A figure that has no budget: a horizontal line, with its interval as a band if it is the reference's."""

    mean: float
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes against ε."""

    title: str
    lines: Mapping[str, Sequence[Dot]]
    levels: Mapping[str, Level]


@dataclass(frozen=True)
class Style:
    """How one line looks. No two of the first twenty-four look alike, and no two of the first twelve in grey."""

    colour: str
    marker: str
    dash: Any

    @classmethod
    def of(cls, number: int) -> Style:
        """The look of the `number`-th line."""
        each = (COLOURS, _MARKERS, _DASHES)
        colour, marker, dash = (looks[number % len(looks)] for looks in each)
        return cls(str(colour), str(marker), dash)

    @classmethod
    def reference(cls) -> Style:
        """The look of what others are compared with: in ink, as its level is."""
        return cls(INK, "o", "-")

    @property
    def drawn(self) -> dict[str, Any]:
        """As matplotlib names it."""
        sizes = {"markersize": 5.5, "linewidth": 1.4}
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash} | sizes

    @property
    def unjoined(self) -> Style:
        """The same without a line."""
        return replace(self, dash="none")


def sheet(rows: int, columns: int, height: float) -> Drawing:
    """An empty drawing for `rows` × `columns` axes, `height` inches each row, the legend's room not counted."""
    from matplotlib.figure import Figure as Drawing

    return Drawing(figsize=(WIDTH, rows * height), layout="constrained", facecolor="none")


def draw_panel(axes: Axes, panel: Panel, scale: Scale, names: Mapping[str, str]) -> None:
    """Lines, whiskers and levels of a panel; `names` is what a level is called at the right edge."""
    axes.set_title(panel.title, loc="left")
    for number, (dots, aside) in enumerate(zip(panel.lines.values(), scale.offsets(len(panel.lines)), strict=True)):
        _draw_line(axes, dots, scale, (Style.of(number), aside))
    for number, level in enumerate(panel.levels.values()):
        _draw_level(axes, level, number)
    shown = {names[arm]: level.mean for arm, level in panel.levels.items() if math.isfinite(level.mean)}
    label_right(axes, shown)


def _draw_line(axes: Axes, dots: Sequence[Dot], scale: Scale, look: tuple[Style, float]) -> None:
    """Budgets are joined by a line; no privacy stands alone behind the gap."""
    style, aside = look
    for part in ([dot for dot in dots if dot.epsilon is not None], [dot for dot in dots if dot.epsilon is None]):
        whiskers(axes, [scale.at(dot.epsilon) + aside for dot in part], part, style)


def whiskers(axes: Axes, places: Sequence[float], dots: Sequence[Dot], style: Style) -> None:
    """A line through `dots` at `places`, each with its interval where it has one."""
    draw_dots(axes, places, [dot.mean for dot in dots], style)
    sure = [(place, dot) for place, dot in zip(places, dots, strict=True) if math.isfinite(dot.low + dot.high)]
    lows, highs = [dot.low for _, dot in sure], [dot.high for _, dot in sure]
    axes.vlines([place for place, _ in sure], lows, highs, color=style.colour, linewidth=1.2)


def draw_dots(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: Style, *, aside: float = 0) -> None:
    """Markers, and the line between them if the style has one; `aside` moves them by so many typographic points."""
    from matplotlib.transforms import ScaledTranslation

    (line,) = axes.plot(xs, ys, **style.drawn)
    # Only now: limits are made of lines that are where their data are.
    line.set_transform(axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans))


def _draw_level(axes: Axes, level: Level, number: int) -> None:
    if not math.isfinite(level.mean):
        return
    if level.band is None:
        axes.axhline(level.mean, color=INK, linewidth=1, alpha=0.65, linestyle=_QUIET[number % len(_QUIET)], zorder=1)
        return
    axes.axhline(level.mean, color=INK, linewidth=1.4, zorder=1)
    if math.isfinite(sum(level.band)):
        axes.axhspan(*level.band, color=INK, alpha=0.1, linewidth=0, zorder=0)


def label_right(axes: Axes, values: Mapping[str, float]) -> None:
    """Names at the right edge, at their values or as near to them as they fit, each with a line to its value."""
    if not values:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    ordered = sorted(values.items(), key=lambda pair: pair[1])
    inches = axes.figure.get_figheight() / axes.get_gridspec().nrows * 0.72  # type: ignore[union-attr]
    heights = [LINE * (1 + name.count("\n")) / inches for name, _ in ordered]
    shares = [(value - low) / (high - low) for _, value in ordered]
    inside = axes.transAxes
    for (name, _), share, place in zip(ordered, shares, spread(shares, heights), strict=True):
        axes.plot([1.0, 1.025], [share, place], transform=inside, clip_on=False, color=INK, linewidth=0.7, alpha=0.65)
        axes.text(1.035, place, name, transform=inside, va="center", fontsize=9)


def spread(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Rising `places` moved apart so that labels of these `heights` do not touch, and as little as possible.

    Least squares under the order: pool adjacent violators (Ayer et al. 1955).
    """
    steps = [0.0]
    for one, other in pairwise(heights):
        steps.append(steps[-1] + (one + other) / 2)
    blocks: list[tuple[float, int]] = []  # (sum, size)
    for place, step in zip(places, steps, strict=True):
        blocks.append((place - step, 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            (one, few), (other, more) = blocks.pop(-2), blocks.pop()
            blocks.append((one + other, few + more))
    means = [total / size for total, size in blocks for _ in range(size)]
    return [mean + step for mean, step in zip(means, steps, strict=True)]


def wrapped(name: str, width: int) -> str:
    """A name in lines of at most `width` letters."""
    return "\n".join(textwrap.wrap(name, width)) or name


def legend(drawing: Drawing, handles: Iterable[tuple[Artist, str]]) -> None:
    """What each line is, below the drawing and never on the data; the drawing grows by what it takes."""
    found = [(handle, wrapped(name, 40)) for handle, name in handles]
    if not found:
        return
    columns = 2 if len(found) > 1 else 1
    rows = [found[n][1].count("\n") + 1 for n in range(len(found))]
    half = math.ceil(len(found) / columns)
    lines = max(sum(rows[:half]), sum(rows[half:]))
    drawing.set_figheight(drawing.get_figheight() + LINE * 1.15 * lines + 0.15)
    drawing.legend(
        [handle for handle, _ in found], [name for _, name in found], loc="outside lower left", ncols=columns,
        handlelength=3.2, borderpad=0.2,
    )  # fmt: skip


def logarithmic(axes: Axes, *, along: Literal["x", "y"], unit: str = "") -> None:
    """A log scale with numbers in plain words, few enough to be read and never fewer than two."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    (axes.set_xscale if along == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if along == "x" else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter(EngFormatter(unit) if unit else FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_dots(axes: Axes, labels: Sequence[tuple[tuple[float, float], float, str]]) -> None:
    """Text beside each dot ((x, y), aside) where it covers no dot and no other text. Lay the drawing out before."""
    known = [label for label in labels if math.isfinite(label[0][1])]
    places = [axes.transData.transform(dot) * 72 / axes.figure.dpi + (aside, 0) for dot, aside, _ in known]
    taken = [_Box(left - 3, left + 3, low - 3, low + 3) for left, low in places]
    for (left, low), (dot, aside, text) in zip(places, known, strict=True):
        wide = 5.5 * len(text)
        for dx, dy, align in ((6, 0, "left"), (-6, 0, "right"), (0, 9, "center"), (0, -9, "center")):
            start = left + dx - wide * ("left", "center", "right").index(align) / 2
            box = _Box(start, start + wide, low + dy - 5, low + dy + 5)
            if any(map(box.touches, taken)):
                continue
            taken.append(box)
            note = axes.annotate(
                text, dot, (aside + dx, dy), textcoords="offset points", ha=align, va="center", fontsize=9
            )
            note.set_in_layout(False)
            break


class _Box(NamedTuple):
    left: float
    right: float
    low: float
    high: float

    def touches(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.low < other.high and other.low < self.high


def sample(style: Style) -> Artist:
    """A piece of a line, for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **style.drawn)


def sample_level(number: int, *, reference: bool) -> Artist:
    """A piece of a horizontal line, for a legend."""
    from matplotlib.lines import Line2D

    if reference:
        return Line2D([], [], color=INK, linewidth=1.4)
    return Line2D([], [], color=INK, linewidth=1, alpha=0.65, linestyle=_QUIET[number % len(_QUIET)])
