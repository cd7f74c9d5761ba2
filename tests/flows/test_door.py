"""The door of a site, on real sockets: what passes, what does not, and who is shown out."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack

import httpx
import pytest
from sites import Toy, connect, knock, make_site, open_door, toy_superlink, wait_for
from tricks import FRAMES, SEEN, TARGETS, request, statuses

from fedrec.deploy import bell, door, listen
from fedrec.deploy.certificates import trusting


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("door") / "site", connections=40, connections_per_address=40)


@pytest.fixture(scope="module")
def toy(site):
    toy = Toy()
    with open_door(site, toy):
        yield toy


@pytest.fixture
def client(site, toy):
    toy.reached.clear()
    with httpx.Client(base_url=site.spec.url, verify=trusting(site.ca)) as client:
        yield client


def test_a_call_of_the_fleet_passes_with_its_own_headers_and_no_others(client, toy):
    headers = {"flwr-public-key": "k", "flwr-signature": "s", "flwr-task-token": "stolen", "cookie": "c",
               "content-type": "application/protobuf", "x-forwarded-for": "1.2.3.4", "flwr-superexec-ts": "1",
               }  # fmt: skip
    body = os.urandom(300_000)
    answer = client.post("/v1/fleet/pull-messages", content=body, headers=headers)
    assert answer.content == b"toy:" + body
    assert answer.headers["flwr-note"] == "kept" and not {"x-secret", "server"} & set(answer.headers)
    ((method, path, seen, got),) = toy.reached
    assert (method, path, got) == ("POST", "/v1/fleet/pull-messages", body)
    assert seen["flwr-public-key"] == "k" and seen["flwr-signature"] == "s"
    assert not {"flwr-task-token", "flwr-superexec-ts", "cookie", "x-forwarded-for"} & set(seen)


def test_what_the_superlink_says_is_handed_on(client):
    answer = client.post("/v1/fleet/activate-node", content=b"x", headers={"accept": "401"})
    assert (answer.status_code, answer.content) == (401, b"toy:x")


@pytest.mark.parametrize("line", TARGETS)
def test_nothing_else_is_there(site, client, toy, line):
    assert statuses(knock(site, request(line)))[:1] in ([400], [404], [405])
    assert toy.reached == []


@pytest.mark.parametrize("frame", FRAMES)
def test_no_second_request_hides_in_a_first(site, client, toy, frame):
    answer = knock(site, request("POST /v1/fleet/pull-messages", FRAMES[frame]))
    assert set(toy.paths) <= SEEN and len(toy.reached) <= 1
    assert all(b"start-run" not in body for _, _, _, body in toy.reached)
    assert 200 not in statuses(answer)[1:]
    plain = "a pipelined call", "an upgrade"
    assert statuses(answer)[0] == (200 if frame in plain else 400)


def test_a_body_is_as_long_as_it_says_and_not_too_long(site, client, toy):
    tail = b"POST /v1/control/start-run HTTP/1.1\r\n\r\n"
    answer = knock(site, request("POST /v1/fleet/pull-messages", b"Content-Length: %d\r\n\r\n" % len(tail) + tail))
    assert statuses(answer) == [200] and toy.reached[0][3] == tail
    long = b"Content-Length: %d\r\n\r\n" % (site.spec.request_bytes + 1)
    assert statuses(knock(site, request("POST /v1/fleet/push-object", long))) == [413]
    assert len(toy.reached) == 1


def test_a_body_that_is_cut_off_never_counts(site, client, toy):
    with connect(site) as line:
        line.sendall(request("POST /v1/fleet/push-object", b"Content-Length: 10\r\n\r\nhalf"))
    time.sleep(0.2)
    client.post("/v1/fleet/pull-messages", content=b"")
    assert toy.paths == ["/v1/fleet/pull-messages"]


def test_plain_words_and_old_tls_find_nobody(site, toy):
    with socket.create_connection(("127.0.0.1", site.spec.port), timeout=5) as line:
        line.sendall(request("POST /v1/fleet/pull-messages"))
        assert statuses(line.recv(100)) == []
    old = trusting(site.ca)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", site.spec.port), timeout=5) as line, pytest.raises(ssl.SSLError):
        old.wrap_socket(line, server_hostname="127.0.0.1")


def test_operators_have_a_listener_of_their_own(site, toy, client):
    assert httpx.get(f"http://{site.spec.operators}/healthz").text == "fine"
    assert httpx.post(f"http://{site.spec.operators}/v1/fleet/pull-messages").status_code == 404
    assert client.get("/healthz").status_code == 404


def test_the_bell_wakes_all_who_wait(site, toy, client):
    first = client.get("/fedrec/v1/bell").json()["bell"]
    waiting = [connect(site) for _ in range(5)]
    for line in waiting:
        line.sendall(request(f"GET /fedrec/v1/bell?after={first}", b"\r\n"))
    time.sleep(0.2)
    start = time.monotonic()
    bell.ring(site.bell)
    for line in waiting:
        answer = line.recv(4096)
        if b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
            answer += line.recv(4096)
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"bell": first + 1}
        line.close()
    assert time.monotonic() - start < 10


def test_one_address_cannot_take_all_places_at_the_bell(tmp_path, monkeypatch):
    monkeypatch.setattr(bell, "EACH", 3)
    site = make_site(tmp_path / "site", connections=40, connections_per_address=40)
    with open_door(site, None), ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(site)).sendall(request("GET /fedrec/v1/bell?after=0", b"\r\n"))
        with httpx.Client(base_url=site.spec.url, verify=trusting(site.ca)) as client:
            until = time.monotonic() + 10
            while client.get("/fedrec/v1/bell").status_code != 429:  # not all of them wait yet
                assert time.monotonic() < until
            crowded = client.get("/fedrec/v1/bell?after=0")
            assert (crowded.status_code, crowded.headers["retry-after"]) == (429, "10")
            assert client.get("/fedrec/v1/ca").status_code == 200
        elsewhere = httpx.HTTPTransport(verify=trusting(site.ca), local_address="127.0.0.2")
        with httpx.Client(base_url=site.spec.url, transport=elsewhere) as other:
            assert other.get("/fedrec/v1/bell").json() == {"bell": 0}


def _closes(line, within: float) -> bool:
    line.settimeout(within)
    try:
        while line.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def _begun(site) -> ssl.SSLSocket:
    """A connection that has been used once."""
    line = connect(site)
    line.sendall(request("POST /v1/fleet/pull-messages"))
    assert b"200" in line.recv(4096)
    return line


def test_whoever_is_slow_is_shown_out(tmp_path, monkeypatch):
    for module, name in ((listen, "_HEADER"), (listen, "_HANDSHAKE"), (door, "_SILENCE")):
        monkeypatch.setattr(module, name, 0.5)
    site = make_site(tmp_path / "site")
    said = {
        "silence": b"",
        "half a header": b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n",
        "half a body": request("POST /v1/fleet/pull-messages", b"Content-Length: 10\r\n\r\nhalf"),
        "half a second header": b"P",
        "half a header that came early": request("POST /v1/fleet/pull-messages") + b"P",
    }
    with open_door(site, Toy()), ExitStack() as stack:
        lines = {
            name: stack.enter_context(_begun(site) if name == "half a second header" else connect(site))
            for name in said
        }
        lines["no handshake"] = stack.enter_context(socket.create_connection(("127.0.0.1", site.spec.port)))
        for name, words in said.items():
            lines[name].sendall(words)
        assert {name: _closes(line, 8) for name, line in lines.items()} == dict.fromkeys(lines, True)


def test_a_body_that_drips_is_shown_out(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "_GRACE", 0.5)
    site = make_site(tmp_path / "site")
    with open_door(site, Toy()), connect(site) as line:
        line.sendall(request("POST /v1/fleet/pull-messages", b"Content-Length: 100\r\n\r\n"))
        start = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                line.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 4


def test_a_crowd_is_not_let_in_and_room_is_made_again(tmp_path):
    site = make_site(tmp_path / "site", connections=4, connections_per_address=3)
    with open_door(site, Toy()):
        inside = [connect(site) for _ in range(3)]
        for line in inside:  # let in, not only spoken to
            line.sendall(request("POST /v1/fleet/pull-messages"))
            assert b"200" in line.recv(4096)
        assert _is_refused(site)
        inside.pop().close()
        until = time.monotonic() + 10
        while _is_refused(site):
            assert time.monotonic() < until
        for line in inside:
            line.close()


def _is_refused(site) -> bool:
    try:
        return knock(site, request("POST /v1/fleet/pull-messages")) == b""
    except OSError:
        return True


def test_a_superlink_that_is_away_or_is_somebody_else_is_no_superlink(tmp_path):
    site, other = make_site(tmp_path / "site"), make_site(tmp_path / "other")
    toy, stranger = Toy(), Toy()
    call = request("POST /v1/fleet/pull-messages")
    with open_door(site, None):
        assert statuses(knock(site, call)) == [503]
        with toy_superlink(site, stranger, keys=other.keys):
            assert statuses(knock(site, call)) == [503]
        with toy_superlink(site, toy):
            assert statuses(knock(site, call)) == [200]
    assert (len(stranger.reached), len(toy.reached)) == (0, 1)


def test_a_terminated_door_ends_well_even_while_somebody_waits_for_the_bell(tmp_path):
    site = make_site(tmp_path / "site", connections=3)  # half of them may wait: when one does, nobody else may
    code = (
        "import sys; from pathlib import Path; from starlette.applications import Starlette\n"
        "from fedrec.deploy.listen import serve; from fedrec.deploy.site import Site\n"
        "serve(Site.open(Path(sys.argv[1])), Starlette(), register=lambda key: 1)\n"
    )
    process = subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(site.path)], stderr=subprocess.PIPE)
    try:
        wait_for(site)
        with connect(site) as line:
            line.sendall(request("GET /fedrec/v1/bell?after=0", b"\r\n"))
            until = time.monotonic() + 10
            while statuses(knock(site, request("GET /fedrec/v1/bell", b"\r\n"))) != [503]:  # nobody waits yet
                assert time.monotonic() < until
            process.send_signal(signal.SIGTERM)
            assert b'{"bell":0}' in line.recv(4096) + line.recv(4096)
            assert process.wait(10) == 0 and process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()
