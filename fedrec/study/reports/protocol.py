"""What the figures of a study mean: who was asked for what, among which items, and how sure a mean is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrec.study.cells import Cell
from fedrec.study.findings import Findings
from fedrec.study.reports.numbers import count, either

_RULES = ("candidates", "mask", "ties", "negatives", "k", "cold user")


@dataclass(frozen=True)
class Protocol:
    """What `arms` have in common: `rules` are equal in all their cells, `counts` may depend on the seed."""

    arms: tuple[str, ...]
    rules: Mapping[str, str]
    counts: Mapping[str, str]


def protocols(findings: Findings) -> tuple[Protocol, ...]:
    """One protocol for all arms, unless some are not comparable."""
    groups: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in findings.cells:
        groups.setdefault(tuple(_rules(cell).items()), []).append(cell)
    return tuple(
        Protocol(tuple(dict.fromkeys(cell.arm for cell in cells)), dict(rules), _counted(cells))
        for rules, cells in groups.items()
    )


def seeds(findings: Findings) -> tuple[int, ...]:
    """Every seed of the study, rising."""
    return tuple(sorted({cell.seed for cell in findings.cells}))


def meaning(findings: Findings) -> str:
    """What every figure of the report means, in one note."""
    found = protocols(findings)
    if len(found) > 1:
        return f"The arms do not share one protocol: see Protocol. {interval(findings)}"
    rules = {**found[0].rules, **found[0].counts}
    drawn = _sampled(findings)
    sampled = f" Names that end in /{drawn}: a target against drawn items only, {rules['negatives']}." if drawn else ""
    return (
        f"On test items ({rules['split']}). Candidates: {rules['candidates']}; masked: {rules['mask']}; ties: "
        f"{rules['ties']}.{sampled} {interval(findings)}"
    )


def interval(findings: Findings) -> str:
    """How sure the means are, and over which seeds."""
    known = seeds(findings)
    listed = f"{count(len(known), 'seed')} ({', '.join(map(str, known))})"
    if len(known) == 1:
        return f"{listed}: 95 % intervals over people only (Student t); they do not know another seed's luck."
    return f"{listed}; 95 % intervals, clustered both by person and by seed (Student t)."


def _sampled(findings: Findings) -> str:
    return next((name.partition("/")[2] for name in findings.metrics if "/" in name), "")


def _rules(cell: Cell) -> dict[str, str]:
    plan, said = cell.measured.plan, cell.measured.protocol
    rules = {"data": plan.data.source, "split": plan.split.kind, "learnt from": plan.split.fit}
    return rules | {name: _text(value) for name, value in said.items() if _fixed(name, cell)}


def _fixed(name: str, cell: Cell) -> bool:
    """Whether all cells must agree on it; how many items are hidden depends on the seed."""
    return name in _RULES and not (name == "candidates" and cell.measured.plan.split.kind == "cold-items")


def _counted(cells: Sequence[Cell]) -> dict[str, str]:
    """What depends on the seed, but for the seed itself: every value that occurs."""
    told = [(name, _text(value)) for cell in cells for name, value in cell.measured.protocol.items()
            if name != "seed" and not _fixed(name, cell)]  # fmt: skip
    return {name: either(value for each, value in told if each == name) for name in dict(told)}


def _text(value: Any) -> str:  # noqa: ANN401  (JSON)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
