"""A checkpoint is the old one or the new one, never something between."""

import os
from collections import Counter

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from fedrec.errors import RunError
from fedrec.files import home, write_atomic
from fedrec.randomness import stream
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.rounds.filter import Tally
from fedrec.rounds.optimizer import Optimum

NAMES = ("shared", "first", "second", "anchor")


def checkpoint(number, size=7):
    vectors = stream(number, "checkpoint").normal(size=(4, size)).astype(np.float32)
    tally = Tally(9, 7, Counter({"wrong type": 1, "duplicate": 2}))
    return Checkpoint(number, "the task", f"digest {number}", Optimum(*vectors), tally, clip=1 / 3)


def same(a, b):
    whole = all(np.array_equal(getattr(a.optimum, name), getattr(b.optimum, name)) for name in NAMES)
    return whole and all(getattr(a, name) == getattr(b, name) for name in ("round", "task", "digest", "tally", "clip"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def test_what_is_saved_is_loaded_bit_for_bit(path):
    checkpoint(3).save(path)
    assert same(Checkpoint.load(path, "the task"), checkpoint(3))
    assert os.listdir(path.parent) == [path.name]


def test_what_a_warm_start_left_beside_the_model_stays(path):
    beside = {"popularity": np.array([0.25, 0.75], np.float32), "sentiment": np.zeros(3, np.float32)}
    Checkpoint(1, "the task", "", Optimum.start(np.zeros(2, np.float32), beside)).save(path)
    kept = Checkpoint.load(path, "the task").optimum.beside
    assert {name: value.tolist() for name, value in kept.items()} == {n: each.tolist() for n, each in beside.items()}


def test_a_row_of_a_larger_array_is_saved_as_its_own_numbers(path):
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    Checkpoint(1, "the task", "", Optimum(table[:, 0], table[:, 1], table[:, 2], table[:, 0])).save(path)
    assert Checkpoint.load(path, "the task").optimum.first.tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize("clip", [0.1, 1 / 3, 1e-300, 5e-324, 1e308])
def test_a_clip_norm_comes_back_to_the_last_bit(path, clip):
    Checkpoint(1, "the task", "", Optimum.start(np.zeros(2, np.float32)), clip=clip).save(path)
    assert Checkpoint.load(path, "the task").clip == clip


def test_equal_checkpoints_are_equal_bytes(path):
    files = []
    for _ in range(3):
        checkpoint(3).save(path)
        files.append(path.read_bytes())
    assert len(set(files)) == 1


def test_where_there_is_no_tally_nothing_is_told_of_one(path):
    tensors = Optimum.start(np.zeros(2, np.float32))
    Checkpoint(1, "the task", "d", tensors).save(path)
    assert (Checkpoint.load(path, "the task").tally, Checkpoint.load(path, "the task").clip) == (None, None)
    with safe_open(path, framework="numpy") as file:
        assert {name for name, value in file.metadata().items() if value} == {"round", "task", "digest"}


def test_there_may_be_none_yet(path):
    assert Checkpoint.load(path, "the task") is None


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_crash_before_the_replacement_keeps_the_old_one(path, monkeypatch, name):
    checkpoint(1).save(path)

    def crash(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(os, name, crash)
        checkpoint(2).save(path)
    assert same(Checkpoint.load(path, "the task"), checkpoint(1))
    checkpoint(2).save(path)
    assert same(Checkpoint.load(path, "the task"), checkpoint(2))


def test_bytes_are_on_disk_before_the_name_is(path, monkeypatch):
    order, synced, replaced = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), synced(file))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replaced(a, b))[1])
    write_atomic(path, b"content")
    assert (order, path.read_bytes()) == (["sync", "replace", "sync"], b"content")


def test_a_checkpoint_torn_anywhere_is_refused(path):
    checkpoint(1).save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="the checkpoint cannot be read; got path="):
            Checkpoint.load(path, "the task")


VECTORS = {name: np.zeros(2, np.float32) for name in NAMES}
HEADER = {"round": "1", "task": "the task", "digest": ""}


@pytest.mark.parametrize(
    ("tensors", "header"),
    [
        (VECTORS, None),
        (VECTORS, {"task": "the task", "digest": ""}),
        (VECTORS, HEADER | {"round": "soon"}),
        (VECTORS, HEADER | {"tally": "[1, 2"}),
        (VECTORS, HEADER | {"tally": "[1, 2]"}),
        (VECTORS, HEADER | {"tally": "7"}),
        (VECTORS, HEADER | {"clip": "wide"}),
        ({name: VECTORS[name] for name in NAMES[:3]}, HEADER),
        ({"shared": VECTORS["shared"]}, HEADER),
    ],
)
def test_another_file_of_the_same_format_is_refused(path, tensors, header):
    path.write_bytes(save(tensors, metadata=header))
    with pytest.raises(RunError, match="the checkpoint cannot be read"):
        Checkpoint.load(path, "the task")


def test_the_checkpoint_of_another_task_is_refused_with_a_remedy(path):
    checkpoint(1).save(path)
    with pytest.raises(RunError, match="belongs to one task.*Resume with the plan, data and encoder") as refusal:
        Checkpoint.load(path, "another task")
    assert refusal.value.exit_code == 5


def test_home_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("FEDREC_HOME")
    assert home().name == ".fedrec"
    assert home().is_absolute()
