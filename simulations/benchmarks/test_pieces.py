"""What the pieces of a stacked round cost: `pytest simulations/benchmarks/test_pieces.py` (with pytest-benchmark).

One cohort of the synthetic library through each piece, hashed text vectors, one thread. Not part of the test suite:
nothing here says that a number is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from fedrec.population.batch import Batch
from fedrec.population.simulate import Simulation
from fedrec.population.stacked import Stacked
from fedrec.privacy.crossing import Crossing
from fedrec.randomness import stream
from fedrec.rounds.aggregate import Turn
from fedrec.spec import Plan
from fedrec.speed import Speed

CLIENTS, COHORT = 1000, 200


class Ready(NamedTuple):
    """A run at its first round, and whom it asks."""

    simulation: Simulation
    crossing: Crossing
    cohort: NDArray[np.int64]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Texts are encoded and people read before any clock starts."""
    plan = Plan.of({
        "data": {"options": {"users": CLIENTS}}, "model": {"encoder": "hash"},
        "federation": {"cohort": COHORT, "rounds": 2}, "privacy": {"mode": "user-central", "force": True},
        "evaluation": {"every": 0, "baselines": "none"},
    })  # fmt: skip
    place: Path = tmp_path_factory.mktemp("pieces") / "run"
    simulation = Simulation.start(plan, place, speed=Speed(threads=1))
    _ = simulation.fleet.bank
    privacy = simulation.task.privacy
    assert privacy is not None
    cohort = np.sort(stream(0, "benchmark").choice(CLIENTS, COHORT, replace=False))
    return Ready(simulation, privacy.crossing(1, None), cohort)


def test_reading_a_cohort(benchmark: Any, ready: Ready) -> None:  # noqa: ANN401
    """Rows of one table, in the order asked for."""
    benchmark(ready.simulation.world.population.take, ready.cohort)


def test_laying_out_histories(benchmark: Any, ready: Ready) -> None:  # noqa: ANN401
    """From rows to weighted mentions and first choices."""
    world, task = ready.simulation.world, ready.simulation.task
    people, cuts = world.population.take(ready.cohort), world.cuts[ready.cohort]
    items, words = len(task.model), world.words
    benchmark(lambda: Batch.of(people, cuts, task.plan.profile, items=items, words=words))


def test_clipping_and_adding(benchmark: Any, ready: Ready) -> None:  # noqa: ANN401
    """Each update onto the integer grid, exactly, and their sum."""
    size = ready.simulation.task.model.layout.size
    updates = stream(0, "benchmark", "updates").normal(0.0, 2 * size**-0.5, (COHORT, size)).astype(np.float32)
    benchmark(ready.crossing.add_all, updates)


def test_a_whole_cohort(benchmark: Any, ready: Ready) -> None:  # noqa: ANN401
    """All that devices do in a round, from the shared vector to their sum."""
    simulation = ready.simulation
    stacked, shared = Stacked(simulation.fleet, simulation.speed), simulation.task.model.initial
    benchmark(stacked.take_part, Turn(1), shared, ready.cohort)
