"""`fedrec simulate` as a person meets it: one command, one folder, one table, one statement."""

import json

import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedrec.privacy.ledger import Ledger
from fedrec.spec import Plan
from fedrec.task import Task

FILES = {
    *("plan.toml", "run.json", "catalogue.parquet", "metrics.jsonl", "checkpoint.safetensors"),
    *("curve.png", "table.md", "users.parquet", "results.json", "statement.json", "statement.txt"),
    *("pack/model.safetensors", "pack/items.safetensors", "pack/catalogue.jsonl"),
    *("pack/pack.json", "pack/privacy.json", "pack/README.md"),
}
PRIVATE = {"privacy__mode": "user-central", "privacy__epsilon": 8, "privacy__clip": 0.5, "privacy__force": "true"}
NARROW = {"model__residuals": "false", "model__popularity": "false"}


def read(path):
    return json.loads(path.read_text())


def model(path):
    return (path / "pack" / "model.safetensors").read_bytes(), (path / "checkpoint.safetensors").read_bytes()


def tensors(path):
    """The published tensors without the file's header, which names the task and so the whole plan."""
    return {name: value.tobytes() for name, value in load_file(path / "pack" / "model.safetensors").items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(shell, tiny, runs):
    """One run in a process of its own, with baselines: the answer and its folder."""
    answer = shell("simulate", *tiny(evaluation__baselines="fast"), "--seed", 1, "--out", runs / "first")
    assert answer.code == 0, answer.err
    return answer, runs / "first"


@pytest.fixture(scope="module")
def document(shell, tiny, runs):
    """The same run again, printed for a program."""
    flags = [*tiny(evaluation__baselines="fast"), "--seed", 1, "--out", runs / "again", "--format", "json"]
    answer = shell("simulate", *flags)
    assert answer.code == 0, answer.err
    return answer, runs / "again"


@pytest.fixture(scope="module")
def private(cli, tiny, runs):
    """Two runs that differ in nothing but what the operating system's generator gave them."""
    answers = [
        cli("simulate", *tiny(**PRIVATE, **NARROW), "--seed", 1, "--out", runs / name) for name in ("noisy", "noisier")
    ]
    assert [answer.code for answer in answers] == [0, 0], answers
    return answers[0], (runs / "noisy", runs / "noisier")


def test_a_run_leaves_everything_that_a_reader_needs(first):
    answer, path = first
    assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} >= FILES
    assert "Traceback" not in answer.err
    assert (path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list(path.rglob(".*.[0-9]*"))  # half-written files


def test_the_table_names_every_arm_and_its_figures(first):
    answer, path = first
    summary = read(path / "results.json")["summary"]
    assert list(summary)[0] == "fedrec"
    assert {"random", "popularity", "frozen text", "EASE (central)", "local only"} < set(summary)
    for arm, figures in summary.items():
        shown = next(line for line in answer.out.splitlines() if line.startswith((arm, f" {arm}", f"  {arm}")))
        assert f"{figures['hr@10']:.3f}" in shown and f"{figures['ndcg@10']:.3f}" in shown
        assert f"| {arm} | {figures['hr@10']:.3f}" in (path / "table.md").read_text()


def test_the_summary_is_the_mean_over_the_users_file(first):
    _, path = first
    everybody, summaries = pd.read_parquet(path / "users.parquet"), read(path / "results.json")["summary"]
    assert list(everybody["arm"].unique()) == list(summaries)
    users, summary = everybody[everybody["arm"] == "fedrec"], summaries["fedrec"]
    assert len(users) == read(path / "results.json")["protocol"]["evaluated"] > 30
    for name in ("hr@10", "ndcg@10", "hr@10/99"):
        assert users[name].mean() == pytest.approx(summary[name], abs=1e-12)


def test_the_plan_in_the_folder_is_the_plan_that_ran(first, tiny):
    _, path = first
    plan = Plan.read(path / "plan.toml")
    assert (plan.seed, plan.clients, plan.federation.rounds, plan.model.encoder) == (1, 40, 3, "hash")
    assert Plan.from_toml(plan.to_toml()) == plan
    manifest = read(path / "run.json")
    assert (manifest["plan"], manifest["task"]) == (plan.hash, Task.open(path).hash)
    assert manifest["privacy"] is None and manifest["parameters"]["total"] == Task.open(path).model.layout.size


def test_a_row_is_told_of_each_round(first):
    _, path = first
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert all(row["clients"] == 10 and row["refused"] == {} and row["seconds"] > 0 for row in rows[1:])
    assert all(0 <= row["ndcg@10"] <= row["hr@10"] <= 1 for row in rows)
    assert not any("spent" in row for row in rows)


def test_without_a_mode_nothing_is_promised(first):
    answer, path = first
    [statement] = read(path / "statement.json")
    assert statement["label"] == "non-private"
    assert [statement[term] for term in ("epsilon", "delta", "unit", "relation")] == [None] * 4
    text = (path / "statement.txt").read_text()
    assert text.startswith("[non-private] There is no privacy mode") and "ε=" not in text
    assert "privacy: non-private" in answer.out
    assert read(path / "pack" / "privacy.json") == [statement]
    assert "[non-private]" in (path / "pack" / "README.md").read_text()
    assert not (path / "ledger.jsonl").exists()


def test_json_is_one_document_and_nothing_else(document):
    answer, path = document
    found = json.loads(answer.out)
    assert found["run"] == str(path)
    assert {name: found[name] for name in read(path / "results.json")} == read(path / "results.json")
    assert found["statements"] == read(path / "statement.json")
    assert answer.err == ""


def test_one_seed_is_one_run(first, document):
    (_, one), (_, same) = first, document
    assert read(one / "results.json") == read(same / "results.json")
    assert model(one) == model(same)
    assert (one / "users.parquet").read_bytes() == (same / "users.parquet").read_bytes()


def test_another_seed_is_another_run(first, cli, tiny, runs):
    _, one = first
    assert cli("simulate", *tiny(), "--seed", 2, "--out", runs / "other").code == 0
    assert tensors(one) != tensors(runs / "other")
    ours, other = (read(path / "results.json")["summary"]["fedrec"] for path in (one, runs / "other"))
    assert ours != other


def test_a_plan_file_and_flags_are_one_plan(cli, tiny, first, runs):
    _, one = first
    (runs / "plan.toml").write_text((one / "plan.toml").read_text().replace("seed = 1", "seed = 3"))
    flags = ["--set", "evaluation.baselines=none", "--seed", 1]
    assert cli("simulate", "--config", runs / "plan.toml", *flags, "--out", runs / "from file").code == 0
    assert tensors(one) == tensors(runs / "from file")


def test_a_private_run_states_what_it_protects(private):
    answer, (path, _) = private
    readers, server = read(path / "statement.json")
    assert (readers["label"], readers["unit"], readers["relation"]) == ("user-central", "user", "add-or-remove-one")
    assert "anyone who sees every released model" in readers["adversary"]
    assert 0 < readers["epsilon"] <= 8 and readers["delta"] == 1e-4
    assert readers["sampling"] == "training: Poisson with q=0.25, T=3 rounds, N=40 (public)"
    assert (server["label"], server["epsilon"]) == ("non-private", None)
    text = " ".join((path / "statement.txt").read_text().split())
    for word in (f"ε={readers['epsilon']:.4g}", "δ=0.0001", "add-or-remove-one user", "q=0.25", "no protection at all"):
        assert word in text
    assert f"privacy: (ε={readers['epsilon']:.4g}, δ=0.0001), add-or-remove-one user, against" in answer.out


def test_a_private_run_charges_its_ledger_and_tells_no_cohort(private):
    _, (path, _) = private
    with Ledger(path / "ledger.jsonl", Task.open(path).privacy) as ledger:
        assert (ledger.charged, ledger.affords(4), ledger.pending) == ((1, 2, 3), False, None)
        assert all(ledger.head in statement["ledger_head"] for statement in read(path / "statement.json"))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert all(not {"clients", "refused", "seconds"} & set(row) for row in rows)
    spent, promised = [row["spent"] for row in rows[1:]], read(path / "statement.json")[0]
    assert [each["epsilon"] for each in spent] == sorted(each["epsilon"] for each in spent)
    assert spent[-1]["epsilon"] == pytest.approx(promised["epsilon"])
    # An ε never goes alone (P17).
    assert all(each[term] == promised[term] for each in spent for term in ("delta", "unit", "relation", "adversary"))


def test_real_noise_is_never_the_same_twice(private):
    _, (one, other) = private
    assert tensors(one) != tensors(other)
    assert read(one / "run.json")["plan"] == read(other / "run.json")["plan"]


def test_replayable_noise_promises_nothing(cli, tiny, runs):
    for name in ("replay", "replayed"):
        answer = cli("simulate", *tiny(**PRIVATE, **NARROW, privacy__noise="test"), "--seed", 1, "--out", runs / name)
        assert answer.code == 0, answer.err
    readers, server = read(runs / "replay" / "statement.json")
    assert (readers["label"], server["label"], readers["epsilon"]) == ("non-private", "non-private", None)
    assert "privacy: non-private" in answer.out and "ε spent" not in answer.err
    assert read(runs / "replay" / "run.json")["privacy"]["label"] == "non-private"
    assert model(runs / "replay")[0] == model(runs / "replayed")[0]


def test_runs_are_listed_and_compared(cli, first, private, runs):
    rows = {row["run"]: row for row in json.loads(cli("runs", "list", "--in", runs, "--format", "json").out)}
    assert rows["first"]["state"] == "finished" and rows["first"]["label"] == "non-private"
    assert (rows["noisy"]["label"], rows["noisy"]["rounds"]) == ("user-central", 3)
    assert rows["noisy"]["promises"].startswith("(ε=7.9") and "add-or-remove-one user" in rows["noisy"]["promises"]
    assert rows["first"]["promises"] is None
    assert rows["first"]["ndcg@10"] == read(runs / "first" / "results.json")["summary"]["fedrec"]["ndcg@10"]
    shown = cli("runs", "list", "--in", runs).out
    assert "first" in shown and "noisy" in shown
    two = json.loads(cli("runs", "compare", runs / "first", runs / "noisy", "--format", "json").out)
    assert [row["privacy.mode"] for row in two] == ["none", "user-central"]
    assert all("federation.rounds" not in row for row in two)  # the same in both
    assert "privacy.mode" in cli("runs", "compare", runs / "first", runs / "noisy").out


def test_a_prepared_run_is_the_run_that_would_have_started(cli, tiny, first, runs):
    _, one = first
    prepared = cli("init", runs / "prepared", "--mode", "none", *tiny(evaluation__baselines="fast"), "--seed", 1)
    assert prepared.code == 0 and "40 clients" in prepared.out
    assert f"fedrec simulate --resume {runs / 'prepared'}" in prepared.out
    assert not (runs / "prepared" / "checkpoint.safetensors").exists()
    listed = json.loads(cli("runs", "list", "--in", runs, "--format", "json").out)
    assert next(row["state"] for row in listed if row["run"] == "prepared") == "unfinished"
    assert cli("simulate", "--resume", runs / "prepared").code == 0
    assert model(one) == model(runs / "prepared")
    assert read(one / "results.json") == read(runs / "prepared" / "results.json")
