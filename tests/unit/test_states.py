"""What virtual devices remember, and that a population of them costs nothing until it is used."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fedrec.errors import RunError
from fedrec.population.states import DeviceStates
from fedrec.randomness import stream


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
    """A map whose process dies at its n-th write, half of which is there."""

    left = [0]

    def __setitem__(self, key, value):
        self.left[0] -= 1
        if self.left[0]:
            return np.ndarray.__setitem__(self, key, value)
        clients, slots = key
        half = (len(clients) + 1) // 2 if np.ndim(value) < 2 else len(clients) // 2
        whole = np.broadcast_to(value, (len(clients), *np.shape(value)[1:]))
        np.ndarray.__setitem__(self, (clients[:half], slots[:half]), whole[:half])
        if np.ndim(value) == 2:  # and half a vector
            np.ndarray.__setitem__(self, (clients[half], slots[half], slice(1)), value[half, :1])
        raise KeyboardInterrupt


@pytest.mark.parametrize("write", [1, 2, 3])
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("clients", [1, 5])
def test_killed_at_any_write_the_round_starts_again_from_where_it_started(tmp_path, write, repeated, clients):
    states, all_of = DeviceStates(tmp_path, clients, 2), np.arange(clients)
    for number in (1, 2, 3) if repeated else (1, 2):
        states.keep_all(all_of, number, np.stack([vector(number)] * clients))
    Torn.left = [write]
    for mapped in (states._values, states._rounds):
        mapped.array = mapped.array.view(Torn)
    with pytest.raises(KeyboardInterrupt):
        states.keep_all(all_of, 3, np.stack([vector(33)] * clients))
    again = DeviceStates(tmp_path, clients, 2)
    assert again.before_all(all_of, 3).tolist() == [[2, 2]] * clients
    again.keep_all(all_of, 3, np.stack([vector(333)] * clients))
    assert again.before_all(all_of, 3).tolist() == [[2, 2]] * clients
    assert again.after(3).tolist() == [[333, 333]] * clients


def test_many_at_once_are_many_one_by_one(tmp_path, monkeypatch):
    """In any order of clients, whatever their histories, and across the pieces in which they are read."""
    monkeypatch.setattr("fedrec.population.states._CLIENTS", 7)
    one, all_of, rng = DeviceStates(tmp_path / "one", 40, 3), DeviceStates(tmp_path / "all", 40, 3), stream(3, "states")
    for number in (1, 2, 2, 3, 5, 4, 4, 6):  # some rounds again
        clients = rng.permutation(40)[: rng.integers(0, 40)]
        started = all_of.before_all(clients, number)
        assert started.tolist() == [one.before(client, number).tolist() for client in clients]
        made = rng.normal(size=(len(clients), 3)).astype(np.float32)
        all_of.keep_all(clients, number, made)
        for client, embedding in zip(clients, made, strict=True):
            one.keep(client, number, embedding)
        for after in (0, number - 1, number):
            assert all_of.after(after).tolist() == one.after(after).tolist()
            assert all_of.after(after, clients).tolist() == one.after(after)[clients].tolist()
    assert (tmp_path / "one" / "rounds.npy").read_bytes() == (tmp_path / "all" / "rounds.npy").read_bytes()
    assert all_of.after(6).any(axis=1).sum() > 30


def resident():
    """Bytes of mapped files in this process's memory."""
    status = Path("/proc/self/status").read_text()
    return sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssFile", "RssShmem")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
@pytest.mark.parametrize("dropped", [True, False])
def test_memory_does_not_grow_with_the_population(tmp_path, monkeypatch, dropped):
    clients, dim, limit = 200_000, 16, 8 << 20
    states = DeviceStates(tmp_path, clients, dim)
    if not dropped:
        monkeypatch.setattr(type(states._values), "drop", lambda self: None)
    before = resident()
    for first in range(0, clients, 20_000):
        cohort = np.arange(first, first + 20_000)
        states.keep_all(cohort, 1, np.ones((20_000, dim), np.float32))
        assert states.after(1, cohort).all()
    assert (resident() - before < limit) == dropped


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
