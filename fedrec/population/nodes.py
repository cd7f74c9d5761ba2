"""Virtual devices for an engine that runs clients in processes of its own, such as Flower's on Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedrec.device.policy import Policy
from fedrec.exchange.client import shard_app
from fedrec.population.engines import partition
from fedrec.population.processes import process_grid
from fedrec.population.shard import Shard
from fedrec.population.simulate import Simulation
from fedrec.population.stacked import Stacked
from fedrec.population.world import VirtualDevice
from fedrec.speed import Engine, Speed
from fedrec.task import run_folder


def open_node(context: Context) -> VirtualDevice:
    """The device of a node: client number `partition-id` of the run that the run-config names.

    It accepts what the policy file in the environment variable `FEDREC_POLICY` accepts, or the default policy's modes.
    """
    fleet = _simulation(run_folder(context.run_config), Speed(engine=Engine.LOOP), _policy()).fleet
    return VirtualDevice(fleet, partition(context))


def shards() -> ClientApp:
    """The app of a shard's node; any machine of a cluster can import it."""
    return shard_app(open_shard)


def open_shard(context: Context) -> Shard:
    """The slice of a node: number `partition-id` of `num-partitions`, of the run that the run-config names."""
    config = context.run_config
    speed = Speed(engine=Engine.RAY, device=str(config["device"]), memory=int(config["memory"]), threads=1)
    stacked = _stacked(run_folder(config), speed)
    return Shard.of(stacked, partition(context), int(context.node_config["num-partitions"]))


@contextmanager
def on_ray(folder: Path, speed: Speed) -> Iterator[Grid]:
    """A grid of shards on Ray, for the run in `folder`."""
    from fedrec.population.ray import Cluster, ray_grid

    cluster = Cluster(address=speed.address, gpus=float(speed.device != "cpu"))
    with ray_grid(folder, shards, speed.nodes, cluster=cluster, config=_config(speed)) as grid:
        yield grid


@contextmanager
def in_processes(folder: Path, speed: Speed) -> Iterator[Grid]:
    """A grid of shards in processes of this machine, for the run in `folder`."""
    with process_grid(folder, shards, speed.processes, _config(speed)) as grid:
        yield grid


def _config(speed: Speed) -> dict[str, str]:
    """What `open_shard` is told beside the run."""
    return {"device": speed.device, "memory": str(speed.memory)}


@lru_cache(maxsize=1)
def _stacked(folder: Path, speed: Speed) -> Stacked:
    torch.set_num_threads(speed.threads)
    return Stacked(_simulation(folder, speed, None).fleet, speed)


@lru_cache(maxsize=1)
def _simulation(folder: Path, speed: Speed, policy: Policy | None) -> Simulation:
    return Simulation.resume(folder, policy, speed)


def _policy() -> Policy:
    named = os.environ.get("FEDREC_POLICY")
    return Policy.read(Path(named)) if named else Policy()
