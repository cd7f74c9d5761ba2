"""One cell of a study, trained and measured in a process of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.datasets.dataset import Dataset
from fedrec.errors import DataError, RunError
from fedrec.population.simulate import Simulation
from fedrec.population.workers import give_back_freed_memory, one_thread
from fedrec.population.world import dataset_of
from fedrec.runs import Run
from fedrec.spec import Plan
from fedrec.speed import Speed
from fedrec.study.cells import COST, Cost
from fedrec.study.protocol import check_run
from fedrec.task import PLAN

_ALONE = Speed(threads=1)  # cells run side by side
_TIMED = 5  # devices whose round is timed


@dataclass(frozen=True, kw_only=True)
class Order:
    """Train `plan` in `folder` and measure it, or measure a `baseline`; a `trial` never meets a test item.

    `data` is the hash of the data set that the folder's name stands for.
    """

    folder: Path
    plan: str
    data: str = ""
    baseline: str = ""
    trial: bool = False

    @property
    def done(self) -> bool:
        """Whether an earlier attempt finished."""
        if self.trial:
            return trial_value(self.folder, Plan.from_toml(self.plan).rounds) is not None
        return (self.folder / COST).exists()


def work(order: Order) -> None:
    """Carry out an order, from where an earlier attempt stopped."""
    try:
        _work(order)
    finally:
        give_back_freed_memory()  # the next cell may be of another kind, and others run beside it


def _work(order: Order) -> None:
    began, plan = time.monotonic(), Plan.from_toml(order.plan)
    simulation = _opened(order, plan)
    if simulation.run.results is None:
        # Later there may be nothing to measure again: see below, what devices kept is let go before the cost is told.
        _measured(order, simulation)
    if order.trial:
        _check_trial(order, plan)
        return
    check_run(order.folder)
    with one_thread():
        cost = _cost(simulation, time.monotonic() - began, trained=not order.baseline)
    # Nobody goes on with a finished cell: what its devices kept of single people is let go.
    shutil.rmtree(order.folder / "devices", ignore_errors=True)
    simulation.run.write(COST, json.dumps(asdict(cost), indent=2))


def _measured(order: Order, simulation: Simulation) -> None:
    if order.baseline:
        simulation.measure(order.baseline)
        return
    simulation.train(lambda row: None)
    if not order.trial:
        simulation.finish(lambda arm: None)


def trial_value(folder: Path, rounds: int) -> dict[str, float] | None:
    """Validation figures after the last round, None while a trial is not finished."""
    rows = Run(folder).metrics()
    if not rows or rows[-1]["round"] != rounds:
        return None
    return {name: value for name, value in rows[-1].items() if "@" in name} or None


def _check_trial(order: Order, plan: Plan) -> None:
    """A crash can cost a private trial its last round, and then nothing is known of it."""
    if not order.done:
        remedy = "Delete its folder, and let the study go on."
        raise RunError("a trial ends with a figure on validation items", remedy=remedy, cell=order.folder.name,
                       rounds=plan.rounds)  # fmt: skip


def _opened(order: Order, plan: Plan) -> Simulation:
    dataset = _dataset(plan.data.model_dump_json())
    if order.data and dataset.hash != order.data:
        remedy = "Bring the data back as they were, or start the study anew."
        raise DataError("data stay as they are while a study runs", remedy=remedy, now=dataset.hash[:12])
    if (order.folder / PLAN).exists():
        return Simulation.resume(order.folder, speed=_ALONE, dataset=dataset)
    return Simulation.start(plan, order.folder, speed=_ALONE, dataset=dataset)


@lru_cache(maxsize=1)
def _dataset(spec: str) -> Dataset:
    """A worker's cells are about one data set: it is loaded once."""
    return dataset_of(type(Plan().data).model_validate_json(spec))


def _cost(simulation: Simulation, seconds: float, *, trained: bool) -> Cost:
    rows: list[dict[str, Any]] = [row for row in simulation.run.metrics() if "bytes_up" in row] if trained else []
    if not rows:
        return Cost(seconds=seconds)
    return Cost(
        seconds=seconds,
        bytes_down=float(np.mean([row["bytes_down"] for row in rows])),
        bytes_up=float(np.mean([row["bytes_up"] for row in rows])),
        device_seconds=float(np.mean([_device_seconds(simulation, row["round"]) for row in _distinct(rows)])),
        participations=_participations(simulation),
    )


def _distinct(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A round of each kind, the warm start and training, as often as there are rounds: timing one tells of all."""
    return [rows[0], *[rows[-1]] * (len(rows) > 1)]


def _device_seconds(simulation: Simulation, number: int) -> float:
    """Median processor seconds of one core of this machine for what a device computes in a round."""
    fleet, times = simulation.fleet, []
    start = (simulation.task.model.initial, np.zeros(simulation.task.plan.model.dim, np.float32))
    for client in range(min(_TIMED, len(fleet))):
        holding = fleet.holding(client, int(simulation.world.cuts[client]))
        _ = holding.events
        # Other cells are running beside this one: a clock on the wall would count them.
        began = time.process_time()
        fleet.rounds.round(number, start, holding, fleet.coins(client, number))
        times.append(time.process_time() - began)
    return float(np.median(times))


def _participations(simulation: Simulation) -> float:
    """How often one device takes part in all rounds, on average."""
    privacy, plan = simulation.task.privacy, simulation.task.plan
    if privacy is None:
        return plan.warm.enabled + plan.federation.rounds * plan.federation.cohort / plan.clients
    expected = sum(phase.rounds * phase.schedule.expected(plan.clients) for phase in privacy.phases)
    return expected / plan.clients
