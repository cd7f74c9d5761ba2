"""Virtual devices for an engine that runs clients in processes of its own, such as Flower's on Ray."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from fedrec.errors import SpecError
from fedrec.population.simulate import Simulation
from fedrec.population.world import Fleet, VirtualDevice


def open_node(context: Context) -> VirtualDevice:
    """The device of a node: client number `partition-id` of the run that the run-config names."""
    folder = str(context.run_config.get("run", ""))
    if not folder:
        remedy = """`fedrec init FOLDER`, then flwr run . --run-config 'run="FOLDER"' with an absolute path."""
        raise SpecError("Flower's engine trains a prepared run", remedy=remedy)
    return VirtualDevice(_fleet(folder), int(context.node_config["partition-id"]))


@lru_cache(maxsize=1)
def _fleet(folder: str) -> Fleet:
    return Simulation.resume(Path(folder)).fleet
