"""What every tracker is told: once of the run, then of each round."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from fedrec.privacy.statement import statements
from fedrec.runs import Row, Run
from fedrec.spec import Plan
from fedrec.task import Task

_TAGS = {"bytes_up": "bytes/up", "bytes_down": "bytes/down", "clients": "replies/accepted", "seconds": "round/seconds"}


class Tracker(Protocol):
    """Someone who is told how a run goes. Whatever it raises, training goes on without it."""

    def log(self, row: Row) -> None:
        """A row of the metrics; one of a round that is known already may come again, after a resume."""

    def close(self, *, finished: bool) -> None:
        """No more rows from this process; unless `finished`, the run was stopped and may be resumed."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a tracker is told once. `key` tells one run folder from another, across processes."""

    run: Run
    key: str
    plan: Plan
    promises: str

    @classmethod
    def of(cls, run: Run, task: Task) -> Story:
        """The run of `task`, with one sentence for each adversary."""
        born = f"{run.manifest.get('created')} {task.hash} {run.path.resolve().name}"
        said = [f"[{claim.label}] {claim.sentence}" for claim in statements(task.privacy, simulated=True)]
        key = sha256(born.encode()).hexdigest()[:16]
        return cls(run=run, key=key, plan=task.plan, promises="\n\n".join(said))

    @property
    def name(self) -> str:
        """What people call the run."""
        return self.run.path.resolve().name

    @property
    def rows(self) -> list[Row]:
        """What the metrics say by now."""
        return self.run.metrics()


def scalars(row: Row) -> dict[str, float]:
    """The numbers of a row under the names that trackers show; an ε is named with its relation and unit (P17)."""
    found = {f"validation/{name}": value for name, value in row.items() if "@" in name}
    found |= {tag: row[name] for name, tag in _TAGS.items() if name in row}
    if "refused" in row:
        found["replies/refused"] = sum(row["refused"].values())
    if spent := row.get("spent"):
        found[f"spent/epsilon {spent['relation']} {spent['unit']}"] = spent["epsilon"]
    return {tag: float(value) for tag, value in found.items()}
