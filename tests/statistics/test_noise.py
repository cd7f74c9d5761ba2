"""Noise has the promised size, shape and independence. Fresh randomness, false alarms once in a million, no retries.

Every test also meets a wrong answer, which it must reject.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from plans import LEAST, USERS, plan_of
from pvalues import shape_p, variance_p
from scipy.stats import chisquare

from fedrec.privacy.matrix import sensitivity
from fedrec.privacy.noise import Hardened, Level, Research, Seeded

ALARM = 1e-6
SAMPLES = 10**6
SOURCES = [Hardened(), Research()]


def bins_p(noise, sigma):
    """χ² p-value over single integers within 3.6σ, tails lumped: what the dither would blur for a small σ."""
    edge = int(3.6 * sigma)
    wide = np.arange(-20 * int(sigma), 20 * int(sigma) + 1)
    mass = np.exp(-(wide**2) / (2 * sigma**2))
    mass /= mass.sum()
    counts = np.bincount(np.clip(noise, -edge, edge) + edge, minlength=2 * edge + 1)
    expected = np.bincount(np.clip(wide, -edge, edge) + edge, weights=mass)
    return chisquare(counts, expected * noise.size).pvalue


def correlated(first, second):
    """Whether two noise vectors correlate beyond chance (4.9σ is one in a million)."""
    return abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(first.size) > 4.9


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sigma", [50.0, 7e5])
def test_variance(source, sigma):
    noise = source.draw(sigma, SAMPLES)
    assert variance_p(noise, sigma) > ALARM
    for wrong in (0.99, 1.01, 1 / np.sqrt(2)):
        assert variance_p(noise * wrong, sigma) < ALARM


@pytest.mark.parametrize("source", SOURCES)
def test_shape(source):
    sigma = 1000.0
    assert shape_p(source.draw(sigma, SAMPLES), sigma) > ALARM
    laplace = np.rint(default_rng().laplace(0, sigma / np.sqrt(2), SAMPLES))
    assert shape_p(laplace, sigma) < ALARM
    assert shape_p(source.draw(sigma * 1.03, SAMPLES), sigma) < ALARM
    assert shape_p(source.draw(sigma, SAMPLES) + 15, sigma) < ALARM


@pytest.mark.parametrize("sigma", [5.0, 7.3])
def test_every_integer_has_its_probability(sigma):
    noise = Hardened().draw(sigma, SAMPLES)
    assert bins_p(noise, sigma) > ALARM
    zero_twice = np.concatenate([noise, np.zeros((noise == 0).sum(), np.int64)])  # the sampler without its zero rule
    assert bins_p(zero_twice, sigma) < ALARM
    assert bins_p(Hardened().draw(sigma * 1.02, SAMPLES), sigma) < ALARM


@pytest.mark.parametrize("source", SOURCES)
def test_releases_are_independent(source):
    first, second = source.draw(1000.0, SAMPLES), source.draw(1000.0, SAMPLES)
    assert not correlated(first, second)
    assert not correlated(first[1:], first[:-1])
    assert correlated(first, first + second * 20)


def test_a_shared_seed_shows():
    first, second = (Seeded(default_rng(5)).draw(1000.0, 10_000) for _ in range(2))
    assert correlated(first, second)
    assert variance_p(first + second, 1000.0 * np.sqrt(2)) < ALARM  # a sum of shares with n times their variance
    assert variance_p(Hardened().draw(1000.0, 10_000) + first, 1000.0 * np.sqrt(2)) > ALARM


# The two halves of a round together.

WIDE = 200_000


def crossed(plan, crossing, replies=LEAST):
    """(WIDE,) what `replies` clients who learnt nothing and the server make together, in clip norms on the sum."""
    sent = (crossing.send(np.zeros(WIDE), plan.noise()) for _ in range(replies))
    total = crossing.total(sent, WIDE)
    released = crossing.release(total, plan.noise() if crossing.rest else None)
    return released * crossing.expected / crossing.clip


def accounted(plan, number):
    """The multiplier of which the accountant was told for the phase of round `number`; each phase is one charge."""
    phase, (event, _) = plan.place(number).phase, plan.promises[0].charges[number - 1]
    return event.multiplier * (sensitivity(phase.rounds, phase.bands, phase.separation) if phase.bands > 1 else 1.0)


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("level", [Level.HARDENED, Level.RESEARCH])
def test_what_crosses_has_the_noise_that_was_accounted(kind, number, level):
    """Round 1 is a warm start, clipped at half the norm of round 2; each user of a local mode adds all of it."""
    plan = plan_of(kind, warm=True, level=level)
    crossing, z = plan.crossing(number), accounted(plan, number)
    whole = z * np.sqrt(LEAST) if kind == "local" else z
    assert variance_p(crossed(plan, crossing), whole) > ALARM
    quieter = replace(crossing, share=0.98 * crossing.share, rest=0.98 * crossing.rest)
    assert variance_p(crossed(plan, quieter), whole) < ALARM


def test_noise_for_another_clip_norm_would_be_found_out():
    """A server that noises the warm start as it does training, and one that noises training as the warm start."""
    plan = plan_of("poisson", warm=True)
    for number, other in ((1, 2), (2, 1)):
        sent = plan.crossing(number).total([], WIDE)
        released = plan.crossing(other).release(sent, plan.noise()) * plan.crossing(other).expected
        assert variance_p(released / plan.crossing(number).clip, accounted(plan, number)) < ALARM
