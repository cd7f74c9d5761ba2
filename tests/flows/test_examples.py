"""The example apps: who may come in, what odd input does, and how their users start them."""

import html
import re
import signal
import subprocess
import sys
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from shelf import build, task
from visitors import EXAMPLES, HERE, NASTY, ROOT, SECRET, Visitor, entered, forms, kept, opened

from client.examples.reader.app import FORMS
from fedrec import Catalogue
from fedrec.task import Task

# Who may come in.


def test_only_who_has_the_printed_address_is_let_in(room):
    stranger = Visitor(room)
    for path in ("/", "/privacy", "/item?id=b0001", "/style.css", "/enter/", "/enter/guess", "/nowhere"):
        answer = stranger.go(path)
        assert answer.status_code == 401 and len(answer.text) < 100
    assert stranger.send("POST", "/read", data={"item": "b0001", "token": room.keys.form}).status_code == 401
    told = stranger.send("GET", f"/enter/{room.keys.door}")
    assert told.status_code == 303 and told.headers["location"] == "/"
    assert re.fullmatch("reader-8765=[^;]+; HttpOnly; Path=/; SameSite=strict", told.headers["set-cookie"])
    assert stranger.go("/").status_code == 200
    assert kept(room) == 0


@pytest.mark.parametrize("base", ["http://evil.example:8765", "http://127.0.0.1.evil.example", "http://[::2]:8765"])
def test_a_name_that_is_not_ours_is_refused(room, visitor, base):
    visitor.base = base
    answer = visitor.send("GET", "/", headers={"cookie": f"reader-8765={room.keys.session}"})
    assert answer.status_code == 421 and "book" not in answer.text


@pytest.mark.parametrize("spoilt", [
    {"token": ""}, {"token": "x" * 32}, {"origin": "http://evil.example"}, {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"}, {"body": "item=b0001&token=" + "x" * 70_000},
], ids=["no token", "wrong token", "other site", "no site", "other port", "too long"])  # fmt: skip
def test_a_change_comes_from_the_apps_own_pages(room, visitor, spoilt):
    fields = {"item": "b0001", "token": spoilt.get("token", room.keys.form)}
    headers = {"origin": spoilt.get("origin", HERE), "content-type": "application/x-www-form-urlencoded"}
    body = spoilt.get("body", urlencode(fields))
    answer = visitor.send("POST", "/read", content=body, headers=headers)
    assert answer.status_code == (413 if "body" in spoilt else 403)
    assert kept(room) == 0
    fields["token"] = room.keys.form
    sound = visitor.send("POST", "/read", content=urlencode(fields), headers=headers | {"origin": HERE})
    assert sound.status_code == 303 and kept(room) == 1


@pytest.mark.parametrize("path", FORMS)
def test_a_form_of_somebody_else_is_refused(room, visitor, path):
    """In either way in which a browser sends one."""
    sound, elsewhere = {"token": room.keys.form}, {"origin": "http://127.0.0.1:9999"}
    for files in (None, {"copy": b"PK"}):
        for fields, headers in (({}, {}), ({"token": "guess"}, {}), (sound, elsewhere), (sound, {"origin": "null"})):
            assert visitor.send("POST", path, data=fields, files=files, headers=headers).status_code == 403
    assert visitor.send("POST", path, data=sound, files={"copy": bytes(1 << 17)}).status_code != 403
    assert kept(room) == 0


@pytest.mark.parametrize("path", FORMS)
def test_a_link_changes_nothing(room, visitor, path):
    assert visitor.send("GET", f"{path}?item=b0001&token={room.keys.form}").status_code in (404, 405)


def test_every_answer_may_only_be_shown(visitor):
    for path in ("/", "/item?id=b0001", "/privacy", "/style.css", "/icon.svg", "/nowhere"):
        headers = visitor.send("GET", path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
        assert "script-src" not in policy and "unsafe" not in policy
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", "/\\evil.example/", "evil"])
def test_nobody_is_sent_elsewhere(room, visitor, back):
    fields = {"item": "b0001", "token": room.keys.form, "back": back}
    assert re.fullmatch(r"/\?note=\S+", visitor.send("POST", "/read", data=fields).headers["location"])


# Whatever comes.


def test_words_of_people_are_only_words(visitor):
    visitor.go("/")
    visitor.submit("/search", query=NASTY)
    assert NASTY.strip() in html.unescape(visitor.page) and "<script" not in visitor.page and "49" not in visitor.page
    visitor.go("/")
    visitor.submit("/tell", sentence=f"I like {NASTY}")
    assert "<script" not in visitor.page


def test_any_id_and_any_text_of_a_catalogue_will_do(tmp_path):
    ids = ["a/b?c#d", "%2e%2e", NASTY, "..", "x" * 300, "7&8", "//evil.example", "b;c=d"]
    texts = [NASTY, "", "No author. But a blurb", "Title, by Author", "(((", "T [topics: ]", "\u0301", "…"]
    build(tmp_path / "pack", of=Task(task().plan, Catalogue(ids, texts, tags=[(NASTY,)] * 4 + [()] * 4)))
    with opened(tmp_path / "pack", tmp_path / "me") as room:
        visitor = entered(room)
        visitor.go("/")
        links = {html.unescape(link) for link in re.findall(r'href="(/item\?[^"#]+)"', visitor.page)}
        assert len(links) == len(ids)
        for link in links:
            assert visitor.go(link).status_code == 200 and "<script" not in visitor.page
            assert visitor.submit("/read").status_code == 200 and "You are reading" in visitor.page
        assert "nothing to recommend" in visitor.go("/").text


def test_a_form_that_lacks_something_is_no_crash(room, visitor):
    for path in FORMS.keys() - {"/export"}:
        answer = visitor._at(visitor.send("POST", path, data={"token": room.keys.form}))
        assert answer.status_code in (200, 404) and "Reader</title>" in answer.text
    assert kept(room) == 0


def test_a_page_that_is_gone_says_where_to_go(visitor):
    for path in ("/item?id=nothing", "/search/nothing", "/nowhere"):
        answer = visitor.go(path)
        assert answer.status_code == 404 and "To the books" in answer.text and "Traceback" not in answer.text
    for odd in ("99999999999999999999", str(2**63), "-1", "²"):
        visitor.go(f"/item?id=b0001&page={odd}")
        assert "Why this book?" in visitor.page
        visitor._at(visitor.send("POST", "/undo", data={"token": visitor.room.keys.form, "changes": odd}))
        assert "nothing to undo" in visitor.page
    visitor.go(f"/item?id=b0001&page={2**63 - 1}")
    assert "Why this book?" in visitor.page
    visitor.submit("/read", page="123456")
    assert "You are reading" in visitor.page


# As its users start it.


def test_the_app_starts_says_where_it_is_and_never_what_was_done(reader_pack, tmp_path):
    command = [
        sys.executable,
        "-m",
        "client.examples.reader",
        "--pack",
        reader_pack,
        "--folder",
        tmp_path / "me",
        "--port",
        "0",
    ]
    running = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        address = running.stdout.readline().split()[-1]
        with httpx.Client(follow_redirects=True) as browser:
            page = browser.get(address).text
            (token,) = {fields["token"] for _, fields, _ in forms(page)}
            place = urlsplit(address)
            told = browser.post(f"{place.scheme}://{place.netloc}/search", data={"token": token, "query": SECRET})
            assert SECRET in told.text
    finally:
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[0]
    assert place.hostname == "127.0.0.1" and running.returncode == 0
    assert SECRET not in said and "Traceback" not in said and "search" not in said


def test_the_readme_names_what_there_is():
    told = (EXAMPLES / "README.md").read_text()
    for name in re.findall(r"`([\w.]+\.py|[\w]+/)`", told):
        assert (EXAMPLES / name).exists() or (EXAMPLES / "reader" / name).exists(), name
    helped = subprocess.run([sys.executable, "-m", "client.examples.reader", "--help"], cwd=ROOT, text=True,
                            capture_output=True, timeout=120).stdout  # fmt: skip
    assert {*re.findall(r"--[a-z]+", helped)} - {"--help"} == {*re.findall("--(?:pack|open|folder|port)", told)}


def test_the_app_without_a_pack_says_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "client.examples.reader", "--pack", tmp_path / "none", "--folder", tmp_path / "me"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120)
    assert done.returncode == 3 and "a pack's files are there" in done.stderr and "Traceback" not in done.stderr


def test_the_apps_load_nothing_that_trains():
    heavy = ("torch", "flwr", "pandas", "pyarrow", "opacus", "transformers", "scipy", "matplotlib")
    asked = f"import sys, client.examples.reader.__main__; print([name for name in {heavy} if name in sys.modules])"
    for before, loaded in (("", "[]"), ("import pyarrow; ", "['pyarrow']")):
        command = [sys.executable, "-c", before + asked]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120)
        assert done.stdout.strip() == loaded, done.stderr


def test_thirty_lines_are_all_it_takes(reader_pack, tmp_path):
    script = EXAMPLES / "thirty_lines.py"
    assert len(script.read_text().splitlines()) <= 30
    command = [sys.executable, "-W", "error", script, reader_pack, tmp_path / "me"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    for said in ("To begin with:", "Understood 2 wishes.", "Because", "taken back: True", "Sent so far: 0 bytes",
                 "learning: False", "Forgot 4 things."):  # fmt: skip
        assert said in done.stdout
    assert (tmp_path / "me" / "me.zip").stat().st_size > 100
