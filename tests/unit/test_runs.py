"""A run's folder: whole or absent, one process at a time, and its metrics survive a crash."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fedrec.errors import RunError
from fedrec.model.catalogue import Catalogue
from fedrec.runs import Run, fresh, runs
from fedrec.spec import Plan
from fedrec.task import Task

TASK = Task(
    Plan.of({"clients": 2, "model": {"encoder": "hash", "adapter": "none", "dim": 2}}),
    Catalogue(["a", "b"], ["red apple", "green pear"]),
)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "first", TASK, data="d" * 64)


def test_a_new_run_holds_its_task_and_a_manifest(run):
    assert Task.open(run.path).hash == TASK.hash
    manifest = run.manifest
    assert (manifest["task"], manifest["plan"], manifest["data"]) == (TASK.hash, TASK.plan.hash, "d" * 64)
    assert manifest["catalogue"] == TASK.catalogue.hash
    assert manifest["encoder"] == {"name": "hash", "hash": TASK.model.adapter.encoder.hash}
    assert manifest["privacy"] is None
    sizes = dict(manifest["parameters"])
    assert sizes.pop("total") == sum(sizes.values()) == TASK.model.layout.size
    assert (run.results, run.metrics()) == (None, [])


def test_a_folder_with_a_run_in_it_is_left_alone(run):
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(RunError, match="a new run needs an empty folder.*Use --resume"):
        Run.create(run.path, TASK, data="e" * 64)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_run_that_was_never_completed_may_be_created_again(tmp_path, monkeypatch):
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Plan, "to_toml", lambda plan: interrupt() if (tmp_path / "run.json").exists() else "")
        Run.create(tmp_path, TASK, data="")
    with pytest.raises(RunError, match="a run folder has a plan.toml"):
        Run.open(tmp_path)
    Run.create(tmp_path, TASK, data="")
    assert Run.open(tmp_path).manifest["task"] == TASK.hash


def interrupt():
    raise KeyboardInterrupt


def test_only_a_run_is_opened(tmp_path, run):
    assert Run.open(run.path) == run
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=f"a run folder has a plan.toml; got path='{path}'.*fedrec runs"):
            Run.open(path)


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="the run folder can be written; got path=") as refusal:
        Run.create(tmp_path / "file", TASK, data="")
    assert refusal.value.exit_code == 5


@pytest.mark.parametrize(
    ("done", "told", "over"),
    [(None, [], False), (2, [1, 2], False), (3, [1, 2], False), (3, [], False), (3, [1, 3], True)],
)
def test_a_run_is_over_when_its_last_round_was_told_of_for_then_its_charge_is_settled(
    run, monkeypatch, done, told, over
):
    monkeypatch.setattr(Run, "checkpoint", lambda run, task: done and SimpleNamespace(round=done))
    for number in told:
        run.tell({"round": number})
    assert run.over(SimpleNamespace(plan=SimpleNamespace(rounds=3))) is over


def test_a_torn_json_file_is_refused(run):
    (run.path / "results.json").write_text('{"summary": {')
    with pytest.raises(RunError, match="a run's files are readable"):
        _ = run.results


def test_results_are_there_once_they_are_written(run):
    run.write("results.json", json.dumps({"summary": 1}))
    assert run.results == {"summary": 1}


def test_a_run_resumes_on_its_own_data_only(run):
    run.check_data("d" * 64)
    with pytest.raises(RunError, match=f"on the data it was started on; got now='{'e' * 12}'. Bring back the data"):
        run.check_data("e" * 64)


def test_metrics_are_one_row_a_round(run):
    for number in (0, 1, 2):
        run.tell({"round": number, "hr@10": number / 8})
    assert run.metrics() == [{"round": n, "hr@10": n / 8} for n in (0, 1, 2)]
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_round_told_again_replaces_itself_and_what_came_after(run):
    for number in (0, 1, 2, 3):
        run.tell({"round": number, "try": 1})
    run.tell({"round": 2, "try": 2})
    assert [(row["round"], row["try"]) for row in run.metrics()] == [(0, 1), (1, 1), (2, 2)]


def test_a_last_line_torn_anywhere_is_left_out(run):
    run.tell({"round": 1, "loss": 12})
    run.tell({"round": 2, "loss": 34})
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for length in range(second, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert [row["round"] for row in run.metrics()] == [1]
    run.tell({"round": 2, "loss": 34})
    assert path.read_bytes() == whole


HOLD = """
import sys, pathlib
from fedrec.errors import RunError
from fedrec.runs import Run
try:
    with Run(pathlib.Path(sys.argv[1])).locked():
        print("in")
except RunError as error:
    print(error)
"""


def other_process(run):
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(run.path)], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_one_process_works_on_a_run(run):
    with run.locked():
        assert other_process(run).startswith("one process works on a run; got path=")
        with pytest.raises(RunError, match="one process works on a run.*Wait for it, or stop it"), run.locked():
            pass
    assert other_process(run) == "in"


def test_a_lock_does_not_outlive_an_error(run):
    with pytest.raises(KeyboardInterrupt), run.locked():
        raise KeyboardInterrupt
    with run.locked():
        assert (run.path / ".lock").exists()


def test_runs_are_listed_oldest_first_whatever_they_are_called(tmp_path, run):
    folder = run.path.parent
    for name, created in (("a-late", "2030-01-01T00:00:00Z"), ("z-early", "2001-01-01T00:00:00Z")):
        other = Run.create(folder / name, TASK, data="")
        other.write("run.json", json.dumps({**other.manifest, "created": created}))
    (folder / "not-a-run").mkdir()
    assert [found.path.name for found in runs(folder)] == ["z-early", "first", "a-late"]
    assert runs(tmp_path / "absent") == []


def test_a_fresh_path_is_one_that_no_run_has(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20300101-000000")
    taken = []
    for _ in range(3):
        taken.append(fresh(tmp_path, "mine"))
        os.mkdir(taken[-1])
    assert [path.name for path in taken] == [f"mine-20300101-000000{tail}" for tail in ("", "-2", "-3")]
