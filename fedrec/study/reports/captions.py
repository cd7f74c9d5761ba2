"""What is said beside a picture: numbers as text, the protocol, what ε protects, which arms were picked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedrec.study.findings import Findings, Point
from fedrec.study.inference import Estimate
from fedrec.study.reports.numbers import DASH

SMALLEST = 5  # people; the mean of fewer says too much about each


def digits(value: float) -> str:
    """Three significant digits; whole thousands are told in full."""
    if not math.isfinite(value):
        return DASH
    rounded = float(f"{value:.3g}")
    return (f"{value:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}").replace("-", "−")


def sure(estimate: Estimate) -> str:
    """A mean with its interval, if it has one."""
    if not math.isfinite(estimate.low + estimate.high):
        return digits(estimate.mean)
    return f"{digits(estimate.mean)} [{digits(estimate.low)}, {digits(estimate.high)}]"


def budget(epsilon: float | None) -> str:
    """ε as text; ∞ is no privacy."""
    return "∞" if epsilon is None else f"{epsilon:g}"


def promise(findings: Findings, point: Point) -> str:
    """Whom the ε of a point protects, and against whom; "" if the run did not say."""
    for cell in findings.of(point):
        spent = [row["spent"] for row in cell.measured.rounds if "spent" in row]
        for said in [*reversed(spent), *cell.measured.statements]:
            if said.get("epsilon") is not None:
                return f"{said['relation']} {said['unit']}, against {said['adversary']}"
    return ""


def unit(findings: Findings) -> str:
    """What stands under an axis of budgets."""
    told = [promise(findings, point) for point in findings.points if point.epsilon is not None]
    units = {text.partition(", against")[0] for text in told if text}
    if not findings.budgets:
        return ""
    said = {0: "see each guarantee", 1: next(iter(units), "")}.get(len(units), "units differ: see the table")
    return f"ε ({said}), log scale"


def picked(findings: Findings, epsilons: Sequence[float]) -> list[Point]:
    """One arm for each budget: the one that validation items prefer, or else the first declared. Never by test."""
    first = {at.epsilon: at for at in reversed(findings.points)}
    return [findings.leading(epsilon) or first[epsilon] for epsilon in epsilons]


def why(findings: Findings) -> str:
    """How `picked` picked."""
    if any(findings.leading(epsilon) for epsilon in findings.budgets):
        return "the arm that validation items prefer at its ε"
    return "the first arm declared at its ε, since validation items were trained on"


def ends(findings: Findings) -> list[Point]:
    """Picked points at the smallest and the largest budget, then the reference: what a sentence speaks of."""
    outer = dict.fromkeys((*findings.budgets[:1], *findings.budgets[-1:]))
    return [*picked(findings, list(outer)), *([findings.base] if findings.of(findings.base) else [])]
