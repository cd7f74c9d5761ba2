"""`fedrec data` as a person meets it."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from fedrec.cli.data import data
from fedrec.datasets import NAMES, download
from fedrec.errors import DataError, SpecError


def run(*args):
    return CliRunner().invoke(data, [str(arg) for arg in args])


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "movies.csv").write_text("movieId,title,genres\n1,One,Drama\n2,Two,War\n")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,4,10\n7,9,4,11\n7,2,4,12\n8,2,x,13\n")
    return folder


def test_list_names_every_set(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path))
    result = run("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in NAMES)
    (tmp_path / "data" / "mind").mkdir(parents=True)
    (tmp_path / "data" / "mind" / "news.tsv").touch()
    rows = {row["name"]: row for row in json.loads(run("list", "--format", "json").output)}
    assert rows["mind"]["here"] and not rows["movielens-1m"]["here"]


def test_check_says_what_is_there_and_what_is_wrong(films):
    before = {file.name: file.read_bytes() for file in films.iterdir()}
    result = run("check", films)
    assert result.exit_code == 0
    for line in (
        "format: movielens-25m",
        "items: 2",
        "users: 1",
        "events: 2",
        "kinds: rate 2",
        "ratings.csv row 3, movieId: '9'",
        "ratings.csv row 5, rating: 'x'",
    ):
        assert line in result.output
    assert {file.name: file.read_bytes() for file in films.iterdir()} == before


def test_check_for_programs_accounts_for_every_row(films):
    report = json.loads(run("check", films, "--format", "json").output)
    skipped = [note for note in report["notes"] if note["reason"].startswith("events skipped")]
    assert report["events"] + sum(note["rows"] for note in skipped) == 4
    assert skipped[0]["examples"] == [{"file": "ratings.csv", "row": 3, "column": "movieId", "value": "9"}]


def test_more_than_the_examples_are_counted(films):
    with (films / "ratings.csv").open("a") as file:
        file.write("7,99,4,10\n" * 9)
    result = run("check", films)
    assert "10 × events skipped, the item is not in the catalogue" in result.output
    assert "… and 5 more" in result.output


def test_check_a_catalogue_and_a_table(tmp_path):
    (tmp_path / "items.csv").write_text("id,text,feature_0\na,One,0.5\nb,Two,1\n")
    (tmp_path / "log.csv").write_text("user,item,note\n1,a,x\n1,b,y\n")
    items = run("check", tmp_path / "items.csv")
    assert "format: catalogue\nitems: 2" in items.output
    assert "feature columns: 1" in items.output
    found = run("check", tmp_path / "log.csv", "-o", f"items={tmp_path / 'items.csv'}", "-o", "text=note")
    assert "share of events with text: 1.0" in found.output
    assert isinstance(run("check", tmp_path / "log.csv").exception, SpecError)
    assert isinstance(run("check", tmp_path / "log.csv", "-o", "items").exception, SpecError)
    as_items = run("check", tmp_path / "log.csv", "--as", "catalogue").exception
    assert isinstance(as_items, DataError)
    assert "missing=['id', 'text']" in str(as_items)


def test_a_file_that_cannot_be_loaded_is_an_error_with_exit_code_3(films):
    (films / "movies.csv").write_text("movieId,title,genres\n1,One,Drama\n1,Two,War\n")
    error = run("check", films).exception
    assert isinstance(error, DataError)
    assert error.exit_code == 3
    assert error.got | {"file": "movies.csv", "row": 3, "value": "1", "first_row": 2} == error.got


def test_get_prints_size_and_sum(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path / "home"))
    (tmp_path / "set.zip").write_bytes(b"films")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/set.zip"
        release = download.Release(url=url, file="set.zip", size=5, md5=hashlib.md5(b"films").hexdigest())
        monkeypatch.setitem(download.RELEASES, "movielens-1m", release)
        result, again = run("get", "movielens-1m"), run("get", "movielens-1m")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert "downloaded: " in result.output and "size: 5 bytes" in result.output
    assert f"sha256: {hashlib.sha256(b'films').hexdigest()}" in result.output
    assert "already here, intact: " in again.output
    assert (tmp_path / "home" / "data" / "movielens-1m" / "set.zip").read_bytes() == b"films"


def test_get_says_what_must_be_got_by_hand():
    error = run("get", "mind").exception
    assert isinstance(error, SpecError)
    assert "licence" in str(error)


def test_every_command_has_help():
    for command in ("list", "get", "check"):
        assert run(command, "--help").exit_code == 0
