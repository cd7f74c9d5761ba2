"""The same door, kept by a real nginx."""

import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice

import httpx
import pytest
from sites import Toy, knock, make_site, open_door, wait_for
from tricks import FRAMES, SEEN, TARGETS, request, statuses

from fedrec.deploy import bell
from fedrec.deploy.certificates import trusting
from fedrec.deploy.nginx import config

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")

MAIN = """
daemon off;
master_process off;
pid {0}/pid;
error_log {0}/error.log notice;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {0}/body;
    proxy_temp_path {0}/proxy;
    fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi;
    scgi_temp_path {0}/scgi;
    include {0}/fedrec.conf;
}}
"""


@contextmanager
def nginx(site, folder):
    (folder / "fedrec.conf").write_text(config(site))
    (folder / "nginx.conf").write_text(MAIN.format(folder))
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    assert subprocess.run([*command, "-t"], capture_output=True, text=True).returncode == 0
    process = subprocess.Popen(command)
    try:
        wait_for(site)
        yield
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="module")
def site(place):
    return make_site(place / "site", front="nginx", connections=200, connections_per_address=50)


@pytest.fixture(scope="module")
def toy(site, place):
    toy = Toy()
    with open_door(site, toy), nginx(site, place):
        yield toy


@pytest.fixture
def client(site, toy):
    toy.reached.clear()
    with httpx.Client(base_url=site.spec.url, verify=trusting(site.ca)) as client:
        yield client


def test_a_call_of_the_fleet_passes_with_its_own_headers_and_no_others(client, toy):
    headers = {"flwr-public-key": "k", "flwr-signature": "s", "flwr-task-token": "stolen", "cookie": "c",
               "content-type": "application/protobuf", "flwr-superexec-ts": "1"}  # fmt: skip
    body = os.urandom(300_000)
    answer = client.post("/v1/fleet/pull-messages", content=body, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"toy:" + body)
    ((method, path, seen, got),) = toy.reached
    assert (method, path, got) == ("POST", "/v1/fleet/pull-messages", body)
    assert seen["flwr-public-key"] == "k" and seen["flwr-signature"] == "s"
    assert not {"flwr-task-token", "flwr-superexec-ts", "cookie"} & set(seen)


def test_the_desk_answers_behind_it(site, client):
    assert client.get("/fedrec/v1/ca").content == site.ca
    assert client.get("/fedrec/v1/task/plan.toml").content == (site.run / "plan.toml").read_bytes()
    assert client.get("/fedrec/v1/bell").json() == {"bell": 0}
    assert client.post("/fedrec/v1/enrol", content=b"{}").status_code == 400
    assert client.post("/fedrec/v1/enrol", content=b"x" * 20_000).status_code == 413


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


def test_it_keeps_no_record_of_who_asked(site, client, toy, place):
    client.post("/v1/fleet/pull-messages", content=b"")
    client.get("/nothing", headers={"x": "canary"})
    written = b"".join(path.read_bytes() for path in place.glob("*.log"))
    assert b"127.0.0.1" not in written and b"pull-messages" not in written and b"canary" not in written


def test_each_address_has_its_share(site, client, toy, monkeypatch):
    monkeypatch.setattr(bell, "EACH", 70)  # ours would send them away before nginx has to
    ours = trusting(site.ca)
    with ThreadPoolExecutor(70) as pool:
        calls = [
            pool.submit(httpx.get, f"{site.spec.url}/fedrec/v1/bell?after=0", verify=ours, timeout=10)
            for _ in range(70)
        ]
        answers = (call.result() for call in as_completed(calls) if call.exception() is None)
        refused = list(islice((answer for answer in answers if answer.status_code == 503), 10))
        bell.ring(site.bell)  # whoever is inside need not wait any longer
    site.bell.unlink()  # it never rang, for other tests
    assert len(refused) == 10


def test_a_superlink_of_somebody_else_is_none(tmp_path):
    site, other = make_site(tmp_path / "site", front="nginx"), make_site(tmp_path / "other")
    (tmp_path / "nginx").mkdir()
    stranger = Toy()
    with open_door(site, stranger, keys=other.keys), nginx(site, tmp_path / "nginx"):
        assert statuses(knock(site, request("POST /v1/fleet/pull-messages"))) == [502]
    assert stranger.reached == []


def test_the_desk_is_on_the_loopback_only(site, toy):
    with socket.create_connection(("127.0.0.1", site.spec.desk), timeout=5) as line:
        line.sendall(request("GET /fedrec/v1/ca", b"\r\n"))
        assert statuses(line.recv(4096)) == [200]


def test_nobody_waits_for_the_bell_under_anothers_address(site, client, monkeypatch):
    seen = []
    monkeypatch.setattr(bell.Bell, "crowded", lambda self, address: seen.append(address) or True)
    spoofed = {"x-forwarded-for": "10.9.8.7", "forwarded": "for=10.9.8.7", "x-real-ip": "10.9.8.7"}
    assert client.get("/fedrec/v1/bell?after=0", headers=spoofed).status_code == 429
    assert seen == ["127.0.0.1"]


def test_who_is_wrong_too_often_waits_alone(site, client):
    assert client.post("/fedrec/v1/enrol", content=b"{}").status_code == 400
    while client.post("/fedrec/v1/enrol", content=b"{}").status_code == 400:
        pass
    assert client.post("/fedrec/v1/enrol", content=b"{}").status_code == 429
    elsewhere = httpx.HTTPTransport(verify=trusting(site.ca), local_address="127.0.0.2")
    with httpx.Client(base_url=site.spec.url, transport=elsewhere) as other:
        spoofed = {"x-forwarded-for": "127.0.0.1"}
        assert other.post("/fedrec/v1/enrol", content=b"{}", headers=spoofed).status_code == 400
