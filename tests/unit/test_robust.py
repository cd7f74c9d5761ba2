"""The middle of many updates, by hand; and where it may not stand for their sum."""

import numpy as np
import pytest
from plans import CLIENTS, GRID, GROUPS, plan_of

from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.crossing import Summed
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Level
from fedrec.privacy.terms import Mode
from fedrec.protection import protection
from fedrec.rounds import robust
from fedrec.rounds.aggregate import OpenRounds, PrivateRounds, Turn
from fedrec.spec import FederationSpec, Plan

ROWS = np.array([[1, 10], [2, 20], [3, 30], [4, 40], [1000, -1000]], np.float32)


def test_the_median_by_hand():
    assert robust.median(ROWS).tolist() == [3, 20]
    assert robust.median(ROWS[:4]).tolist() == [2.5, 25]
    assert robust.median(ROWS[:1]).tolist() == [1, 10]


@pytest.mark.parametrize(
    ("trim", "expected"),
    [(0.1, [202, -180]), (0.19, [202, -180]), (0.2, [3, 20]), (0.39, [3, 20]), (0.4, [3, 20]), (0.49, [3, 20])],
)
def test_the_trimmed_mean_by_hand(trim, expected):
    """Of five, a fifth at each end is one; less than a fifth is none."""
    np.testing.assert_allclose(robust.trimmed_mean(ROWS, trim), expected)


def test_a_trimmed_mean_without_its_ends_is_the_mean_of_the_rest():
    squares = np.arange(10.0)[:, None] ** 2
    np.testing.assert_allclose(robust.trimmed_mean(squares, 0.2), [np.mean([4, 9, 16, 25, 36, 49])])


def test_a_centre_is_gathered_as_what_a_sum_of_so_many_would_be():
    summed = robust.gathered(list(ROWS), robust.median)
    assert (summed.total.tolist(), summed.count) == ([15, 100], 5)
    whole = robust.gathered([np.array([1], np.int32), np.array([2], np.int32)], robust.median)
    assert (whole.total.tolist(), whole.total.dtype, whole.count) == ([3], np.int64, 2)


def test_many_coordinates_are_sorted_by_themselves():
    wide = np.arange(70_000.0).reshape(7, -1)
    np.testing.assert_array_equal(robust.gathered(list(wide), robust.median).total, 7 * wide[3])


@pytest.mark.parametrize(("length", "sound"), [(4.999, True), (5.0, True), (5.001, False), (3e38, False)])
def test_a_bound_is_on_the_length(length, sound):
    vector = np.array([0.6, 0.8], np.float32) * np.float32(length)
    with np.errstate(over="raise"):
        assert robust.within(5.0001)(vector) is sound
        assert robust.within(0.0)(vector)


# Rounds.


def mean(rounds, rows, size=2):
    return rounds.release(Turn(2), rounds.sum(Turn(2), rows, size), size).mean


def test_open_rounds_release_the_centre_and_count_missing_ones_as_zeros():
    rounds = OpenRounds(0, 10, centre=robust.median)
    np.testing.assert_allclose(mean(rounds, iter(ROWS)), [1.5, 10])  # five of ten
    np.testing.assert_allclose(mean(rounds, []), [0, 0])
    np.testing.assert_allclose(mean(OpenRounds(0, 10), ROWS), ROWS.sum(axis=0) / 10)


def test_open_rounds_refuse_an_update_that_is_too_long_but_no_statistics():
    rounds = OpenRounds(0, 10, everybody=CLIENTS, bound=50.0)
    assert [rounds.filter(Turn(number), 2).reason(ROWS[4]) for number in (1, 2)] == [None, "out of bound"]
    assert rounds.filter(Turn(2), 2).reason(ROWS[3]) is None


def test_partial_sums_have_no_centre():
    with pytest.raises(SpecError, match="judged where they are seen.*--engine loop"):
        OpenRounds(0, 10, centre=robust.median).join(Turn(1), [Summed(np.zeros(2), 1)], 2)


@pytest.mark.parametrize(
    ("size", "extra", "asked"), [(10, 0.0, 10), (10, 0.1, 11), (10, 0.25, 13), (30, 0.1, 33), (30, 1, 40)]
)
def test_more_are_asked_than_are_needed(size, extra, asked):
    rounds = OpenRounds(0, size, extra=extra)
    assert len(rounds.cohort(2, 40)) == asked
    assert rounds.enough(2) == (size if extra else None)


@pytest.mark.parametrize("kind", ["local", "inside"])
def test_where_single_updates_are_hidden_their_centre_is_post_processing(tmp_path, kind):
    """Whole numbers on the grid, divided by the planned cohort; the same promise as for the mean."""
    plan = plan_of(kind, level=Level.TEST)
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        rounds = PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules), centre=robust.median)
        rounds.cohort(1, plan.population)
        rows = [np.array([step, -step], plan.crossing(1).dtype) for step in (1, 2, 300)]
        made = rounds.release(Turn(1), rounds.sum(Turn(1), rows, 2), 2).mean
        assert rounds.plan.promises == plan_of(kind, level=Level.TEST).promises
    np.testing.assert_allclose(made, np.array([6, -6]) / GRID / (plan.population / GROUPS))


def test_nobody_is_a_sum_of_zeros(tmp_path):
    plan = plan_of("local", level=Level.TEST)
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger:
        rounds = PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules), centre=robust.median)
        rounds.cohort(1, plan.population)
        assert rounds.release(Turn(1), rounds.sum(Turn(1), [], 2), 2).mean.tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["poisson", "min-sep", "shares", "layered"])
def test_p04_noise_on_a_sum_is_not_noise_on_a_median(tmp_path, kind):
    plan = plan_of(kind)
    with Ledger(tmp_path / "ledger.jsonl", plan) as ledger, pytest.raises(PrivacyRefusal, match="P04") as refusal:
        PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules, minimum=plan.required), centre=robust.median)
    assert "user-local" in refusal.value.remedy


# Plans.


def plan(mode, **federation):
    return Plan.of({"clients": 100, "privacy": {"mode": mode, "epsilon": 8}, "federation": {"cohort": 10} | federation})


PRIVATE = [mode for mode in Mode if mode is not Mode.NONE]
SUMS = [Mode.USER_CENTRAL, Mode.USER_DISTRIBUTED, Mode.LAYERED]


@pytest.mark.parametrize("mode", PRIVATE)
def test_p03_a_private_plan_asks_nobody_beyond_its_cohort(mode):
    with pytest.raises(PrivacyRefusal, match="P03: .*extra=0.2.*shares.survivors counts on dropouts"):
        protection(plan(mode, extra=0.2))


@pytest.mark.parametrize("mode", PRIVATE)
def test_a_private_plan_has_a_clip_norm_instead_of_a_bound(mode):
    with pytest.raises(SpecError, match="privacy.clip bounds every update"):
        protection(plan(mode, bound=1.0))


@pytest.mark.parametrize("aggregation", ["median", "trimmed-mean"])
@pytest.mark.parametrize("mode", SUMS)
def test_p04_a_plan_with_noise_on_sums_has_means(mode, aggregation):
    with pytest.raises(PrivacyRefusal, match='P04: .*aggregation = "mean", or use user-local or interaction-local'):
        protection(plan(mode, aggregation=aggregation))


def test_elsewhere_it_may_be_a_median():
    assert protection(plan(Mode.NONE, aggregation="median", bound=1.0, extra=0.5)) is None
    local, usual = (protection(plan(Mode.USER_LOCAL, aggregation=kind)) for kind in ("median", "mean"))
    assert local == usual and local.promises == usual.promises


def test_statistics_have_no_median():
    with pytest.raises(SpecError, match="a warm start adds up statistics"):
        Plan.of({"warm": {"enabled": True}, "federation": {"aggregation": "median"}})


@pytest.mark.parametrize("setting", [{"aggregation": "median"}, {"bound": 1.0}, {"extra": 0.1}])
def test_who_shows_sums_alone_judges_no_single_update(setting):
    with pytest.raises(SpecError, match="--engine loop"):
        robust.check_seen(FederationSpec(**setting))
    robust.check_seen(FederationSpec())


def test_each_name_has_its_centre():
    assert robust.centre_of(FederationSpec()) is None
    assert robust.centre_of(FederationSpec(aggregation="median")) is robust.median
    trimmed = robust.centre_of(FederationSpec(aggregation="trimmed-mean", trim=0.2))
    assert trimmed(ROWS).tolist() == [3, 20]
