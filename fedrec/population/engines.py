"""The engines of a simulation: who runs a cohort, and where virtual devices note what they have spent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid

from fedrec.device.policy import Policy, anything
from fedrec.errors import RunError
from fedrec.exchange.client import client_app, shard_app
from fedrec.exchange.crew import Crew, Shards
from fedrec.exchange.serve import devices
from fedrec.population.accounts import Accounts
from fedrec.population.grid import in_process
from fedrec.population.shard import Shard
from fedrec.population.stacked import Stacked
from fedrec.population.world import Fleet, VirtualDevice, accepted
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.speed import Engine, Speed
from fedrec.task import Task

_LEDGER, _ACCOUNTS = "ledger.sqlite", "accounts.npy"


@contextmanager
def opened(fleet: Fleet, folder: Path, speed: Speed) -> Iterator[tuple[Grid, Crew]]:
    """A grid whose nodes answer for `fleet`, and who is on them. `folder` is the run's."""
    match speed.engine:
        case Engine.LOOP:
            app = client_app(lambda context: VirtualDevice(fleet, partition(context)))
            yield in_process(app, len(fleet)), devices(fleet.task, folder)
        case Engine.STACKED if speed.processes > 1:
            from fedrec.population.nodes import in_processes

            with in_processes(folder, speed) as grid:
                yield grid, Shards(speed.processes)
        case Engine.STACKED:
            whole = Shard.of(Stacked(fleet, speed), 0, 1)
            yield in_process(shard_app(lambda context: whole), 1), Shards(1)
        case Engine.RAY:
            from fedrec.population.nodes import on_ray

            with on_ray(folder, speed) as grid:
                yield grid, Shards(len(list(grid.get_node_ids())))


def spending_of(folder: Path, task: Task, policy: Policy | None, speed: Speed) -> DeviceLedger | Accounts | None:
    """Where the devices of a run in `folder` count what they spend: None where nothing is promised.

    Batched devices that add no noise themselves have columns, all others the device's own ledger. A run keeps the one
    that it began with: refuses an engine that would count from zero.
    """
    if task.privacy is None:
        return None
    ledger, columns = folder / _LEDGER, folder / _ACCOUNTS
    most, terms = policy.limits if policy else anything(task.privacy), accepted(task, policy)
    if speed.engine is not Engine.LOOP and terms is not None and not task.privacy.mode.on_device:
        if ledger.exists() and DeviceLedger.read(ledger).standings:
            raise _other(Engine.LOOP)
        return Accounts(folder, task.plan.clients, terms, most)
    if columns.exists():
        raise _other(Engine.STACKED)
    return DeviceLedger(ledger, most, fast=True)


def partition(context: Context) -> int:
    """Which node of a simulation a context is for, from 0."""
    return int(context.node_config["partition-id"])


def _other(engine: Engine) -> RunError:
    remedy = f"Resume it with --engine {engine}, or start a new run."
    return RunError("the devices of a private run go on counting what they have spent", remedy=remedy)
