"""What is said beside a picture: numbers as text, the protocol, what ε protects, which arms were picked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedrec.study.findings import Findings, Point
from fedrec.study.inference import Estimate
from fedrec.study.reports.numbers import DASH, either

SMALLEST = 5  # people; the mean of fewer says too much about each
EQUALS = "Quarters are by training choices; people alike share one, so that they may be unlike in size, or empty."


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
    """Whom the ε of a point protects, at which δ, and against whom; "" if the run did not say."""
    for cell in findings.of(point):
        spent = [row["spent"] for row in cell.measured.rounds if "spent" in row]
        for said in [*reversed(spent), *cell.measured.statements]:
            if said.get("epsilon") is not None:
                return f"{said['relation']} {said['unit']}, δ = {said['delta']:.2g}, against {said['adversary']}"
    return ""


def protects(findings: Findings, point: Point) -> str:
    """The same in a table, where every point has something to say; an arm may promise more than its ε is about."""
    if point.epsilon is None:
        return "nobody: no privacy"
    said = [told for cell in findings.of(point) for told in cell.measured.statements if told["unit"]]
    more = len({(told["unit"], told["adversary"]) for told in said}) > 1
    return "; ".join(filter(None, (promise(findings, point), "more in its guarantee" * more))) or "see its guarantee"


def unit(findings: Findings) -> str:
    """What stands under an axis of budgets."""
    told = [promise(findings, point) for point in findings.points if point.epsilon is not None]
    units = {text.partition(", δ")[0] for text in told if text}
    if not findings.budgets:
        return ""
    said = {0: "see each guarantee", 1: next(iter(units), "")}.get(len(units), "units differ: see the table")
    return f"ε ({said}), log scale"


def picked(findings: Findings, epsilons: Sequence[float]) -> list[Point]:
    """One arm for each budget: the one that validation items prefer, or else the first declared. Never by test."""
    first = {at.epsilon: at for at in reversed(findings.points)}
    return [findings.leading(epsilon) or first[epsilon] for epsilon in epsilons]


def why(findings: Findings) -> str:
    """How `picked` picked, in every way that occurs."""
    return either((_how(findings, epsilon) for epsilon in findings.budgets), "or")


def _how(findings: Findings, epsilon: float) -> str:
    if sum(at.epsilon == epsilon for at in findings.points) == 1:
        return "the only arm at its ε"
    if findings.leading(epsilon) is None:
        return "the first arm declared at its ε, where validation items cannot tell"
    return "the arm that validation items prefer at its ε"


def ends(findings: Findings) -> list[Point]:
    """Picked points at the smallest and the largest budget, then the reference: what a sentence speaks of."""
    outer = dict.fromkeys((*findings.budgets[:1], *findings.budgets[-1:]))
    return [*picked(findings, list(outer)), *([findings.base] if findings.of(findings.base) else [])]
