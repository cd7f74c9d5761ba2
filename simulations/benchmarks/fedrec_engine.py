"""The workload through fedrec, a whole private simulation: `python fedrec_engine.py FOLDER OUT --engine stacked`.

Everything that a run of `fedrec simulate --mode user-central` does in a round is in its seconds: cohort, devices with
their accounts and embeddings, clip to the grid, noise of the server, ledger, optimiser, checkpoint.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from workload import Workload, report

from fedrec.population.simulate import Simulation
from fedrec.population.stacked import Stacked
from fedrec.randomness import stream
from fedrec.rounds.aggregate import Turn
from fedrec.speed import Engine, Speed


def run(folder: Path, out: Path, speed: Speed, *, rounds: int, noise: str) -> None:
    """All rounds; seconds of each, and the sum of clipped updates of one cohort at the peers' start."""
    work = Workload.open(folder)
    plan = replace(work.size, rounds=rounds or work.size.rounds).plan.override({"privacy": {"noise": noise}})
    clients = np.sort(stream(0, "benchmark", "check").choice(work.size.clients, work.size.cohort, replace=False))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        simulation = Simulation.start(plan, Path(place) / "run", speed=speed)
        total = _total(simulation, work.start, clients)
        warm(simulation)
        stamps: list[float] = []
        simulation.train(lambda row: stamps.append(time.perf_counter()))
    report(out, np.diff(stamps), clients=clients.tolist(), total=total)


def warm(simulation: Simulation) -> None:
    """The loop remembers each device's history in its own form once it was asked: it is not charged for that."""
    if simulation.speed.engine is Engine.LOOP:
        for client, cut in enumerate(simulation.world.cuts):
            simulation.fleet.events(client, int(cut))


def _total(
    simulation: Simulation, start: NDArray[np.float32], clients: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """What devices send in all, before any noise, as if round 1 began at `start`; None where they are elsewhere.

    A device that is asked for a round once more spends nothing, so the accounts bear it.
    """
    privacy, fleet = simulation.task.privacy, simulation.fleet
    assert privacy is not None  # the workload's plan has a mode
    total = np.zeros(len(start), np.int64)
    match simulation.speed.engine:
        case Engine.RAY:
            return None
        case Engine.LOOP:
            for client in map(int, clients):
                total += fleet.take_part(client, Turn(1), start)
        case Engine.STACKED:
            total += Stacked(fleet, simulation.speed).take_part(Turn(1), start, clients).summed.total
    return total / privacy.crossing(1, None).grid


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", type=Engine, default=Engine.STACKED)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0, help="0 for as many as the workload says")
    parser.add_argument("--noise", default="hardened", choices=("hardened", "research"))
    given = parser.parse_args()
    speed = Speed(
        engine=given.engine, threads=given.threads, processes=given.processes, device=given.device, nodes=given.nodes
    )  # fmt: skip
    run(given.folder, given.out, speed, rounds=given.rounds, noise=given.noise)


if __name__ == "__main__":
    main()
