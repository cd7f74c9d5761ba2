"""Bring a task and a grid together: what a simulation and a deployed server both do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec.exchange import wire
from fedrec.exchange.crew import Crew, Devices, Seats
from fedrec.exchange.masked import Masked
from fedrec.exchange.masks import Trusting
from fedrec.exchange.secagg import Witness
from fedrec.exchange.strategy import FederatedTraining, Observer
from fedrec.files import home
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.rounds.aggregate import OpenRounds, PrivateRounds, Rounds
from fedrec.rounds.memory import NoiseMemory
from fedrec.rounds.robust import centre_of, check_seen
from fedrec.task import Task


@dataclass(frozen=True)
class Patience:
    """How long a server waits, in seconds: for devices to come before the first round, and for answers in each step."""

    coming: float = 60.0
    answers: float | None = None  # what the plan says


def serve(  # noqa: PLR0913  (what, over what, where; who listens, who answers, how long)
    task: Task, grid: Grid, folder: Path, observers: Sequence[Observer] = (), *,
    crew: Crew | None = None, patience: Patience = Patience(),  # noqa: B008  (frozen)
) -> NDArray[np.float32]:  # fmt: skip
    """Train `task` over `grid`, going on from the checkpoint in `folder`; the final shared vector.

    `crew` is who answers for whom: every device for itself, behind masks if the plan has them, unless it is given.
    """
    spec, crew = task.plan.federation, crew or devices(task, folder)
    with _rounds(task, folder, sums=crew.sums) as rounds:
        strategy = FederatedTraining(spec, rounds, task.learner, task=task.hash, folder=folder, crew=crew)
        strategy.observers.extend(observers)
        strategy.join(grid, task.plan.clients, patience=patience.coming)
        timeout = spec.timeout if patience.answers is None else patience.answers
        result = strategy.start(grid, wire.arrays(task.model.initial), timeout=timeout)
    return np.asarray(wire.vector(result.arrays), np.float32)


def devices(  # noqa: PLR0913  (of what, where; who they are, how long to wait)
    task: Task, folder: Path, seats: Seats | None = None, *,
    begin: float = 1.0, witness: Witness | None = None, answers: float | None = None,
) -> Devices:  # fmt: skip
    """Devices that answer for themselves, behind masks if the plan has them; `seats` and `begin` as in `Devices`.

    Without a `witness` who knows them, they are taken for whom they say they are, as in a simulation. A step behind
    masks waits for `answers` seconds, or as the plan says.
    """
    if task.privacy and task.privacy.masking:
        patience = answers or task.plan.federation.timeout
        return Masked(task, folder / "secagg", witness or Trusting(), seats, begin=begin, patience=patience)
    return Devices(seats, begin=begin)


@contextmanager
def _rounds(task: Task, folder: Path, *, sums: bool) -> Iterator[Rounds]:
    seed, privacy, spec = task.plan.seed, task.privacy, task.plan.federation
    centre = centre_of(spec)
    if sums:
        check_seen(spec)
    if privacy is None:
        everybody = task.plan.clients if task.warm else 0
        yield OpenRounds(seed, spec.cohort, everybody, extra=spec.extra, bound=spec.bound, centre=centre)
        return
    task.check_widths()
    with Ledger(folder / "ledger.jsonl", privacy) as ledger:
        conduct = Conduct(schedules=privacy.schedules, minimum=privacy.required)
        memory = NoiseMemory(folder / "noise", _key(folder))
        yield PrivateRounds(privacy, ledger, seed, conduct, memory=memory, sums=sums, centre=centre)
        memory.shred()  # the run has come to its end, a crash would not have come here


def _key(folder: Path) -> Path:
    """Where the key to a run's correlated noise lies: with the user, not with the run."""
    return home() / "keys" / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
