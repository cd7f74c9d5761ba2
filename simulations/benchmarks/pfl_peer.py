"""The workload through pfl 0.6 (Apple), in an environment of its own: its dependencies and Flower's exclude each other.

`python pfl_peer.py --setup VENV` makes the environment; `VENV/bin/python pfl_peer.py FOLDER OUT` runs in it, with
fedrec on PYTHONPATH. All is pfl's own: federated averaging, PyTorch model, user sampler, norm clipping; the loss is the
one that a fedrec client minimises. Parameters lie in one flat tensor, which spares pfl a loop over names a client.
"""

from __future__ import annotations

import argparse
import subprocess
import time
import venv
from pathlib import Path
from typing import Any

PACKAGES = ("torch==2.13.0", "pfl==0.6.0", "psutil", "pydantic>=2.8", "pyarrow>=17", "tomli-w>=1.1")


def set_up(folder: Path) -> Path:
    """The interpreter of a pfl environment in `folder`, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def run(folder: Path, out: Path, threads: int) -> None:
    """All rounds; seconds of each, and the sum of clipped updates of the first."""
    import numpy as np
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.sampling import MinimizeReuseUserSampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.internal.ops.pytorch_ops import distributed
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from pfl.privacy import CentrallyAppliedPrivacyMechanism, NormClippingOnly
    from workload import CLIP, Workload, report

    from fedrec.randomness import stream

    torch.set_num_threads(threads)
    work = Workload.open(folder)
    size = work.size

    class Module(torch.nn.Module):
        """The recommender as pfl trains it."""

        def __init__(self) -> None:
            super().__init__()
            self.shared = torch.nn.Parameter(torch.from_numpy(work.start.copy()))

        def loss(self, client: torch.Tensor) -> torch.Tensor:
            """Of one step on everything that the client trains on."""
            return work.loss(int(client), self.shared)

        def metrics(self, client: torch.Tensor) -> dict[str, Any]:
            """Nothing is evaluated while the clock runs."""
            return {}

    class Clock(TrainingProcessCallback):  # type: ignore[misc]
        """Stamps every round, and keeps what the first one made."""

        def __init__(self) -> None:
            self.stamps, self.total = [time.perf_counter()], np.zeros(0)

        def after_central_iteration(
            self, aggregate_metrics: object, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Any]:
            """Take the time first."""
            self.stamps.append(time.perf_counter())
            if not len(self.total):
                now = model.pytorch_model.shared.detach().numpy().astype(np.float64)
                self.total = (now - work.start) * size.cohort
            return False, Metrics()

    users = stream(0, "benchmark", "pfl").permutation(size.clients).tolist()
    datasets = [PyTorchTensorDataset((torch.tensor([user]),), user_id=str(user)) for user in range(size.clients)]
    backend = SimulatedBackend(
        training_data=FederatedDataset(datasets.__getitem__, MinimizeReuseUserSampler(users)), val_data=None,
        postprocessors=[CentrallyAppliedPrivacyMechanism(NormClippingOnly(2.0, CLIP))],
    )  # fmt: skip
    module, clock = Module(), Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=size.rounds, evaluation_frequency=10**9, train_cohort_size=size.cohort,
            val_cohort_size=0,
        ),
        backend, PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), 1.0)),
        NNTrainHyperParams(
            local_learning_rate=size.plan.training.learning_rate, local_num_epochs=1, local_batch_size=None
        ),
        callbacks=[clock],
    )  # fmt: skip
    if distributed.global_rank == 0:
        report(out, np.diff(clock.stamps), clients=users[: size.cohort], total=clock.total)


def main() -> None:
    """Make the environment, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", type=Path, metavar="VENV")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.setup:
        print(set_up(given.setup))
    elif given.folder and given.out:
        run(given.folder, given.out, given.threads)
    else:
        parser.error("give --setup VENV, or FOLDER and OUT")


if __name__ == "__main__":
    main()
