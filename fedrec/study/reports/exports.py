"""A study as files for other programs: every mean, never a person's own figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from io import BytesIO
from typing import Any

import pandas as pd

from fedrec.study.cells import Cell
from fedrec.study.findings import Findings, Point
from fedrec.study.inference import Contrast
from fedrec.study.reports.protocol import interval, optimism, protocols, seeds
from fedrec.study.reports.tables import Tested, tested
from fedrec.study.reports.verdict import verdict


def frame(findings: Findings) -> pd.DataFrame:
    """One row per cell and metric: arm, epsilon (inf for no privacy), seed, metric, value, validation (or test)."""
    rows = [row for point in findings.points for cell in findings.of(point) for row in _rows(cell)]
    return pd.DataFrame(rows, columns=["arm", "epsilon", "seed", "metric", "value", "validation"])


def exports(findings: Findings) -> dict[str, bytes]:
    """Files by name; equal findings give equal bytes."""
    cells, parquet = frame(findings), BytesIO()
    cells.to_parquet(parquet, index=False)
    return {
        "cells.csv": cells.to_csv(index=False).encode(),
        "cells.parquet": parquet.getvalue(),
        "summary.json": _json(_summary(findings)),
        "privacy.json": _json(_privacy(findings)),
    }


def _rows(cell: Cell) -> Iterator[tuple[object, ...]]:
    epsilon = math.inf if cell.epsilon is None else cell.epsilon
    whole = {f"{name}, whole catalogue": value for name, value in cell.measured.whole.items()}
    for validation, figures in ((False, {**cell.measured.summary, **whole}), (True, cell.measured.validation)):
        for name, value in figures.items():
            yield cell.arm, epsilon, cell.seed, name, value, validation


def _summary(findings: Findings) -> dict[str, Any]:
    tests = tested(findings)
    return {
        "name": findings.name, "metric": findings.metric, "reference": findings.reference, "seeds": seeds(findings),
        "budgets": findings.budgets, "intervals": f"{interval(findings)} {optimism(findings)}".strip(),
        "family": len(tests), "verdict": [asdict(line) for line in verdict(findings)],
        "leading": [_leading(findings, epsilon) for epsilon in findings.budgets],
        "points": [_point(findings, point, tests) for point in findings.points],
        "protocols": [asdict(protocol) for protocol in protocols(findings)], "checks": findings.checks,
        "failures": [asdict(lost) for lost in findings.failures], "audits": list(map(dict, findings.audits)),
        "trials": findings.trials, "data": dict(findings.data),
    }  # fmt: skip


def _leading(findings: Findings, epsilon: float) -> dict[str, Any]:
    point = findings.leading(epsilon)
    return {"epsilon": epsilon, "arm": point.arm if point else None}


def _point(findings: Findings, point: Point, tests: Mapping[Point, Tested]) -> dict[str, Any]:
    cells = findings.of(point)
    return {
        "arm": point.arm, "epsilon": point.epsilon, "seeds": [cell.seed for cell in cells],
        "validation": findings.validation(point),
        "metrics": {name: _metric(findings, point, name, tests) for name in findings.metrics},
        "choices": {str(cell.seed): [asdict(each) for each in cell.measured.choices] for cell in cells},
    }  # fmt: skip


def _metric(findings: Findings, point: Point, name: str, tests: Mapping[Point, Tested]) -> dict[str, Any]:
    figures = asdict(findings.estimate(point, name))
    if point not in tests:
        return figures
    contrast = tests[point].contrast if name == findings.metric else findings.contrast(point, findings.base, name)
    holm = {"holm": tests[point].adjusted} if name == findings.metric else {}
    return figures | {"contrast": _contrast(contrast) | holm}


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {"difference": asdict(contrast.difference), "p": contrast.p}


def _privacy(findings: Findings) -> list[dict[str, Any]]:
    """Every statement of every cell, as its run has it: seeds of a point differ in their ledger heads."""
    return [
        {"arm": cell.arm, "epsilon": cell.epsilon, "seed": cell.seed, "statements": list(cell.measured.statements)}
        for point in findings.points
        for cell in findings.of(point)
    ]


def _json(content: object) -> bytes:
    return (json.dumps(_known(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _known(content: Any) -> Any:  # noqa: ANN401  (JSON)
    """`content` with null for what JSON has no number for."""
    match content:
        case float() if not math.isfinite(content):
            return None
        case dict():
            return {str(name): _known(value) for name, value in content.items()}
        case list() | tuple():
            return [_known(value) for value in content]
    return content
