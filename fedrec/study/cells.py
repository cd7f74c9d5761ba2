"""What was measured: one run folder's account of one contestant, and its place in a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedrec.errors import RunError
from fedrec.runs import Row, Run
from fedrec.spec import Plan

FEDERATED = "fedrec"  # the trained model's own name in a run's results
USERS, RESULTS, COST = "users.parquet", "results.json", "cost.json"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What taking part costs a device, and the run this machine. None where nothing was trained.

    Bytes and `device_seconds` (processor time of one core of this machine) are of one participation, means over the
    plan's rounds; `participations` is how often one device takes part in all of them, on average. `seconds` are those
    of the attempt that finished the cell.
    """

    seconds: float
    bytes_down: float | None = None
    bytes_up: float | None = None
    device_seconds: float | None = None
    participations: float | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One setting that was compared with others on validation items, and the figure it reached there."""

    setting: str
    value: float
    chosen: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One contestant on the test items.

    `summary` is its means over clients, `users` (one row per client) what they are means of; `validation` its figures
    on the validation items, empty where they were trained on. `rounds` are the rows of its metrics, `statements` its
    privacy statements as JSON has them, `protocol` says what the figures mean. `whole` is `summary` in the whole
    catalogue, where hidden items were ranked among themselves.
    """

    plan: Plan
    manifest: Row
    summary: Mapping[str, float]
    users: pd.DataFrame = field(repr=False)
    protocol: Mapping[str, Any]
    validation: Mapping[str, float] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)
    rounds: tuple[Row, ...] = ()
    statements: tuple[Row, ...] = ()
    choices: tuple[Choice, ...] = ()
    cost: Cost | None = None
    path: Path = Path()

    @property
    def federated(self) -> bool:
        """Whether it was trained in rounds, by devices."""
        return bool(self.rounds)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One model of a study: an arm, a budget (None: no privacy), a seed. Equal plans share what was measured."""

    arm: str
    epsilon: float | None
    seed: int
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that could not be measured, and why."""

    arm: str
    epsilon: float | None
    seed: int
    reason: str


def measured(path: Path) -> Iterator[tuple[str, Measured]]:
    """Every contestant of a run that `fedrec.study.protocol.check_run` found finished, by the name it has there."""
    run = Run.open(path)
    results = run.results or {}
    users = _users(path)
    cost = run.read(COST)
    for name, summary in results["summary"].items():
        mine = name == FEDERATED
        yield name, Measured(
            plan=Plan.read(path / "plan.toml"), manifest=run.manifest, summary=summary,
            users=users[users["arm"] == name].drop(columns="arm").reset_index(drop=True),
            protocol=results["protocol"], validation=results["validation"].get(name, {}),
            whole=results["whole catalogue"].get(name, {}),
            rounds=tuple(run.metrics()) if mine else (),
            statements=tuple(run.read_list("statement.json")) if mine else (),
            choices=tuple(Choice(**each) for each in results["choices"].get(name, ())),
            cost=Cost(**cost) if cost else None, path=path,
        )  # fmt: skip


def _users(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path / USERS)
    except (OSError, ValueError) as error:
        remedy = "Bring the file back from a copy, or run it again in a new folder."
        raise RunError("a run's files are readable", remedy=remedy, path=str(path / USERS), reason=str(error)) from None
