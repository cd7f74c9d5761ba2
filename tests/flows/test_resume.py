"""Whatever kills a run, it goes on to the end that it would have reached: the same bytes, not similar ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fedrec.errors import PrivacyRefusal
from fedrec.population.simulate import Simulation
from fedrec.population.stacked import Stacked
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet
from fedrec.privacy.ledger import Ledger
from fedrec.randomness import stream
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.runs import Run
from fedrec.task import Task

SETTINGS = {
    "loop": {"training__steps": 2, "training__embedding_rate": 0.5},
    "stacked": {"training__steps": 2, "training__embedding_rate": 0.5},
    "stacked, one step": {"split__kind": "global-time", "training__embedding_rate": 0.5},
}
ROUNDS, COHORT = 3, 10


class Crash(BaseException):
    """The machine stops: nothing catches this."""


def untimed(path):
    """The metrics without how long each round took."""
    rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def outcome(path):
    """Everything that a finished run says, and what its devices keep."""
    names = ("checkpoint.safetensors", "users.parquet", "results.json", "table.md", "pack/model.safetensors")
    files = {name: (path / name).read_bytes() for name in names}
    task = Task.open(path)
    states = DeviceStates(path / "devices", task.plan.clients, task.plan.model.dim)
    return files | {"rows": untimed(path), "embeddings": states.after(ROUNDS).tobytes()}


@pytest.fixture(scope="module", params=SETTINGS)
def prepared(request, cli, tiny, tmp_path_factory):
    """A run that is ready to start."""
    engine = request.param.partition(",")[0]
    path = tmp_path_factory.mktemp(engine) / f"prepared {engine}"
    assert cli("init", path, "--mode", "none", *tiny(**SETTINGS[request.param])).code == 0
    return path


@pytest.fixture(scope="module")
def engine(prepared):
    """Who runs the cohorts."""
    return prepared.name.split()[1]


@pytest.fixture(scope="module")
def whole(prepared, engine, cli):
    """What the run comes to when nothing happens to it."""
    path = prepared.with_name("whole")
    shutil.copytree(prepared, path)
    assert cli("simulate", "--resume", path, "--engine", engine).code == 0
    found = outcome(path)
    assert [row["round"] for row in found["rows"]] == list(range(ROUNDS + 1))
    assert np.frombuffer(found["embeddings"], np.float32).any()
    return found


@pytest.fixture
def run(prepared, whole, tmp_path):
    """A fresh copy of the prepared run."""
    shutil.copytree(prepared, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def crash_at(monkeypatch, cli):
    """Run until the `count`-th call of a method, and stop before or after it does its work."""

    def crash(path, owner, name, count, *, after, engine="stacked"):
        left, does = [count], getattr(owner, name)

        def fatal(*arguments):
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Crash
            done = does(*arguments)
            if left[0] == 0:
                raise Crash
            return done

        with monkeypatch.context() as machine, pytest.raises(Crash):
            machine.setattr(owner, name, fatal)
            cli("simulate", "--resume", path, "--engine", engine)

    return crash


BEFORE, AFTER = False, True
POINTS = [
    (os, "replace", 1, BEFORE),  # the first row of metrics
    (os, "replace", 4, BEFORE),  # a checkpoint, written and not yet in place
    (os, "replace", 4, AFTER),
    (os, "replace", 2 * ROUNDS + 2, BEFORE),  # the first file after training
    (Run, "tell", 1, AFTER),
    (Run, "tell", 3, BEFORE),
    (Run, "tell", ROUNDS + 1, AFTER),
    (DeviceStates, "keep_all", 1, BEFORE),
    (DeviceStates, "keep_all", COHORT + 4, AFTER),  # in the middle of round 2
    (DeviceStates, "keep_all", ROUNDS * COHORT, AFTER),
    (Checkpoint, "save", 1, BEFORE),
    (Checkpoint, "save", ROUNDS, AFTER),
]


@pytest.mark.parametrize(("owner", "name", "count", "after"), POINTS)
def test_a_crash_anywhere_changes_nothing(crash_at, cli, run, whole, engine, owner, name, count, after):
    if name == "keep_all" and engine == "stacked":
        count = -(-count // COHORT)  # one chunk a round
    crash_at(run, owner, name, count, after=after, engine=engine)
    assert not (run / "results.json").exists() or name == "replace"
    assert cli("simulate", "--resume", run, "--engine", engine).code == 0
    assert outcome(run) == whole


def test_crash_upon_crash_changes_nothing(crash_at, cli, run, whole, engine):
    for owner, name, count in [(DeviceStates, "keep_all", 1), (Checkpoint, "save", 1), (DeviceStates, "keep_all", 1)]:
        crash_at(run, owner, name, count, after=True, engine=engine)
    assert cli("simulate", "--resume", run, "--engine", engine).code == 0
    assert outcome(run) == whole


def test_a_device_that_forgot_would_be_noticed(crash_at, cli, run, whole, engine):
    """The comparison is worth something: lose the embeddings at a crash, and the end is another one."""
    crash_at(run, Checkpoint, "save", 2, after=True, engine=engine)
    shutil.rmtree(run / "devices")
    assert cli("simulate", "--resume", run, "--engine", engine).code == 0
    assert outcome(run) != whole


def test_ctrl_c_is_no_error_of_ours(cli, monkeypatch, run, whole, engine):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as person:
        person.setattr(Checkpoint, "save", interrupted)
        answer = cli("simulate", "--resume", run, "--engine", engine)
    assert answer.code == 130 and "Traceback" not in answer.err
    assert cli("simulate", "--resume", run, "--engine", engine).code == 0
    assert outcome(run) == whole


def test_a_finished_run_is_told_again_and_not_trained_again(cli, monkeypatch, run, whole, engine):
    assert cli("simulate", "--resume", run, "--engine", engine).code == 0
    trained = []
    for owner in (Fleet, Stacked):
        monkeypatch.setattr(owner, "take_part", lambda self, *arguments: trained.append(arguments))
    again = cli("simulate", "--resume", run, "--engine", engine, "--format", "json")
    assert (again.code, trained) == (0, [])
    assert json.loads(again.out)["summary"] == json.loads(whole["results.json"])["summary"]
    assert outcome(run) == whole


# --- a real process, killed by the system ---


@pytest.fixture(scope="module")
def long(cli, tiny, tmp_path_factory):
    """A run of many rounds, ready to start, and the same run at its end."""
    path = tmp_path_factory.mktemp("long") / "prepared"
    assert cli("init", path, "--mode", "none", *tiny(federation__rounds=40, training__steps=2)).code == 0
    shutil.copytree(path, path.with_name("whole"))
    assert cli("simulate", "--resume", path.with_name("whole")).code == 0
    return path, path.with_name("whole")


def started(path):
    command = [sys.executable, "-m", "fedrec", "simulate", "--resume", str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(process, path, rows):
    deadline = time.monotonic() + 60
    while len(Run(path).metrics()) < rows:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)


def test_kill_minus_nine_at_random_moments_changes_nothing(cli, long, tmp_path):
    (prepared, whole), path = long, tmp_path / "run"
    shutil.copytree(prepared, path)
    rng, rows = stream(0, "kill"), 0
    for _ in range(2):
        rows += int(rng.integers(2, 10))
        process = started(path)
        try:
            wait_for(process, path, rows)
            second = cli("simulate", "--resume", path) if rows < 12 else None
            time.sleep(float(rng.uniform(0, 0.02)))
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        if second is not None:
            assert second.code == 5 and "one process works on a run" in second.err and "Wait for it" in second.err
        rows = len(Run(path).metrics())
    assert not (path / "results.json").exists()
    assert cli("simulate", "--resume", path).code == 0
    assert untimed(path) == untimed(whole)
    for name in ("checkpoint.safetensors", "users.parquet", "results.json"):
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name


# --- what may not change while a run waits ---


@pytest.fixture
def own(cli, tmp_path):
    """A run on files of one's own, trained for a round and then stopped."""
    items = "".join(f"i{k},Book number {k}\n" for k in range(12))
    events = "".join(f"u{user},i{(user + 3 * n) % 12},{1000 + n}\n" for user in range(6) for n in range(5))
    (tmp_path / "items.csv").write_text(f"id,text\n{items}")
    (tmp_path / "events.csv").write_text(f"user,item,time\n{events}")
    settings = {
        "data.options.items": tmp_path / "items.csv", "model.encoder": "hash", "model.dim": 8,
        "federation.rounds": 2, "federation.cohort": 3, "evaluation.baselines": "none",
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert (
        cli("init", tmp_path / "run", "--mode", "none", "--data", f"table:{tmp_path / 'events.csv'}", *words).code == 0
    )
    return tmp_path / "run"


def refused(answer):
    assert answer.code == 5 and "Traceback" not in answer.err, answer
    return answer.err.splitlines()[-1]  # after the bar


@pytest.mark.parametrize(("file", "line"), [("events.csv", "u1,i2,2000\n"), ("items.csv", "j,One more book\n")])
def test_other_data_are_refused_with_a_remedy(cli, own, file, line):
    with (own.parent / file).open("a") as data:
        data.write(line)
    said = refused(cli("simulate", "--resume", own))
    assert "the data it was started on" in said and "Bring back the data set" in said
    assert not (own / "checkpoint.safetensors").exists()


def test_another_plan_is_refused_with_a_remedy(cli, own):
    plan = (own / "plan.toml").read_text()
    (own / "plan.toml").write_text(plan.replace("rounds = 2", "rounds = 3"))
    said = refused(cli("simulate", "--resume", own))
    assert "keeps the plan" in said and "Put plan.toml back" in said
    (own / "plan.toml").write_text(plan)
    assert cli("simulate", "--resume", own).code == 0


def test_a_torn_checkpoint_is_refused(cli, own):
    assert cli("simulate", "--resume", own).code == 0
    (own / "checkpoint.safetensors").write_bytes((own / "checkpoint.safetensors").read_bytes()[:-8])
    said = refused(cli("simulate", "--resume", own))
    assert "the checkpoint cannot be read" in said and "Bring it back" in said


def test_a_line_of_metrics_torn_by_hand_is_told_again(cli, own):
    assert cli("simulate", "--resume", own).code == 0
    rows = untimed(own)
    (own / "metrics.jsonl").write_text((own / "metrics.jsonl").read_text()[:-20])
    assert cli("simulate", "--resume", own).code == 0
    assert untimed(own) == rows


# --- private runs: a crash may cost a round, and never a charge more than was planned ---


@pytest.fixture(scope="module")
def secret(cli, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "prepared"
    settings = {"privacy__mode": "user-central", "privacy__force": "true", "model__residuals": "false"}
    assert cli("init", path, "--mode", "none", *tiny(**settings, model__popularity="false")).code == 0
    return path


@pytest.mark.parametrize(
    ("owner", "name", "after", "lost"),
    [
        (Ledger, "reserve", True, 0),
        (Ledger, "charge", False, 0),
        (Ledger, "charge", True, 1),
        (Checkpoint, "save", False, 1),
        (Checkpoint, "save", True, 0),
        (Ledger, "release", True, 0),
        (Run, "tell", False, 0),
    ],
)
def test_a_private_run_ends_early_rather_than_over_budget(crash_at, cli, secret, tmp_path, owner, name, after, lost):
    path = shutil.copytree(secret, tmp_path / "run")
    crash_at(path, owner, name, 2, after=after)
    assert cli("simulate", "--resume", path).code == 0
    task = Task.open(path)
    with Ledger(path / "ledger.jsonl", task.privacy) as ledger:
        assert (len(ledger.charged), ledger.pending) == (ROUNDS, None)
    assert Checkpoint.load(path / "checkpoint.safetensors", task.hash).round == ROUNDS - lost
    rows = untimed(path)
    assert [row["round"] for row in rows] == list(range(ROUNDS + 1 - lost))
    charges = [0, 1, 2 + lost, 3][: len(rows)]
    spent = [row["spent"]["epsilon"] if "spent" in row else 0.0 for row in rows]
    assert spent == [task.privacy.spent(range(1, count + 1)) for count in charges]
    assert spent[-1] <= task.privacy.epsilon <= 8


def test_p16_a_run_whose_ledger_went_on_without_it_is_neither_resumed_nor_handed_out(cli, secret, tmp_path):
    path = shutil.copytree(secret, tmp_path / "run")
    task = Task.open(path)
    with Ledger(path / "ledger.jsonl", task.privacy) as ledger:
        ledger.reserve(1)
        ledger.charge(1, "d" * 64)
        ledger.release(1, "d" * 64)
    said = cli("simulate", "--resume", path)
    assert said.code == 4 and "P16: a model and its ledger tell of one release" in said.err
    assert not (path / "pack").exists()


@pytest.mark.parametrize("name", ["reserve", "charge"])
def test_p16_a_model_is_not_handed_out_while_a_round_is_open(crash_at, secret, tmp_path, name):
    path = shutil.copytree(secret, tmp_path / "run")
    crash_at(path, Ledger, name, 2, after=True)
    with pytest.raises(PrivacyRefusal, match="P16: .*no round is open.*Finish the run") as refusal:
        Simulation.resume(path).finish(lambda arm: None)
    assert refusal.value.got["round"] == 2
    assert not (path / "pack").exists()


# --- engines ---


@pytest.mark.parametrize(("first", "then"), [("loop", "stacked"), ("stacked", "loop")])
def test_devices_of_a_private_run_go_on_counting_where_they_began(crash_at, cli, secret, tmp_path, first, then):
    path = shutil.copytree(secret, tmp_path / "run")
    crash_at(path, Checkpoint, "save", 2, after=True, engine=first)
    said = refused(cli("simulate", "--resume", path, "--engine", then))
    assert "go on counting what they have spent" in said and f"Resume it with --engine {first}" in said
    assert cli("simulate", "--resume", path, "--engine", first).code == 0


def test_a_run_without_promises_may_change_its_engine(crash_at, cli, run, whole, engine):
    other = "stacked" if engine == "loop" else "loop"
    crash_at(run, Checkpoint, "save", 2, after=True, engine=engine)
    assert cli("simulate", "--resume", run, "--engine", other).code == 0
    mine, theirs = (
        json.loads(text)["summary"]["fedrec"] for text in ((run / "results.json").read_text(), whole["results.json"])
    )
    assert mine == pytest.approx(theirs, rel=1e-3)
