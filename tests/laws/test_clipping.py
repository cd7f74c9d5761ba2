"""Whatever the update, what leaves is within the ball."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.privacy.clipping import check_bounded, clip_to_grid, radius, squared_norm

LAW = settings(derandomize=True, deadline=None, max_examples=300)
ANY = arrays(np.float64, st.integers(0, 20), elements=st.floats(width=64))
ORDINARY = arrays(np.float64, st.integers(1, 20), elements=st.floats(-10, 10))
CLIPS = st.floats(1e-3, 1e4)
GRIDS = st.integers(10, 30).map(lambda power: 2**power)


@LAW
@given(ANY, CLIPS, GRIDS)
def test_the_norm_is_bounded_exactly(update, clip, grid):
    bounded = clip_to_grid(update, clip, grid)
    assert bounded.vector.shape == update.shape
    assert sum(int(entry) ** 2 for entry in bounded.vector) <= bounded.l2**2
    assert bounded.l2 == radius(clip, grid)
    assert check_bounded(bounded.vector, clip, grid)


@LAW
@given(ANY, CLIPS, GRIDS)
def test_clipping_twice_is_clipping_once(update, clip, grid):
    once = clip_to_grid(update, clip, grid).vector
    assert (clip_to_grid(once / grid, clip, grid).vector == once).all()


@LAW
@given(ORDINARY, CLIPS, GRIDS)
def test_direction_and_length_are_kept_to_a_grid_step(update, clip, grid):
    norm = float(np.linalg.norm(update))
    expected = update * min(1.0, clip / norm) if norm > 0 else update
    error = np.abs(clip_to_grid(update, clip, grid).vector / grid - expected)
    assert (error <= 2 / grid + 1e-9 * np.abs(expected)).all()


@LAW
@given(st.integers(0, 50), CLIPS, GRIDS)
def test_zero_stays_zero(dim, clip, grid):
    assert not clip_to_grid(np.zeros(dim), clip, grid).vector.any()


@LAW
@given(arrays(np.int64, st.integers(1, 5)))
def test_the_exact_norm_agrees_with_python_integers(vector):
    assert squared_norm(vector) == sum(int(entry) ** 2 for entry in vector)


@LAW
@given(arrays(np.int64, st.integers(1, 5), elements=st.integers(-2000, 2000)))
def test_the_check_accepts_exactly_the_ball(vector):
    inside = sum(int(entry) ** 2 for entry in vector) <= 1024**2
    assert check_bounded(vector, 1.0, 1024) == inside
