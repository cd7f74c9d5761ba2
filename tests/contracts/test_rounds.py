"""What every kind of round promises, and what a private one promises on top."""

import itertools

import numpy as np
import pytest

from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Level
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Fixed, Poisson
from fedrec.privacy.terms import Budget
from fedrec.randomness import stream
from fedrec.rounds.aggregate import CentralRounds, OpenRounds, digest

CLIENTS, SIZE = 40, 6
PLAN = PrivacyPlan(
    budget=Budget.of(8.0, CLIENTS), rounds=3, sampler=Poisson(0.25), clip=1.0, grid=2**10, multiplier=2.0,
    level=Level.TEST,
)  # fmt: skip
SECRET = PrivacyPlan(
    budget=Budget.of(8.0, CLIENTS), rounds=3, sampler=Poisson(0.25), clip=1.0, grid=2**10, multiplier=2.0
)  # fmt: skip


class Open:
    """A round without privacy, and how to fill it."""

    expected = 10.0

    def __init__(self, folder):
        self.rounds = OpenRounds(seed=1, size=10)

    def update(self, seed):
        return stream(seed, "update").normal(size=SIZE).astype(np.float32)

    def worth(self, update):
        return update.astype(np.float64)


class Central:
    """A private round at level `test`, whose noise can be replayed."""

    expected = 10.0

    def __init__(self, folder, plan=PLAN):
        folder.mkdir(exist_ok=True)
        self.ledger = Ledger(folder / "ledger.jsonl", plan)
        self.rounds = CentralRounds(plan, self.ledger, 1, Conduct(sampler=plan.sampler))

    def update(self, seed):
        return PLAN.clip_update(stream(seed, "update").normal(size=SIZE)).vector.astype(np.int32)

    def worth(self, update):
        return update / PLAN.grid


@pytest.fixture(params=[Open, Central])
def fresh(request, tmp_path):
    """Makes a run of the kind from its beginning, however often."""
    count = itertools.count()
    return lambda: request.param(tmp_path / str(next(count)))


def release(kind, number, updates):
    kind.rounds.cohort(number, CLIENTS)
    return kind.rounds.release(number, updates, SIZE)


def test_cohorts_are_positions_in_order_addressed_by_round(fresh):
    kind, cohorts = fresh(), []
    for number in (1, 2, 3):
        cohorts.append(kind.rounds.cohort(number, CLIENTS))
        mean = kind.rounds.release(number, [], SIZE)
        kind.rounds.published(number, mean)
    for cohort in cohorts:
        assert np.issubdtype(cohort.dtype, np.integer)
        assert (np.diff(cohort) > 0).all()
        assert 0 <= cohort.min() <= cohort.max() < CLIENTS
    assert len({tuple(cohort) for cohort in cohorts}) == 3
    assert fresh().rounds.cohort(1, CLIENTS).tolist() == cohorts[0].tolist()


def test_the_filter_takes_what_clients_of_this_kind_send(fresh):
    kind = fresh()
    form = kind.rounds.filter(SIZE)
    good = kind.update(0)
    assert form.size == SIZE
    assert form.reason(good) is None
    assert form.reason(good[:-1]) == "wrong shape"
    assert form.reason(good.astype(np.float16)) == "wrong type"


def test_a_release_is_one_vector_even_if_nobody_answered(fresh):
    mean = release(fresh(), 1, [])
    assert (mean.shape, mean.dtype) == ((SIZE,), np.float64)
    assert np.isfinite(mean).all()


@pytest.mark.parametrize("replies", [1, 3, 17])
def test_the_sum_is_divided_by_the_plan_s_cohort_however_many_answered(fresh, replies):
    nobody, kind = release(fresh(), 1, []), fresh()
    updates = [kind.update(seed) for seed in range(replies)]
    mean = release(kind, 1, iter(updates))
    worth = sum(kind.worth(update) for update in updates)
    np.testing.assert_allclose(mean - nobody, worth / kind.expected, rtol=0, atol=1e-12)


def test_releasing_leaves_updates_alone_and_can_be_replayed(fresh):
    kind = fresh()
    updates = [kind.update(seed) for seed in range(3)]
    before = [update.copy() for update in updates]
    means = [release(fresh(), 1, updates).tobytes() for _ in range(2)]
    assert means[0] == means[1]
    assert all((update == old).all() for update, old in zip(updates, before, strict=True))


def test_a_run_starts_without_a_past(fresh):
    rounds = fresh().rounds
    rounds.resume(0, "")
    assert rounds.may_go_on()
    assert rounds.spent() is None


def test_only_central_rounds_keep_the_cohort_a_secret(tmp_path):
    assert not Open(tmp_path).rounds.private
    assert Central(tmp_path).rounds.private


def test_open_rounds_add_no_noise_and_draw_a_fixed_number(tmp_path):
    rounds = Open(tmp_path).rounds
    assert release(Open(tmp_path), 1, []).tolist() == [0] * SIZE
    assert [len(rounds.cohort(number, CLIENTS)) for number in range(1, 9)] == [10] * 8
    assert len(rounds.cohort(1, 7)) == 7


def states(ledger):
    return [(record.round, str(record.state)) for record in ledger.records[1:]]


def test_noise_covers_an_empty_cohort_and_is_as_large_as_planned(tmp_path):
    wide = 20_000
    kind = Central(tmp_path)
    kind.rounds.cohort(1, CLIENTS)
    mean = kind.rounds.release(1, [], wide)
    planned = PLAN.multiplier * PLAN.clip / (0.25 * CLIENTS)
    assert mean.std() == pytest.approx(planned, rel=0.02)  # four standard errors of a standard deviation
    assert abs(mean.mean()) < 4 * planned / np.sqrt(wide)


def test_poisson_cohorts_have_the_expected_size_on_average_and_not_always(tmp_path):
    sizes = []
    for seed in range(60):
        kind = Central(tmp_path / str(seed))
        rounds = CentralRounds(PLAN, kind.ledger, seed, Conduct(sampler=PLAN.sampler))
        sizes.append(len(rounds.cohort(1, CLIENTS)))
        kind.ledger.close()
    assert len(set(sizes)) > 4
    assert np.mean(sizes) == pytest.approx(10, abs=4 * np.sqrt(7.5 / 60))


def test_a_round_is_reserved_charged_and_released_in_this_order(tmp_path):
    kind = Central(tmp_path)
    cohort = kind.rounds.cohort(1, CLIENTS)
    assert states(kind.ledger) == [(1, "reserved")]
    mean = kind.rounds.release(1, [kind.update(int(client)) for client in cohort], SIZE)
    assert states(kind.ledger) == [(1, "reserved"), (1, "charged")]
    assert kind.ledger.pending == (1, digest(mean))
    kind.rounds.published(1, mean)
    assert states(kind.ledger) == [(1, "reserved"), (1, "charged"), (1, "released")]
    assert kind.ledger.pending is None


def test_only_what_was_charged_is_published(tmp_path):
    kind = Central(tmp_path)
    mean = release(kind, 1, [])
    with pytest.raises(PrivacyRefusal, match="P11"):
        kind.rounds.published(1, np.nextafter(mean, 1))


def test_the_charges_end_with_the_plan(tmp_path):
    kind = Central(tmp_path)
    for number in (1, 2, 3):
        assert kind.rounds.may_go_on()
        kind.rounds.published(number, release(kind, number, []))
    assert not kind.rounds.may_go_on()
    with pytest.raises(BudgetExceeded, match="P10"):
        kind.rounds.cohort(4, CLIENTS)


def test_a_lost_release_stays_spent_and_its_round_is_run_again(tmp_path):
    kind = Central(tmp_path)
    lost = release(kind, 1, [])
    kind.rounds.resume(0, "")
    assert states(kind.ledger)[-1] == (1, "aborted")
    assert kind.ledger.charges == 1
    kind.rounds.published(1, release(kind, 1, [kind.update(1)]))
    assert (kind.ledger.charges, kind.ledger.remaining) == (2, 1)
    assert digest(lost) != kind.ledger.records[-1].digest


def test_a_release_that_reached_the_checkpoint_is_not_charged_again(tmp_path):
    kind = Central(tmp_path)
    mean = release(kind, 1, [])
    kind.rounds.resume(1, digest(mean))
    assert states(kind.ledger) == [(1, "reserved"), (1, "charged"), (1, "released")]
    assert (kind.ledger.charges, kind.ledger.pending) == (1, None)


@pytest.mark.parametrize(("number", "other"), [(1, True), (2, False)])
def test_a_checkpoint_of_another_release_does_not_release_this_one(tmp_path, number, other):
    kind = Central(tmp_path)
    mean = release(kind, 1, [])
    kind.rounds.resume(number, digest(mean + 1) if other else digest(mean))
    assert states(kind.ledger)[-1] == (1, "aborted")


def test_a_reservation_costs_nothing(tmp_path):
    kind = Central(tmp_path)
    kind.rounds.cohort(1, CLIENTS)
    kind.rounds.resume(0, "")
    kind.rounds.cohort(1, CLIENTS)
    assert kind.ledger.charges == 0


def test_an_update_beyond_the_clip_norm_is_neither_accepted_nor_added(tmp_path):
    kind = Central(tmp_path)
    form, edge = kind.rounds.filter(2), np.array([1024, 0], np.int32)
    assert form.dtype == np.int32
    assert form.reason(edge) is None
    for beyond in ([1025, 0], [1024, 1], [-(2**31), -(2**31)], [2**31 - 1, 0]):
        assert form.reason(np.array(beyond, np.int32)) == "out of bound"
    kind.rounds.cohort(1, CLIENTS)
    with pytest.raises(PrivacyRefusal, match="P08"):
        kind.rounds.release(1, [np.array([1025, 0], np.int32)], 2)
    assert kind.ledger.charges == 0


def test_a_private_run_cannot_be_replayed(tmp_path):
    one, other = Central(tmp_path / "a", SECRET), Central(tmp_path / "b", SECRET)
    cohorts = [kind.rounds.cohort(1, 5000).tolist() for kind in (one, other)]
    assert cohorts[0] != cohorts[1]
    assert one.rounds.release(1, [], 200).tolist() != other.rounds.release(1, [], 200).tolist()


def test_a_private_run_says_what_it_has_spent_lost_charges_included(tmp_path):
    kind = Central(tmp_path, SECRET)
    assert kind.rounds.spent() == 0
    kind.rounds.published(1, release(kind, 1, []))
    release(kind, 2, [])
    kind.rounds.resume(1, "lost")
    assert kind.rounds.spent() == SECRET.spent(2) > SECRET.spent(1)


@pytest.mark.parametrize(
    ("conduct", "code"),
    [
        (Conduct(sampler=Poisson(0.3)), "P02"),
        (Conduct(sampler=Fixed(10)), "P03"),
        (Conduct(sampler=PLAN.sampler, minimum=1), "P03"),
        (Conduct(sampler=PLAN.sampler, tops_up=True), "P03"),
        (Conduct(sampler=PLAN.sampler, retries=True), "P03"),
        (Conduct(sampler=PLAN.sampler, shuffles=True), "P03"),
        (Conduct(sampler=PLAN.sampler, denominator="replies"), "P04"),
        (Conduct(sampler=PLAN.sampler, weights="examples"), "P05"),
    ],
)
@pytest.mark.parametrize("plan", [PLAN, SECRET])
def test_a_conduct_that_the_plan_does_not_cover_is_refused(tmp_path, plan, conduct, code):
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        with pytest.raises(PrivacyRefusal) as refusal:
            CentralRounds(plan, ledger, 0, conduct)
        assert refusal.value.code == code


def test_a_ledger_of_another_plan_is_refused(tmp_path):
    with (
        Ledger(tmp_path / "ledger.jsonl", PLAN) as ledger,
        pytest.raises(RunError, match="charged to the plan that it follows"),
    ):
        CentralRounds(SECRET, ledger, 0, Conduct(sampler=SECRET.sampler))
