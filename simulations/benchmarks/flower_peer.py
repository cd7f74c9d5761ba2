"""The workload through Flower's own Ray engine, one client a node: `python flower_peer.py FOLDER OUT [--cpus N]`.

Stock `FedAvg` with equal weights over a client app of the plainest kind: no device ledger, no noise, no strategy of
ours. `--cpus 0` leaves the engine at its defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import fedrec.exchange.flower  # noqa: F401  isort: skip  (turns telemetry off, before Flower reads its switches)

import numpy as np
from flower_client import app as client_app
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from workload import Size, Workload, report


class Seen:
    """What Flower's stock strategy shows of its rounds."""

    def __init__(self, start: NDArray[np.float32], cohort: int) -> None:
        self.start, self.cohort = start, cohort
        self.stamps: list[float] = []
        self.clients: list[list[int]] = []
        self.total = np.zeros(0)

    def collect(self, replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        """Who took part, in place of the mean of their metrics."""
        self.clients.append([int(reply["metrics"]["client"]) for reply in replies])
        return MetricRecord({"threads": replies[0]["metrics"]["threads"]})

    def clock(self, number: int, arrays: ArrayRecord) -> None:
        """Stamp every round, and keep what the first one made."""
        self.stamps.append(time.perf_counter())
        if number == 1:
            self.total = (arrays["shared"].numpy().astype(np.float64) - self.start) * self.cohort


def train(grid: Grid, folder: Path) -> Seen:
    """All rounds, by federated averaging as Flower ships it."""
    work = Workload.open(folder)
    size, seen = work.size, Seen(work.start, work.size.cohort)
    strategy = FedAvg(
        fraction_train=size.cohort / size.clients, fraction_evaluate=0.0, min_train_nodes=size.cohort,
        min_available_nodes=size.clients, train_metrics_aggr_fn=seen.collect,
    )  # fmt: skip
    strategy.start(
        grid, ArrayRecord({"shared": Array(work.start)}), num_rounds=size.rounds, evaluate_fn=seen.clock,
        train_config=ConfigRecord({"folder": str(folder)}),
    )  # fmt: skip
    return seen


def run(folder: Path, out: Path, cpus: int) -> None:
    """Seconds of each round, and the sum of clipped updates of the first."""
    from flwr.simulation import run_simulation

    server, found = ServerApp(), list[Seen]()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        found.append(train(grid, folder))

    backend: dict[str, Any] = {"init_args": {"address": "local"}}  # never a cluster that happens to be there
    if cpus:
        backend["client_resources"] = {"num_cpus": cpus, "num_gpus": 0.0}
    nodes = Size.read(folder).clients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the function is deprecated in favour of a command, which runs the same engine
        run_simulation(server_app=server, client_app=client_app, num_supernodes=nodes, backend_config=backend)
    (seen,) = found
    report(out, np.diff(seen.stamps), clients=seen.clients[0], total=seen.total)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cpus", type=int, default=1)
    given = parser.parse_args()
    run(given.folder.resolve(), given.out, given.cpus)


if __name__ == "__main__":
    main()
