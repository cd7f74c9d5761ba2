"""ε against figures copied from the vectors, against closed forms, and against wrong accounts that must differ."""

import math

import pytest

from fedrec.errors import BudgetExceeded, PrivacyRefusal, SpecError
from fedrec.privacy import losses
from fedrec.privacy.accounting import (
    FixedSizeGaussian,
    Gaussian,
    GdpFilter,
    SampledGaussian,
    WindowedGaussian,
    accountant,
    calibrate,
    epsilon,
    gaussian_epsilon,
    gaussian_mu,
    gaussian_mu_for,
    glance,
    renyi_epsilon,
    zcdp_epsilon,
)
from fedrec.privacy.terms import Relation

KINDS = [SampledGaussian, FixedSizeGaussian, lambda rate, multiplier: WindowedGaussian(rate, multiplier, 3)]


def poisson(rate, multiplier, rounds):
    return [(SampledGaussian(rate, multiplier), rounds)]


# Figures copied from the vectors, so that the tests bite where these are absent: (N, n, T, σ, δ, ε).


@pytest.mark.parametrize("vector", [(943, 50, 50, 0.6, 1e-4, 7.5581591), (6040, 100, 200, 1.0, 6.9e-5, 1.26169)])
def test_poisson_by_hand(vector):
    population, cohort, rounds, sigma, delta, expected = vector
    value = epsilon(poisson(cohort / population, sigma, rounds), delta=delta)
    assert value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("law", "event", "grid"), [
    ("poisson", SampledGaussian(0.013, 0.81), 1e-2),
    ("fixed_size", FixedSizeGaussian(0.011, 2.1), 5e-3),
    ("fixed_size", FixedSizeGaussian(0.0013, 2.9), 1e-4),  # so little for each that 1e-2 would double it
])  # fmt: skip
def test_a_glance_is_an_upper_bound_within_a_per_cent(law, event, grid, monkeypatch):
    """The grid is the coarsest that will do for the whole, and does for its parts."""
    grids, made, whole = [], getattr(losses, law), [(event, 100)]
    monkeypatch.setattr(losses, law, lambda rate, z, interval: (grids.append(interval), made(rate, z, interval))[1])
    seen = {rounds: glance([(event, rounds)], whole, delta=1e-6) for rounds in (1, 40, 99)}
    assert grids[-1] == grid
    for rounds, value in seen.items():
        exact = epsilon([(event, rounds)], delta=1e-6)
        assert (1 - 1e-9) * exact <= value <= 1.01 * exact
    assert glance([], whole, delta=1e-6) == 0


def test_a_glance_after_every_round_convolves_once_a_round(monkeypatch):
    kind, event, powers, joined = type(losses.poisson(0.017, 0.83, 1e-2)), SampledGaussian(0.017, 0.83), [], []
    repeat, join = kind.self_compose, kind.compose
    whole = [(event, 100)]
    glance([(event, 1)], whole, delta=1e-6)  # has found the grid
    monkeypatch.setattr(kind, "self_compose", lambda one, times: (powers.append(times), repeat(one, times))[1])
    monkeypatch.setattr(kind, "compose", lambda one, other: (joined.append(other), join(one, other))[1])
    seen = [glance([(event, rounds)], whole, delta=1e-6) for rounds in range(1, 41)]
    assert powers == [2, 4, 8, 16, 32] and len(joined) == 40 - 6
    assert seen == sorted(seen)


def test_a_fixed_size_is_no_poisson_sample():
    """Taking one for the other would understate ε sevenfold: the sandwich is 9.01 to 9.63, Poisson says 1.26."""
    rate, rounds, delta = 100 / 6040, 200, 6.9e-5
    value = epsilon([(FixedSizeGaussian(rate, 1.0), rounds)], delta=delta)
    least = epsilon(poisson(rate, 0.5, rounds), delta=delta)  # one pair of datasets, with replace-one's 2C
    assert value == pytest.approx(9.63, abs=5e-3) and least == pytest.approx(9.01, abs=5e-3)
    assert epsilon(poisson(rate, 1.0, rounds), delta=delta) < least / 7


def test_fixed_size_by_the_closed_form():
    """One round: δ(ε) = q · δ_Gauss(ln(1 + (e^ε − 1)/q)) with μ = 2/z (Balle, Barthe, Gaboardi 2018)."""
    rate, multiplier, delta = 0.05, 1.5, 1e-5
    inner = gaussian_epsilon(2 / multiplier, delta / rate)
    exact = math.log1p(rate * math.expm1(inner))
    value = epsilon([(FixedSizeGaussian(rate, multiplier), 1)], delta=delta)
    assert exact <= value <= exact + 1e-3
    without_the_two = math.log1p(rate * math.expm1(gaussian_epsilon(1 / multiplier, delta / rate)))
    assert without_the_two < exact / 2


def test_windows_by_hand():
    assert epsilon([(WindowedGaussian(0.1, 2.0, 1), 50)], delta=1e-5) == pytest.approx(1.65, rel=5e-3)
    assert epsilon([(WindowedGaussian(0.1, 2.0, 5), 50)], delta=1e-5) == pytest.approx(10.73, rel=1e-3)


def test_windows_as_the_library_has_them():
    from dp_accounting.pld import privacy_loss_distribution as library

    rate, multiplier, windows = 0.05, 3.0, 4
    chances = [math.comb(windows, k) * rate**k * (1 - rate) ** (windows - k) for k in range(windows + 1)]
    theirs = library.from_mixture_gaussian_mechanism(
        multiplier, list(range(windows + 1)), chances, value_discretization_interval=5e-3
    )
    ours = losses.windowed(rate, multiplier, windows, 5e-3)
    for rounds, delta in ((1, 1e-3), (1, 1e-9), (30, 1e-5)):
        expected = theirs.self_compose(rounds).get_epsilon_for_delta(delta)
        assert ours.self_compose(rounds).get_epsilon_for_delta(delta) == pytest.approx(expected, rel=1e-6)


def test_one_window_is_one_example():
    assert epsilon([(WindowedGaussian(0.1, 2.0, 1), 50)], delta=1e-5) == epsilon(poisson(0.1, 2.0, 50), delta=1e-5)


def test_local_noise_by_hand():
    """ε = 8 at δ = 1e-6 takes z = 1.31, 4.13 and 9.23 for 1, 10 and 50 releases; without the 2 it would be half."""
    for releases, multiplier in ((1, 1.31), (10, 4.13), (50, 9.23)):
        each = Gaussian(multiplier, Relation.REPLACE_ONE)
        assert epsilon([(each, releases)], delta=1e-6) == pytest.approx(8, abs=0.05)
        assert gaussian_mu([(each, releases)]) == pytest.approx(2 * math.sqrt(releases) / multiplier)
        halved = epsilon([(Gaussian(multiplier, Relation.ZERO_OUT), releases)], delta=1e-6)
        assert halved < 3.7


# Closed forms


def test_at_rate_one_every_event_is_the_closed_form():
    for events, mu in (
        ([(SampledGaussian(1.0, 4.0), 20)], math.sqrt(20) / 4),
        ([(FixedSizeGaussian(1.0, 4.0), 20)], 2 * math.sqrt(20) / 4),
        ([(WindowedGaussian(1.0, 4.0, 3), 20)], 3 * math.sqrt(20) / 4),
        ([(Gaussian(4.0, Relation.ZERO_OUT), 20)], math.sqrt(20) / 4),
        ([(Gaussian(4.0, Relation.ZERO_OUT), 16), (Gaussian(2.0, Relation.ZERO_OUT), 1)], math.sqrt(1.25)),
    ):
        assert gaussian_mu(events) == pytest.approx(mu, rel=1e-12)
        assert epsilon(events, delta=1e-5) == gaussian_epsilon(gaussian_mu(events), 1e-5)


def test_close_to_rate_one_the_distributions_agree_with_it():
    almost = 1 - 1e-9
    for sampled, mu in (
        (SampledGaussian(almost, 4.0), 0.25),
        (FixedSizeGaussian(almost, 4.0), 0.5),
        (WindowedGaussian(almost, 4.0, 3), 0.75),
    ):
        exact = gaussian_epsilon(mu * math.sqrt(20), 1e-5)
        assert epsilon([(sampled, 20)], delta=1e-5) == pytest.approx(exact, rel=2e-3)


def test_unlike_releases_compose():
    """One round of 3 without sampling beside many of Poisson: more than either, less than the sum of both."""
    mixed = [(Gaussian(3.0, Relation.ZERO_OUT), 1), *poisson(0.1, 2.0, 50)]
    together = epsilon(mixed, delta=1e-5)
    alone = [epsilon(part, delta=1e-5) for part in (mixed[:1], mixed[1:])]
    assert max(alone) < together < sum(alone)
    assert together == pytest.approx(epsilon(mixed[::-1], delta=1e-5), rel=1e-9)
    assert together < renyi_epsilon(mixed, delta=1e-5) < 1.25 * together


def test_unlike_releases_compose_exactly_where_a_closed_form_exists():
    almost = [(SampledGaussian(1 - 1e-9, 4.0), 10), (Gaussian(2.0, Relation.ADD_OR_REMOVE), 3)]
    exact = gaussian_epsilon(math.sqrt(10 / 16 + 3 / 4), 1e-5)
    assert exact <= epsilon(almost, delta=1e-5) <= exact + 1e-3


def test_the_same_charge_in_two_parts_is_one_charge():
    whole = epsilon(poisson(0.1, 2.0, 50), delta=1e-5)
    assert epsilon([*poisson(0.1, 2.0, 20), *poisson(0.1, 2.0, 30)], delta=1e-5) == whole


def test_nothing_costs_nothing():
    for charges in ([], poisson(0.1, 2.0, 0), [(Gaussian(1.0, Relation.ZERO_OUT), 0)]):
        assert epsilon(charges, delta=1e-5) == gaussian_mu(charges) == renyi_epsilon(charges, delta=1e-5) == 0


def test_mu_and_epsilon_are_inverse():
    for mu in (0.05, 1.0, 30.0):
        back = gaussian_mu_for(gaussian_epsilon(mu, 1e-6), 1e-6)
        assert back <= mu and back == pytest.approx(mu, rel=1e-6)


def test_a_server_that_sees_every_share_learns_everything():
    """Shares of variance z²C²/100 seen one by one: ε near 300 at z = 1 (and no overflow far beyond)."""
    each = Gaussian(1 / math.sqrt(100), Relation.REPLACE_ONE)
    assert 280 < epsilon([(each, 1)], delta=1e-6) < 310
    assert epsilon([(each, 100)], delta=1e-6) > 2e4


def test_zcdp_is_above_the_exact_gaussian():
    """Copied: σ = 1 once at 1e-5, and 32 for 2000 times at 1e-10."""
    assert zcdp_epsilon(0.5, 1e-5) == pytest.approx(4.728387, rel=1e-6)
    assert zcdp_epsilon(2000 / 2 / 32**2, 1e-10) == pytest.approx(9.9021074, rel=1e-6)
    for mu in (0.1, 1.0, 10.0):
        assert gaussian_epsilon(mu, 1e-6) < zcdp_epsilon(mu * mu / 2, 1e-6) < 1.5 * gaussian_epsilon(mu, 1e-6)


# Direction


@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_grows_with_every_risk(kind):
    base = epsilon([(kind(0.05, 4.0), 20)], delta=1e-5)
    assert epsilon([(kind(0.05, 4.0), 21)], delta=1e-5) > base
    assert epsilon([(kind(0.06, 4.0), 20)], delta=1e-5) > base
    assert epsilon([(kind(0.05, 3.8), 20)], delta=1e-5) > base
    assert epsilon([(kind(0.05, 4.0), 20)], delta=1e-6) > base


def test_each_event_costs_more_than_the_milder_one():
    order = [SampledGaussian(0.05, 4.0), WindowedGaussian(0.05, 4.0, 2), WindowedGaussian(0.05, 4.0, 4)]
    costs = [epsilon([(event, 20)], delta=1e-5) for event in order]
    assert costs == sorted(costs) and costs[1] > 1.5 * costs[0]
    assert epsilon([(FixedSizeGaussian(0.05, 4.0), 20)], delta=1e-5) > 2 * costs[0]


def test_small_epsilons_are_refined():
    charges, delta = poisson(0.005, 20.0, 1000), 2.5e-7
    assert epsilon(charges, delta=delta) == pytest.approx(0.02901, rel=1e-3)  # 0.02941 unrefined
    assert (accountant(charges, 0.029)["interval"], accountant(charges, 0.5)["interval"]) == (1e-5, 1e-4)


def test_the_accountant_gives_its_name():
    assert accountant([(Gaussian(1.0, Relation.ZERO_OUT), 3)], 1.0)["name"] == "analytic Gaussian"
    assert accountant([(FixedSizeGaussian(0.1, 1.0), 3)], 1.0)["name"].endswith("fedrec's privacy profile")
    assert accountant(poisson(0.1, 1.0, 3), 2.0)["name"] == "dp_accounting PLD"


def test_the_second_opinion_is_looser_and_quiet(capfd):
    charges = poisson(100 / 6040, 0.521, 200)
    assert epsilon(charges, delta=6.9e-5) < renyi_epsilon(charges, delta=6.9e-5) < 12
    assert capfd.readouterr().err == ""


def test_the_second_opinion_knows_replace_one():
    """The library's own event would say 2.46 for what costs at least 9.01."""
    charges = [(FixedSizeGaussian(100 / 6040, 1.0), 200)]
    assert 9.63 < renyi_epsilon(charges, delta=6.9e-5) < 2.5 * 9.63
    assert renyi_epsilon([(WindowedGaussian(0.1, 2.0, 5), 50)], delta=1e-5) == math.inf


def test_next_to_no_noise_costs_everything():
    assert epsilon(poisson(0.1, 0.01, 1), delta=1e-5) == math.inf
    assert epsilon([(FixedSizeGaussian(0.1, 0.19), 1)], delta=1e-5) == math.inf
    assert epsilon([(WindowedGaussian(0.1, 0.29, 3), 1)], delta=1e-5) == math.inf


def test_a_coarser_grid_never_says_less():
    for make in (lambda i: losses.fixed_size(0.05, 2.0, i), lambda i: losses.windowed(0.05, 4.0, 3, i)):
        coarse, fine = (make(interval).self_compose(20).get_epsilon_for_delta(1e-5) for interval in (1e-2, 1e-3))
        assert fine <= coarse <= fine * 1.01


# Calibration


@pytest.mark.parametrize(
    ("budget", "charges"),
    [
        (2.0, lambda z: poisson(0.1, z, 20)),
        (2.0, lambda z: [(SampledGaussian(1.0, 2 * z), 1), *poisson(0.1, z, 20)]),
        (2.0, lambda z: [(FixedSizeGaussian(0.1, z), 20)]),
        (1.0, lambda z: [(Gaussian(z, Relation.REPLACE_ONE), 20)]),
        (0.8, lambda z: [(WindowedGaussian(0.02, z, 3), 20)]),
    ],
)
def test_calibration_returns_the_safe_end(budget, charges):
    multiplier = calibrate(budget, delta=1e-4, charges=charges)
    assert epsilon(charges(multiplier), delta=1e-4) <= budget
    assert epsilon(charges(multiplier * (1 - 2e-4)), delta=1e-4) > budget


def test_a_budget_that_needs_no_noise_is_refused():
    with pytest.raises(SpecError, match="a multiplier between 0.1 and 1e5"):
        calibrate(20.0, delta=1e-4, charges=lambda z: poisson(1e-9, z, 1))


# Refusals


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", [*KINDS, lambda _, z: Gaussian(z, Relation.ZERO_OUT)])
def test_p01_refuses_a_private_event_without_noise(kind, multiplier):
    with pytest.raises(PrivacyRefusal, match="P01: private noise is positive.*non-private"):
        kind(0.1, multiplier)


@pytest.mark.parametrize("rate", [0.0, 1.1, -0.1, float("nan")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_is_a_probability(kind, rate):
    with pytest.raises(SpecError, match="a rate is a probability"):
        kind(rate, 1.0)


def test_windows_and_counts_are_sensible():
    with pytest.raises(SpecError, match="at least one example"):
        WindowedGaussian(0.1, 1.0, 0)
    with pytest.raises(SpecError, match="so many times or never"):
        epsilon(poisson(0.1, 1.0, -1), delta=1e-5)


def test_p04_poisson_with_replace_one_cannot_be_said():
    with pytest.raises(TypeError):
        SampledGaussian(0.1, 1.0, Relation.REPLACE_ONE)
    assert SampledGaussian(0.1, 1.0).relation is Relation.ADD_OR_REMOVE


@pytest.mark.parametrize(
    "pair",
    [
        (SampledGaussian(0.1, 1.0), Gaussian(1.0, Relation.REPLACE_ONE)),
        (SampledGaussian(0.1, 1.0), FixedSizeGaussian(0.1, 1.0)),
        (FixedSizeGaussian(0.1, 1.0), Gaussian(1.0, Relation.ZERO_OUT)),
        (FixedSizeGaussian(1.0, 1.0), SampledGaussian(1.0, 1.0)),
        (Gaussian(1.0, Relation.ADD_OR_REMOVE), Gaussian(1.0, Relation.ZERO_OUT)),
        (Gaussian(1.0, Relation.REPLACE_ONE), Gaussian(1.0, Relation.ZERO_OUT)),
    ],
)
def test_p04_refuses_two_relations_in_one_account(pair):
    charges = [(event, 1) for event in pair]
    for ask in (epsilon, renyi_epsilon):
        with pytest.raises(PrivacyRefusal, match="P04: .*about one relation.*side by side"):
            ask(charges, delta=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_p15_amplification_has_no_mu(kind):
    with pytest.raises(PrivacyRefusal, match="P15: only releases without sampling"):
        gaussian_mu([(kind(0.1, 1.0), 1)])
    with pytest.raises(PrivacyRefusal, match="P15"):
        GdpFilter(10.0).charge(kind(0.1, 1.0))


def test_the_filter_admits_until_its_limit_whatever_the_order():
    limit = gaussian_mu_for(2.0, 1e-5)
    each = Gaussian(math.sqrt(10) / limit, Relation.ZERO_OUT)
    room = GdpFilter(limit)
    for _ in range(10):
        room = room.charge(each)
    with pytest.raises(BudgetExceeded, match="P10"):
        room.charge(Gaussian(1e4 / limit, Relation.ZERO_OUT))
    assert room.spent == pytest.approx(limit**2)
    assert gaussian_epsilon(math.sqrt(room.spent), 1e-5) <= 2.0
    with pytest.raises(BudgetExceeded):
        GdpFilter(limit).charge(Gaussian(1 / limit, Relation.REPLACE_ONE))
