"""Numbers as a reader sees them: three decimals, a true minus, a dash for what is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fedrec.study.inference import Contrast, Estimate

DASH = "–"


def number(value: float, digits: int = 3) -> str:
    """`value` with so many decimals; a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:z.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference, with its sign."""
    return DASH if math.isnan(value) else f"{value:+z.3f}".replace("-", "−")


def around(estimate: Estimate) -> str:
    """A mean ± half its interval; the mean alone where there is no interval."""
    half = (estimate.high - estimate.low) / 2
    return number(estimate.mean) + ("" if math.isnan(half) else f" ±{half:.3f}")


def between(estimate: Estimate) -> str:
    """A mean and its interval."""
    return f"{number(estimate.mean)} ({number(estimate.low)} to {number(estimate.high)})"


def moved(contrast: Contrast) -> str:
    """A difference and its interval."""
    by = contrast.difference
    return f"{signed(by.mean)} ({signed(by.low)} to {signed(by.high)})"


def p_value(p: float) -> str:
    """Three decimals, and never 0."""
    return "<0.001" if p < 0.001 else number(p)


def percent(share: float) -> str:
    """A share with at most one decimal, rounded down: what falls short of a bound never looks as if it reached it."""
    return DASH if math.isnan(share) else f"{math.floor(1000 * share + 1e-9) / 10:.4g} %"


def amount(size: float) -> str:
    """Bytes in thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if not size >= 999.5 or unit == "GB":  # which would be shown as 1000
            break
        size /= 1000
    return DASH if math.isnan(size) else f"{size:.3g} {unit}"


def few(value: float) -> str:
    """Three significant digits, and every digit before the point."""
    if math.isnan(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def count(number: int, noun: str) -> str:
    """How many of a noun that takes an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def extent(values: Iterable[float]) -> str:
    """One number, or from the least to the greatest; a dash for none."""
    known = sorted(set(values))
    if not known:
        return DASH
    return f"{known[0]:,.4g}" if len(known) == 1 else f"{known[0]:,.4g} to {known[-1]:,.4g}"


def either(texts: Iterable[str], word: str = "or") -> str:
    """Each text once, in their order."""
    return f" {word} ".join(dict.fromkeys(texts))


def mean(values: Sequence[float]) -> float:
    """The mean of what is known; NaN for nothing."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def quoted(names: Iterable[str]) -> str:
    """Names in a row, each once; they may hold commas."""
    return ", ".join(dict.fromkeys(f"“{name}”" for name in names))


def at(epsilon: float | None) -> str:
    """A budget in words."""
    return "no privacy" if epsilon is None else f"ε = {epsilon:g}"
