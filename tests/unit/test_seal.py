"""The seal on the test items: one model a contestant, whoever asks and however often."""

import json

import numpy as np
import pytest

from fedrec.errors import DataError, RunError
from fedrec.study.seal import LOOKS, Seal, fingerprint

ONE, OTHER = np.arange(4, dtype=np.float32), np.arange(4, dtype=np.float32)[::-1]


def test_a_run_that_nobody_measured_has_no_looks(tmp_path):
    assert Seal(tmp_path).looks == {}
    assert list(tmp_path.iterdir()) == []  # asking leaves nothing behind


def test_a_look_is_on_disk_when_look_returns(tmp_path):
    Seal(tmp_path).look("fedrec", "a")
    assert json.loads((tmp_path / LOOKS).read_text()) == {"fedrec": "a"} == Seal(tmp_path).looks


def test_the_same_model_may_be_measured_again_after_a_crash(tmp_path):
    for _ in range(3):
        Seal(tmp_path).look("fedrec", "a")
    assert Seal(tmp_path).looks == {"fedrec": "a"}


def test_another_model_of_the_same_contestant_is_refused_for_ever(tmp_path):
    Seal(tmp_path).look("fedrec", "a")
    for digest in ("b", "", "b"):
        with pytest.raises(DataError, match="asked once, of one model; got arm='fedrec'.*on validation items"):
            Seal(tmp_path).look("fedrec", digest)
        assert Seal(tmp_path).looks == {"fedrec": "a"}
    Seal(tmp_path).look("fedrec", "a")


def test_a_model_without_a_digest_counts_as_a_look(tmp_path):
    Seal(tmp_path).look("zeros", "")
    with pytest.raises(DataError, match="asked once"):
        Seal(tmp_path).look("zeros", "a")


def test_every_contestant_has_a_look_of_its_own_and_every_run(tmp_path):
    Seal(tmp_path / "one").folder.mkdir()
    Seal(tmp_path / "two").folder.mkdir()
    Seal(tmp_path / "one").look("EASE", "a")
    Seal(tmp_path / "one").look("fedrec", "b")
    Seal(tmp_path / "two").look("fedrec", "c")
    assert Seal(tmp_path / "one").looks == {"EASE": "a", "fedrec": "b"}
    assert Seal(tmp_path / "two").looks == {"fedrec": "c"}


def test_a_torn_file_is_not_a_run_without_looks(tmp_path):
    (tmp_path / LOOKS).write_text('{"fedrec": "a')
    with pytest.raises(RunError, match="files are readable.*looks.json.*from a copy"):
        Seal(tmp_path).look("fedrec", "b")


def test_a_fingerprint_tells_models_apart_by_their_values_alone():
    assert fingerprint(ONE) == fingerprint(ONE.copy()) == fingerprint(OTHER[::-1])  # a view, backwards in memory
    assert fingerprint(ONE) != fingerprint(OTHER) != fingerprint(ONE + np.float32(1e-6))
