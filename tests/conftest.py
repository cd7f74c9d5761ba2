"""One thread, and nothing written outside temporary folders."""

import os
import tempfile

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

import fedrec.exchange.flower  # noqa: F401  (sets Flower's switches before any test imports it)

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory):
    os.environ["FEDREC_HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ["FLWR_HOME"] = str(tmp_path_factory.mktemp("flwr"))
    # A killed Ray leaves its address behind, and the next one waits for it. The name is short for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as place:
        os.environ["RAY_TMPDIR"] = place
        yield


@pytest.fixture(scope="module")
def no_disk():
    """Nothing waits for the disk: a killed process keeps what it wrote, synced or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
