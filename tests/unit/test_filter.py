"""What an acceptable update looks like."""

import numpy as np
import pytest

from fedrec.rounds.filter import Filter

OPEN = Filter(3, np.dtype(np.float32), lambda vector: True)
GOOD = np.array([1, -2, 3], np.float32)


def test_a_good_vector_passes():
    assert OPEN.reason(GOOD) is None
    assert OPEN.reason(np.array([np.finfo(np.float32).max, -0.0, 1e-45], np.float32)) is None


@pytest.mark.parametrize(
    ("vector", "why"),
    [
        (GOOD.astype(np.float64), "wrong type"),
        (GOOD.astype(">f4"), "wrong type"),
        (GOOD.astype(np.int32), "wrong type"),
        (GOOD.astype(object), "wrong type"),
        (GOOD.astype("U3"), "wrong type"),
        (GOOD[:2], "wrong shape"),
        (GOOD[:1], "wrong shape"),  # would be broadcast onto every coordinate
        (GOOD[None, :], "wrong shape"),  # would be broadcast, too
        (np.float32(1).reshape(()), "wrong shape"),
        (np.zeros(0, np.float32), "wrong shape"),
        (np.array([1, np.nan, 3], np.float32), "not finite"),
        (np.array([1, 2, np.inf], np.float32), "not finite"),
        (np.array([-np.inf, 2, 3], np.float32), "not finite"),
    ],
)
def test_every_other_form_is_refused(vector, why):
    assert OPEN.reason(vector) == why


def test_the_bound_is_the_mode_s_own_and_sees_only_vectors_of_the_right_form():
    asked = []
    bounded = Filter(3, np.dtype(np.float32), lambda vector: asked.append(1) or np.abs(vector).max() <= 2)
    assert bounded.reason(GOOD) == "out of bound"
    assert bounded.reason(GOOD / 2) is None
    assert bounded.reason(GOOD[:1]) == "wrong shape"
    assert len(asked) == 2
