"""A whole study: what is missing is run, side by side, and everything is collected."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.datasets.dataset import Dataset
from fedrec.errors import RunError, SpecError
from fedrec.population.simulate import Simulation
from fedrec.population.workers import one_thread
from fedrec.population.world import World, dataset_of
from fedrec.runs import Run
from fedrec.spec import Plan
from fedrec.study.cells import Choice
from fedrec.study.design import BASELINES, ArmSpec, Study, key_of
from fedrec.study.findings import Point
from fedrec.study.index import STUDY, Entry, Index
from fedrec.study.pool import Pool
from fedrec.study.protocol import check
from fedrec.study.work import Order, trial_value
from fedrec.task import Task

_TRIAL = "while settings were compared"


class Watcher:
    """Who is told how a sweep goes; says nothing by itself."""

    def stage(self, what: str, total: int, cached: int) -> None:
        """So many cells are to do, so many of them were done before."""

    def finished(self, cell: str, reason: str) -> None:
        """A cell ended; `reason` is why it failed, "" if it did not."""


@dataclass(frozen=True)
class _Wanted:
    """A cell and where in the study it stands; equal plans are run once."""

    arm: ArmSpec
    epsilon: float | None
    seed: int
    order: Order

    @property
    def point(self) -> Point:
        return Point(self.arm.title, self.epsilon)

    def __str__(self) -> str:
        return f"{self.point}, seed {self.seed}"


def sweep(study: Study, folder: Path, *, workers: int, command: str, watcher: Watcher) -> Index:
    """Run every cell of `study` that `folder` does not hold yet; failures are kept in the index, not raised.

    The folder belongs to one sweep at a time. Whatever was finished there counts for any study that asks for the same
    plan on the same data. Errors: `SpecError` for a setting, `DataError` for data or a protocol that leaks.
    """
    _check_plans(study)
    _claim(folder)
    with Run(folder).locked(), Pool(workers) as pool:
        Run(folder).write(STUDY, study.to_toml())
        dataset = dataset_of(study.base.data)
        checks = _checked(study, dataset)
        desk = _Desk(study, folder, dataset.hash)
        chosen, lost = _tuned(desk, pool, watcher)
        wanted = _cells(desk, chosen)
        failed = _run(pool, "cells", wanted, watcher)
        index = Index(
            command=command, study=study.to_toml(), checks=checks, audits=_audited(study, folder),
            data=_card(dataset, study.base),
            entries=(*(_entry(one, chosen.get(one.point, ()), failed) for one in wanted), *lost),
        )  # fmt: skip
        index.write(folder)
    return index


def _check_plans(study: Study) -> None:
    """Make every plan once, before anything is written or read."""
    for arm, epsilon in study.points:
        try:
            for settings in arm.grid or ({},):
                _ = arm.recipe in BASELINES or arm.plan(study.base, epsilon, settings)
        except SpecError as error:
            raise SpecError(f"arm {arm.title!r}: {error.rule}", remedy=error.remedy, **error.got) from None


def _claim(folder: Path) -> None:
    """A folder of somebody else's may hold a study.toml of its own: only a new one, or a study's, is written to."""
    cells = folder / "cells"
    if folder.exists() and not cells.is_dir() and (not folder.is_dir() or any(folder.iterdir())):
        remedy = "Choose another one with --out, or empty it."
        raise RunError("a study has a folder of its own", remedy=remedy, path=str(folder))
    cells.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class _Desk:
    """Where orders are made out."""

    study: Study
    folder: Path
    data: str

    def order(self, plan: Plan, *, baseline: str = "", trial: bool = False) -> Order:
        key = key_of(plan, self.data, baseline)
        folder = self.folder / "cells" / key
        return Order(folder=folder, plan=plan.to_toml(), data=self.data, baseline=baseline, trial=trial)


def _tuned(desk: _Desk, pool: Pool, watcher: Watcher) -> tuple[dict[Point, tuple[Choice, ...]], list[Entry]]:
    """Which setting of each grid validation items prefer, and the trials that failed."""
    study = desk.study
    grids = [(arm, epsilon, list(_trials(desk, arm, epsilon))) for arm, epsilon in study.points if arm.grid]
    asked = [_Wanted(arm, epsilon, study.tuning_seed, order) for arm, epsilon, orders in grids for order in orders]
    failed = _run(pool, "trials", asked, watcher) if asked else {}
    lost = [_entry(one, (), {one.order: f"{_TRIAL}: {failed[one.order]}"}) for one in asked if one.order in failed]
    chosen: dict[Point, tuple[Choice, ...]] = {}
    for arm, epsilon, orders in grids:
        values = [_value(order, study.metric) for order in orders]
        best = max((value for value in values if value is not None), default=None)
        if best is None:
            continue
        known = [math.nan if value is None else value for value in values]
        chosen[Point(arm.title, epsilon)] = tuple(
            Choice(setting=_named(settings), value=value, chosen=at == values.index(best))
            for at, (settings, value) in enumerate(zip(arm.grid, known, strict=True))
        )
    return chosen, lost


def _trials(desk: _Desk, arm: ArmSpec, epsilon: float | None) -> Iterator[Order]:
    """A run of each setting that is stopped before the test items. It never sees a validation item in training."""
    for settings in arm.grid:
        plan = arm.plan(desk.study.base, epsilon, settings)
        seen = {"seed": desk.study.tuning_seed, "split": {"fit": "train"}, "evaluation": {"every": plan.rounds}}
        yield desk.order(plan.override(seen), trial=True)


def _value(order: Order, metric: str) -> float | None:
    told = trial_value(order.folder, Plan.from_toml(order.plan).rounds)
    return None if told is None else told.get(metric)


def _cells(desk: _Desk, chosen: Mapping[Point, tuple[Choice, ...]]) -> list[_Wanted]:
    """Every cell of a study once settings are chosen. Baselines are about the plan that all arms share."""
    study, wanted = desk.study, []
    for arm, epsilon in study.points:
        tried = chosen.get(Point(arm.title, epsilon), ())
        picked = next((settings for settings, one in zip(arm.grid, tried, strict=bool(tried)) if one.chosen), {})
        if arm.grid and not tried:
            picked = arm.grid[0]  # its trials failed: so will this, and say why
        for seed in study.seeds:
            plan = (study.base if arm.recipe in BASELINES else arm.plan(study.base, epsilon, picked)).override(
                {"seed": seed}
            )
            wanted.append(_Wanted(arm, epsilon, seed, desk.order(plan, baseline=BASELINES.get(arm.recipe, ""))))
    return wanted


def _run(pool: Pool, what: str, wanted: Sequence[_Wanted], watcher: Watcher) -> dict[Order, str]:
    """Run what is not done yet; why orders failed."""
    first = {one.order: one for one in reversed(wanted)}
    todo = [order for order in dict.fromkeys(one.order for one in wanted) if not order.done]
    watcher.stage(what, len(first), len(first) - len(todo))
    failed: dict[Order, str] = {}

    def finished(order: Order, reason: str) -> None:
        if reason:
            failed[order] = reason
        watcher.finished(str(first[order]), reason)

    pool.run(todo, finished)
    return failed


def _entry(one: _Wanted, choices: Sequence[Choice], failed: Mapping[Order, str]) -> Entry:
    return Entry(
        arm=one.arm.title, epsilon=one.epsilon, seed=one.seed, cell=one.order.folder.name, baseline=one.order.baseline,
        choices=tuple(choices), failed=failed.get(one.order, ""),
    )  # fmt: skip


def _checked(study: Study, dataset: Dataset) -> tuple[str, ...]:
    """What the protocol check says of every way in which the study's arms are trained; refuses one that leaks."""
    trained = [(arm, epsilon) for arm, epsilon in study.points if arm.recipe not in BASELINES]
    plans = [arm.plan(study.base, epsilon, settings) for arm, epsilon in trained for settings in arm.grid or ({},)]
    kinds = {plan.training.model_dump_json() + plan.model.model_dump_json(): plan for plan in [study.base, *plans]}
    said: list[str] = []
    with one_thread(), tempfile.TemporaryDirectory() as scratch:
        for number, plan in enumerate(kinds.values()):
            plan = plan.override({"privacy": {"mode": "none"}, "seed": study.seeds[0]})
            world = World.of(dataset, plan)
            task = Task(plan.override({"clients": len(world.population)}), dataset.catalogue)
            said += check(Simulation(Run(Path(scratch) / str(number)), task, world))
    return tuple(dict.fromkeys(said))


def _audited(study: Study, folder: Path) -> tuple[dict[str, str], ...]:
    """Rows of the audit of every mode in the study, from this version's last audit if there was one."""
    from importlib.metadata import version

    modes = {arm.mode for arm in study.arms} - {"none"}
    if not study.audit or not modes:
        return ()
    from fedrec.study.audits import quick

    path, run = folder / "audit.json", Run(folder)
    known = run.read(path.name) or {}
    if known.get("version") != version("fedrec"):
        with one_thread():
            rows = [{name: str(value) for name, value in asdict(row).items()} for row in quick()]
        known = {"version": version("fedrec"), "rows": rows}
        run.write(path.name, json.dumps(known, indent=2, ensure_ascii=False))
    return tuple(row for row in known["rows"] if any(row["mode"].startswith(mode) for mode in modes))


def _card(dataset: Dataset, plan: Plan) -> dict[str, Any]:
    """What the data are, without saying anything of a single person."""
    people = dataset.population.head(plan.clients or len(dataset.population))
    events, items = int(people.sizes.sum()), len(dataset.catalogue)
    return {
        "name": dataset.name, "people": len(people), "items": items, "events": events,
        "events a person, median": float(np.median(people.sizes)),
        "density": events / max(1, len(people) * items), "hash": dataset.hash, "notes": list(dataset.notes.lines()),
    }  # fmt: skip


def _named(settings: Mapping[str, Any], prefix: str = "") -> str:
    """A setting of a grid in one line: federation.rounds = 20, …"""
    parts = [
        _named(value, f"{prefix}{name}.") if isinstance(value, Mapping) else f"{prefix}{name} = {value}"
        for name, value in settings.items()
    ]
    return ", ".join(parts)
