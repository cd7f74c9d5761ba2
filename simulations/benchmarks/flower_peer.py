"""The workload through Flower's own Ray engine, one client a node: `python flower_peer.py FOLDER OUT [--cpus N]`.

Stock `FedAvg` with equal weights over a client app of the plainest kind: no device ledger, no noise, no fedrec strategy.
`--cpus 0` leaves the engine at its defaults.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from flower_client import app as client_app
from workload import Workload, report

import fedrec.exchange.flower  # noqa: F401  (turns telemetry off, before Flower reads its switches)


def run(folder: Path, out: Path, cpus: int) -> None:
    """All rounds; seconds of each, and the sum of clipped updates of the first."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    size, start = (work := Workload.open(folder)).size, work.start
    stamps: list[float] = []
    seen: list[list[int]] = []
    totals: list[Any] = []

    def collect(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        """Who took part, in place of the mean of their metrics."""
        seen.append([int(reply["metrics"]["client"]) for reply in replies])
        return MetricRecord({"threads": replies[0]["metrics"]["threads"]})

    def clock(number: int, arrays: ArrayRecord) -> None:
        """Stamp every round, and keep what the first one made."""
        stamps.append(time.perf_counter())
        if number == 1:
            totals.append((arrays["shared"].numpy().astype(np.float64) - start) * size.cohort)

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_train=size.cohort / size.clients, fraction_evaluate=0.0, min_train_nodes=size.cohort,
            min_available_nodes=size.clients, train_metrics_aggr_fn=collect,
        )  # fmt: skip
        strategy.start(
            grid, ArrayRecord({"shared": Array(start)}), num_rounds=size.rounds, evaluate_fn=clock,
            train_config=ConfigRecord({"folder": str(folder)}),
        )  # fmt: skip

    backend: dict[str, Any] = {"init_args": {"address": "local"}}  # never a cluster that happens to be there
    if cpus:
        backend["client_resources"] = {"num_cpus": cpus, "num_gpus": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(server_app=server, client_app=client_app, num_supernodes=size.clients, backend_config=backend)
    report(out, np.diff(stamps), clients=seen[0], total=totals[0])


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
