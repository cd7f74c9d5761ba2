"""The covariance of streamed rows is σ²·(CᵀC)⁻¹ between rounds and nothing between coordinates."""

import numpy as np
import pytest
from scipy import stats

from fedrec.privacy.matrix import Correlated, coefficients, prefix_error
from fedrec.privacy.noise import Hardened, Research

ROUNDS, BANDS, DIM, SIGMA = 12, 4, 20_000, 30.0
FALSE_ALARM = 1e-6


def drawn(source=None, bands=BANDS):
    rows = Correlated(source or Hardened(), sigma=SIGMA, dim=DIM, bands=bands)
    return np.array([rows.draw() for _ in range(ROUNDS)], np.float64)


def p_values(rows, bands=BANDS):
    """Whitened by C the rows are independent N(0, σ² + 1/12): one p-value for the power, one for all correlations."""
    whitener = sum(np.diag(np.full(ROUNDS - j, c), -j) for j, c in enumerate(coefficients(bands)))
    white = whitener @ rows / np.sqrt(SIGMA**2 + 1 / 12)
    power = stats.chi2(ROUNDS * DIM).cdf((white**2).sum())
    gram = (white @ white.T) / np.sqrt(DIM)
    crossed = (gram[np.triu_indices(ROUNDS, 1)] ** 2).sum()
    return 2 * min(power, 1 - power), stats.chi2(ROUNDS * (ROUNDS - 1) / 2).sf(crossed)


@pytest.mark.parametrize("source", [Hardened(), Research()])
def test_the_rows_have_the_covariance_of_the_mechanism(source):
    assert min(p_values(drawn(source))) > FALSE_ALARM


def test_independent_noise_is_found_out():
    assert p_values(drawn(bands=1))[1] < FALSE_ALARM


def test_a_forgotten_row_is_found_out():
    """State lost in the middle: the rows after it are correlated with none before."""
    halves = [Correlated(Hardened(), sigma=SIGMA, dim=DIM, bands=BANDS) for _ in range(2)]
    rows = np.array([half.draw() for half in halves for _ in range(ROUNDS // 2)], np.float64)
    assert p_values(rows)[1] < FALSE_ALARM


def test_too_little_noise_is_found_out():
    assert p_values(drawn() * np.sqrt(0.96))[0] < FALSE_ALARM


def test_coordinates_know_nothing_of_each_other():
    rows = drawn()
    for row in rows:
        assert abs(np.corrcoef(row[: DIM // 2], row[DIM // 2 :])[0, 1]) * np.sqrt(DIM // 2) < 5


def test_sums_over_rounds_are_as_quiet_as_promised():
    """The mean square of all prefixes: within 4 % of σ²·prefix_error², far below independent noise of that σ."""
    mean = (drawn().cumsum(axis=0) ** 2).mean()
    assert mean == pytest.approx((SIGMA * prefix_error(ROUNDS, BANDS)) ** 2, rel=0.04)
    assert mean < 0.6 * SIGMA**2 * (ROUNDS + 1) / 2
