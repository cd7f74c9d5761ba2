"""What a federation's model must be: the same task in this process, over virtual devices, without a network.

At noise level `test` and without noise a deployment equals this byte for byte, whoever fell silent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from fedrec.exchange.client import client_app
from fedrec.exchange.serve import devices, serve
from fedrec.population.engines import partition, spending_of
from fedrec.population.grid import in_process
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, VirtualDevice, World
from fedrec.rounds.aggregate import Turn
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.speed import Engine, Speed
from fedrec.task import Task

Absent = Mapping[int, Collection[int]]  # by round: clients whose updates are not in its sum


class Killed(BaseException):
    """Nothing of ours catches this."""


@dataclass(frozen=True, eq=False)
class Silent(VirtualDevice):
    """A virtual device that is away in some rounds."""

    absent: Absent

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any] | None:
        """What it sends; nothing when it is away."""
        return None if self.client in self.absent.get(turn.number, ()) else super().take_part(turn, shared)


def model_of(
    run: Path, world: World, folder: Path, *, absent: Absent | None = None, lost: int = 0
) -> NDArray[np.float32]:
    """The final model of the task in `run`, trained anew in `folder`.

    In round `lost` the server is killed between charge and checkpoint, and started again.
    """
    task = Task.open(run)
    folder.mkdir(parents=True)
    speed = Speed(engine=Engine.LOOP)
    states = DeviceStates(folder, len(world.population), task.plan.model.dim)
    fleet = Fleet(task, world, states, spending_of(folder, task, None, speed))
    app = client_app(lambda context: Silent(fleet, partition(context), absent or {}))
    grid, save = in_process(app, len(fleet)), Checkpoint.save

    def killed(at: Checkpoint, path: Path) -> None:
        if at.round == lost:
            raise Killed
        save(at, path)

    with patch.object(Checkpoint, "save", killed), suppress(Killed):
        return serve(task, grid, folder, crew=devices(task, folder))
    return serve(task, grid, folder, crew=devices(task, folder))
