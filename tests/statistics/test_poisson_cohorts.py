"""Cohorts are what the accountant was told: independent coins. False alarms once in a million; mutants must fail."""

import numpy as np
from numpy.random import default_rng
from scipy.stats import binom, binomtest, chi2

from fedrec.privacy.sampling import Cyclic, Fixed, Poisson, SecretCoins

ALARM = 1e-6
CLIENTS, RATE, ROUNDS = 300, 0.1, 4000


def cohorts(draw):
    """(round, client) who came."""
    came = np.zeros((ROUNDS, CLIENTS), bool)
    for cohort in came:
        cohort[draw()] = True
    return came


def inclusion_p(came):
    """The least likely client's p-value, for as many clients as there are."""
    return min(binomtest(int(count), ROUNDS, RATE).pvalue for count in came.sum(axis=0)) * CLIENTS


def size_p(came):
    """p-value of the variance of cohort sizes, N·q·(1 − q) for independent coins."""
    spread = came.sum(axis=1).var(ddof=1) * (ROUNDS - 1) / (CLIENTS * RATE * (1 - RATE))
    return 2 * min(chi2.cdf(spread, ROUNDS - 1), chi2.sf(spread, ROUNDS - 1))


def both_p(counts, of):
    """The least likely count's p-value, for as many counts: how often, `of` so many times, two coins both fell.

    It is exact: counts are skewed, and a normal tail would call the largest of many too unlikely.
    """
    return 2 * min(binom.cdf(counts.min(), of, RATE**2), binom.sf(counts.max() - 1, of, RATE**2)) * counts.size


def pairs_p(came):
    """The most dependent pair's p-value, for as many pairs as there are."""
    both = came.T.astype(float) @ came
    return both_p(both[np.triu_indices(CLIENTS, 1)], ROUNDS)


def rounds_p(came):
    """The same for one client in consecutive rounds, every other two of them: they have no round in common."""
    twos = came[0::2] & came[1::2], came[1:-1:2] & came[2::2]
    return 2 * min(both_p(two.sum(axis=0), len(two)) for two in twos)


def test_poisson_coins_are_independent():
    came = cohorts(lambda: Poisson(RATE).draw(CLIENTS, SecretCoins()))
    assert inclusion_p(came) > ALARM
    assert size_p(came) > ALARM
    assert pairs_p(came) > ALARM
    assert rounds_p(came) > ALARM


def test_a_fixed_number_is_not_poisson():
    assert size_p(cohorts(lambda: Fixed(int(CLIENTS * RATE)).draw(CLIENTS, SecretCoins()))) < ALARM


def test_another_rate_shows():
    assert inclusion_p(cohorts(lambda: Poisson(RATE * 1.5).draw(CLIENTS, SecretCoins()))) < ALARM


def test_topping_up_shows():
    def topped_up():
        cohort = Poisson(RATE).draw(CLIENTS, SecretCoins())
        return cohort if cohort.size >= 30 else np.union1d(cohort, Fixed(30 - cohort.size).draw(CLIENTS, SecretCoins()))

    assert size_p(cohorts(topped_up)) < ALARM


def test_shared_coins_show():
    def in_couples():
        half = Poisson(RATE).draw(CLIENTS // 2, SecretCoins())
        return np.concatenate([half, half + CLIENTS // 2])

    assert pairs_p(cohorts(in_couples)) < ALARM


def test_a_repeated_cohort_shows():
    assert rounds_p(cohorts(lambda: Poisson(RATE).draw(CLIENTS, default_rng(1)))) < ALARM


def test_a_fixed_number_includes_everybody_alike():
    came = cohorts(lambda: Fixed(int(CLIENTS * RATE)).draw(CLIENTS, SecretCoins()))
    assert inclusion_p(came) > ALARM
    assert rounds_p(came) > ALARM
    favourites = cohorts(lambda: Fixed(int(CLIENTS * RATE)).draw(CLIENTS, Favouring()))
    assert inclusion_p(favourites) < ALARM


class Favouring:
    """Coins that like the first clients better."""

    def random(self, size, /):
        return SecretCoins().random(size) * np.linspace(0.5, 1.5, size)


def test_public_groups_are_no_sample():
    turns = iter(range(ROUNDS))
    came = cohorts(lambda: Cyclic(int(1 / RATE)).draw(CLIENTS, None, next(turns)))
    assert (came.sum(axis=0) == ROUNDS * RATE).all()
    assert size_p(came) < ALARM and pairs_p(came) < ALARM
