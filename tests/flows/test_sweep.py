"""A study from one command: cells run once, a failing one stops nothing, and the report says what the cells say."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from fedrec.errors import DataError
from fedrec.population.simulate import Simulation
from fedrec.runs import Run
from fedrec.spec import Plan
from fedrec.study.design import ArmSpec, Study
from fedrec.study.findings import Point
from fedrec.study.index import findings_of
from fedrec.study.pool import Pool, _attempt
from fedrec.study.work import Order, work

STUDY = """
name = "tiny"
epsilon = [2, inf]
seeds = 2
audit = false
arms = [
    { recipe = "popularity" },
    { recipe = "ease" },
    { recipe = "federated", grid = [
        { federation = { learning_rate = 0.01 } },
        { federation = { learning_rate = 0.05 } },
    ] },
    { recipe = "warm-start", mode = "user-central" },
]
[plan]
data = { options = { users = "60", items = "64" } }
model = { encoder = "hash", dim = 16 }
federation = { rounds = 2, cohort = 20 }
evaluation = { every = 1 }
"""
CELLS = 2 * (1 + 1 + 1 + 2)


@pytest.fixture(scope="module")
def swept(cli, tmp_path_factory):
    """A small study, run once: its folder and what the command said."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "study.toml").write_text(STUDY)
    answer = cli("sweep", folder / "study.toml", "--out", folder / "out", "--jobs", 2)
    assert answer.code == 0, answer.err
    return folder, answer


MODES = ("user-central", "user-distributed", "user-local", "interaction-local", "layered")
EVERY = (
    *("random", "popularity", "frozen-text", "item-knn", "ease", "public-start", "local-only", "central"),
    *("federated", "federated:none:none", "federated:none:lora", "federated:user-central:lora"),
    *("from-scratch:user-central", "warm-start+rounds:layered", *(f"warm-start:{mode}" for mode in MODES)),
)
SMALL = {
    "data.options": '{"users": "60", "items": "64"}', "model.encoder": "tiny", "model.dim": 8, "model.rank": 2,
    "federation.rounds": 2, "federation.cohort": 20, "evaluation.every": 0, "shares.survivors": 0.5,
}  # fmt: skip


def test_every_recipe_mode_and_adapter_is_an_arm(cli, tmp_path):
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    answer = cli("sweep", "--arms", *EVERY, "--epsilon", 8, "--seeds", 1, *settings, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    findings = findings_of(tmp_path / "out")
    assert [cell.arm for cell in findings.cells] == [ArmSpec.parse(arm).title for arm in EVERY]
    named = {cell.arm: cell.measured for cell in findings.cells}
    assert {mode: named[f"warm start, {mode}"].plan.privacy.mode for mode in MODES} == {mode: mode for mode in MODES}
    kinds = [named[arm].plan.model.adapter for arm in ("federated", "federated, none", "federated, lora")]
    assert kinds == ["bottleneck", "none", "lora"]
    assert all(np.isfinite(one.summary["ndcg@10"]) for one in named.values())
    modes = {row["mode"].partition(",")[0] for row in findings.audits}
    assert modes >= {"user-central", "layered", "user-local"}


def cells(folder):
    return {path.name: (path / "results.json").stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()
            if (path / "results.json").exists()}  # fmt: skip


def test_every_cell_is_measured_and_every_file_is_there(swept):
    folder, answer = swept
    findings = findings_of(folder / "out")
    assert len(findings.cells) == CELLS and not findings.failures
    assert findings.arms == ("popularity", "EASE (central)", "federated", "warm start, user-central")
    report = folder / "out" / "report"
    for name in ("index.html", "report.md", "cells.csv", "cells.parquet", "summary.json", "privacy.json"):
        assert (report / name).stat().st_size > 100, name
    assert (report / "figures" / "headline.png").read_bytes().startswith(b"\x89PNG")
    assert str(report / "index.html") in answer.out.replace("\n", "")
    assert "Traceback" not in answer.err


def test_a_figure_in_the_report_is_the_mean_of_its_cells(swept):
    folder, _ = swept
    findings = findings_of(folder / "out")
    summary = json.loads((folder / "out" / "report" / "summary.json").read_text())
    point = Point("warm start, user-central", 2.0)
    values = [cell.measured.summary["ndcg@10"] for cell in findings.of(point)]
    assert len(values) == 2 and findings.estimate(point, "ndcg@10").mean == pytest.approx(sum(values) / 2, abs=1e-12)
    assert f"{sum(values) / 2:.3f}" in (folder / "out" / "report" / "index.html").read_text()
    text = json.dumps(summary)
    assert repr(findings.estimate(point, "ndcg@10").mean)[:10] in text


def test_settings_are_chosen_on_validation_and_told(swept):
    folder, _ = swept
    [*_, cell] = findings_of(folder / "out").of(Point("federated"))
    tried = cell.measured.choices
    assert [one.setting for one in tried] == ["federation.learning_rate = 0.01", "federation.learning_rate = 0.05"]
    chosen = next(one for one in tried if one.chosen)
    assert chosen.value == max(one.value for one in tried)
    assert f"learning_rate = {cell.measured.plan.federation.learning_rate}" in chosen.setting
    ease = findings_of(folder / "out").of(Point("EASE (central)"))[0].measured.choices
    assert len(ease) == 5 and sum(one.chosen for one in ease) == 1


def test_trials_never_meet_a_test_item(swept):
    folder, _ = swept
    runs = list((folder / "out" / "cells").iterdir())
    trials = [run for run in runs if not (run / "results.json").exists()]
    assert len(trials) == 2 and not any((run / "looks.json").exists() for run in trials)
    assert all((run / "looks.json").exists() for run in runs if run not in trials)


def test_a_finished_cell_keeps_nothing_of_single_devices(swept):
    folder, _ = swept
    assert not [path for path in (folder / "out" / "cells").glob("*/devices") if (path.parent / "cost.json").exists()]


def test_what_was_run_is_not_run_again_and_an_arm_runs_only_its_own_cells(swept, cli):
    folder, _ = swept
    before = cells(folder)
    more = STUDY.replace('{ recipe = "ease" },', '{ recipe = "ease" },{ recipe = "random" },').replace(
        '"tiny"', '"more"'
    )
    (folder / "more.toml").write_text(more)
    answer = cli("sweep", folder / "more.toml", "--seeds", 3, "--out", folder / "out", "--jobs", 2)
    assert answer.code == 0, answer.err
    after = cells(folder)
    assert {name: after[name] for name in before} == before  # not one of them was touched
    assert len(after) - len(before) == 3 + (CELLS // 2)  # three seeds of the new arm, one more seed of the others
    assert len(findings_of(folder / "out").cells) == 3 * (CELLS // 2 + 1)


def test_a_report_can_be_made_again_without_running(swept, cli, tmp_path):
    folder, _ = swept
    answer = cli("report", folder / "out", "--out", tmp_path / "again", "--format", "markdown")
    assert answer.code == 0, answer.err
    assert "warm start, user-central" in answer.out and (tmp_path / "again" / "index.html").exists()


def test_gates_decide_the_exit_code(swept, cli, tmp_path):
    folder, _ = swept
    common = ("report", folder / "out", "--out", tmp_path / "again", "--format", "json")
    good = cli(*common, "--gate", 'ndcg@10[arm="popularity"] >= 0', "--gate", "ndcg@10[eps=2] >= 0")
    assert good.code == 0 and json.loads(good.out)
    bad = cli(*common, "--gate", "ndcg@10[eps=2] >= 0", "--gate", "ndcg@10[eps=2] > 1")
    assert bad.code == 7 and "ndcg@10[eps=2] > 1" in bad.err and "Traceback" not in bad.err
    wrong = cli(*common, "--gate", "ndcg@10[eps=2")
    assert wrong.code == 2


def test_plain_runs_make_a_report_too(cli, tiny, tmp_path):
    for seed in (0, 1):
        flags = tiny(evaluation__baselines="fast")
        assert cli("simulate", *flags, "--seed", seed, "--out", tmp_path / f"open-{seed}").code == 0
    private = tiny(privacy__mode="user-central", privacy__epsilon=4, privacy__force="true")
    assert cli("simulate", *private, "--seed", 0, "--out", tmp_path / "private").code == 0
    folders = [tmp_path / name for name in ("open-0", "open-1", "private")]
    answer = cli("report", *folders, "--out", tmp_path / "report")
    assert answer.code == 0, answer.err
    told = pd.read_csv(tmp_path / "report" / "cells.csv")
    assert {"federated", "federated, user-central", "popularity"} <= set(told["arm"])
    other = cli("report", folders[0], folders[0], "--out", tmp_path / "twice")
    assert other.code == 2 and "differ in their seed" in other.err


def test_a_report_of_an_unfinished_run_is_refused(cli, tiny, tmp_path):
    assert cli("init", tmp_path / "begun", *tiny(), "--mode", "none").code == 0
    answer = cli("report", tmp_path / "begun", "--out", tmp_path / "report")
    assert answer.code == 5 and "a finished run has results" in answer.err


def test_a_cell_that_fails_is_named_and_the_others_go_on(cli, tmp_path):
    """A warm start is one round: there is nothing to band its noise over."""
    broken = STUDY.replace('mode = "user-central"', 'mode = "user-central", settings = { privacy = { bands = 40 } }')
    (tmp_path / "study.toml").write_text(broken.replace("seeds = 2", "seeds = 1"))
    answer = cli("sweep", tmp_path / "study.toml", "--out", tmp_path / "out", "--jobs", 2)
    assert answer.code == 5 and "every cell of a study is measured" in answer.err and "Traceback" not in answer.err
    findings = findings_of(tmp_path / "out")
    assert [(lost.arm, lost.epsilon) for lost in findings.failures] == [("warm start, user-central", 2.0)]
    assert findings.failures[0].reason and findings.failures[0].reason[:40] in answer.err.replace("\n", " ")
    assert {cell.arm for cell in findings.cells} >= {"popularity", "federated"}
    assert findings.failures[0].reason[:30] in (tmp_path / "out" / "report" / "report.md").read_text()


def test_a_trial_that_fails_is_named_too(cli, tmp_path):
    """A setting with which the model diverges is none to choose: what is left of the grid decides, and all is told."""
    wrong = "{ federation = { learning_rate = 0.01 } },"
    broken = STUDY.replace(wrong, "{ federation = { learning_rate = 1e38 } },").replace("seeds = 2", "seeds = 1")
    (tmp_path / "study.toml").write_text(broken)
    answer = cli("sweep", tmp_path / "study.toml", "--out", tmp_path / "out", "--jobs", 2)
    assert answer.code == 5 and "Traceback" not in answer.err
    [lost] = findings_of(tmp_path / "out").failures
    assert (lost.arm, lost.seed) == ("federated", 1000) and lost.reason.startswith("while settings were compared: ")
    [cell] = findings_of(tmp_path / "out").of(Point("federated"))
    assert cell.measured.plan.federation.learning_rate == 0.05


def test_a_setting_of_an_arm_that_does_not_exist_is_told_with_the_arm(cli, tmp_path):
    wrong = STUDY.replace(
        '{ recipe = "ease" },', '{ recipe = "federated", name = "odd", settings = { model = { dims = 3 } } },'
    )
    (tmp_path / "study.toml").write_text(wrong)
    answer = cli("sweep", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert answer.code == 2 and "arm 'odd': model.dims: no setting has this name" in answer.err
    assert not (tmp_path / "out").exists()


def test_data_that_change_while_a_study_runs_are_noticed(tmp_path):
    plan = Study.from_toml(STUDY).base
    order = Order(folder=tmp_path / "cell", plan=plan.to_toml(), data="0" * 64)
    with pytest.raises(DataError, match="data stay as they are"):
        work(order)
    assert not (tmp_path / "cell").exists()


def test_a_cell_without_its_people_is_refused(swept, cli, tmp_path):
    folder, _ = swept
    shutil.copytree(folder / "out", tmp_path / "out")
    next((tmp_path / "out" / "cells").glob("*/users.parquet")).unlink()
    answer = cli("report", tmp_path / "out", "--out", tmp_path / "report")
    assert answer.code == 5 and "users.parquet" in answer.err and "Traceback" not in answer.err


def test_a_mistake_in_a_study_is_one_line(cli, tmp_path):
    answer = cli("sweep", "--arms", "nothing", "--out", tmp_path / "out")
    assert answer.code == 2 and "a recipe is one of" in answer.err and "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()


GATES = (
    *('ndcg@10[arm="nobody"] > 0', "ndcg@10[eps=3] > 0", 'hr@10[eps=2] > 2 * hr@10[arm="x"]', "ndcg@10 > 0"),
    *('ndcg@10[arm="popularity", eps=2] > 0', "ndgc@10[eps=2] > 0", "ndcg@5[eps=2] > 0"),
)


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_no_cell_can_meet_is_refused_before_any_is_run(cli, tmp_path, gate):
    (tmp_path / "study.toml").write_text(STUDY)
    answer = cli("sweep", tmp_path / "study.toml", "--out", tmp_path / "out", "--gate", gate)
    assert answer.code == 2 and "of the study" in answer.err and not (tmp_path / "out").exists()


def test_values_after_an_option_belong_to_it(cli, tmp_path):
    wrong = cli("sweep", "--epsilon", 1, 2, "x", "--out", tmp_path / "out")
    assert wrong.code == 2 and "x" in wrong.err


def orders(folder, *names):
    plan = Path(folder / "plan.toml").read_text() if (folder / "plan.toml").exists() else ""
    return [Order(folder=folder / name, plan=plan) for name in names]


def test_a_process_that_dies_costs_its_cell_and_no_other(tmp_path, monkeypatch):
    """One order kills whoever works on it; the other, which was under way beside it, is tried again and succeeds."""
    monkeypatch.setattr("fedrec.study.pool._attempt", _deadly)
    told = {}
    with Pool(2) as pool:
        pool.run(
            orders(tmp_path, "deadly", "slow", "fine"), lambda order, reason: told.update({order.folder.name: reason})
        )
    assert set(told) == {"deadly", "slow", "fine"}
    assert "died, alone" in told["deadly"] and told["slow"] == told["fine"] == ""


def heeding():
    """A process started in the background of a script ignores Ctrl-C, and so does what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_no_process_outlives_a_sweep_that_is_stopped(tmp_path, how, code):
    """Killed, or by Ctrl-C, which a terminal sends to all processes of a command."""
    (tmp_path / "study.toml").write_text(STUDY)
    command = [
        sys.executable,
        "-m",
        "fedrec",
        "sweep",
        tmp_path / "study.toml",
        "--out",
        tmp_path / "out",
        "--jobs",
        "2",
    ]
    with (tmp_path / "said").open("w") as said:
        sweep = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said, start_new_session=True,
                                 preexec_fn=heeding)  # fmt: skip
        try:
            workers = []
            for _ in range(600):  # until both work
                workers = psutil.Process(sweep.pid).children(recursive=True)
                if len(list(tmp_path.glob("out/cells/*/plan.toml"))) > 1:
                    break
                time.sleep(0.1)
            if how == signal.SIGINT:
                os.killpg(sweep.pid, how)
            else:
                sweep.kill()
            assert sweep.wait(timeout=30) == code
        finally:
            sweep.kill()
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    assert "Traceback" not in (tmp_path / "said").read_text()


def _deadly(order):
    if order.folder.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    return ""


def _faulty(order):
    if order.folder.name == "faulty":
        raise OSError("no room")


def test_a_cell_that_broke_leaves_nothing_in_the_way_of_its_next_attempt(tmp_path, monkeypatch):
    plan = Plan.of({"data": {"options": {"users": 30, "items": 64}}, "model": {"encoder": "hash", "dim": 8}})
    order = Order(folder=tmp_path / "faulty", plan=plan.to_toml(), baseline="popularity")
    with monkeypatch.context() as patched:
        patched.setattr("fedrec.study.pool.work", _faulty)
        assert "no room" in _attempt(order) and (order.folder / "error.txt").exists()
    assert _attempt(order) == "" and order.done and not (order.folder / "error.txt").exists()


def test_a_cell_that_broke_where_nothing_can_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in _attempt(Order(folder=tmp_path / "file" / "faulty", plan=""))


def test_a_cell_whose_end_was_cut_off_keeps_the_figures_that_it_has(swept, tmp_path):
    """What devices kept is gone, the cost is not told yet: measured again, the model would have lost its embeddings."""
    folder, _ = swept
    [cell, *_] = findings_of(folder / "out").of(Point("federated"))
    copy = tmp_path / cell.measured.path.name
    shutil.copytree(cell.measured.path, copy)
    before = (copy / "results.json").read_text()
    (copy / "cost.json").unlink()
    order = Order(folder=copy, plan=(copy / "plan.toml").read_text())
    assert _attempt(order) == "" and order.done and not (copy / "devices").exists()
    assert (copy / "results.json").read_text() == before


def test_a_folder_that_is_no_study_is_left_alone(cli, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    for place in (tmp_path, tmp_path / "study.toml"):
        answer = cli("sweep", tmp_path / "study.toml", "--out", place)
        assert answer.code == 5 and "a study has a folder of its own" in answer.err and "Traceback" not in answer.err
    assert (tmp_path / "study.toml").read_text() == STUDY and len(list(tmp_path.iterdir())) == 1


def test_a_report_is_of_the_study_that_finished_not_of_one_that_was_stopped(swept, tmp_path):
    folder, _ = swept
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out" / "study.toml").write_text('name = "later"\nreference = "popularity"\n')
    again = findings_of(tmp_path / "out")
    assert (again.reference, again.study) == ("federated", findings_of(folder / "out").study)


def test_a_study_folder_belongs_to_one_sweep_at_a_time(swept, cli):
    folder, _ = swept
    with Run(folder / "out").locked():
        answer = cli("sweep", folder / "study.toml", "--out", folder / "out")
    assert answer.code == 5 and "one process works on a run" in answer.err


def test_an_interrupted_cell_goes_on(swept, cli, tmp_path):
    """A cell whose training stopped half way ends as if it had not."""
    folder, _ = swept
    findings = findings_of(folder / "out")
    whole = findings.of(Point("federated"))[0].measured
    half = tmp_path / "out" / "cells" / whole.path.name
    simulation = Simulation.start(whole.plan, half)

    class Stop(Exception):
        pass

    def stop(row):
        if row["round"] == 1:
            raise Stop

    with pytest.raises(Stop):
        simulation.train(stop)
    answer = cli("sweep", folder / "study.toml", "--out", tmp_path / "out", "--jobs", 2)
    assert answer.code == 0, answer.err
    again = findings_of(tmp_path / "out").of(Point("federated"))[0].measured
    assert again.path.name == whole.path.name and again.summary == whole.summary
