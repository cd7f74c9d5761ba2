"""Which cell of a study lies where: a finished sweep, to be reported as often as wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.runs import Run
from fedrec.study.cells import FEDERATED, Cell, Choice, Failure, Measured, measured
from fedrec.study.design import Study
from fedrec.study.findings import Findings
from fedrec.study.protocol import check_run

INDEX, STUDY = "index.json", "study.toml"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell of a study: where it stands there, and in which folder below `cells` it lies; `failed` says why not."""

    arm: str
    epsilon: float | None
    seed: int
    cell: str
    baseline: str = ""
    choices: tuple[Choice, ...] = ()
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Everything about a finished sweep that is not in its cells.

    `study` is its TOML: the file beside the index may be that of a later study, which did not finish.
    """

    command: str
    study: str
    checks: tuple[str, ...]
    audits: tuple[Mapping[str, str], ...]
    data: Mapping[str, Any]
    entries: tuple[Entry, ...] = field(repr=False)

    def write(self, folder: Path) -> None:
        """Replace the index of `folder`."""
        Run(folder).write(INDEX, json.dumps(asdict(self), indent=2, ensure_ascii=False))

    @classmethod
    def read(cls, folder: Path) -> Index:
        """The index of a sweep; `RunError` for a folder without one."""
        content = Run(folder).read(INDEX)
        if content is None or "study" not in content:
            remedy = "Let `fedrec sweep` finish there; it goes on where it stopped."
            raise RunError("a finished study has an index", remedy=remedy, path=str(folder))
        entries = [
            Entry(**{**each, "choices": tuple(Choice(**one) for one in each["choices"])})
            for each in content.pop("entries")
        ]
        return cls(**{**content, "checks": tuple(content["checks"]), "audits": tuple(content["audits"])},
                   entries=tuple(entries))  # fmt: skip


def findings_of(folder: Path) -> Findings:
    """What the study in `folder` found. A cell that was measured twice, or not at its last round, is a `DataError`."""
    index = Index.read(folder)
    study = Study.from_toml(index.study)
    found: dict[tuple[str, str], Measured] = {}
    cells, failures = [], []
    for entry in index.entries:
        arm, epsilon, seed = entry.arm, entry.epsilon, entry.seed
        if entry.failed:
            failures.append(Failure(arm=arm, epsilon=epsilon, seed=seed, reason=entry.failed))
            continue
        one = _measured(folder / "cells" / entry.cell, entry.baseline or FEDERATED, found)
        one = replace(one, choices=entry.choices or one.choices)
        cells.append(Cell(arm=arm, epsilon=epsilon, seed=seed, measured=one))
    return Findings(
        name=study.name, metric=study.metric, reference=study.reference, cells=tuple(cells), failures=tuple(failures),
        checks=index.checks, audits=index.audits, trials=study.trials, command=index.command, study=index.study,
        data=index.data,
    )  # fmt: skip


def _measured(folder: Path, name: str, found: dict[tuple[str, str], Measured]) -> Measured:
    """What a cell's run says of its contestant; several places of a study may share it."""
    if (folder.name, name) not in found:
        check_run(folder)
        for other, one in measured(folder):
            found[folder.name, other] = one
    return found[folder.name, name]
