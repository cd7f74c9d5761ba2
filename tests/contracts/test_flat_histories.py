"""Histories are flattened once where people are few, in every round where they are many: the cohorts are the same."""

from dataclasses import fields

import numpy as np
import pytest

from fedrec.datasets import shards
from fedrec.datasets.dataset import Stream
from fedrec.population import updates as updates_module
from fedrec.population.batch import Batch
from fedrec.population.states import DeviceStates
from fedrec.population.updates import Updates
from fedrec.population.world import Fleet, World
from fedrec.spec import Plan
from fedrec.speed import Speed
from fedrec.task import Task

USERS = 30
PLAN = Plan.of({
    "clients": USERS,
    "data": {"options": {"users": str(USERS), "items": "64"}},
    "model": {"encoder": "hash", "dim": 8},
    "federation": {"rounds": 3, "cohort": 20},
})  # fmt: skip
COHORTS = [np.arange(0, USERS, 3), np.array([4, 5, 29]), np.array([], np.int64), np.arange(USERS)]


@pytest.fixture(params=["in memory", "on disk"])
def world(request, tmp_path):
    whole = World.open(PLAN)
    if request.param == "in memory":
        return whole
    shards.write(Stream.of(whole.dataset), tmp_path / "people", clients=7)
    return World.of(shards.read(tmp_path / "people"), PLAN)


def cohorts(world, folder, flat, monkeypatch):
    """The batches of some cohorts, and how many people were flattened for them."""
    made, of = [], Batch.of.__func__
    monkeypatch.setattr(updates_module, "FLAT", flat)
    monkeypatch.setattr(Batch, "of", classmethod(lambda cls, *of_whom, **how: (
        made.append(len(of_whom[0])), of(cls, *of_whom, **how))[1]))  # fmt: skip
    fleet = Fleet(Task(PLAN, world.dataset.catalogue), world, DeviceStates(folder, USERS, 8))
    work = Updates(fleet, Speed())
    return [work.cohort(1, clients).batch for clients in COHORTS], made


def test_cohorts_are_the_same_however_they_are_made(world, tmp_path, monkeypatch):
    few, flattened = cohorts(world, tmp_path / "few", int(world.population.sizes.sum()), monkeypatch)
    monkeypatch.undo()
    many, made = cohorts(world, tmp_path / "many", int(world.population.sizes.sum()) - 1, monkeypatch)
    assert flattened == [USERS] and made == [len(clients) for clients in COHORTS]
    for one, other in zip(few, many, strict=True):
        for field in fields(Batch):
            ours, theirs = getattr(one, field.name), getattr(other, field.name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    assert few[0].entry.max() >= 64 and len(few[0].chosen)  # there are texts and choices to compare
