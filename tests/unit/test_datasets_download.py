"""Downloads against a server on this machine: whole, resumed, refused."""

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedrec.datasets import download
from fedrec.datasets.download import Release, fetch, get, here
from fedrec.errors import DataError, SpecError

BODY = bytes(range(256)) * 700
RELEASE = Release(url="", file="set.zip", size=len(BODY), md5=hashlib.md5(BODY).hexdigest())


@contextmanager
def served(*, body=BODY, ranges=True, status=200, promise=None, cut=None):
    """A server of `body`, and the list of Range headers that it was sent. It may promise more than it sends."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Range"))
            start = int(asked[-1].removeprefix("bytes=").removesuffix("-")) if asked[-1] and ranges else 0
            if start >= len(body) and start:
                return self.answer(416, b"")
            if status != 200:
                return self.answer(status, b"")
            return self.answer(206 if start else 200, body[start:])

        def answer(self, code, content):
            self.send_response(code)
            self.send_header("Content-Length", str(promise or len(content)))
            self.end_headers()
            self.wfile.write(content[:cut])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/set.zip", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_download_is_checked_recorded_and_not_repeated(tmp_path):
    with served() as (url, asked):
        first = fetch(replace(RELEASE, url=url), tmp_path / "new")
        again = fetch(replace(RELEASE, url=url), tmp_path / "new")
    assert first.path.read_bytes() == BODY
    assert (first.size, first.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    assert (first.fresh, again.fresh, len(asked)) == (True, False, 1)
    assert (tmp_path / "new" / "set.zip.sha256").read_text() == f"{first.sha256}  set.zip\n"
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["set.zip", "set.zip.sha256"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_resumed_where_the_server_can(tmp_path, ranges):
    with served(cut=1000) as (url, _), pytest.raises(DataError, match="download (broke off|ended early)"):
        fetch(replace(RELEASE, url=url), tmp_path)
    assert (tmp_path / "set.zip.part").stat().st_size == 1000
    assert not (tmp_path / "set.zip").exists()
    with served(ranges=ranges) as (url, asked):
        fetch(replace(RELEASE, url=url), tmp_path)
    assert asked == ["bytes=1000-"]
    assert (tmp_path / "set.zip").read_bytes() == BODY


def test_a_part_that_is_already_whole(tmp_path):
    (tmp_path / "set.zip.part").write_bytes(BODY)
    with served() as (url, _):
        assert fetch(replace(RELEASE, url=url), tmp_path).path.read_bytes() == BODY


def test_a_part_of_another_file_is_not_completed_into_nonsense(tmp_path):
    (tmp_path / "set.zip.part").write_bytes(b"x" * 1000)
    with served() as (url, _):
        with pytest.raises(DataError, match="the file that was published.*Nothing was kept"):
            fetch(replace(RELEASE, url=url), tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert fetch(replace(RELEASE, url=url), tmp_path).path.read_bytes() == BODY


def test_without_a_published_sum_a_part_is_not_trusted(tmp_path):
    (tmp_path / "set.zip.part").write_bytes(b"x" * 1000)
    with served() as (url, asked):
        assert fetch(replace(RELEASE, url=url, md5=None), tmp_path).path.read_bytes() == BODY
    assert asked == [None]


def test_without_a_published_sum_the_first_download_is_the_reference(tmp_path):
    unsigned = replace(RELEASE, md5=None, size=None)
    with served() as (url, _):
        fetch(replace(unsigned, url=url), tmp_path)
    (tmp_path / "set.zip").unlink()
    with served(body=BODY[::-1]) as (url, _), pytest.raises(DataError, match="bytes it had when first downloaded"):
        fetch(replace(unsigned, url=url), tmp_path)


@pytest.mark.parametrize("body", [BODY[:-1] + b"!", BODY[:-1], BODY + b"!"])
def test_other_bytes_are_refused(tmp_path, body):
    with served(body=body) as (url, _), pytest.raises(DataError, match="the file that was published"):
        fetch(replace(RELEASE, url=url), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("md5", [RELEASE.md5, None])
def test_a_file_that_rotted_on_disk(tmp_path, md5):
    with served() as (url, _):
        release = replace(RELEASE, url=url, md5=md5)
        fetch(release, tmp_path)
        (tmp_path / "set.zip").write_bytes(BODY[:-1] + b"!")
        with pytest.raises(DataError, match="not the one published"):
            fetch(release, tmp_path)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_the_server_says_no(tmp_path, status):
    with served(status=status) as (url, _), pytest.raises(DataError, match=f"status={status}.*--url"):
        fetch(replace(RELEASE, url=url), tmp_path)


def test_no_network(tmp_path):
    with served() as (url, _):
        pass  # the port is free again
    with pytest.raises(DataError, match="broke off.*refused.*Check the network"):
        fetch(replace(RELEASE, url=url), tmp_path)


def test_only_http(tmp_path):
    (tmp_path / "local").write_bytes(BODY)
    with pytest.raises(SpecError, match=r"http\(s\)"):
        fetch(replace(RELEASE, url=f"file://{tmp_path}/local"), tmp_path)


def test_get_from_a_mirror_into_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path))
    monkeypatch.setitem(download.RELEASES, "movielens-100k", replace(RELEASE, url="http://invalid.invalid/"))
    assert not here("movielens-100k")
    with served() as (url, _):
        path = get("movielens-100k", url=url).path
    assert path == tmp_path / "data" / "movielens-100k" / "set.zip"
    assert here("movielens-100k")


@pytest.mark.parametrize("name", ["amazon", "mind", "table", "synthetic"])
def test_what_must_be_got_by_hand_says_how(name):
    with pytest.raises(SpecError, match="no direct download"):
        get(name)


def test_an_unknown_name():
    with pytest.raises(SpecError, match="a data set is one of movielens-100k"):
        get("netflix")


def test_releases_are_official_and_checked():
    for release in download.RELEASES.values():
        assert release.url.startswith("https://files.grouplens.org/")
        assert release.url.endswith(release.file)
        assert release.size and len(release.md5) == 32
