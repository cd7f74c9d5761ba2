"""Units, images and the compose file, read as their tools read them: linted here, and never run here."""

import json
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from typer.testing import CliRunner

from fedrec.cli import app
from fedrec.deploy.folder import DeviceFolder
from fedrec.deploy.site import SiteSpec

ROOT = Path(__file__).parents[2]
UNITS = [ROOT / "server" / "deploy" / "fedrec-server.service", ROOT / "client" / "deploy" / "fedrec-client.service"]
IMAGES = [ROOT / "server" / "deploy" / "Dockerfile", ROOT / "client" / "deploy" / "Dockerfile"]
COMPOSE = ROOT / "server" / "deploy" / "compose.yaml"
SPEC = SiteSpec(hosts=("server.example",), seats=1)

by_name = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
by_side = pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.parts[-3])


def helped(words):
    """Whether these words are a command of ours."""
    return CliRunner().invoke(app, [*words, "--help"]).exit_code == 0


# Units.


def settings(text):
    """(section, name) to its values, in order."""
    found, section = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault((section, name), []).append(value)
    return found


def verified(unit_text, folder):
    """What systemd says of a unit whose program is not installed here."""
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("no systemd here")
    file = folder / "fedrec-tested.service"
    file.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit_text))
    done = subprocess.run([analyze, "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=60)
    return [line for line in done.stderr.splitlines() if "fedrec-tested" in line]


@by_name
def test_systemd_finds_nothing_wrong(unit, tmp_path):
    assert verified(unit.read_text(), tmp_path) == []


@by_name
@pytest.mark.parametrize(
    ("found", "planted"),
    [("KillSignal=SIGTERM", "KillSignal=SIGTREM"), ("ProtectHome=", "ProtectHoem="), ("RestartSec=", "RestartSec=x")],
)
def test_systemd_finds_what_is_planted(unit, tmp_path, found, planted):
    text = unit.read_text()
    assert found in text and verified(text.replace(found, planted), tmp_path)


@by_name
def test_a_unit_is_exposed_no_more_than_it_must_be(unit, tmp_path):
    """By systemd's own measure, in tenths: a unit without any protection has 96."""
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("no systemd here")

    def passes(text):
        file = tmp_path / "fedrec-tested.service"
        file.write_text(text)
        command = [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).returncode == 0

    assert passes(unit.read_text())
    assert not passes(re.sub(r"(?m)^(Protect|Restrict|Private|System|Cap).*\n", "", unit.read_text()))


@by_name
def test_a_unit_ends_softly_and_leaves_no_core(unit):
    found = settings(unit.read_text())
    wanted = {"KillSignal": "SIGTERM", "Restart": "on-failure", "UMask": "0077", "LimitCORE": "0",
              "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": ""}  # fmt: skip
    assert {name: found["Service", name][-1] for name in wanted} == wanted
    assert found["Service", "User"][0] not in ("root", "0")
    state = "/var/lib/" + found["Service", "StateDirectory"][0]
    assert found["Service", "ExecStart"][0].split()[-1].startswith(state)
    # No code of ours ends so for a reason that time mends (fedrec/errors.py).
    assert found["Service", "RestartPreventExitStatus"] == ["2 3 4"]


@by_name
def test_a_unit_calls_a_command_that_exists(unit):
    _, *words = settings(unit.read_text())["Service", "ExecStart"][0].split()
    assert helped(words[:-1]) and not helped([words[0], "begin"])


# Images.


def instructions(path):
    """(instruction, what it is given), continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]


@by_side
def test_an_image_has_two_stages_from_a_pinned_line(image):
    found = instructions(image)
    pinned = dict(given.split("=") for name, given in found if name == "ARG")
    bases = [given for name, given in found if name == "FROM"]
    assert len(bases) == 2 and bases[0].endswith(" AS build") and all("python:${PYTHON}" in base for base in bases)
    assert re.fullmatch(r"3\.11(\.\d+)?-slim-\w+", pinned["PYTHON"])
    copied = [given for name, given in found[[given for _, given in found].index(bases[1]) :] if name == "COPY"]
    assert copied == ["--from=build /opt/fedrec /opt/fedrec"]  # no source and no compiler in what is shipped


@by_side
def test_an_image_installs_what_was_tested_and_nothing_from_elsewhere(image):
    found = instructions(image)
    installs = [given for name, given in found if name == "RUN" and "pip install" in given]
    assert installs and all("--constraint constraints.txt" in given for given in installs)
    assert not [given for name, given in found if name == "ADD" or "://" in given and name != "HEALTHCHECK"]
    for name, given in found:
        if name == "COPY" and not given.startswith("--from"):
            assert all((ROOT / source).exists() for source in given.split()[:-1])


@by_side
def test_an_image_runs_as_nobody_in_particular_and_tells_how_it_is(image):
    found = instructions(image)
    last = [given for name, given in found if name == "USER"]
    assert re.fullmatch(r"(1\d{4}):\1", last[-1])
    assert [given for name, given in found if name == "STOPSIGNAL"] == ["SIGTERM"]
    (health,) = [given for name, given in found if name == "HEALTHCHECK"]
    words = [given for name, given in found if name in ("ENTRYPOINT", "CMD")] + [health.partition(" CMD ")[2]]
    assert all(isinstance(json.loads(each), list) for each in words)  # no shell between a signal and us


@by_side
def test_an_image_calls_a_command_that_exists(image):
    (words,) = [json.loads(given) for name, given in instructions(image) if name == "CMD"]
    assert helped(words[:-1])


def healthy(image, found, given):
    """What the image's own health check answers when `found` in it is replaced by what is `given` here."""
    (check,) = [words for name, words in instructions(image) if name == "HEALTHCHECK"]
    _, flag, code = json.loads(check.partition(" CMD ")[2])
    assert found in code
    command = [sys.executable, flag, code.replace(found, given)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60).returncode == 0


def test_a_client_is_well_while_somebody_runs_a_device(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "device.json").write_text("{}")
    with DeviceFolder(tmp_path / "one").running():
        assert healthy(IMAGES[1], "/var/lib/fedrec/devices", str(tmp_path))
    assert not healthy(IMAGES[1], "/var/lib/fedrec/devices", str(tmp_path))


@pytest.mark.parametrize("status", [200, 503])
def test_a_server_is_well_while_it_says_so(status):
    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert healthy(IMAGES[0], SPEC.operators, f"127.0.0.1:{server.server_port}") is (status == 200)
        server.shutdown()


def test_the_servers_image_knows_the_sites_ports():
    found = dict(instructions(IMAGES[0]))
    assert int(found["EXPOSE"]) == SPEC.port
    assert f"http://{SPEC.operators}/healthz" in found["HEALTHCHECK"]


# Compose.


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text())


def test_every_service_is_careful_and_pinned(compose):
    assert set(compose["services"]) == {"server", "nginx", "client"}
    for service in compose["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
        assert service["security_opt"] == ["no-new-privileges:true"] and service["ulimits"] == {"core": 0}
        assert re.fullmatch(r"[a-z/-]+:\d+\.\d+(\.\d+)?(-alpine)?", service["image"])
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)


def test_only_the_door_is_published(compose):
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"server": [f"{SPEC.port}:{SPEC.port}"]}


def test_what_is_built_and_mounted_is_there(compose):
    for service in compose["services"].values():
        if build := service.get("build"):
            assert (COMPOSE.parent / build["context"]).resolve() == ROOT
            assert ROOT / build["dockerfile"] in IMAGES
        for mount in service["volumes"]:
            source = mount.partition(":")[0]
            assert source in compose["volumes"] or source == "./fedrec.conf"


def test_nginx_reads_the_keys_as_their_owner_and_changes_nothing(compose):
    nginx = compose["services"]["nginx"]
    (owner,) = [given for name, given in instructions(IMAGES[0]) if name == "USER"]
    assert nginx["user"] == owner and nginx["network_mode"] == "service:server"
    assert all(mount.endswith(":ro") for mount in nginx["volumes"])
