"""Bring a task and a grid together: what a simulation and a deployed server both do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec.exchange import wire
from fedrec.exchange.strategy import FederatedTraining, Observer
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.rounds.aggregate import CentralRounds, OpenRounds, Rounds, ServerOptimizer
from fedrec.task import Task


def serve(task: Task, grid: Grid, folder: Path, observers: Sequence[Observer] = ()) -> NDArray[np.float32]:
    """Train `task` over `grid`, going on from the checkpoint in `folder`; the final shared vector."""
    spec, layout = task.plan.federation, task.model.layout
    optimizer = ServerOptimizer(spec, ~layout.mask("popularity"), towards=task.model.initial)
    with _rounds(task, folder) as rounds:
        strategy = FederatedTraining(spec, rounds, optimizer, task=task.hash, folder=folder)
        strategy.observers.extend(observers)
        strategy.join(grid, task.plan.clients)
        result = strategy.start(grid, wire.arrays(task.model.initial), timeout=spec.timeout)
    return np.asarray(wire.vector(result.arrays), np.float32)


@contextmanager
def _rounds(task: Task, folder: Path) -> Iterator[Rounds]:
    seed, privacy = task.plan.seed, task.privacy
    if privacy is None:
        yield OpenRounds(seed, task.plan.federation.cohort)
        return
    privacy.check_width(task.model.layout.size, force=task.plan.privacy.force)
    with Ledger(folder / "ledger.jsonl", privacy) as ledger:
        yield CentralRounds(privacy, ledger, seed, Conduct(sampler=privacy.sampler))
