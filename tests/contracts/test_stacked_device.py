"""A stacked round on a second device is the round on the CPU. Pretended here; on a GPU it is tests/gpu that asks."""

import numpy as np
import pretend
import pytest
import torch
from pretend import GPU
from stacks import CHANGES, CLIENTS, SMALL

from fedrec.population import updates
from fedrec.population.heads import Heads
from fedrec.population.simulate import Simulation
from fedrec.population.updates import Updates
from fedrec.spec import Plan
from fedrec.speed import Speed

pytestmark = pytest.mark.skipif(not pretend.AVAILABLE, reason="this torch cannot pretend a device")


@pytest.fixture(params=CHANGES.values(), ids=CHANGES)
def fleet(request, tmp_path):
    return Simulation.start(Plan.of(SMALL).override(request.param), tmp_path / "run").fleet


@pytest.fixture
def work(fleet, monkeypatch):
    """The fleet's updates on the CPU and, while it is pretended, on a GPU."""
    monkeypatch.setattr(updates, "usable_device", lambda name: GPU if name == "cuda" else torch.device(name))
    return Updates(fleet, Speed(device="cpu", threads=1)), Updates(fleet, Speed(device="cuda", threads=1))


def shared_of(fleet):
    """Away from the public start, where half of an adapter's gradients are zero."""
    start = fleet.task.model.initial
    return start + np.sin(np.arange(len(start), dtype=np.float32)) / 10


def rows_of(work):
    """(client, size) updates in the order of clients, and everybody's embedding afterwards."""
    cohort = work.cohort(1, CLIENTS)
    chunks = list(work.each(cohort, shared_of(work.fleet), lambda chunk: chunk))
    order = np.argsort(np.concatenate([chunk.places for chunk in chunks]))
    return np.concatenate([chunk.updates for chunk in chunks])[order], work.fleet.states.after(1, np.arange(40))


def test_updates_on_a_device_are_those_of_the_cpu(work):
    near, far = work
    expected, kept = rows_of(near)
    with pretend.Pretending():
        found, moved = rows_of(far)
    assert expected.any() and found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.allclose(moved, kept, atol=1e-6)


def clipped(work):
    """The length of each gradient, chunk by chunk, and the sum of all, each cut to length 1 or less."""
    lengths = []

    def clip(heads, slope):
        length = heads.lengths(slope)
        lengths.append(length.cpu().numpy())
        return torch.where(length.isfinite(), (1 / length).clamp(max=1.0), 0.0)

    total = work.total(work.cohort(1, CLIENTS), shared_of(work.fleet), clip)
    return np.concatenate(lengths), total


def test_sums_and_norms_on_a_device_are_those_of_the_cpu(work):
    near, far = work
    if not near.single(1):
        return  # several steps and statistics are written down one by one
    expected, total = clipped(near)
    with pretend.Pretending():
        found, there = clipped(far)
    assert expected.any() and np.allclose(found, expected, rtol=1e-5)
    assert np.allclose(there, total, atol=1e-5 * np.abs(total).max())


@pytest.mark.parametrize("fleet", [{"split": {"kind": "cold-items", "hidden": 0.2}}], indirect=True, ids=["hidden"])
def test_a_tensor_left_on_the_cpu_is_found(work, monkeypatch):
    made = Heads.__init__
    monkeypatch.setattr(Heads, "__init__", lambda self, m, tower, shut, seen: made(self, m, tower, shut.cpu(), seen))
    with pretend.Pretending(), pytest.raises(RuntimeError, match="two devices"):
        rows_of(work[1])
