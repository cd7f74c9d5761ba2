"""What operators see of the trainer."""

import json
from types import SimpleNamespace

from fedrec.deploy.trainer import Board


def test_a_disk_that_takes_no_sign_of_life_ends_neither_the_round_nor_the_signs(tmp_path):
    state = tmp_path / "state"
    board = Board(SimpleNamespace(state=state, spec=SimpleNamespace(phase_seconds=9.0)), SimpleNamespace(privacy=None))
    board.beat()
    board.phase("waiting for devices", 0)
    state.mkdir()
    board.beat()
    assert json.loads((state / "round.json").read_text())["phase"] == "waiting for devices"
