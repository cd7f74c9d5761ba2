"""What virtual devices remember, and that a population of them costs nothing until it is used."""

import tracemalloc

import numpy as np
import pytest

from fedrec.errors import RunError
from fedrec.population.states import DeviceStates


def vector(value, dim=2):
    return np.full(dim, value, np.float32)


def test_an_embedding_is_zero_until_a_round_made_one(tmp_path):
    states = DeviceStates(tmp_path, 2, 2)
    assert states.before(0, 1).tolist() == [0, 0]
    states.keep(0, 1, vector(1))
    assert states.before(0, 1).tolist() == [0, 0]
    assert states.before(0, 2).tolist() == [1, 1]
    assert states.before(1, 2).tolist() == [0, 0]


def test_rounds_may_be_skipped_and_the_last_two_are_remembered(tmp_path):
    states = DeviceStates(tmp_path, 1, 2)
    for number in (2, 5, 9):
        states.keep(0, number, vector(number))
    assert [int(states.before(0, number)[0]) for number in (20, 10, 9, 6)] == [9, 9, 5, 5]


def test_a_repeated_round_replaces_its_own_result_alone(tmp_path):
    states = DeviceStates(tmp_path, 1, 2)
    for number, value in ((1, 1), (2, 2), (2, 22), (2, 222)):
        states.keep(0, number, vector(value))
    assert [int(states.before(0, number)[0]) for number in (2, 3)] == [1, 222]


def test_after_is_everybody_once_a_round_is_over(tmp_path):
    states = DeviceStates(tmp_path, 3, 2)
    states.keep(0, 1, vector(1))
    states.keep(2, 2, vector(2))
    assert states.after(1).tolist() == [[1, 1], [0, 0], [0, 0]]
    assert states.after(2).tolist() == [[1, 1], [0, 0], [2, 2]]


def test_what_is_handed_out_is_a_copy(tmp_path):
    states = DeviceStates(tmp_path, 1, 2)
    states.keep(0, 1, vector(1))
    states.before(0, 2)[:] = 9
    assert states.before(0, 2).tolist() == [1, 1]


def test_another_opening_sees_what_was_kept(tmp_path):
    DeviceStates(tmp_path, 2, 2).keep(1, 1, vector(3))
    assert DeviceStates(tmp_path, 2, 2).before(1, 2).tolist() == [3, 3]


class Torn(np.ndarray):
    """A map whose process dies at its n-th write."""

    left = [0]

    def __setitem__(self, key, value):
        self.left[0] -= 1
        if self.left[0] == 0:
            if np.size(value) > 1:  # half of it is there
                np.ndarray.__setitem__(self, (*key, slice(1)), value[:1])
            raise KeyboardInterrupt
        np.ndarray.__setitem__(self, key, value)


@pytest.mark.parametrize("write", [1, 2, 3])
@pytest.mark.parametrize("repeated", [False, True])
def test_killed_at_any_write_the_round_starts_again_from_where_it_started(tmp_path, write, repeated):
    states = DeviceStates(tmp_path, 1, 2)
    for number in (1, 2, 3) if repeated else (1, 2):
        states.keep(0, number, vector(number))
    Torn.left = [write]
    states._values, states._rounds = states._values.view(Torn), states._rounds.view(Torn)
    with pytest.raises(KeyboardInterrupt):
        states.keep(0, 3, vector(33))
    again = DeviceStates(tmp_path, 1, 2)
    assert again.before(0, 3).tolist() == [2, 2]
    again.keep(0, 3, vector(333))
    assert (again.before(0, 3).tolist(), again.before(0, 4).tolist()) == ([2, 2], [333, 333])


@pytest.mark.parametrize(("clients", "dim"), [(4, 2), (3, 5)])
def test_states_of_another_shape_are_refused(tmp_path, clients, dim):
    DeviceStates(tmp_path, 3, 2)
    with pytest.raises(RunError, match="device states fit the plan; got path="):
        DeviceStates(tmp_path, clients, dim)


def test_states_of_another_type_are_refused(tmp_path):
    DeviceStates(tmp_path, 3, 2)
    np.save(tmp_path / "rounds.npy", np.zeros((3, 2), np.int64))
    with pytest.raises(RunError, match="device states fit the plan"):
        DeviceStates(tmp_path, 3, 2)


def test_a_hundred_thousand_clients_cost_neither_memory_nor_disk(tmp_path):
    tracemalloc.start()
    states = DeviceStates(tmp_path, 100_000, 64)
    states.keep(99_999, 1, vector(1, 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    file = (tmp_path / "embeddings.npy").stat()
    assert file.st_size > 100_000 * 2 * 64 * 4  # as long as if it were full
    assert file.st_blocks * 512 < 100_000  # but only the pages that were written are there
    assert peak < 1_000_000
    assert states.before(99_999, 2).sum() == 64
