"""What trackers are told is what `metrics.jsonl` says, on the real packages and without a network."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import time
from importlib import util

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from fedrec.rounds.checkpoint import Checkpoint
from fedrec.runs import Run
from fedrec.spec import Plan
from fedrec.task import Task
from fedrec.tracking.services import Service
from fedrec.tracking.story import Story, scalars
from fedrec.tracking.tensorboard import EVENTS, TensorBoard
from fedrec.tracking.tracked import tracked

# MLflow 3.17's own store, under SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PRIVATE = {
    "privacy__mode": "user-central", "privacy__force": "true", "model__residuals": "false",
    "model__popularity": "false", "evaluation__every": 0,
}  # fmt: skip
SPENT = "spent/epsilon add-or-remove-one user"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path_factory):
    """Stores that this test module has to itself; nothing looks for a server or for a person's settings."""
    home = tmp_path_factory.getbasetemp() / "trackers"
    home.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))


def trained(cli, path, *words):
    answer = cli("simulate", *words, "--out", path)
    assert answer.code == 0, answer.err
    return path


@pytest.fixture(scope="module")
def plain(cli, tiny, tmp_path_factory):
    """A run without privacy."""
    return trained(cli, tmp_path_factory.mktemp("tracked") / "plain", *tiny())


@pytest.fixture(scope="module")
def secret(cli, tiny, tmp_path_factory):
    """A private run."""
    return trained(cli, tmp_path_factory.mktemp("tracked") / "secret", *tiny(**PRIVATE))


@pytest.fixture
def copied(plain, tmp_path):
    """A copy of the plain run, under a name that no other test's run has."""
    return shutil.copytree(plain, tmp_path / tmp_path.name)


def events(path):
    return [Event.FromString(record) for record in RawEventFileLoader(str(path / EVENTS)).Load()]


def curves(path):
    """Tag → round → value, as single-precision as TensorBoard keeps it."""
    found = {}
    for event in events(path):
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                assert event.step not in found.setdefault(value.tag, {})
                found[value.tag][event.step] = value.simple_value
    return found


def texts(path):
    values = [value for event in events(path) for value in event.summary.value]
    return {value.tag: value.tensor.string_val[0].decode() for value in values if value.HasField("tensor")}


def expected(path):
    """The same, from the metrics."""
    found = {}
    for row in Run(path).metrics():
        for tag, value in scalars(row).items():
            found.setdefault(tag, {})[row["round"]] = value
    return found


def rebuilt(path, folder):
    """The event file of a run that never stopped and has these metrics."""
    shutil.copytree(path, folder)
    (folder / EVENTS).unlink()
    TensorBoard(Story.of(Run(folder), Task.open(folder)))
    return (folder / EVENTS).read_bytes()


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("fedrec.tracking")]


# --- names ---


def test_every_number_of_a_row_has_a_name():
    row = {
        "round": 2, "bytes_down": 7, "bytes_up": 5, "seconds": 0.5, "clients": 9, "refused": {"late": 1, "torn": 2},
        "ndcg@10": 0.25, "hr@10": 0.5,
    }  # fmt: skip
    assert scalars(row) == {
        "validation/ndcg@10": 0.25, "validation/hr@10": 0.5, "bytes/down": 7, "bytes/up": 5, "round/seconds": 0.5,
        "replies/accepted": 9, "replies/refused": 3,
    }  # fmt: skip


def test_an_epsilon_never_goes_without_its_relation_and_unit():
    spent = {"epsilon": 1.5, "delta": 1e-4, "unit": "user", "relation": "add-or-remove-one", "adversary": "anyone"}
    assert scalars({"round": 1, "spent": spent}) == {SPENT: 1.5}
    assert scalars({"round": 1, "spent": spent | {"unit": "event", "relation": "replace-one"}}) == {
        "spent/epsilon replace-one event": 1.5
    }


# --- TensorBoard ---


def test_every_run_has_the_curves_of_its_metrics(plain):
    found = curves(plain)
    assert {"validation/ndcg@10", "bytes/up", "replies/accepted", "replies/refused", "round/seconds"} <= set(found)
    assert list(found["validation/ndcg@10"]) == [0, 1, 2, 3]
    assert found == {tag: pytest.approx(values) for tag, values in expected(plain).items()}


def test_plan_and_promises_are_there_to_read(plain, secret):
    for path in (plain, secret):
        toml = texts(path)["plan"].removeprefix("```toml\n").removesuffix("```")
        assert Plan.from_toml(toml) == Plan.read(path / "plan.toml")
    assert texts(plain)["privacy"].startswith("[non-private]")
    promised = json.loads((secret / "statement.json").read_text())
    assert texts(secret)["privacy"] == "\n\n".join(f"[{each['label']}] {each['sentence']}" for each in promised)
    assert "ε=" in texts(secret)["privacy"] and "add-or-remove-one user" in texts(secret)["privacy"]


def test_a_private_run_tells_neither_replies_nor_how_long_a_round_took(secret):
    found = curves(secret)
    assert set(found) == {SPENT, "bytes/up", "bytes/down"}
    assert found[SPENT] == pytest.approx({row["round"]: row["spent"]["epsilon"] for row in Run(secret).metrics()[1:]})
    assert [(event.wall_time, event.step) for event in events(secret)[3:]] == [(n, n) for n in range(4)]
    assert {event.wall_time for event in events(secret)[:3]} == {0}


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_leaves_no_round_twice(cli, tiny, monkeypatch, tmp_path, after):
    class Crash(BaseException):
        pass

    does, left = Run.tell, [3]

    def fatal(run, row):
        left[0] -= 1
        if left[0] or after:
            does(run, row)
        if not left[0]:
            raise Crash

    with monkeypatch.context() as machine, pytest.raises(Crash):
        machine.setattr(Run, "tell", fatal)
        cli("simulate", *tiny(), "--out", tmp_path / "run")
    assert cli("simulate", "--resume", tmp_path / "run").code == 0
    assert list(curves(tmp_path / "run")["bytes/up"]) == [1, 2, 3]
    assert (tmp_path / "run" / EVENTS).read_bytes() == rebuilt(tmp_path / "run", tmp_path / "rebuilt")


def test_a_row_told_again_replaces_itself_and_what_came_later(copied):
    rows = Run(copied).metrics()
    (copied / "metrics.jsonl").unlink()
    board = TensorBoard(Story.of(Run(copied), Task.open(copied)))
    for row in rows:
        board.log(row)
    board.log(rows[1] | {"bytes_up": 1})
    assert curves(copied)["bytes/up"] == {1: 1}
    board.log(rows[2])
    assert curves(copied)["bytes/up"] == {1: 1, 2: rows[2]["bytes_up"]}


def test_a_resume_mends_a_torn_file_and_makes_a_missing_one(cli, copied):
    whole = (copied / EVENTS).read_bytes()
    (copied / EVENTS).write_bytes(whole[:-5])
    assert cli("simulate", "--resume", copied).code == 0
    assert (copied / EVENTS).read_bytes() == whole
    shutil.rmtree(copied / EVENTS.parent)
    assert cli("simulate", "--resume", copied).code == 0
    assert (copied / EVENTS).read_bytes() == whole


# --- MLflow ---


def stored(path):
    """The MLflow runs of a run folder, and a client to ask more."""
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.search_runs(["1"], f"attributes.run_name = '{path.name}'") if client.search_experiments() else []
    return client, found


def history(client, run, tag):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, tag)]


def same_as_metrics(client, run, path):
    for tag, values in expected(path).items():
        assert history(client, run, tag.replace("@", " at ")) == list(values.items()), tag


def test_mlflow_has_the_run_and_changes_nothing(cli, tiny, plain, tmp_path):
    path = trained(cli, tmp_path / "told", *tiny(), "--track", "mlflow")
    assert (path / "checkpoint.safetensors").read_bytes() == (plain / "checkpoint.safetensors").read_bytes()
    client, [run] = stored(path)
    same_as_metrics(client, run, path)
    assert run.info.status == "FINISHED"
    assert run.data.params["federation.cohort"] == "10" and run.data.params["privacy.mode"] == "none"
    assert run.data.tags["mlflow.note.content"].startswith("[non-private]")


def test_mlflow_is_resumed_with_the_rounds_it_does_not_have(cli, tiny, monkeypatch, tmp_path):
    path, does, left = tmp_path / "stopped", Checkpoint.save, [2]

    def fatal(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return does(*arguments)

    with monkeypatch.context() as person:
        person.setattr(Checkpoint, "save", fatal)
        assert cli("simulate", *tiny(), "--out", path, "--track", "mlflow").code == 130
    client, [run] = stored(path)
    told = len(history(client, run, "round"))
    assert run.info.status == "KILLED" and 0 < told < 4
    assert cli("simulate", "--resume", path).code == 0  # without MLflow, so it misses rounds
    assert cli("simulate", "--resume", path, "--track", "mlflow").code == 0
    client, [run] = stored(path)
    same_as_metrics(client, run, path)
    assert run.info.status == "FINISHED" and len(history(client, run, "round")) == 4


def test_rows_of_a_private_run_leave_together_when_it_stops(secret):
    run, task = Run(secret), Task.open(secret)
    with tracked(run, task, [Service.MLFLOW]) as log:
        log(run.metrics()[-1])
        assert stored(secret)[1] == []
    client, [found] = stored(secret)
    same_as_metrics(client, found, secret)
    assert history(client, found, SPENT)[-1][0] == 3
    times = [metric.timestamp for metric in client.get_metric_history(found.info.run_id, "round")]
    assert len(times) == 4 and min(times) >= found.info.start_time
    assert "ε=" in found.data.tags["mlflow.note.content"]


def test_rows_of_another_run_leave_at_once(copied):
    run, task = Run(copied), Task.open(copied)
    with tracked(run, task, [Service.MLFLOW]):
        client, [found] = stored(copied)
        same_as_metrics(client, found, copied)


# --- W&B ---


def records(folder):
    """What W&B wrote to its file, a log of LevelDB's kind: in blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = folder.glob("*.wandb")
    content, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        part += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def recorded(folder):
    """All of them, once W&B's own process, which writes the file after `finish` has returned, is done."""
    deadline = time.monotonic() + 30
    while not (found := list(records(folder))) or not found[-1].HasField("exit"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def rows_of(found):
    """The rows among them, without what W&B adds."""
    rows = [{item.nested_key[0]: json.loads(item.value_json) for item in each.history.item}
            for each in found if each.HasField("history")]  # fmt: skip
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


@pytest.fixture
def wandb():
    """W&B, and the end of its own process afterwards."""
    import wandb

    yield wandb
    wandb.teardown()


def test_wandb_has_the_run_and_nothing_about_the_machine(cli, tiny, wandb, plain, tmp_path):
    path = trained(cli, tmp_path / "told", *tiny(), "--track", "wandb")
    assert (path / "checkpoint.safetensors").read_bytes() == (plain / "checkpoint.safetensors").read_bytes()
    [folder] = (path / "wandb").glob("offline-run-*")
    found = recorded(folder)
    assert rows_of(found) == [{"round": row["round"], **scalars(row)} for row in Run(path).metrics()]
    begun = next(each.run for each in found if each.HasField("run"))
    assert (begun.display_name, begun.project) == ("told", "fedrec") and begun.notes.startswith("[non-private]")
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["federation"]["cohort"] == 10
    assert not any(each.HasField("stats") or each.HasField("environment") for each in found)
    assert begun.host == "" and not begun.HasField("git")
    assert not [file for file in (folder / "files").rglob("*") if file.is_file()]


def test_wandb_offline_has_the_whole_run_again_after_a_resume(wandb, secret, tmp_path):
    path = shutil.copytree(secret, tmp_path / "run")
    run, task, seen = Run(path), Task.open(path), set()
    for _ in range(2):
        with tracked(run, task, [Service.WANDB]) as log:
            log(run.metrics()[-1])
            assert set((path / "wandb").glob("offline-run-*")) == seen  # a private run: not yet
        [new] = set((path / "wandb").glob("offline-run-*")) - seen
        seen.add(new)
        assert rows_of(recorded(new)) == [{"round": row["round"], **scalars(row)} for row in run.metrics()]
    assert len({file.name for folder in seen for file in folder.glob("*.wandb")}) == 1  # named by the run's id


# --- what may go wrong ---


def test_a_full_disk_is_reported_once_and_stops_nothing(cli, tiny, monkeypatch, caplog, plain, tmp_path):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "log", full)
    with caplog.at_level(logging.WARNING, "fedrec"):
        path = trained(cli, tmp_path / "run", *tiny())
    assert (path / "checkpoint.safetensors").read_bytes() == (plain / "checkpoint.safetensors").read_bytes()
    [said] = warned(caplog)
    assert "TensorBoard failed and is left out" in said and "No space left" in said


def test_a_server_that_is_away_is_reported_once_and_stops_nothing(monkeypatch, caplog, copied):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run, task = Run(copied), Task.open(copied)
    with caplog.at_level(logging.WARNING, "fedrec"), tracked(run, task, [Service.MLFLOW]) as log:
        log(run.metrics()[-1])
    [said] = warned(caplog)
    assert said.startswith("mlflow failed and is left out")


def test_an_error_of_the_run_is_not_taken_for_a_tracker_s(copied):
    with pytest.raises(ZeroDivisionError), tracked(Run(copied), Task.open(copied)):
        raise ZeroDivisionError


@pytest.mark.parametrize("service", Service)
def test_a_package_that_is_not_there_is_named_before_anything_is_done(cli, tiny, monkeypatch, tmp_path, service):
    finds = util.find_spec
    monkeypatch.setattr("fedrec.tracking.services.find_spec", lambda name: None if name == service else finds(name))
    answer = cli("simulate", *tiny(), "--out", tmp_path / "run", "--track", service)
    assert answer.code == 2 and f"pip install 'fedrec[{service}]'" in answer.err and "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(cli):
    answer = cli("simulate", "--track", "comet")
    assert answer.code == 2 and "mlflow" in answer.err


SCRIPT = """
import sys
import fedrec.cli.simulate, fedrec.population.simulate
print({name.partition(".")[0] for name in sys.modules} & {"mlflow", "wandb", "tensorflow"})
import fedrec.tracking.mlflow, fedrec.tracking.wandb
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
print(MLFLOW_DISABLE_TELEMETRY.get(), fedrec.tracking.wandb.wandb.env.error_reporting_enabled())
"""


def test_nothing_is_imported_unless_asked_and_nothing_phones_home():
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "True False"]
