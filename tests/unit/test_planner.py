"""The planner's figures against the model, the crossing, a simulation of the noise, and tables computed elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.model.warm_shares import Shares
from fedrec.model.warmstart import WarmStart
from fedrec.planner import Forecast, Veil, advise, mechanisms, parameters, sketch, statistics
from fedrec.planner.advice import Verdict, _first, _two_digits
from fedrec.privacy.matrix import prefix_error
from fedrec.privacy.terms import Mode
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, Plan, WarmSpec

QUICK = [Mode.USER_DISTRIBUTED, Mode.USER_LOCAL]  # no sampling to account: closed forms
SPREADS = st.floats(1e-6, 1e-1)


def plan_of(mode="user-distributed", *, users=943, epsilon=8.0, cohort=100, rounds=8, privacy=None, **over):
    settings = {
        "clients": users, "federation": {"cohort": cohort, "rounds": rounds}, "model": {"encoder": "hash", "dim": 16},
        "privacy": {"mode": mode, "epsilon": epsilon, **(privacy or {})}, **over,
    }  # fmt: skip
    return Plan().override(settings)


# How many numbers there are to learn.


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(encoder="hash", dim=5, adapter="none"),
        ModelSpec(encoder="hash", dim=5, adapter="bottleneck", rank=3, residuals=False),
        ModelSpec(encoder="hash", dim=5, maps="diagonal", projection=False, popularity=False, decays=(0.0, 0.5)),
        ModelSpec(encoder="hash", dim=9, maps="diagonal", decays=(0.0, 0.5)),
        ModelSpec(encoder="tiny", dim=5, adapter="lora", rank=2, blocks=2),
    ],
)
def test_parameters_are_those_of_the_model(spec):
    catalogue = Catalogue([f"i{n}" for n in range(9)], [f"word{n} more{n % 3}" for n in range(9)])
    model = Model.build(catalogue, open_encoder(spec.encoder), spec, seed=0)
    assert parameters(spec, 9) == model.layout.size
    if spec.popularity:
        for axes in (2, 30):
            assert statistics(Plan(model=spec), 9, axes) == WarmStart(model, Shares(axes=axes)).size
            asked = Plan(model=spec, warm=WarmSpec(enabled=True, opinions=0.1))
            assert statistics(asked, 9, axes) == WarmStart(model, Shares(axes=axes).making_room(0.1)).size


def test_an_encoder_of_unknown_width_is_asked_for():
    unknown = ModelSpec(encoder="hub:somebody/something")
    with pytest.raises(SpecError, match="--dim"):
        parameters(unknown, 9)
    assert statistics(Plan(model=unknown), 9, 2) > 0
    with pytest.raises(SpecError, match=r"warm\.opinions = 0"):
        statistics(Plan(model=unknown, warm=WarmSpec(enabled=True, opinions=0.1)), 9, 2)


# How loud the noise is.


def test_the_largest_dimension_by_hand():
    """Central noise: ratio z·√d/n, hence d = (n/z)²; ten times the ratio is a hundred times the dimension."""
    veil = Veil(users=2.0 / 100, inside=0.0, cohort=100)
    assert veil.ratio(2500) == pytest.approx(1.0)
    assert (veil.widest(), veil.widest(10.0)) == (2500, 250_000)


@settings(derandomize=True, deadline=None)
@given(users=SPREADS, inside=SPREADS, cohort=st.floats(1, 1e6), ratio=st.floats(0.1, 10))
def test_the_largest_dimension_has_the_ratio(users, inside, cohort, ratio):
    veil = Veil(users=users, inside=inside, cohort=cohort)
    most = veil.widest(ratio)
    assert veil.ratio(most) <= ratio * (1 + 1e-9) and ratio < veil.ratio(most + 2)


def test_noise_inside_a_clipped_update_takes_the_place_of_signal():
    """Each device sends (signal + noise) on the ball, the mean gets noise of its own: measured, not derived."""
    dim, cohort, rng = 400, 200, stream(0, "planner", "veil")
    signal = np.zeros(dim)
    signal[0] = 1.0
    veil = Veil(users=0.01, inside=0.08, cohort=cohort)
    ratios = []
    for _ in range(20):
        rows = signal + veil.inside * rng.normal(size=(cohort, dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        mean = rows.mean(axis=0) + veil.users * rng.normal(size=dim)
        ratios.append(np.linalg.norm(mean[1:]) / mean[0])
    measured = float(np.mean(ratios))
    assert veil.ratio(dim) == pytest.approx(measured, rel=0.02)
    added_up = math.hypot(veil.users * math.sqrt(dim), veil.inside * math.sqrt(dim / cohort))
    assert added_up < 0.7 * measured  # without the lost signal


@pytest.mark.parametrize("mode", QUICK)
def test_the_forecast_is_about_the_crossing_that_will_be_used(mode):
    found = Forecast.of(plan_of(mode), 100)
    crossing = found.privacy.crossing(1)
    assert found.veil.users == pytest.approx(crossing.spread, rel=1e-12)
    assert found.ratio == pytest.approx(found.privacy.noise_to_clip(1, 100), rel=1e-12)
    assert found.overall == pytest.approx(found.ratio / math.sqrt(8))


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.NONE])
def test_a_sketch_is_the_forecast_in_a_hurry(mode):
    plan = plan_of(mode, epsilon=1.0, warm={"enabled": mode is Mode.LAYERED})
    exact, rough = Forecast.of(plan, 100).veil, sketch(plan)
    assert rough.users == pytest.approx(exact.users, rel=1e-3)
    assert rough.inside == pytest.approx(exact.inside, rel=1e-3)
    assert rough.cohort == exact.cohort and max(rough.users, rough.inside) > 0


def test_noise_in_the_device_by_hand():
    """q = 0.2 of 50 examples, 5 steps: z / (10·√5) on one number of an update that moves 5 steps at most."""
    found = Forecast.of(plan_of("interaction-local"), 100)
    assert found.veil.users == 0
    assert found.veil.inside == pytest.approx(found.terms.multiplier / (10 * math.sqrt(5)))
    assert found.refused is None


def test_correlated_noise_counts_as_what_it_does_to_the_sum():
    found = Forecast.of(plan_of("user-central", privacy={"schedule": "min-sep", "bands": 4}), 100)
    z, cohort = found.phase.multiplier, 943 / 9
    assert found.veil.users == pytest.approx(z * prefix_error(8, 4) / math.sqrt(9 / 2) / cohort)
    assert found.veil.users < found.privacy.crossing(1).spread


@pytest.mark.parametrize("mode", QUICK)
def test_what_the_planner_says_is_refused_is_refused(mode):
    found = Forecast.of(plan_of(mode), 100)
    assert found.privacy.check_width(1, found.refused) <= 10
    with pytest.raises(SpecError):
        found.privacy.check_width(1, found.refused + 1)


# Which mechanism.


@pytest.mark.parametrize(
    ("users", "epsilon", "ratio"), [(6040, 1, 1.54), (6040, 4, 0.78), (6040, 8, 0.55), (943, 1, 1.30), (943, 8, 1.01)]
)
def test_correlated_noise_against_poisson_as_measured_elsewhere(users, epsilon, ratio):
    """RMS error of the summed updates at equal (ε, δ), n = 100, T = 200; the figures are for sums over exactly n."""
    plan = plan_of("user-central", users=users, epsilon=epsilon, rounds=200)
    found = {(mechanism.schedule, mechanism.bands > 1): mechanism for mechanism in mechanisms(plan)}
    banded, poisson, plain = (found[key] for key in (("min-sep", True), ("poisson", False), ("min-sep", False)))
    groups = users // 100
    assert banded.error * users / groups / 100 / poisson.error == pytest.approx(ratio, rel=0.02)
    assert banded.error < plain.error
    assert list(found.values()) == sorted(found.values(), key=lambda mechanism: mechanism.error)


def test_poisson_noise_is_that_of_the_table():
    """N = 943, n = 100, T = 200, ε = 1, δ = 1e-4: z = 4.916."""
    plan = plan_of("user-central", epsilon=1.0, rounds=200, privacy={"schedule": "poisson"})
    assert sketch(plan).users * 100 == pytest.approx(4.916, rel=3e-3)


@pytest.mark.parametrize("mode", QUICK)
def test_only_a_server_chooses_a_mechanism(mode):
    assert mechanisms(plan_of(mode)) == ()


def test_the_best_mechanism_is_taken_unless_the_plan_says_otherwise():
    free = advise(plan_of("user-central"), 64)
    assert free.forecast.phase.bands == free.mechanisms[0].bands > 1
    fixed = advise(plan_of("user-central", privacy={"schedule": "poisson"}), 64)
    assert fixed.mechanisms[0].bands > 1 == fixed.forecast.phase.bands
    assert free.forecast.ratio < fixed.forecast.ratio


# What to do about it.


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "LEARNABLE"), (1.001, "MARGINAL"), (10.0, "MARGINAL"), (10.1, "NOT_LEARNABLE")]
)
def test_verdicts(ratio, verdict):
    assert Verdict.of(ratio) is Verdict[verdict]


@pytest.mark.parametrize("mode", QUICK)
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_every_option_does_what_it_says(mode, epsilon):
    plan = plan_of(mode, epsilon=epsilon, cohort=200)
    advice = advise(plan, 64)
    assert advice.verdict is not Verdict.LEARNABLE and advice.options
    for option in advice.options:
        if not option.settings:
            continue
        changed = plan.override(option.settings)
        warm = changed.warm.enabled
        size = advice.warm.numbers if warm else parameters(changed.model, 64)
        found = Forecast.of(changed, size, advice.warm.numbers if warm else 0)
        assert found.ratio == pytest.approx(option.ratio, rel=2e-3), option.what
        assert option.works == (option.ratio <= 1)
    assert advice.cure.works
    better = advice.better.settings if advice.better else {}
    assert advice.recommended == plan.override(better)


def test_a_plan_that_learns_is_recommended_instead_of_one_that_does_not():
    advice = advise(plan_of("user-distributed", epsilon=4.0), 64)
    assert advice.verdict is not Verdict.LEARNABLE
    plan = advice.recommended
    size = advice.warm.numbers if plan.warm.enabled else parameters(plan.model, 64)
    assert Forecast.of(plan, size, advice.warm.numbers).ratio <= 1


def test_the_population_that_is_asked_for_is_enough_and_not_too_much():
    plan = plan_of("user-local", epsilon=1.0)
    option = next(option for option in advise(plan, 64).options if "users" in option.what)
    users = int(option.what.split()[0].replace(",", ""))

    def ratio(number):
        grown = plan.override({"clients": number, "federation": {"cohort": round(100 * number / 943)},
                               "privacy": {"delta": min(1e-6, number**-1.1)}})  # fmt: skip
        return sketch(grown).ratio(parameters(plan.model, 64))

    assert ratio(users) <= 1 < ratio(int(0.85 * users))


def test_an_open_cohort_is_the_smallest_that_learns():
    plan = plan_of("user-distributed", epsilon=4.0)
    chosen = advise(plan, 64, open_cohort=True).forecast
    assert chosen.ratio <= 1
    smaller = plan.override({"federation": {"cohort": chosen.plan.federation.cohort - 100}})
    assert sketch(smaller).ratio(chosen.dim) > 1


def test_a_learnable_plan_needs_no_advice():
    advice = advise(plan_of(epsilon=8.0, users=10_000, cohort=5000), 64)
    assert advice.verdict is Verdict.LEARNABLE and not advice.options and advice.better is None
    assert advice.recommended == advice.forecast.plan


def test_with_a_given_dimension_the_model_is_left_alone():
    advice = advise(plan_of(epsilon=1.0), 64, dim=10**6)
    assert advice.forecast.dim == 10**6
    assert not any("model." in option.what for option in advice.options)
    assert any(f"at most {advice.forecast.veil.widest():,} parameters" in option.what for option in advice.options)


@pytest.mark.parametrize(("epsilon", "tells"), [(8.0, "axes"), (0.5, "only"), (0.05, "nothing")])
def test_what_comes_through_a_warm_start(epsilon, tells):
    """One release to 943 people over 1,682 items: the signal is N / (z·√items), z = 1/μ by the closed form."""
    plan = plan_of("user-central", epsilon=epsilon, privacy={"schedule": "min-sep"})
    warm = advise(plan, 1682).warm
    z = Forecast.of(plan.override(warm.option.settings), 1, warm.numbers).phase.multiplier
    assert warm.signal == pytest.approx(943 / (z * math.sqrt(1682)), rel=1e-3)
    assert tells in warm.tells


# What it asks of a device.


def test_bytes_and_days_by_hand():
    """943 clients in 9 groups, 8 rounds: one each. 100 numbers of four bytes both ways."""
    found = Forecast.of(plan_of(), 100)
    assert found.traffic == {"sent": 400, "received": 400, "total": 800}
    assert found.public()["participations"] == {"expected": pytest.approx(8 / 9), "most": 1, "separation": 9}
    assert found.pace(2.0) == {"days": 4.0, "days_between": 4.5}
    warm = Forecast.of(plan_of(warm={"enabled": True}), 100, 50)
    assert warm.traffic["total"] == 800 + 4 * 50 + 400
    assert warm.pace(1.0)["days"] == 9


def test_a_poisson_client_comes_by_chance():
    found = Forecast.of(plan_of("user-central", privacy={"schedule": "poisson"}), 100).public()
    assert found["participations"] == {"expected": pytest.approx(800 / 943), "most": 8, "separation": 1}


@pytest.mark.parametrize("mode", [Mode.USER_DISTRIBUTED, Mode.LAYERED])
def test_no_epsilon_without_unit_relation_and_adversary(mode):
    told = Forecast.of(plan_of(mode), 100).public()["guarantees"]
    adversaries = [guarantee["adversary"] for guarantee in told]
    assert adversaries == (["reader", "server"] if mode is Mode.USER_DISTRIBUTED else ["reader", "anyone", "server"])
    for guarantee in told:
        assert all(str(guarantee[part]) in guarantee["text"] for part in ("unit", "relation"))


# What it refuses.


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"mode": "none"}, SpecError),
        ({"users": 0}, SpecError),
        ({"cohort": 1000}, SpecError),
        ({"epsilon": 0.0}, PrivacyRefusal),
        ({"epsilon": 21.0}, PrivacyRefusal),
        ({"privacy": {"delta": 0.1}}, PrivacyRefusal),
    ],
)
def test_what_cannot_be_planned(over, error):
    with pytest.raises(error) as caught:
        advise(plan_of(**over), 64)
    assert error is SpecError or caught.value.code == "P01"


def test_a_pace_is_positive():
    with pytest.raises(SpecError):
        Forecast.of(plan_of(), 100).pace(0)


def test_searches_by_hand():
    assert [_first([1, 2, 3, 4], lambda n, bound=bound: n >= bound) for bound in (0, 1, 3, 4, 9)] == [1, 1, 3, 4, 4]
    assert [_two_digits(number) for number in (7, 99.2, 1234, 15_000)] == [7, 100, 1300, 15_000]
