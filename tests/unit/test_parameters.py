"""Named tensors and one flat vector are two views of the same numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from fedrec.errors import WireError
from fedrec.model.parameters import Layout
from fedrec.randomness import stream

shapes = some.lists(some.lists(some.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5)
LAYOUT = Layout((("matrix", (2, 3)), ("scalar", ()), ("vector", (2,))))


def numbered(found):
    return Layout(tuple((f"p{place}", shape) for place, shape in enumerate(found)))


@settings(derandomize=True, deadline=None)
@given(shapes)
def test_flatten_undoes_views_for_every_shape(found):
    layout = numbered(found)
    vector = torch.from_numpy(stream(0, "vector").normal(size=layout.size).astype(np.float32))
    named = layout.views(vector)
    assert [tuple(named[name].shape) for name, _ in layout.shapes] == found
    np.testing.assert_array_equal(layout.flatten(named), vector.numpy())


@settings(derandomize=True, deadline=None)
@given(shapes)
def test_masks_cut_the_vector_into_its_parameters(found):
    layout = numbered(found)
    masks = [layout.mask(name) for name, _ in layout.shapes]
    assert [int(mask.sum()) for mask in masks] == [math.prod(shape) for shape in found]
    assert np.sum(masks, axis=0).tolist() == [1] * layout.size


def test_parameters_lie_one_after_the_other():
    named = LAYOUT.views(torch.arange(9.0))
    assert named["matrix"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (named["scalar"].item(), named["vector"].tolist()) == (6, [7, 8])
    assert np.flatnonzero(LAYOUT.mask("scalar")).tolist() == [6]


def test_flatten_takes_the_order_of_the_layout_not_of_the_mapping():
    named = LAYOUT.views(torch.arange(9.0))
    backwards = dict(reversed(named.items()))
    assert LAYOUT.flatten(backwards).tolist() == list(range(9))
    assert LAYOUT.flatten(backwards).dtype == np.float32


def test_a_gradient_flows_back_into_the_vector():
    vector = torch.arange(9.0).requires_grad_()
    named = LAYOUT.views(vector)
    (2 * named["matrix"].sum() + named["scalar"] ** 2).backward()
    assert vector.grad.tolist() == [2, 2, 2, 2, 2, 2, 12, 0, 0]


@pytest.mark.parametrize("wrong", [torch.zeros(8), torch.zeros(10), torch.zeros(1), torch.zeros(9, 1), torch.zeros(())])
def test_a_vector_of_another_length_is_refused(wrong):
    with pytest.raises(WireError, match="does not fit the model; got expected=9, shape="):
        LAYOUT.views(wrong)


def test_the_hash_tells_names_shapes_and_order():
    other = [
        (("matrix", (3, 2)), *LAYOUT.shapes[1:]),
        (("other", (2, 3)), *LAYOUT.shapes[1:]),
        tuple(reversed(LAYOUT.shapes)),
    ]
    assert len({LAYOUT.hash, *(Layout(changed).hash for changed in other)}) == 4
    assert Layout(LAYOUT.shapes).hash == LAYOUT.hash


def test_many_vectors_have_the_views_of_each():
    vectors = torch.arange(3.0 * LAYOUT.size).view(3, LAYOUT.size)
    for place, vector in enumerate(vectors):
        for name, view in LAYOUT.views(vector).items():
            assert torch.equal(LAYOUT.views(vectors)[name][place], view)
    LAYOUT.views(vectors)["scalar"].zero_()
    assert not vectors[:, LAYOUT.slices["scalar"]].any()  # a place to write to, not a copy
