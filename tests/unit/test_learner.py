"""What becomes of a release: a start, or a step."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from fedrec.errors import RunError
from fedrec.rounds.aggregate import Release
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import Optimum, ServerOptimizer
from fedrec.spec import FederationSpec

SPEC = FederationSpec(optimizer="sgd", learning_rate=0.5, momentum=0.0, weight_decay=0.4)
SERVER = ServerOptimizer(SPEC, np.array([True, True]))
START = Optimum.start(np.array([1, 1], np.float32))


@dataclass
class Doubling:
    """A warm start of three numbers: twice the first two. Notes how noisy it was told they are."""

    size: int = 3
    clip: float = 1.0
    told: list = field(default_factory=list)

    def solve(self, mean, noise):
        self.told.append(noise)
        return (2 * mean[:2]).astype(np.float32)

    def beside(self, mean, noise):
        return {"last": mean[2:].astype(np.float32)}


def release(*mean, noise=0.0):
    return Release(np.array(mean, np.float64), "", noise)


def test_without_a_warm_start_every_round_is_a_step():
    learner = Learner(SERVER, size=2, rounds=3)
    assert [learner.width(number) for number in (1, 2, 3)] == [2, 2, 2]
    at = learner.step(START, release(2.0, 0.0), 1)
    assert at.shared.tolist() == pytest.approx([2.0, 1.0])
    assert at.anchor.tolist() == [1, 1]


def test_a_warm_start_replaces_what_was_there_and_decay_pulls_back_to_it():
    warm = Doubling()
    learner = Learner(SERVER, size=2, rounds=3, warm=warm)
    assert [learner.width(number) for number in (1, 2, 3)] == [3, 2, 2]
    at = learner.step(START, release(3.0, 4.0, 5.0, noise=0.25), 1)
    assert (at.shared.tolist(), at.anchor.tolist(), warm.told) == ([6, 8], [6, 8], [0.25])
    assert at.beside["last"].tolist() == [5]
    moved = learner.step(at, release(2.0, 0.0), 2)
    assert moved.beside is at.beside
    assert moved.shared.tolist() == pytest.approx([7, 8])
    back = learner.step(moved, release(0.0, 0.0), 3)
    assert back.shared.tolist() == pytest.approx([7 - 0.5 * 0.4 * (7 - 6), 8])  # a fifth of the way back


@pytest.mark.parametrize("kind", ["adam", "yogi"])
def test_training_counts_its_own_rounds(kind):
    """The first step after a warm start is corrected for its bias as a first step is."""
    spec = FederationSpec(optimizer=kind, learning_rate=0.1, weight_decay=0.0)
    server = ServerOptimizer(spec, np.array([True, True]))
    plain = Learner(server, size=2, rounds=2).step(START, release(1.0, -2.0), 1)
    warmed = Learner(server, size=2, rounds=2, warm=Doubling()).step(START, release(1.0, -2.0), 2)
    np.testing.assert_array_equal(plain.shared, warmed.shared)
    assert plain.shared.tolist() == pytest.approx([1.1, 0.9])


def test_a_model_that_diverged_is_no_result():
    learner = Learner(SERVER, size=2, rounds=3)
    with np.errstate(over="ignore"), pytest.raises(RunError, match="diverged; got round=2. Lower the learning rate"):
        learner.step(START, release(1e39, 0.0), 2)
