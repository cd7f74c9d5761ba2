"""What every kind of round promises, and what a private one promises on top."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from plans import CLIENTS, COHORT, GRID, GROUPS, KINDS, LEAST, Z, plan_of, release_of

from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.masking import Masking, Neighbours
from fedrec.privacy.noise import Level
from fedrec.privacy.sampling import Fixed, Poisson
from fedrec.randomness import stream
from fedrec.rounds.aggregate import OpenRounds, PrivateRounds, Turn, digest
from fedrec.rounds.memory import NoiseMemory

SIZE = 6
PLAN, SECRET = plan_of("poisson", rounds=3, level=Level.TEST), plan_of("poisson", rounds=3)


pytestmark = pytest.mark.usefixtures("no_disk")


class Open:
    """A round without privacy, and how to fill it."""

    expected, required = 10.0, 0

    def __init__(self, folder):
        self.rounds = OpenRounds(seed=1, size=10)

    def update(self, seed, scale=1.0):
        return scale * stream(seed, "update").normal(size=SIZE).astype(np.float32)

    def worth(self, seed):
        return self.update(seed).astype(np.float64)


class Private:
    """Rounds of a private plan at level `test`, whose noise can be replayed."""

    expected = COHORT

    def __init__(self, folder, plan=PLAN, **more):
        folder.mkdir(exist_ok=True)
        self.plan, self.required = plan, plan.required
        self.ledger = Ledger(folder / "ledger.jsonl", plan)
        memory = NoiseMemory(folder / "noise", folder / "key")
        conduct = Conduct(schedules=plan.schedules, minimum=plan.required)
        self.rounds = PrivateRounds(plan, self.ledger, 1, conduct, memory=memory, **more)

    def update(self, seed, scale=1.0):
        """What client `seed` sends in round 1; its noise is the same whatever it learnt."""
        noise = self.plan.noise(stream(seed, "share") if not self.plan.private else None)
        learnt = scale * stream(seed, "update").normal(size=SIZE)
        return self.plan.crossing(1).send(learnt, noise)

    def worth(self, seed):
        crossing = self.plan.crossing(1)
        return crossing.clipped(stream(seed, "update").normal(size=SIZE)).vector / crossing.grid


def private(kind):
    return lambda folder: Private(folder, plan_of(kind, rounds=3, level=Level.TEST))


@pytest.fixture(params=[Open, *map(private, KINDS)], ids=["open", *KINDS])
def fresh(request, tmp_path):
    """Makes a run of the kind from its beginning, however often."""
    count = itertools.count()
    return lambda: request.param(tmp_path / str(next(count)))


def release(kind, number, updates, size=SIZE):
    kind.rounds.cohort(number, CLIENTS)
    return release_of(kind.rounds, Turn(number), updates, size)


def enough(kind):
    """As many updates as a round needs."""
    return [kind.update(seed) for seed in range(kind.required)]


def test_cohorts_are_positions_in_order_addressed_by_round(fresh):
    kind, cohorts = fresh(), []
    for number in (1, 2, 3):
        cohorts.append(kind.rounds.cohort(number, CLIENTS))
        made = release_of(kind.rounds, Turn(number), enough(kind), SIZE)
        kind.rounds.published(number, made.digest)
    for cohort in cohorts:
        assert np.issubdtype(cohort.dtype, np.integer)
        assert (np.diff(cohort) > 0).all()
        assert 0 <= cohort.min() <= cohort.max() < CLIENTS
    assert len({tuple(cohort) for cohort in cohorts}) == 3
    assert fresh().rounds.cohort(1, CLIENTS).tolist() == cohorts[0].tolist()


def test_the_filter_takes_what_clients_of_this_kind_send(fresh):
    kind = fresh()
    form = kind.rounds.filter(Turn(1), SIZE)
    good = kind.update(0)
    assert form.size == SIZE
    assert form.reason(good) is None
    assert form.reason(good[:-1]) == "wrong shape"
    assert form.reason(good.astype(np.float16)) == "wrong type"


def test_a_release_is_one_vector_even_if_hardly_anybody_answered(fresh):
    kind = fresh()
    mean = release(kind, 1, enough(kind)).mean
    assert (mean.shape, mean.dtype) == ((SIZE,), np.float64)
    assert np.isfinite(mean).all()


@pytest.mark.parametrize("replies", [7, 17])
def test_the_sum_is_divided_by_the_plan_s_cohort_however_many_answered(fresh, replies):
    """The same clients with the same noise, who learnt something, or nothing."""
    means = []
    for scale in (0.0, 1.0):
        kind = fresh()
        means.append(release(kind, 1, (kind.update(seed, scale) for seed in range(replies))).mean)
    worth = sum(kind.worth(seed) for seed in range(replies))
    np.testing.assert_allclose(means[1] - means[0], worth / kind.expected, rtol=0, atol=1e-12)


def test_releasing_leaves_updates_alone_and_can_be_replayed(fresh):
    kind = fresh()
    updates = [kind.update(seed) for seed in range(8)]
    before = [update.copy() for update in updates]
    means = [release(fresh(), 1, updates).mean.tobytes() for _ in range(2)]
    assert means[0] == means[1]
    assert all((update == old).all() for update, old in zip(updates, before, strict=True))


def test_a_run_starts_without_a_past(fresh):
    rounds = fresh().rounds
    rounds.resume(0, "")
    assert rounds.affords(1)
    assert rounds.spent() is None


# Without privacy.


def test_only_private_rounds_keep_the_cohort_a_secret(tmp_path):
    assert not Open(tmp_path).rounds.private
    assert Private(tmp_path).rounds.private


def test_open_rounds_add_no_noise_and_draw_a_fixed_number(tmp_path):
    rounds = Open(tmp_path).rounds
    assert release(Open(tmp_path), 1, []).mean.tolist() == [0] * SIZE
    assert [len(rounds.cohort(number, CLIENTS)) for number in range(1, 9)] == [10] * 8
    assert len(rounds.cohort(1, 7)) == 7
    assert rounds.affords(10**9)


def test_to_an_open_warm_start_everybody_comes():
    rounds = OpenRounds(seed=1, size=10, everybody=CLIENTS)
    assert rounds.cohort(1, CLIENTS).tolist() == list(range(CLIENTS))
    assert len(rounds.cohort(2, CLIENTS)) == 10
    ones = [np.ones(1, np.float32)] * 8
    assert [release_of(rounds, Turn(number), ones, 1).mean[0] for number in (1, 2)] == [8 / CLIENTS, 8 / 10]


# Who comes.


@pytest.mark.parametrize("kind", KINDS)
def test_to_a_private_warm_start_everybody_comes(tmp_path, kind):
    run = Private(tmp_path, plan_of(kind, warm=True, level=Level.TEST))
    assert run.rounds.cohort(1, CLIENTS).tolist() == list(range(CLIENTS))
    made = release_of(run.rounds, Turn(1), [run.update(seed) for seed in range(LEAST)], SIZE)
    run.rounds.published(1, made.digest)
    assert len(run.rounds.cohort(2, CLIENTS)) < CLIENTS
    assert [record.event.get("clip") for record in run.ledger.records if record.state == "charged"] == [0.5]


@pytest.mark.parametrize("kind", ["min-sep", "shares", "local", "inside"])
def test_public_groups_come_in_turn(tmp_path, kind):
    run = Private(tmp_path, plan_of(kind, rounds=6))
    for number in range(1, 7):
        assert run.rounds.cohort(number, CLIENTS).tolist() == list(range((number - 1) % GROUPS, CLIENTS, GROUPS))
        run.rounds.published(number, release_of(run.rounds, Turn(number), enough(run), SIZE).digest)


def test_poisson_cohorts_have_the_expected_size_on_average_and_not_always(tmp_path):
    sizes = []
    for seed in range(60):
        kind = Private(tmp_path / str(seed))
        rounds = PrivateRounds(PLAN, kind.ledger, seed, Conduct(schedules=PLAN.schedules))
        sizes.append(len(rounds.cohort(1, CLIENTS)))
        kind.ledger.close()
    assert len(set(sizes)) > 4
    assert np.mean(sizes) == pytest.approx(10, abs=4 * np.sqrt(7.5 / 60))


# Noise.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_release_tells_how_noisy_it_is(tmp_path, kind, warm):
    """`noise` is about everybody who is expected; fewer shares are quieter in proportion."""
    wide, plan = 20_000, plan_of(kind, warm=warm)
    run = Private(tmp_path, plan)
    crossing = plan.crossing(1)
    sent = [crossing.send(np.zeros(wide), plan.noise()) for _ in range(LEAST)]
    made = release(run, 1, sent, wide)
    whole = crossing.share * np.sqrt(crossing.expected)
    part = np.hypot(crossing.rest, crossing.share * np.sqrt(LEAST)) / np.hypot(crossing.rest, whole or 1e-9)
    planned = made.noise * part
    assert made.mean.std() == pytest.approx(planned, rel=0.025)  # five standard errors of a standard deviation
    assert abs(made.mean.mean()) <= 5 * planned / np.sqrt(wide)
    if kind == "poisson" and not warm:
        assert made.noise == Z / COHORT


def test_too_few_shares_release_nothing_and_cost_nothing(tmp_path):
    run = Private(tmp_path, plan_of("shares"))
    run.rounds.cohort(1, CLIENTS)
    with pytest.raises(PrivacyRefusal, match="P06: .*arrived=5, least=6"):
        release_of(run.rounds, Turn(1), [run.update(seed) for seed in range(LEAST - 1)], SIZE)
    assert (run.ledger.charged, run.ledger.pending, states(run.ledger)[-1]) == ((), None, (1, "aborted"))
    run.rounds.resume(0, "")
    assert release(run, 1, enough(run)).mean.shape == (SIZE,)
    assert run.ledger.charged == (1,)


def test_correlated_noise_needs_a_memory(tmp_path):
    plan = plan_of("banded")
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        rounds = PrivateRounds(plan, ledger, 1, Conduct(schedules=plan.schedules))
        rounds.cohort(1, CLIENTS)
        with pytest.raises(RunError, match="correlated noise has a memory"):
            release_of(rounds, Turn(1), [], SIZE)
        assert ledger.charged == ()


def test_an_adaptive_clip_norm_is_released_for_the_next_round_only(tmp_path):
    plan = plan_of("poisson", rounds=3, level=Level.TEST, adaptive=Adaptive(spread=5.0, least=0.5, most=4.0))
    run = Private(tmp_path, plan)
    run.rounds.cohort(1, CLIENTS)
    crossing = plan.crossing(1)
    assert run.rounds.filter(Turn(1), SIZE).size == SIZE + 1
    made = release_of(run.rounds, Turn(1), [crossing.send(np.zeros(SIZE), None)] * CLIENTS, SIZE)
    assert made.mean.shape == (SIZE,)
    assert 0.5 <= made.clip < 1.0  # far too many came within the norm
    run.rounds.published(1, made.digest)
    run.rounds.cohort(2, CLIENTS)
    again = release_of(run.rounds, Turn(2, made.clip), [], SIZE)
    assert again.noise == pytest.approx(made.noise * made.clip)
    assert run.ledger.records[-1].event["clip"] == made.clip
    with pytest.raises(PrivacyRefusal, match="P12"):
        release_of(run.rounds, Turn(3, 5.0), [], SIZE)


# Charges.


def states(ledger):
    return [(record.round, str(record.state)) for record in ledger.records[1:]]


def test_a_round_is_reserved_charged_and_released_in_this_order(tmp_path):
    kind = Private(tmp_path)
    cohort = kind.rounds.cohort(1, CLIENTS)
    assert states(kind.ledger) == [(1, "reserved")]
    made = release_of(kind.rounds, Turn(1), [kind.update(int(client)) for client in cohort], SIZE)
    assert states(kind.ledger) == [(1, "reserved"), (1, "charged")]
    assert kind.ledger.pending == (1, made.digest) == (1, digest(made.mean))
    kind.rounds.published(1, made.digest)
    assert states(kind.ledger) == [(1, "reserved"), (1, "charged"), (1, "released")]
    assert kind.ledger.pending is None


def test_only_what_was_charged_is_published(tmp_path):
    kind = Private(tmp_path)
    made = release(kind, 1, [])
    with pytest.raises(PrivacyRefusal, match="P11"):
        kind.rounds.published(1, digest(np.nextafter(made.mean, 1)))


def test_the_charges_end_with_the_plan(tmp_path):
    kind = Private(tmp_path)
    for number in (1, 2, 3):
        assert kind.rounds.affords(number)
        kind.rounds.published(number, release(kind, number, []).digest)
    assert not kind.rounds.affords(4)
    with pytest.raises(BudgetExceeded, match="P10"):
        kind.rounds.cohort(4, CLIENTS)


def test_a_lost_release_stays_spent_and_its_round_is_run_again(tmp_path):
    kind = Private(tmp_path)
    lost = release(kind, 1, [])
    kind.rounds.resume(0, "")
    assert states(kind.ledger)[-1] == (1, "aborted")
    assert kind.ledger.charged == (1,)
    kind.rounds.published(1, release(kind, 1, [kind.update(1)]).digest)
    assert kind.ledger.charged == (1, 1)
    assert kind.rounds.affords(2) and not kind.ledger.plan.affords((1, 1, 2), 3)
    assert lost.digest != kind.ledger.records[-1].digest


def test_a_release_that_reached_the_checkpoint_is_not_charged_again(tmp_path):
    kind = Private(tmp_path)
    kind.rounds.resume(1, release(kind, 1, []).digest)
    assert states(kind.ledger) == [(1, "reserved"), (1, "charged"), (1, "released")]
    assert (kind.ledger.charged, kind.ledger.pending) == ((1,), None)


@pytest.mark.parametrize(("number", "other"), [(1, True), (2, False)])
def test_p16_refuses_a_checkpoint_of_a_release_that_the_ledger_does_not_know(tmp_path, number, other):
    kind = Private(tmp_path)
    made = release(kind, 1, [])
    with pytest.raises(PrivacyRefusal, match="P16: a model and its ledger tell of one release") as refusal:
        kind.rounds.resume(number, "another" if other else made.digest)
    assert refusal.value.remedy
    assert kind.ledger.pending == (1, made.digest)


def test_p16_refuses_to_begin_again_what_was_released(tmp_path):
    kind = Private(tmp_path)
    kind.rounds.published(1, release(kind, 1, []).digest)
    with pytest.raises(PrivacyRefusal, match="P16"):
        kind.rounds.resume(0, "")


def test_a_reservation_costs_nothing(tmp_path):
    kind = Private(tmp_path)
    kind.rounds.cohort(1, CLIENTS)
    kind.rounds.resume(0, "")
    kind.rounds.cohort(1, CLIENTS)
    assert kind.ledger.charged == ()


def test_an_update_beyond_the_clip_norm_is_neither_accepted_nor_added(tmp_path):
    kind = Private(tmp_path)
    form, edge = kind.rounds.filter(Turn(1), 2), np.array([GRID, 0], np.int32)
    assert form.dtype == np.int32
    assert form.reason(edge) is None
    for beyond in ([1025, 0], [1024, 1], [-(2**31), -(2**31)], [2**31 - 1, 0]):
        assert form.reason(np.array(beyond, np.int32)) == "out of bound"
    kind.rounds.cohort(1, CLIENTS)
    with pytest.raises(PrivacyRefusal, match="P08"):
        release_of(kind.rounds, Turn(1), [np.array([1025, 0], np.int32)], 2)
    assert kind.ledger.charged == ()


def test_a_private_run_cannot_be_replayed(tmp_path):
    one, other = Private(tmp_path / "a", SECRET), Private(tmp_path / "b", SECRET)
    cohorts = [kind.rounds.cohort(1, 5000).tolist() for kind in (one, other)]
    assert cohorts[0] != cohorts[1]
    means = [release_of(kind.rounds, Turn(1), [], 200).mean.tolist() for kind in (one, other)]
    assert means[0] != means[1]


def test_a_private_run_says_what_it_has_spent_lost_charges_included(tmp_path):
    kind = Private(tmp_path, SECRET)
    promised = SECRET.promises[0].guarantee
    assert kind.rounds.spent() == replace(promised, epsilon=0.0)
    made = release(kind, 1, [])
    kind.rounds.published(1, made.digest)
    release(kind, 2, [])
    kind.rounds.resume(1, made.digest)
    assert kind.rounds.spent() == replace(promised, epsilon=SECRET.spent([1, 2]))
    assert SECRET.spent([1]) < SECRET.spent([1, 2]) < promised.epsilon


# What is refused at the start.


@pytest.mark.parametrize(
    ("conduct", "code"),
    [
        (Conduct(schedules=(Poisson(0.3),)), "P02"),
        (Conduct(schedules=(Fixed(10),)), "P03"),
        (Conduct(schedules=PLAN.schedules, minimum=1), "P03"),
        (Conduct(schedules=PLAN.schedules, tops_up=True), "P03"),
        (Conduct(schedules=PLAN.schedules, retries=True), "P03"),
        (Conduct(schedules=PLAN.schedules, shuffles=True), "P03"),
        (Conduct(schedules=PLAN.schedules, denominator="replies"), "P04"),
        (Conduct(schedules=PLAN.schedules, weights="examples"), "P05"),
    ],
)
@pytest.mark.parametrize("plan", [PLAN, SECRET])
def test_a_conduct_that_the_plan_does_not_cover_is_refused(tmp_path, plan, conduct, code):
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        with pytest.raises(PrivacyRefusal) as refusal:
            PrivateRounds(plan, ledger, 0, conduct)
        assert refusal.value.code == code


def test_a_ledger_of_another_plan_is_refused(tmp_path):
    with (
        Ledger(tmp_path / "ledger.jsonl", PLAN) as ledger,
        pytest.raises(RunError, match="charged to the plan that it follows"),
    ):
        PrivateRounds(SECRET, ledger, 0, Conduct(schedules=SECRET.schedules))


def test_p13_masks_are_on_where_a_plan_claims_them(tmp_path):
    masked = replace(plan_of("shares"), masking=Masking(bits=40, neighbours=(Neighbours(11, 8),)))
    with pytest.raises(PrivacyRefusal, match="P13: masks are on where a plan claims them") as refusal:
        Private(tmp_path / "a", masked)
    assert refusal.value.code == "P13"
    Private(tmp_path / "b", masked, sums=True)


def test_who_sees_sums_alone_releases_what_everybody_would(tmp_path):
    plan = plan_of("shares", level=Level.TEST)
    plain = Private(tmp_path / "a", plan)
    masked = replace(plan, masking=Masking(bits=40, neighbours=(Neighbours(11, 8),)))
    hidden = Private(tmp_path / "b", masked, sums=True)
    sent = enough(plain)
    np.testing.assert_array_equal(release(plain, 1, sent).mean, release(hidden, 1, sent).mean)
