"""`fedrec data shard`, and a run on what it wrote: the same run, whatever is in memory."""

import json

import pytest
from safetensors.numpy import load_file

SIZE = ("-o", "users=40", "-o", "items=64")


@pytest.fixture(scope="module")
def folder(cli, tmp_path_factory):
    """Forty readers on disk."""
    folder = tmp_path_factory.mktemp("people") / "forty"
    answer = cli("data", "shard", folder, *SIZE, "--format", "json")
    assert answer.code == 0, answer.err
    return folder, json.loads(answer.out)


@pytest.fixture(scope="module")
def runs(cli, tiny, folder, tmp_path_factory):
    """The same run with the people made in memory, and with those on disk."""
    base, settings = tmp_path_factory.mktemp("runs"), tiny(evaluation__people=12, evaluation__baselines="fast")
    on_disk = [
        word
        for flag, setting in zip(settings[::2], settings[1::2], strict=True)
        if "data.options" not in setting
        for word in (flag, setting)
    ]
    answers = [
        cli("simulate", *settings, "--seed", 1, "--out", base / "memory"),
        cli("simulate", "--data", f"shards:{folder[0]}", *on_disk, "--seed", 1, "--out", base / "disk"),
    ]
    assert [answer.code for answer in answers] == [0, 0], answers
    return base


def test_it_says_what_it_wrote(folder, cli):
    path, written = folder
    found = sum(file.stat().st_size for file in path.iterdir())
    assert (written["people"], written["files"], written["bytes"]) == (40, 1, found)
    report = json.loads(cli("data", "check", path, "--format", "json").out)
    assert (report["users"], report["events"], report["format"]) == (40, written["events"], "synthetic")
    text = cli("data", "shard", path.with_name("again"), *SIZE).out
    assert "people: 40" in text and written["hash"] in text


def test_a_run_is_the_same_on_disk(runs):
    """Same data hash, same parameters after training, same figures for every arm."""
    tensors = [load_file(runs / name / "checkpoint.safetensors") for name in ("memory", "disk")]
    assert {name: value.tobytes() for name, value in tensors[0].items()} == {
        name: value.tobytes() for name, value in tensors[1].items()
    }
    one, other = (json.loads((runs / name / "results.json").read_text()) for name in ("memory", "disk"))
    assert (one["summary"], one["groups"], one["protocol"]) == (other["summary"], other["groups"], other["protocol"])
    assert one["protocol"]["people"].startswith("12 of ") and len(one["summary"]) > 3
    hashes = [json.loads((runs / name / "run.json").read_text())["data"] for name in ("memory", "disk")]
    assert hashes[0] == hashes[1]


def test_a_damaged_file_is_one_line(cli, folder, tiny, tmp_path):
    path = folder[0].with_name("damaged")
    assert cli("data", "shard", path, *SIZE).code == 0
    file = path / "part-00000.arrow"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(bytes(whole))
    answer = cli("data", "check", path)
    assert (answer.code, len(answer.err.splitlines())) == (3, 1) and "part-00000.arrow" in answer.err
    file.write_bytes(bytes(whole[:-1]))
    answer = cli("simulate", "--data", f"shards:{path}", "--out", tmp_path / "run")
    assert answer.code == 3 and "the length it was written with" in answer.err
    assert not (tmp_path / "run").exists()


def test_items_are_hidden_in_memory_only(cli, folder, tmp_path):
    answer = cli("simulate", "--data", f"shards:{folder[0]}", "-s", "split.kind=cold-items", "--out", tmp_path / "run")
    assert answer.code == 3 and "people in memory" in answer.err and "global-time" in answer.err


def test_a_folder_is_not_written_over(cli, folder):
    answer = cli("data", "shard", folder[0], *SIZE)
    assert answer.code == 2 and "new folder" in answer.err
