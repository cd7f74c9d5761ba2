"""What the figures of a study mean: who was asked for what, among which items, and how sure a mean is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrec.study.cells import Cell
from fedrec.study.findings import Findings
from fedrec.study.inference import MISSES
from fedrec.study.reports.numbers import count, either

METRICS = {
    "ndcg": "1 if the targets (what a person chose next) lead the list, less the lower they stand, 0 if none is in it",
    "hr": "share of people with at least one target in their list",
    "recall": "share of a person's targets that are in the list",
    "precision": "share of the list that is a target",
    "f1": "twice the targets in the list, over the list's length and all targets",
    "mrr": "one over the place of the first target in the list, 0 if none is in it",
    "novelty": "how rarely others chose what is shown, in bits: more is rarer",
    "popularity": "share of people who chose what is shown, on average",
    "diversity": "how unlike the items of one list are: 0 all alike, 1 unrelated",
    "miscalibration": "how far the tags of a list are from those of its person's choices, in bits: 0 is alike",
    "coverage": "share of candidates that stand in at least one list",
    "gini": "how unequally lists show candidates: 0 all alike, towards 1 a few only",
}  # at k: the list is the first k items
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


def optimism(findings: Findings) -> str:
    """How far to trust the intervals of a few seeds; "" where they do what they say, or know of one seed only."""
    many = len(seeds(findings))
    if many not in MISSES:
        return ""
    return (
        f"With {many} seeds the 95 % intervals are too short: in simulated worlds up to {MISSES[many]} in 100 missed "
        "the truth, instead of 5. Read one that only just excludes 0 as one that does not."
    )


def metrics(findings: Findings) -> dict[str, str]:
    """What each metric of the report is, in words."""
    kinds = dict.fromkeys(name.partition("/")[0] for name in findings.metrics)
    told = {name: words for name in kinds if (words := METRICS.get(name.partition("@")[0]))}
    drawn = _sampled(findings)
    return told | ({f"…/{drawn}": f"the same, each target against up to {drawn} drawn items alone"} if drawn else {})


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
