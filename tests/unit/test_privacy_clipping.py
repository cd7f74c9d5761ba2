"""Clipping, worked by hand."""

import numpy as np
import pytest

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.clipping import check_bounded, clip_to_grid, default_grid, flatten, radius, squared_norm


def test_inside_the_ball_only_the_grid_shows():
    bounded = clip_to_grid(np.array([0.30, -0.40]), 1.0, 64)
    assert bounded.vector.tolist() == [19, -25]  # 19.2 and −25.6, toward zero
    assert (bounded.l2, bounded.grid) == (64, 64)


def test_outside_the_ball_the_direction_stays():
    assert clip_to_grid(np.array([300.0, -400.0]), 5.0, 1).vector.tolist() in ([3, -4], [2, -4], [3, -3])
    assert clip_to_grid(np.array([300.0, -400.0]), 5.0, 1024).vector / 1024 == pytest.approx([3, -4], abs=2e-3)


def test_the_norm_of_integers_has_no_slack():
    """(2³⁰, 1) is longer than 2³⁰ by less than any float can tell."""
    assert np.hypot(2.0**30, 1.0) == 2.0**30
    clipped = clip_to_grid(np.array([2.0**30, 1.0]), 2.0**30, 1).vector
    assert squared_norm(clipped) <= 2**60
    assert not check_bounded(np.array([2**30, 1]), 2.0**30, 1)
    assert check_bounded(np.array([2**30, 0]), 2.0**30, 1)


def test_squares_do_not_overflow():
    assert squared_norm(np.array([2**40, -(2**40)])) == 2**81
    assert not check_bounded(np.array([-(2**63), 0]), 1.0, 64)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_non_finite_update_is_zero_without_a_word(poison):
    assert not clip_to_grid(np.array([1.0, poison]), 1.0, 64).vector.any()


def test_an_empty_update_stays_empty():
    assert clip_to_grid(np.zeros(0), 1.0, 64).vector.shape == (0,)


def test_huge_and_tiny_updates_keep_their_direction():
    assert clip_to_grid(np.array([1e308, 1e308]), 1.0, 1024).vector.tolist() == [724, 724]
    assert not clip_to_grid(np.array([1e-308, 5e-324]), 1.0, 1024).vector.any()


@pytest.mark.parametrize("vector", [np.array([0.5]), np.array([[1]]), np.array([1], np.int32), np.array(1)])
def test_a_received_vector_is_flat_int64(vector):
    assert not check_bounded(vector, 1.0, 64)


def test_p08_refuses_tensors_clipped_apart():
    with pytest.raises(PrivacyRefusal, match="P08: .*flat vector.*Flatten all arrays") as refusal:
        clip_to_grid(np.ones((2, 2)), 1.0, 64)
    assert refusal.value.code == "P08"


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf])
def test_p08_refuses_a_clip_norm_that_bounds_nothing(clip):
    with pytest.raises(PrivacyRefusal, match="P08: a clip norm is positive and finite"):
        radius(clip, 64)


def test_p18_refuses_a_ball_within_one_grid_step():
    with pytest.raises(PrivacyRefusal, match="P18: .*more grid steps"):
        radius(0.01, 64)


def test_flatten_takes_scalars_along():
    flat = flatten([np.ones((2, 2), np.float32), np.array(5.0), np.zeros((0, 3))])
    assert flat.tolist() == [1, 1, 1, 1, 5]
    assert flat.dtype == np.float64
    assert flatten([]).shape == (0,)


def test_p08_refuses_integer_buffers():
    with pytest.raises(PrivacyRefusal, match="P08: .*place=1, dtype='int64'.*on the device"):
        flatten([np.ones(2), np.array(7)])


def test_the_radius_is_exact_and_rounds_down():
    assert radius(1.3, 2**19) == 681574  # 681574.4
    assert radius(0.1, 10) == 1  # the float 0.1 is above a tenth


@pytest.mark.parametrize(
    ("clip", "crowd", "z"), [(1.3, 160, 1.0), (0.01, 160, 1.0), (1.0, 1e6, 0.5), (7.0, 5000, 40.0)]
)
def test_the_default_grid_is_fine_and_its_sums_fit_an_int32(clip, crowd, z):
    grid = default_grid(clip, crowd=crowd, multiplier=z)
    steps = radius(clip, grid)
    assert grid & (grid - 1) == 0
    assert steps * z >= 100
    assert steps * (crowd + 10 * z) < 2**31


def test_the_default_grid_keeps_its_noise_wide_rather_than_its_sums_narrow():
    assert radius(1.0, default_grid(1.0, crowd=1e8, multiplier=0.5)) * 0.5 >= 100
