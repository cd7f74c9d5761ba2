"""Packs on real sockets, real disks and dying processes."""

import json
import os
import resource
import shutil
import signal
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from shelf import KEY, contents, encoder, fetch_of, published

from fedrec.device.packs import STATE, Packs
from fedrec.errors import FedrecError, RunError, WireError
from fedrec.model.pack_files import verify_pack
from fedrec.model.pack_format import FILES
from fedrec.model.publish import latest, publish, published_file
from fedrec.spec import Plan

PUBLIC = KEY.public_key()
NOBODY = 65534


pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture
def site(tmp_path):
    packs = tmp_path / "site" / "packs"
    published(packs, [0, 1])
    return packs


@pytest.fixture
def folder(tmp_path, site):
    """A device's packs: version 1 is current, version 2 is out."""
    place = tmp_path / "device"
    take(place, site, 1)
    return place


def take(folder, site, number):
    fetch = fetch_of(site)
    Packs(folder, PUBLIC).offer(lambda name: iter([b"%d" % number]) if name == "latest" else fetch(name))


def version(folder):
    return Packs(folder, PUBLIC).current().info.version


def in_child(work):
    """How a forked process ended that did `work`: 0, or minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("size", [300, 1 << 20])
def test_killed_between_any_two_pieces_a_download_goes_on(site, folder, size):
    """Version 1 stays until version 2 is whole, no file is fetched twice that was complete, and the end is the same."""
    pieces = sum(-(-(site / "2" / name).stat().st_size // size) for name in FILES)
    for last in (*range(0, pieces, max(1, pieces // 12)), pieces):
        arrived = []

        def until(name, last=last, arrived=arrived):
            for piece in fetch_of(site, size)(name):
                if name.partition("/")[2] in FILES:
                    if len(arrived) == last:
                        die()
                    arrived.append(name)
                yield piece

        ended = in_child(lambda: Packs(folder, PUBLIC).offer(until))
        assert ended == (0 if last == pieces else -signal.SIGKILL)
        assert version(folder) == (2 if last == pieces else 1)
        if last < pieces:
            there = {path.name for path in (folder / ".incoming").iterdir()} & set(FILES)
            asked = []
            Packs(folder, PUBLIC).offer(fetch_of(site, asked=asked))
            assert version(folder) == 2
            assert {f"2/{name}" for name in set(FILES) - there} == {name for name in asked if name[2:] in FILES}
            assert contents(folder / "2") == contents(site / "2")
            _back_to_one(site, folder)


def _back_to_one(site, folder):
    fetch = fetch_of(site)
    Packs(folder, PUBLIC).offer(lambda name: iter([b"1"]) if name == "latest" else fetch(name), older=True)
    (folder / STATE).write_text(
        json.dumps({"kept": json.loads((folder / STATE).read_text())["kept"][:1], "refused": []})
    )
    for path in (folder / "2").iterdir():
        path.unlink()
    (folder / "2").rmdir()
    assert version(folder) == 1


def _steps(monkeypatch, last):
    """Die at disk operation number `last` of all that change what is on disk."""
    count = 0

    def counted(function):
        def step(*arguments, **settings):
            nonlocal count
            if count == last:
                die()
            count += 1
            return function(*arguments, **settings)

        return step

    for owner, name in (
        (os, "fsync"),
        (os, "replace"),
        (Path, "rename"),
        (Path, "mkdir"),
        (os, "rmdir"),
        (os, "unlink"),
    ):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


def test_killed_at_any_step_on_disk_a_device_has_a_whole_pack(site, folder, monkeypatch):
    ended, step = -signal.SIGKILL, 0
    while ended:
        _back_to_one(site, folder) if step and version(folder) == 2 else None

        def work(step=step):
            with monkeypatch.context() as patch:
                _steps(patch, step)
                Packs(folder, PUBLIC).offer(fetch_of(site))

        ended = in_child(work)
        assert ended in (0, -signal.SIGKILL)
        assert version(folder) in (1, 2)
        assert Packs(folder, PUBLIC).offer(fetch_of(site)) is None or version(folder) == 2
        assert version(folder) == 2 and contents(folder / "2") == contents(site / "2")
        step += 1
    assert step > 20


def test_killed_at_any_step_on_disk_a_pack_never_goes_without_its_encoder(tmp_path, monkeypatch):
    packs, exported = tmp_path / "site" / "packs", encoder(tmp_path / "exported")
    published(packs, [0])
    published(packs, [1], encoder=exported)
    ended, step = -signal.SIGKILL, 0
    while ended:
        folder = tmp_path / f"device-{step}"
        take(folder, packs, 1)

        def work(step=step, folder=folder):
            with monkeypatch.context() as patch:
                _steps(patch, step)
                Packs(folder, PUBLIC).offer(fetch_of(packs))

        ended = in_child(work)
        assert ended in (0, -signal.SIGKILL)
        device = Packs(folder, PUBLIC)
        pack = device.current()
        assert pack.info.version == 1 or device.encoder(pack)
        device.offer(fetch_of(packs))
        assert version(folder) == 2 and contents(device.encoder(device.current())) == contents(exported)
        step += 1
    assert step > 25


def test_a_killed_publisher_shows_devices_whole_packs_only(site, tmp_path, monkeypatch):
    ended, step = -signal.SIGKILL, 0
    while ended:

        def work(step=step):
            with monkeypatch.context() as patch:
                _steps(patch, step)
                published(site, [1])

        ended = in_child(work)
        assert ended in (0, -signal.SIGKILL)
        device = Packs(tmp_path / "fresh", PUBLIC)
        device.offer(fetch_of(site))
        assert device.current().info.version == latest(site)
        step += 3
    assert step > 10 and latest(site) > 2


def test_what_a_run_leaves_can_be_published_and_taken(cli, tiny, tmp_path):
    assert cli("simulate", *tiny(), "--out", tmp_path / "run").code == 0
    made, rounds = tmp_path / "run" / "pack", Plan.read(tmp_path / "run" / "plan.toml").rounds
    local = verify_pack(made, None)
    assert (local.round, local.version, local.signer) == (rounds, 0, "")
    publish(tmp_path / "packs", lambda folder: shutil.copytree(made, folder, dirs_exist_ok=True), KEY)
    device = Packs(tmp_path / "device", PUBLIC)
    taken = device.offer(fetch_of(tmp_path / "packs"))
    assert (taken.round, taken.version, taken.task) == (rounds, 1, local.task)
    assert len(device.current().catalogue) == 64


@contextmanager
def server(site, send):
    """A site on a real socket; `send(handler, content)` writes the body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = published_file(site, self.path.removeprefix("/"))
            if path is None:
                self.send_error(404)
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            send(self, content)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as held:
        thread = threading.Thread(target=held.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield lambda name: _get(f"http://127.0.0.1:{held.server_address[1]}/{name}")
        finally:
            held.shutdown()
            thread.join()


def _get(url, size=997):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            while piece := answer.read1(size):
                yield piece
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _whole(handler, content):
    handler.wfile.write(content)


def _slowly(handler, content):
    handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in content[:2000]:
        handler.connection.sendall(bytes([byte]))
    handler.connection.sendall(content[2000:])


def test_over_http(site, folder):
    with server(site, _whole) as fetch:
        assert Packs(folder, PUBLIC).offer(fetch).version == version(folder) == 2


def test_one_byte_at_a_time(site, folder):
    with server(site, _slowly) as fetch:
        assert Packs(folder, PUBLIC).offer(fetch).version == version(folder) == 2


@pytest.mark.parametrize("kind", ["reset", "closed"])
def test_connections_that_break_off_cost_time_and_nothing_else(site, folder, kind):
    """Every body is cut once at a third; each offer gets at least one file further."""
    cut, tries = set(), 0

    def breaks(handler, content):
        if handler.path in cut:
            handler.wfile.write(content)
            return
        cut.add(handler.path)
        handler.wfile.write(content[: len(content) // 3])
        handler.wfile.flush()
        if kind == "reset":  # closing with data unsent and no lingering sends RST
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        handler.connection.close()
        handler.close_connection = True

    with server(site, breaks) as fetch:
        while version(folder) == 1 and tries < 20:
            tries += 1
            try:
                Packs(folder, PUBLIC).offer(fetch)
            except FedrecError as error:
                assert "arrives whole" in str(error) or "signed" in str(error) or "can be read" in str(error)
    assert 1 < tries <= 10
    assert contents(folder / "2") == contents(site / "2")


def test_a_file_the_site_has_not(site, folder):
    with server(site, _whole) as fetch:
        (site / "latest").write_text("9")
        with pytest.raises(WireError, match=r"arrives whole.*9/pack.json.*HTTPError"):
            Packs(folder, PUBLIC).offer(fetch)
    assert version(folder) == 1


def test_a_full_disk_keeps_the_pack_that_is_there(site, folder):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # the tensors do not fit
        try:
            Packs(folder, PUBLIC).offer(fetch_of(site))
        except RunError as error:
            assert "can be written" in str(error) and "Make room" in str(error)
            die()

    assert in_child(full) == -signal.SIGKILL
    assert version(folder) == 1
    assert Packs(folder, PUBLIC).offer(fetch_of(site)).version == version(folder) == 2


def test_a_folder_that_is_read_only_is_read(site, folder):
    """Without the right to write a damaged pack is passed over all the same, and taking a new one is refused."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        packs = Path(place) / "packs"
        take(packs, site, 1)
        take(packs, site, 2)
        (packs / "2" / "README.md").write_text("damaged")
        for path in (packs, packs / "1", packs / "2"):
            path.chmod(0o555)

        def reads():
            if os.geteuid() == 0:
                os.setegid(NOBODY)
                os.seteuid(NOBODY)
            assert not os.access(packs, os.W_OK, effective_ids=True)
            assert version(packs) == 1
            try:
                Packs(packs, PUBLIC).offer(lambda name: iter(()))
            except RunError as error:
                assert "can be written" in str(error)
                die()

        try:
            assert in_child(reads) == -signal.SIGKILL
        finally:
            for path in (packs, packs / "1", packs / "2"):
                path.chmod(0o755)
