"""`flwr run .`: the same app on Flower's own simulation engine ends at the same numbers, bit for bit."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fedrec.exchange.flower import SWITCHES  # isort: skip  (before Flower itself)
from flwr.app import Context, RecordDict

from fedrec.errors import PrivacyRefusal
from fedrec.population.nodes import open_node
from fedrec.privacy.chain import Book
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.terms import Mode

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CLIENTS, ROUNDS = 8, 2


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def answers(port):
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def flower(tmp_path_factory):
    """A folder of its own for Flower, and the environment in which nothing phones home."""
    home = tmp_path_factory.mktemp("flower")
    # Flower looks for its own programs on the path, also in an environment that is not activated.
    ours = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
    ours["RAY_worker_niceness"] = "0"  # Ray would let its workers wait for everybody else
    (home / "policy.toml").write_text(
        'modes = ["none", "layered"]\n'
    )  # devices do not take part in the open unless told to
    ours["FEDREC_POLICY"] = str(home / "policy.toml")
    return home, os.environ | SWITCHES | ours | {"FLWR_HOME": str(home)}


@pytest.fixture(scope="module")
def flwr(flower, tmp_path_factory):
    """Flower's command, talking to a SuperLink of ours that simulates and dies with the tests.

    It starts in an empty folder: Ray would import a `client` that it finds in its own.
    """
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Flower's simulation engine needs Ray: pip install 'fedrec[ray]'")
    home, environment = flower
    port, empty = free_port(), tmp_path_factory.mktemp("empty")
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "tests"\n\n[superlink.tests]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    options = f"--insecure --simulation --isolation subprocess --host 127.0.0.1 --port {port}".split()
    command = [BIN / "flower-superlink", *options]
    with (home / "superlink.log").open("w") as log:
        link = subprocess.Popen(
            command, cwd=empty, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )

    def run(*words):
        return subprocess.run(
            [BIN / "flwr", *words], cwd=empty, env=environment, capture_output=True, text=True, timeout=150
        )

    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert link.poll() is None and time.monotonic() < deadline, (home / "superlink.log").read_text()
            time.sleep(0.1)
        yield run
    finally:
        with suppress(ProcessLookupError):  # it may have failed to start
            os.killpg(link.pid, signal.SIGKILL)
        link.wait()


def last_run(flwr):
    return json.loads(flwr("ls", "--format", "json").stdout)["runs"][0]


def test_flowers_engine_trains_the_same_model(flwr, cli, tiny, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    size = {"data__options__users": CLIENTS, "federation__rounds": ROUNDS, "federation__cohort": 5}
    assert cli("init", ours, "--mode", "none", *tiny(**size, training__steps=2, training__embedding_rate=0.5)).code == 0
    shutil.copytree(ours, theirs)
    assert cli("simulate", "--resume", ours, "--engine", "loop").code == 0

    nodes = ["--federation-config", f"num-supernodes={CLIENTS}"]
    done = flwr("run", ROOT, "--run-config", f'run="{theirs}"', *nodes, "--stream")
    assert last_run(flwr)["status"] == "finished:completed", done.stdout + done.stderr

    mine, other = (load_file(path / "checkpoint.safetensors") for path in (ours, theirs))
    assert {name: value.tobytes() for name, value in mine.items()} == {
        name: value.tobytes() for name, value in other.items()
    }
    assert (mine["shared"] != 0).any() and (mine["first"] != 0).any()
    assert (ours / "devices" / "embeddings.npy").read_bytes() == (theirs / "devices" / "embeddings.npy").read_bytes()

    # What Flower trained, fedrec measures.
    assert cli("simulate", "--resume", theirs, "--engine", "loop").code == 0
    assert (ours / "results.json").read_text() == (theirs / "results.json").read_text()


def test_a_run_for_the_network_is_layered_and_pays_in_every_ledger(flwr, cli, tiny, tmp_path):
    """What `fedrec init` prepares: noise inside the training and on what leaves, on devices of the default policy."""
    path, rounds = tmp_path / "layered", {"federation__rounds": ROUNDS, "federation__cohort": 4}
    size = {"data__options__users": CLIENTS, "model__dim": 4, "model__residuals": "false", "privacy__force": "true"}
    assert cli("init", path, *tiny(**size, **rounds)).code == 0
    nodes = ["--federation-config", f"num-supernodes={CLIENTS}"]
    done = flwr("run", ROOT, "--run-config", f'run="{path}"', *nodes, "--stream")
    assert last_run(flwr)["status"] == "finished:completed", done.stdout + done.stderr
    book = Book.read(path / "ledger.jsonl")
    assert book.plan.mode is Mode.LAYERED and book.position.charged == tuple(range(1, book.plan.rounds + 1))
    spent = DeviceLedger.read(path / "devices" / "ledger.sqlite").standings
    assert len(spent) == CLIENTS  # every group had its turn
    assert cli("simulate", "--resume", path).code == 0
    claims = json.loads((path / "statement.json").read_text())
    assert [(claim["label"], claim["unit"]) for claim in claims] == [
        ("layered", "user"), ("layered", "interaction"), ("layered", "user"),
    ]  # fmt: skip


def test_devices_do_not_take_part_where_a_server_adds_the_noise(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("FEDREC_POLICY", raising=False)
    for mode in ("user-central", "none"):
        small = tiny(privacy__force="true", federation__cohort=10)
        assert cli("init", tmp_path / mode, "--mode", mode, *small).code == 0
        context = Context(1, 1, {"partition-id": 0}, RecordDict(), {"run": str(tmp_path / mode)})
        with pytest.raises(PrivacyRefusal, match="P10: a device takes part in the modes of its policy"):
            open_node(context)
        allowed = tmp_path / f"{mode}.toml"
        allowed.write_text(f'modes = ["{mode}"]\n[user]\nepsilon = 20\n')
        monkeypatch.setenv("FEDREC_POLICY", str(allowed))
        assert open_node(context).client == 0
        monkeypatch.delenv("FEDREC_POLICY")


def test_without_a_run_flower_ends_with_our_words(flwr):
    done = flwr("run", ROOT, "--stream")
    log = done.stdout + done.stderr
    assert "Flower trains a run folder with an absolute path" in log
    assert "Prepare one with `fedrec init FOLDER`, then: flwr run . --run-config" in log
    ended = last_run(flwr)
    assert ended["status"] == "finished:failed"
    assert "Flower trains a run folder" in ended["status-details"]


def test_the_bundle_holds_the_two_apps_and_nothing_else(flower, tmp_path):
    """fedrec itself is what is installed on a node, never what a server sends."""
    _, environment = flower
    done = subprocess.run(
        [BIN / "flwr", "build", "--app", ROOT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    [bundle] = tmp_path.glob("*.fab")
    names = set(zipfile.ZipFile(bundle).namelist())
    assert {"pyproject.toml", "server/app.py", "client/app.py", "LICENSE"} <= names, done.stdout
    outside = {name for name in names if name.split("/")[0] not in ("server", "client", ".info")}
    assert outside <= {"pyproject.toml", "README.md", "LICENSE"}
    assert not [name for name in names if name.endswith((".csv", ".json", ".parquet", ".safetensors"))]
    assert bundle.stat().st_size < 100_000
