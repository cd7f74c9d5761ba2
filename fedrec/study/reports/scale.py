"""The axis of budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fedrec.study.reports.rendering import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Scale:
    """Budgets on a log scale, and no privacy as a place of its own behind a gap."""

    budgets: tuple[float, ...]
    unlimited: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Where the budgets begin and end, with some room."""
        if not self.budgets:
            return -1.0, -1.0
        low, high = math.log10(self.budgets[0]), math.log10(self.budgets[-1])
        room = max(0.12, 0.07 * (high - low))
        return low - room, high + room

    @property
    def limits(self) -> tuple[float, float]:
        """The axis's limits."""
        low, high = self.ends
        return (low, high + 2 * self._gap) if self.unlimited else (low, high)

    @property
    def _gap(self) -> float:
        low, high = self.ends
        return max(0.2, 0.12 * (high - low)) if self.budgets else 1.0

    def at(self, epsilon: float | None) -> float:
        """Where a budget lies."""
        return self.ends[1] + self._gap if epsilon is None else math.log10(epsilon)

    def offsets(self, lines: int) -> list[float]:
        """How far each line is moved aside, so that intervals stand beside each other."""
        places = [math.log10(budget) for budget in self.budgets]
        low, high = self.limits
        closest = min((right - left for left, right in pairwise(places)), default=high - low)
        # Without any budget the lines have the whole axis to themselves.
        step = 0.02 if self.budgets else 0.9 / lines
        reach = min(0.3 * closest, 0.5 * step * (lines - 1) * (high - low))
        return [reach * (2 * n / (lines - 1) - 1) if lines > 1 else 0.0 for n in range(lines)]

    def draw(self, axes: Axes, label: str, *, nearest: float) -> None:
        """Ticks at the budgets asked for, as many as stay `nearest` (share of the axis) apart; a break before ∞."""
        low, high = self.limits
        kept: list[float] = []
        for budget in self.budgets:
            if not kept or self.at(budget) - self.at(kept[-1]) >= nearest * (high - low):
                kept.append(budget)
        places: list[float | None] = [*kept, *([None] if self.unlimited else [])]
        names = ["∞" if place is None else f"{place:g}" for place in places]
        axes.set_xticks([self.at(place) for place in places], names if self.budgets else ["no privacy"] * len(names))
        axes.set(xlim=(low, high), xlabel=label)
        if self.budgets and self.unlimited:
            self._break(axes)

    def _break(self, axes: Axes) -> None:
        (left, end), (_, right) = self.ends, self.limits
        middle = end + 0.3 * self._gap
        axes.spines["bottom"].set_bounds(left, middle - 0.06 * self._gap)
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": INK}
        axes.plot([middle + 0.06 * self._gap, right], [0, 0], linewidth=0.8, **place)
        slash = [(-0.4, -1.0), (0.4, 1.0)]
        slashes = [middle - 0.06 * self._gap, middle + 0.06 * self._gap]
        axes.plot(slashes, [0, 0], linestyle="none", marker=slash, markersize=9, **place)
