"""Noise that takes itself back, from end to end: over a federation, through crashes, to the released models."""

from types import SimpleNamespace

import numpy as np
import pytest
from federation import INITIAL, SIZE, TASK, grid_of, memory_of, saved, strategy_of, train
from plans import COHORT, GRID, KINDS, Z, plan_of, release_of
from scipy.linalg import toeplitz
from scipy.stats import chi2

from fedrec.errors import RunError
from fedrec.exchange import wire
from fedrec.exchange.serve import serve
from fedrec.privacy.chain import Book
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.matrix import coefficients
from fedrec.privacy.noise import Level
from fedrec.rounds.aggregate import PrivateRounds, Turn
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import ServerOptimizer
from fedrec.spec import FederationSpec

ALARM = 1e-6
ROUNDS, BANDS, WIDE = 6, 3, 20_000
PLAN, TEST = plan_of("banded", rounds=ROUNDS), plan_of("banded", rounds=ROUNDS, level=Level.TEST)


pytestmark = pytest.mark.usefixtures("no_disk")


# Its size and shape.


def released(folder, plan):
    """(round, WIDE) the noise on the sums of six rounds to which nobody contributed, in clip norms."""
    folder.mkdir(exist_ok=True)
    with Ledger(folder / "ledger.jsonl", plan) as ledger:
        rounds = PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules), memory=memory_of(folder))
        means = []
        for number in range(1, ROUNDS + 1):
            rounds.cohort(number, plan.population)
            means.append(release_of(rounds, Turn(number), [], WIDE))
            rounds.published(number, means[-1].digest)
    return np.array([made.mean for made in means]) * COHORT


def covariance_p(noise, matrix):
    """p-value of `noise` (round, n) being C⁻¹Z: the squares of each row of CN and the products of each two.

    Under it CN is independent with standard deviation Z, so a row's squares are χ² and the correlation of two rows is
    about normal with standard deviation n^(−1/2). Bonferroni over all of them.
    """
    white, n = matrix @ noise / Z, noise.shape[1]
    squares = (white**2).sum(axis=1)
    alone = 2 * np.minimum(chi2.cdf(squares, n), chi2.sf(squares, n))
    products = np.corrcoef(white)[np.triu_indices(len(white), 1)]
    together = chi2.sf(n * products**2, 1)
    return min(1.0, min(*alone, *together) * (alone.size + together.size))


def banded(bands):
    diagonals = np.zeros(ROUNDS)
    diagonals[:bands] = coefficients(bands)
    return toeplitz(diagonals, np.zeros(ROUNDS))


def test_released_noise_has_the_covariance_of_the_matrix_that_was_accounted(tmp_path):
    noise = released(tmp_path, PLAN)
    assert covariance_p(noise, banded(BANDS)) > ALARM
    for wrong in (banded(1), banded(2), banded(4), banded(BANDS).T, 0.95 * banded(BANDS)):
        assert covariance_p(noise, wrong) < ALARM


def test_noise_without_a_memory_would_be_found_out(tmp_path):
    """The same sums with independent noise of the same width: what a forgetful server would release."""
    noise = released(tmp_path, plan_of("min-sep", rounds=ROUNDS))
    assert covariance_p(noise, banded(1)) > ALARM
    assert covariance_p(noise, banded(BANDS)) < ALARM


def test_a_model_is_less_noisy_than_under_independent_noise_of_the_same_width(tmp_path):
    """The noise on a model is the sum of all rounds'."""
    model, independent = (
        released(tmp_path / kind, plan_of(kind, rounds=ROUNDS)).sum(axis=0).std() for kind in ("banded", "min-sep")
    )
    assert independent == pytest.approx(Z * np.sqrt(ROUNDS), rel=0.03)
    assert model == pytest.approx(Z * np.linalg.norm(np.linalg.inv(banded(BANDS)).sum(axis=0)), rel=0.03)
    assert model < 0.7 * independent


# Its memory.


def test_what_is_on_disk_between_rounds_cannot_be_read(tmp_path):
    """Neither the rows nor the release minus the rows: a release is known, so its noise must not be."""
    with strategy_of(tmp_path, TEST) as strategy:
        grid, kept = grid_of(TEST), []
        strategy.observers.append(lambda progress: kept.append(b"".join(p.read_bytes() for p in noise_files(tmp_path))))
        strategy.join(grid, TEST.population)
        strategy.start(grid, wire.arrays(INITIAL))
    rows = drawn(TEST, tmp_path / "again")
    for number, content in enumerate(kept, start=1):
        assert len(content) > 8 * SIZE
        for row in rows[:number]:
            assert not any(int(entry).to_bytes(8, "little", signed=True) in content for entry in row)


def noise_files(folder):
    return sorted(folder.glob("noise.*"))


def drawn(plan, folder):
    """The rows of a plan at level `test`, in grid steps."""
    folder.mkdir()
    with Ledger(folder / "ledger.jsonl", plan) as ledger:
        rounds = PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules), memory=memory_of(folder))
        return [rounds._noise(number).draw(Z * GRID, SIZE) for number in range(1, plan.rounds + 1)]


def test_a_run_that_lost_its_memory_ends_and_what_it_released_stays(tmp_path):
    train(tmp_path, TEST, rounds=2)
    before = saved(tmp_path).optimum.shared
    memory_of(tmp_path).key.unlink()
    with pytest.raises(RunError, match="correlated noise goes on from the rows that it made"):
        train(tmp_path, TEST)
    book = Book.read(tmp_path / "ledger.jsonl")
    assert book.position.charged == (1, 2)
    assert saved(tmp_path).optimum.shared.tobytes() == before.tobytes()


def test_killed_while_a_row_is_drawn_a_run_ends_where_it_would_have(tmp_path, monkeypatch):
    """The row is on disk, its charge is not: the same round draws it anew from the rows before."""
    calm, _ = train(tmp_path / "calm", TEST)
    train(tmp_path / "run", TEST, rounds=2)

    class Crash(BaseException):
        pass

    def crash(*arguments):
        raise Crash

    with monkeypatch.context() as machine, pytest.raises(Crash):
        machine.setattr(Ledger, "charge", crash)
        train(tmp_path / "run", TEST)
    assert train(tmp_path / "run", TEST)[0].tobytes() == calm.tobytes()
    assert Book.read(tmp_path / "run" / "ledger.jsonl").position.charged == (1, 2, 3, 4, 5, 6)


# To the end, as a server goes.


def task_of(plan):
    """As much of a task as a server needs."""
    spec = FederationSpec(rounds=plan.rounds, cohort=COHORT, optimizer="sgd", momentum=0.0, weight_decay=0.0)
    return SimpleNamespace(
        plan=SimpleNamespace(federation=spec, clients=plan.population, seed=0), privacy=plan, warm=None, hash=TASK,
        learner=Learner(ServerOptimizer(spec, np.ones(SIZE, bool)), SIZE, plan.rounds),
        model=SimpleNamespace(initial=INITIAL), check_widths=lambda: 0.0,
    )  # fmt: skip


def keys(home):
    return list((home / "keys").glob("*"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_at_the_end_of_a_run_its_noise_is_forgotten(tmp_path, home):
    folder, seen = tmp_path / "run", []
    folder.mkdir()

    def look(progress):
        seen.append((len(keys(home)), len(noise_files(folder))))

    shared = serve(task_of(TEST), grid_of(TEST), folder, [look])
    assert seen == [(1, 1), *[(1, 2)] * (ROUNDS - 1)]
    assert (keys(home), noise_files(folder)) == ([], [])
    assert serve(task_of(TEST), grid_of(TEST), folder).tobytes() == shared.tobytes()


def test_the_noise_of_a_run_that_ends_early_is_forgotten_too(tmp_path, home, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()

    def crash(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as machine, pytest.raises(KeyboardInterrupt):
        machine.setattr("fedrec.rounds.checkpoint.Checkpoint.save", crash)
        serve(task_of(TEST), grid_of(TEST), folder)
    assert len(keys(home)) == 1  # charged, and lost
    serve(task_of(TEST), grid_of(TEST), folder)
    assert (keys(home), noise_files(folder), saved(folder)) == ([], [], None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "banded"])
def test_independent_noise_needs_no_memory(tmp_path, home, kind):
    folder, plan = tmp_path / "run", plan_of(kind, rounds=2, level=Level.TEST)
    folder.mkdir()
    seen = []
    serve(task_of(plan), grid_of(plan), folder, [lambda progress: seen.extend([*keys(home), *noise_files(folder)])])
    assert seen == []
