"""Runs that were made one by one, as if they had been a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedrec.errors import SpecError
from fedrec.spec import Plan
from fedrec.study.cells import FEDERATED, Cell, Measured, measured
from fedrec.study.findings import Findings
from fedrec.study.protocol import check_run

_METRIC = "ndcg"


def gathered(folders: Sequence[Path], command: str) -> Findings:
    """Finished runs on the same data and items, a privacy mode an arm; runs that differ in seed or ε alone share one.

    Baselines of several runs count once for each seed. `SpecError` for runs that cannot stand in one table.
    """
    for folder in folders:
        check_run(folder)
    found = [(name, one) for folder in folders for name, one in measured(folder)]
    _check(found)
    titles = _titles([one.plan for name, one in found if name == FEDERATED])
    cells: dict[tuple[str, float | None, int], Cell] = {}
    for name, one in found:
        arm, epsilon = (titles[_signature(one.plan)], _epsilon(one.plan)) if name == FEDERATED else (name, None)
        at = (arm, epsilon, one.plan.seed)
        if at in cells and name == FEDERATED:
            remedy = "Leave one of them out, or give them seeds of their own."
            where = [str(cells[at].measured.path), str(one.path)]
            raise SpecError("two runs of one plan differ in their seed", remedy=remedy, runs=where)
        cells.setdefault(at, Cell(arm=arm, epsilon=epsilon, seed=one.plan.seed, measured=one))
    k = found[0][1].plan.evaluation.k
    reference = next((cell.arm for cell in cells.values() if cell.measured.plan.privacy.mode == "none"
                      and cell.measured.federated), "")  # fmt: skip
    return Findings(
        name=found[0][1].plan.name, metric=f"{_METRIC}@{k}", reference=reference, cells=tuple(cells.values()),
        command=command, study="\n\n".join(f"# {one.path.name}\n{one.plan.to_toml()}" for _, one in _first(found)),
        data={"hash": found[0][1].manifest.get("data", "")},
    )  # fmt: skip


def _check(found: Sequence[tuple[str, Measured]]) -> None:
    """Figures are compared on the same data, split and lists."""
    seen: dict[str, str] = {}
    for _, one in found:
        plan = one.plan
        same = {
            "data": str(one.manifest.get("data")),
            "split": plan.split.model_dump_json(),
            "clients": str(plan.clients),
            "k": str(plan.evaluation.k),
            "people": str(plan.evaluation.people),
            "negatives": str(plan.evaluation.negatives),
        }
        for what, value in same.items():
            if seen.setdefault(what, value) != value:
                remedy = "Report them apart."
                raise SpecError(f"runs of one report have the same {what}", remedy=remedy, run=str(one.path))


def _titles(plans: Sequence[Plan]) -> dict[str, str]:
    """A name for each kind of plan: its mode, numbered where that is not enough."""
    titles: dict[str, str] = {}
    for plan in plans:
        mode = plan.privacy.mode
        base = "federated" if mode == "none" else f"federated, {mode}"
        taken = sum(title == base or title.startswith(f"{base} (") for title in titles.values())
        titles.setdefault(_signature(plan), f"{base} ({taken + 1})" if taken else base)
    return titles


def _signature(plan: Plan) -> str:
    """What runs of one arm have in common: everything but name, seed and budget."""
    return plan.override(
        {"name": "", "seed": 0, "privacy": {"epsilon": 1.0}, "interaction": {"epsilon": 1.0}}
    ).to_toml()


def _epsilon(plan: Plan) -> float | None:
    match plan.privacy.mode:
        case "none":
            return None
        case "interaction-local":
            return plan.interaction.epsilon
    return plan.privacy.epsilon


def _first(found: Sequence[tuple[str, Measured]]) -> list[tuple[str, Measured]]:
    """One entry a run."""
    return list({one.path: (name, one) for name, one in found}.values())
