"""Noise: fresh for each release, refused when it would mean nothing."""

import os

import numpy as np
import pytest
from numpy.random import default_rng

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.noise import Hardened, Level, Research, Seeded, noise_source


@pytest.mark.parametrize("noise", [Hardened(), Research()])
def test_private_noise_never_repeats_and_ignores_global_seeds(noise):
    np.random.seed(7)
    first = noise.draw(100.0, 50)
    np.random.seed(7)
    second = noise.draw(100.0, 50)
    assert first.dtype == np.int64
    assert (first != second).sum() > 40


def test_seeded_noise_replays():
    first, second = (Seeded(default_rng(3)).draw(100.0, 50) for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("dim", [0, 1, 40_000])
def test_noise_has_the_asked_for_length(dim):
    assert Hardened().draw(100.0, dim).shape == (dim,)


def _drawn_by_a_fork(noise):
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, noise.draw(100.0, 50).tobytes())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        drawn = np.frombuffer(pipe.read(), np.int64)
    os.waitpid(child, 0)
    return drawn


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_two_forks_draw_different_noise():
    for noise in (Hardened(), Research()):
        assert (_drawn_by_a_fork(noise) != _drawn_by_a_fork(noise)).sum() > 40
    shared = Seeded(default_rng(3))  # the mistake that a key for each release rules out
    assert (_drawn_by_a_fork(shared) == _drawn_by_a_fork(shared)).all()


@pytest.mark.parametrize("noise", [Hardened(), Research(), Seeded(default_rng(0))])
@pytest.mark.parametrize("sigma", [4.99, 0.0, -7.0, float("nan"), float("inf")])
def test_p18_refuses_noise_that_the_grid_would_shape(noise, sigma):
    with pytest.raises(PrivacyRefusal, match="P18: noise has a standard deviation of 5"):
        noise.draw(sigma, 3)


def test_p07_refuses_a_seed_in_a_private_level_and_its_absence_in_a_test():
    for level, generator in ((Level.HARDENED, default_rng(0)), (Level.RESEARCH, default_rng(0)), (Level.TEST, None)):
        with pytest.raises(PrivacyRefusal, match="P07: private noise is never seeded.*non-private"):
            noise_source(level, generator)


def test_each_level_names_its_source():
    assert noise_source(Level.HARDENED) == Hardened()
    assert noise_source(Level.RESEARCH) == Research()
    assert noise_source(Level.TEST, default_rng(0)).level is Level.TEST
    assert "floating-point" in Research.kind
    assert "ChaCha20" in Hardened.rng
