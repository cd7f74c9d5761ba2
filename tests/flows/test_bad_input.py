"""What a person gets wrong is said in one line: the rule, the value that broke it, the remedy. Never a stack trace."""

import errno
import json
import os
import re
import zipfile

import pytest

import fedrec.files

ITEMS = "id,text,feature_0\n" + "".join(f"i{k},Book number {k} of many,{k}\n" for k in range(12))
EVENTS = "user,item,time,rating\n" + "".join(
    f"u{user},i{(user + 3 * n) % 12},{1000 + n},{1 + n % 5}\n" for user in range(6) for n in range(5)
)
SHORT = {
    "model.encoder": "hash",
    "model.dim": 8,
    "federation.rounds": 1,
    "federation.cohort": 3,
    "evaluation.baselines": "none",
}


def flags(settings):
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def train(cli, tmp_path):
    """`fedrec simulate` on files of one's own; `mend` maps a column."""

    def run(events=EVENTS, items=ITEMS, **mend):
        for name, content in (("events.csv", events), ("items.csv", items)):
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        options = {f"data.options.{name}": value for name, value in {"items": tmp_path / "items.csv", **mend}.items()}
        data = ["--data", f"table:{tmp_path / 'events.csv'}"]
        return cli("simulate", *data, *flags(SHORT | options), "--out", tmp_path / "run")

    return run


@pytest.fixture
def notes(tmp_path):
    """What the results of the run say was left out."""
    return lambda: "\n".join(json.loads((tmp_path / "run" / "results.json").read_text())["notes"])


def said(answer, code):
    """The one line of an answer that is a refusal."""
    lines = answer.err.strip().splitlines()
    assert answer.code == code, answer
    assert len(lines) == 1 and lines[0].startswith("fedrec: "), answer.err
    assert lines[0].endswith((".", ")")) and "Traceback" not in answer.err
    return lines[0]


def test_good_files_train(train, notes):
    answer = train()
    assert answer.code == 0, answer.err
    assert "table: 6 clients, 12 items, 30 events" in answer.out
    assert notes() == ""


# --- tables of one's own: exit 3, or a counted note ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"events": EVENTS.replace("user,", "who,")}, ["missing=['user']", "present=['who', 'item'", "user=customer"]),
        ({"events": "user,time\nu,1\n"}, ["missing=['item']", "events.csv"]),
        ({"items": ITEMS.replace(",text,", ",title,")}, ["missing=['text']", "items.csv", "item_text=title"]),
        ({"events": EVENTS.encode() + b"u1,i\xe9,9,3\n"}, ["UTF-8", "row=32", "value='0xe9'", "iconv"]),
        ({"items": ITEMS.encode() + b"j,caf\xe9,3\n"}, ["UTF-8", "row=14", "iconv"]),
        ({"items": ITEMS + "i3,Again,1\n"}, ["unique", "value='i3'", "row=14", "first_row=5", "Remove or rename"]),
        ({"items": ITEMS + ",Nameless,1\n"}, ["an item has an id", "row=14"]),
        ({"items": ITEMS + "j,Odd,NaN\n"}, ["finite", "row=14", "column='feature_0'", "value='NaN'"]),
        ({"items": ITEMS + "j,Odd,\n"}, ["finite", "row=14", "column='feature_0'"]),
        ({"items": ITEMS + "j,Odd,inf\n"}, ["finite", "row=14", "value='inf'"]),
        ({"items": "id,text\ni0,Alone\n", "events": "user,item\nu,i0\nv,i0\n"}, ["validation item", "clients=2"]),
        ({"events": ""}, ["not empty", "events.csv"]),
        ({"events": "user,item\n"}, ["no event", "rows=0"]),
        ({"events": "user,item\nu,zzz\n"}, ["no event", "not in the catalogue: 1", "row 2"]),
        ({"events": EVENTS + "u1,i1\n"}, ["every row has the columns", "row=32", "expected=4", "values=2"]),
        ({"events": EVENTS + 'u1,"i1,3,4\n'}, ["quote", "row=32"]),
        ({"events": "user,item\n" + "".join(f"u{k},i{k}\n" for k in range(9))}, ["validation item", "three distinct"]),
        ({"user": "person"}, ["missing=['person']"]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_place(train, tmp_path, change, words):
    line = said(train(**change), 3)
    assert [word for word in words if word not in line] == [], line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (["u1,zzz,50,3", "u2,yyy,51,3"], "the item is not in the catalogue: 2"),
        (
            ["u1,i11,50,NaN", "u2,i11,50,", "u3,i11,51,9"],
            "the rating is missing, not a number, or outside its scale: 3",
        ),
        (["u1,i11,99999999999999,3"], "the time is in the future (are these milliseconds?): 1"),
        (["u1,i11,,3", "u1,i11,yesterday,3"], "the time is missing or cannot be read (Unix seconds or ISO 8601): 2"),
        ([",i11,50,3"], "the user id is empty: 1"),
        (["u1,,50,3"], "there is neither an item nor a text: 1"),
        (["solo,i1,50,3"], "clients kept with one event"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_where_everyone_looks(train, notes, rows, note):
    answer = train(events=EVENTS + "\n".join(rows) + "\n")
    assert answer.code == 0, answer.err
    assert f"note: events skipped, {note}" in answer.out or f"note: {note}" in answer.out
    assert note in notes()
    kept = len(rows) if note.startswith("clients kept") else 0
    assert f"{30 + kept} events" in answer.out


def test_people_who_only_searched_are_kept_and_not_evaluated(train, tmp_path):
    header, *rows = EVENTS.splitlines()
    text = [f"{row.rsplit(',', 1)[0]},rate,{row.rsplit(',', 1)[1]}," for row in rows]
    searches = [f"quiet{k},,{900 + k},search,,something to read" for k in range(3)]
    answer = train(events="\n".join([f"{header.removesuffix(',rating')},kind,rating,text", *text, *searches]) + "\n")
    assert answer.code == 0, answer.err
    assert "9 clients" in answer.out and "test items of 6 clients (3 have none)" in answer.out
    protocol = json.loads((tmp_path / "run" / "results.json").read_text())["protocol"]
    assert (protocol["evaluated"], protocol["not evaluated"]) == (6, 3)


def test_people_without_a_past_are_ranked_for_as_newcomers(cli, tmp_path):
    """Split by date, some come only after it: their history is empty in training and in the test."""
    late = "".join(f"late{user},i{n},{5000 + n},4\n" for user in range(3) for n in range(4))
    (tmp_path / "events.csv").write_text(EVENTS + late)
    (tmp_path / "items.csv").write_text(ITEMS)
    settings = SHORT | {"data.options.items": tmp_path / "items.csv", "split.kind": "global-time"}
    settings |= {"federation.cohort": 9, "training.steps": 2}
    data = ["--data", f"table:{tmp_path / 'events.csv'}"]
    answer = cli("simulate", *data, *flags(settings), "--out", tmp_path / "run", "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["groups"]["cold users"]["clients"] >= 3
    [told] = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    assert (told["clients"], told["refused"]) == (9, {})


# --- data sets and encoders by name: exit 2 and 3 ---


def test_half_an_archive_is_no_data_set(cli, tmp_path):
    archive = tmp_path / "films.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(
            "set/movies.csv", "movieId,title,genres\n" + "".join(f"{n},Film {n},Drama\n" for n in range(99))
        )
        packed.writestr("set/ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,1\n")
    archive.write_bytes(archive.read_bytes()[:-40])
    line = said(cli("simulate", "--data", f"movielens-25m:{archive}", "--out", tmp_path / "run"), 3)
    assert "zip" in line and str(archive) in line and "Download it again" in line


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["--data", "netflix"], 2, ["synthetic, movielens-100k", "name='netflix'"]),
        (["--data", "movielens-25m:/nowhere"], 3, ["not here", "'/nowhere'", "Check the path"]),
        (["--data", "movielens-1m"], 3, ["not here", "fedrec data get movielens-1m"]),
        (["--data", "synthetic:/nowhere"], 2, ["made, not read", "Leave out the path"]),
        (["--data", "table:/nowhere"], 2, ["file of items", "items=PATH"]),
        (["--set", "data.options.colour=red"], 2, ["users, items, seed", "['colour']"]),
        (["--set", "data.options.users=some"], 2, ["whole number", "'some'"]),
        (["--set", "data.options.users=0"], 2, ["at least one person", "users=0"]),
        (["--set", "data.options.items=5"], 2, ["sub-topics", "items=5"]),
        (["--set", "clients=99"], 3, ["clients=99", "people=40"]),
        (["--set", "model.encoder=bert"], 3, ["no encoder has this name", "'bert'", "minilm, tiny, hash"]),
        (["--set", "model.encoder=folder:/nowhere"], 3, ["folder='/nowhere'", "config.json"]),
    ],
)
def test_names_that_mean_nothing_are_refused_with_those_that_do(cli, tiny, tmp_path, words, code, parts):
    short = tiny() if words[0] == "--set" else []
    line = said(cli("simulate", *short, *words, "--out", tmp_path / "run"), code)
    assert [part for part in parts if part not in line] == [], line
    assert not (tmp_path / "run").exists()


def test_an_encoder_other_than_the_one_promised_is_refused(cli, tiny, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    pinned = f"folder:{folder}@{'0' * 64}"
    line = said(cli("simulate", *tiny(model__encoder=pinned), "--out", tmp_path / "run"), 3)
    assert f"promised='{'0' * 64}'" in line and "found='9c1c" not in line and "Restore the weights" in line


# --- plans: exit 2 ---


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        ("[colour]\nx = 1\n", ["colour: no setting has this name", "federation, warm, privacy"]),
        ("[model]\nwidth = 1\n", ["model.width: no setting has this name", "got value=1", "rank, blocks, dim"]),
        ("federation = 3\n", ["federation: this is a section", "rounds, cohort"]),
        ("[federation]\nrounds = 0\n", ["plan: a run has a round", "federation.rounds or warm.enabled"]),
        ("[federation]\nrounds = 'many'\n", ["federation.rounds", "integer", "'many'"]),
        ("[model]\nadapter = 'big'\n", ["model.adapter", "'none', 'bottleneck' or 'lora'", "'big'"]),
        ("[model]\ndecays = [2.0]\n", ["model: decays are numbers in [0, 1]", "2.0"]),
        ("[federation]\nlearning_rate = nan\n", ["federation.learning_rate", "finite", "nan"]),
        ("[model\n", ["not valid TOML", "line 1", "Repair"]),
        (b"name = '\xe9'\n", ["byte 8 is not UTF-8", "plan.toml", "Save it as UTF-8"]),
        (None, ["No such file", "plan.toml", "Check the path"]),
    ],
)
def test_a_plan_that_says_nothing_sensible_is_refused(cli, tmp_path, plan, parts):
    if plan is not None:
        (tmp_path / "plan.toml").write_bytes(plan if isinstance(plan, bytes) else plan.encode())
    line = said(cli("simulate", "--config", tmp_path / "plan.toml", "--out", tmp_path / "run"), 2)
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--set", "federation.rounds"], ["SECTION.NAME=VALUE", "'federation.rounds'", "Try"]),
        (["--set", "=3"], ["SECTION.NAME=VALUE", "'=3'"]),
        (["--set", "federation=3"], ["federation: this is a section"]),
        (["--set", "seed.x=3"], ["seed", "integer"]),
        (["--seed", "-1"], ["seed", "greater than or equal to 0", "-1"]),
        (["--resume", "somewhere", "--seed", "3"], ["--resume", "Give --resume alone"]),
    ],
)
def test_flags_that_contradict_are_refused(cli, words, parts):
    line = said(cli("simulate", *words), 2)
    assert [part for part in parts if part not in line] == [], line


def test_settings_are_judged_together_in_whatever_order(cli, tiny, tmp_path):
    settings = ["--set", "federation.rounds=0", "--set", "warm.enabled=true"]
    assert cli("simulate", *tiny(), *settings, "--out", tmp_path / "run").code == 0
    line = said(cli("simulate", "--set", "federation.rounds=0"), 2)
    assert "a run has a round" in line and "synthetic" not in line  # the rule, and not the whole plan


def test_a_flag_that_does_not_exist_is_no_traceback(shell):
    answer = shell("simulate", "--rounds", 3)
    assert answer.code == 2
    assert "No such option" in answer.err and "Traceback" not in answer.err


# --- privacy: exit 2 where settings do not fit each other, exit 4 where a claim cannot be honoured ---


@pytest.mark.parametrize(
    ("settings", "code", "parts"),
    [
        ({"privacy.epsilon": 0}, 4, ["P01", "positive", "epsilon=0", "non-private"]),
        ({"privacy.epsilon": -1}, 4, ["P01", "positive", "epsilon=-1"]),
        ({"privacy.epsilon": "NaN"}, 4, ["P01", "finite", "epsilon=nan"]),
        ({"privacy.epsilon": 20.5}, 4, ["P01", "epsilon=20.5", "20 or less", "privacy.allow_large_epsilon"]),
        ({"privacy.delta": 0.025}, 4, ["P01", "1/N", "delta=0.025", "population=40", "leave delta out"]),
        ({"federation.cohort": 41}, 2, ["at most the population", "cohort=41", "clients=40", "federation.cohort"]),
        ({"privacy.epsilon": 0.1}, 2, ["10 clip norms", "dim=", "force"]),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_before_a_folder_is_made(cli, tiny, tmp_path, settings, code, parts):
    asked = flags({"privacy.mode": "user-central", **settings})
    line = said(cli("simulate", *tiny(), *asked, "--out", tmp_path / "run"), code)
    assert [part for part in parts if part not in line] == [], line
    assert not (tmp_path / "run").exists()


# --- folders: exit 5 ---


@pytest.fixture
def run_folder(cli, tiny, tmp_path):
    assert cli("init", tmp_path / "run", "--mode", "none", *tiny()).code == 0
    return tmp_path / "run"


def test_a_run_is_never_overwritten(cli, tiny, run_folder):
    before = {file: file.read_bytes() for file in run_folder.rglob("*") if file.is_file()}
    for command in (["simulate", "--out", run_folder], ["init", run_folder]):
        line = said(cli(*command, *tiny()), 5)
        assert str(run_folder) in line and "--resume" in line
    assert {file: file.read_bytes() for file in run_folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("words", [("simulate", "--resume"), ("runs", "compare")])
def test_a_folder_without_a_run_is_refused(cli, tmp_path, words):
    line = said(cli(*words, tmp_path), 5)
    assert str(tmp_path) in line and "plan.toml" in line and "fedrec runs" in line


def test_no_runs_are_no_error(cli, tmp_path):
    answer = cli("runs", "list", "--in", tmp_path / "none")
    assert (answer.code, answer.err) == (0, "") and "no runs in" in answer.out


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_run_needs_a_place_where_a_folder_can_be(cli, tiny, tmp_path, place):
    (tmp_path / "file").write_text("not a folder")
    line = said(cli("simulate", *tiny(), "--out", tmp_path / place), 5)
    assert str(tmp_path / place) in line and "Choose another folder" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_needs_the_right_to_write(cli, tiny, tmp_path, run_folder):
    (tmp_path / "shut").mkdir(mode=0o500)
    line = said(cli("simulate", *tiny(), "--out", tmp_path / "shut" / "run"), 5)
    assert "Permission denied" in line and "Choose another folder" in line
    for path in (run_folder, *run_folder.iterdir()):
        path.chmod(0o500 if path.is_dir() else 0o400)
    line = said(cli("simulate", "--resume", run_folder), 5)
    assert "Permission denied" in line


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(cli, run_folder, monkeypatch):
    whole, left = os.replace, [2]

    def full(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        whole(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(fedrec.files.os, "replace", full)
        answer = cli("simulate", "--resume", run_folder)
    line = answer.err.strip().splitlines()[-1]
    assert answer.code == 5 and "Traceback" not in answer.err
    assert re.search(r"No space left on device.*--resume", line), line
    assert cli("simulate", "--resume", run_folder).code == 0


def test_files_of_a_run_that_were_tampered_with_are_named(cli, run_folder):
    (run_folder / "run.json").write_text("{")
    line = said(cli("simulate", "--resume", run_folder), 5)
    assert "run.json" in line
    plan = run_folder / "plan.toml"
    plan.write_text(plan.read_text().replace("rounds = 3", "rounds = none"))
    assert "not valid TOML" in said(cli("simulate", "--resume", run_folder), 2)
