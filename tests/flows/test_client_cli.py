"""Devices as their owner sees them: joined, fed, run, asked how they fare, stopped."""

import io
import json
import os
import re
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import links
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from devices import OPEN, Settlement
from links import Authority, eventually, serving

from fedrec.deploy import host as module
from fedrec.deploy.folder import DeviceFolder, devices_of
from fedrec.deploy.host import Bell, Hosted, host, opened
from fedrec.deploy.identity import Witness, read_key
from fedrec.device.recall import history_of
from fedrec.device.store import Store
from fedrec.errors import DataError, FedrecError, PrivacyRefusal, RunError
from fedrec.exchange.client import client_app
from fedrec.exchange.serve import devices, serve
from fedrec.exchange.superlink import register
from fedrec.population.engines import opened as engine_of
from fedrec.population.engines import partition
from fedrec.population.grid import in_process
from fedrec.population.simulate import Simulation
from fedrec.rounds.aggregate import Turn
from fedrec.speed import Engine, Speed

CANARY = "zq-canary-kx"
LOCAL = {"privacy": {"mode": "user-local", "force": True, "epsilon": 20.0}}
GENEROUS = "[user]\nepsilon = 1e5\nlifetime = 1e6\ndelta = 0.5\n"
MASKED = {
    "privacy": {"mode": "user-distributed", "noise": "test", "force": True},
    "shares": {"masked": True, "survivors": 0.8},
    "federation": {"rounds": 1},
}


@pytest.fixture(scope="module")
def settlement(tmp_path_factory):
    return Settlement(tmp_path_factory.mktemp("site"))


@pytest.fixture
def device(settlement, request):
    return settlement.device(0, name=request.node.name)


def said_by(folders):
    """A listener, and what it heard."""
    heard = []
    return heard, lambda path, words: heard.append((path.name, words))


def status_of(folder):
    return json.loads((folder / "status.json").read_text())


# Over the wire


def test_real_devices_train_the_model_of_a_simulation(tmp_path, monkeypatch):
    bell = links.Bell()  # where the desk is, tests/flows/test_door.py asks
    monkeypatch.setattr(module, "Bell", lambda *site: bell.wait)
    with serving(tmp_path / "link") as server:
        site = Settlement(tmp_path, server=f"https://{server.address}", authority=server.authority)
        folders = [site.device(seat) for seat in range(5)]
        for folder in folders:
            register(server.address, server.authority.pem, read_key(folder / "key.pem").public_key())
        stop, (heard, told) = threading.Event(), said_by(folders)
        running = threading.Thread(target=host, args=(devices_of([tmp_path / "devices"]), stop, told))
        running.start()
        try:
            with server.executing(ring=bell.ring) as grid:
                model = serve(site.task, grid, tmp_path / "run")
        finally:
            stop.set()
            bell.ring()
            running.join()
    np.testing.assert_array_equal(model, simulated(site))
    assert sorted(heard) == [(folder.name, "in touch with the server") for folder in folders]
    for folder in folders:
        status = status_of(folder)
        assert (status["state"], status["round"], status["error"]) == ("stopped", site.task.plan.rounds, None)
        assert DeviceFolder(folder).process() is None


def behind_masks(site, hosted, roster_key):
    """The model that these devices train, if the server goes by `roster_key`."""
    grid = in_process(client_app(lambda context: hosted[partition(context)]), len(hosted))
    crew = devices(site.task, site.folder / "run", witness=Witness(roster_key))
    return serve(site.task, grid, site.folder / "run", crew=crew)


def test_real_devices_behind_masks_train_the_model_of_a_simulation(tmp_path):
    site = Settlement(tmp_path, MASKED)
    folders = [site.device(seat, policy=f"{OPEN}{GENEROUS}") for seat in range(5)]
    with ExitStack() as stack:
        hosted, _ = opened(devices_of(folders), stack, lambda path, words: None)
        model = behind_masks(site, hosted, site.signing.public_key().public_bytes_raw())
        np.testing.assert_array_equal(model, simulated(site))
        for one in hosted:  # their masks were lifted: nothing is sent again
            with pytest.raises(PrivacyRefusal, match="P10"):
                one.take_part(Turn(1), site.task.model.initial)


def test_devices_of_another_site_wear_no_masks_together(tmp_path):
    site = Settlement(tmp_path, MASKED)
    folders = [site.device(seat, policy=f"{OPEN}{GENEROUS}") for seat in range(5)]
    for folder in folders:
        rewrite(folder, roster_key="ab" * 32)
    with ExitStack() as stack:
        hosted, _ = opened(devices_of(folders), stack, lambda path, words: None)
        with pytest.raises(FedrecError):
            behind_masks(site, hosted, site.signing.public_key().public_bytes_raw())
        assert all(status_of(folder)["participations"] == 0 for folder in folders)


def simulated(site):
    """The model of virtual devices, one after the other."""
    return trained(Simulation.start(site.task.plan, site.folder / "again", speed=Speed(engine=Engine.LOOP)))


def trained(simulation):
    with engine_of(simulation.fleet, simulation.run.path, simulation.speed) as (grid, crew):
        return serve(simulation.task, grid, simulation.run.path, crew=crew)


# Several devices in a process


def test_what_is_wrong_with_one_device_stops_no_other(settlement, tmp_path):
    wrong = {
        "key": lambda folder: (folder / "key.pem").write_text("no key"),
        "events": lambda folder: (folder / "events.sqlite").write_bytes(b"x" * 5000),
        "policy": lambda folder: (folder / "policy.toml").write_text('modes = ["layered"]\n'),
        "no policy": lambda folder: (folder / "policy.toml").write_text("modes = 7\n"),
        "card": lambda folder: (folder / "device.json").write_text("{"),
        "other task": lambda folder: rewrite(folder, task="0" * 64),
    }
    folders = [settlement.device(0, name=f"{tmp_path.name} {name}") for name in ("good", *wrong)]
    for folder, (name, spoil) in zip(folders[1:], wrong.items(), strict=True):
        assert name in folder.name
        spoil(folder)
    heard, told = said_by(folders)
    with ExitStack() as stack:
        hosted, errors = opened(devices_of(folders), stack, told)
        assert [each.folder.path for each in hosted] == folders[:1] and len(errors) == len(wrong)
        assert [name for name, _ in heard] == [folder.name for folder in folders[1:]]
        assert status_of(folders[0])["state"] == "starting"
        for folder, (_, words), error in zip(folders[1:], heard, errors, strict=True):
            assert words == str(error) == status_of(folder)["error"] and error.remedy
            state = "refused" if isinstance(error, PrivacyRefusal) else "failed"
            assert status_of(folder)["state"] == state
            assert DeviceFolder(folder).process() is None
    assert status_of(folders[0])["state"] == "stopped"


def rewrite(folder, **over):
    content = json.loads((folder / "device.json").read_text())
    (folder / "device.json").write_text(json.dumps(content | over))


def test_devices_of_one_task_share_it(settlement, tmp_path, monkeypatch):
    folders = [settlement.device(seat, name=f"{tmp_path.name} {seat}") for seat in range(3)]
    with ExitStack() as stack:
        hosted, _ = opened(devices_of(folders), stack, lambda path, words: None)
        assert len({id(each.member.work) for each in hosted}) == 1
        assert [each.client for each in hosted] == [0, 1, 2]


def test_if_no_device_can_run_the_first_reason_is_raised(settlement, device):
    (device / "key.pem").unlink()
    with pytest.raises(DataError, match="P-384 key"):
        host(devices_of([device]), threading.Event(), lambda path, words: None)


def test_folders_are_found_below_folders_and_none_twice(settlement, device):
    above = devices_of([device.parent])
    assert DeviceFolder(device.absolute()) in above
    assert devices_of([device, device.parent, device]) == [above[above.index(DeviceFolder(device))], *(
        each for each in above if each.path != device
    )]  # fmt: skip
    with pytest.raises(RunError, match="has folders that do"):
        devices_of([settlement.folder / "run"])


def test_a_status_says_what_was_given_and_nothing_of_what_was_done(tmp_path):
    site = Settlement(tmp_path, LOCAL)
    folder = site.device(0, policy=f"participations = 1\n{GENEROUS}")
    with Store(folder / "events.sqlite") as store:
        texts = [act for act in history_of(store, site.task.catalogue.rows).texts if act]
    with ExitStack() as stack:
        ((hosted,), _) = opened(devices_of([folder]), stack, lambda path, words: None)
        assert status_of(folder)["spent"] == [] and status_of(folder)["participations"] == 0
        hosted.take_part(Turn(1), site.task.model.initial)
        status = status_of(folder)
        with pytest.raises(PrivacyRefusal):
            hosted.take_part(Turn(2), site.task.model.initial)
        assert "P10" in status_of(folder)["error"]
    assert (status["round"], status["participations"], status["left"]) == (1, 1, 0)
    (spent,) = status["spent"]
    assert {"epsilon", "delta", "unit", "relation", "adversary"} < set(spent) and spent["epsilon"] > 0
    assert texts and not any(text in json.dumps(status) for text in texts)
    assert set(status) == {"state", "at", "error", "round", "participations", "left", "spent"}


def test_a_bug_is_told_by_its_kind_alone(settlement, device, monkeypatch):
    with ExitStack() as stack:
        ((hosted,), _) = opened(devices_of([device]), stack, lambda path, words: None)

        def fails(self, turn, shared):
            raise ValueError(CANARY)

        monkeypatch.setattr(type(hosted.member), "take_part", fails)
        with pytest.raises(ValueError):
            hosted.take_part(Turn(1), None)
        assert status_of(device)["error"] == "this device failed (ValueError)"
    assert isinstance(hosted, Hosted)


def test_a_round_that_failed_on_the_device_is_told_to_its_owner(tmp_path):
    site = Settlement(tmp_path, LOCAL)
    folder = site.device(0, policy=GENEROUS)
    with ExitStack() as stack:
        ((hosted,), _) = opened(devices_of([folder]), stack, lambda path, words: None)
        with sqlite3.connect(folder / "events.sqlite") as db:
            db.execute("UPDATE events SET kind = 99")
        assert hosted.take_part(Turn(1), site.task.model.initial).any()
        assert "sound file of ours" in status_of(folder)["error"]


def test_a_bug_in_the_transport_ends_the_process_with_an_error(device, monkeypatch):
    def fails(nodes, answers, *, bell, stop, heard):
        raise ValueError("a bug")

    monkeypatch.setattr(module, "run_nodes", fails)
    with pytest.raises(ValueError, match="a bug"):
        host(devices_of([device]), threading.Event(), lambda path, words: None)
    assert status_of(device)["state"] == "stopped"


# The bell


class Desk:
    """A server of TLS that answers `/fedrec/v1/bell` with what it is given, and notes what it was asked."""

    def __init__(self, folder, authority):
        authority.issue(folder)
        self.asked, self.answers = [], []
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                desk.asked.append(self.path)
                status, body = desk.answers.pop(0) if desk.answers else (200, b'{"bell": 1}')
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_the_bell_is_asked_for_what_was_not_heard_yet(tmp_path):
    authority = Authority()
    with Desk(tmp_path, authority) as desk:
        desk.answers = [(200, b'{"bell": 4}'), (200, b'{"bell": 4}'), (200, b'{"bell": 2}')]
        bell = Bell(desk.url, authority.pem, threading.Event())
        assert [bell() for _ in range(4)] == [True, False, True, True]  # in doubt it rang
    assert [path.rpartition("=")[2] for path in desk.asked] == ["0", "4", "4", "2"]
    assert {path.rpartition("=")[0] for path in desk.asked} == {"/fedrec/v1/bell?after"}


@pytest.mark.parametrize("answer", [(500, b""), (200, b"no json"), (200, b"[]"), (200, b'{"bell": "x"}'), (404, b"{}")])
def test_a_bell_that_says_nothing_is_asked_again_after_a_moment(tmp_path, answer, monkeypatch):
    authority, waited = Authority(), []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", waited.append)
    with Desk(tmp_path, authority) as desk:
        desk.answers = [answer]
        Bell(desk.url, authority.pem, stop)()
    assert len(waited) == 1 and 1 <= waited[0] <= 5


def test_a_bell_of_another_authority_is_not_believed(tmp_path, monkeypatch):
    stop, waited = threading.Event(), []
    monkeypatch.setattr(stop, "wait", waited.append)
    with Desk(tmp_path, Authority()) as desk:
        Bell(desk.url, Authority().pem, stop)()
    assert desk.asked == [] and len(waited) == 1


# The process


@pytest.fixture
def started(device):
    """A client whose server is away."""
    command = [sys.executable, "-m", "fedrec", "client", "start", str(device)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: DeviceFolder(device).status().get("state") == "away", 60)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_client_waits_for_its_server_and_stops_when_it_is_told(started, device, cli):
    assert (
        DeviceFolder(device).process()
        == started.pid
        == json.loads(cli("client", "status", device, "--format", "json").out)[0]["process"]
    )
    assert "out of reach" in status_of(device)["error"] or "in reach" in status_of(device)["error"]
    second = cli("client", "start", device)
    assert second.code == 5 and "one process runs a device" in second.err and str(started.pid) in second.err
    assert status_of(device)["state"] == "away"  # the second one left it alone
    stopped = cli("client", "stop", device)
    assert (stopped.code, stopped.out) == (0, "stopped: 1, not running: 0\n")
    assert started.wait(10) == 0
    assert status_of(device)["state"] == "stopped"
    assert cli("client", "stop", device).out == "stopped: 0, not running: 1\n"


def test_a_killed_client_can_be_started_again(started, device):
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert DeviceFolder(device).process() is None
    with DeviceFolder(device).running():
        assert DeviceFolder(device).process() == os.getpid()
    assert DeviceFolder(device).process() is None


def test_ctrl_c_is_an_end_like_any_other(started):
    os.kill(started.pid, signal.SIGINT)
    assert started.wait(10) == 0
    assert "Traceback" not in started.stderr.read()


# Commands


def joining(settlement, name, monkeypatch):
    """What `enrol` would leave in a folder, and whom it was asked to."""
    asked = []

    def enrol(folder, invitation):
        asked.append(invitation)
        settlement.device(3, name=folder.name).rename(folder)
        (folder / "policy.toml").unlink()

    monkeypatch.setattr("fedrec.deploy.enrol.enrol", enrol)
    return asked


def test_joining_shows_what_is_promised_and_keeps_the_terms(settlement, tmp_path, cli, monkeypatch):
    asked = joining(settlement, "me", monkeypatch)
    (tmp_path / "terms.toml").write_text(OPEN)
    answer = cli("client", "enroll", tmp_path / "me", "an invitation", "--policy", tmp_path / "terms.toml")
    assert answer.code == 0 and asked == ["an invitation"], answer.err
    assert "seat 3 at https://127.0.0.1:9" in answer.out and "what is promised" in answer.out
    assert "Your terms admit this" in answer.out
    assert DeviceFolder(tmp_path / "me").policy.modes == ("none",)


def test_an_invitation_need_not_be_on_the_command_line(settlement, tmp_path, cli, monkeypatch):
    asked = joining(settlement, "me", monkeypatch)
    (tmp_path / "terms.toml").write_text(OPEN)
    monkeypatch.setattr("sys.stdin", io.StringIO("an invitation\n"))
    assert cli("client", "enroll", tmp_path / "me", "-", "--policy", tmp_path / "terms.toml").code == 0
    assert asked == ["an invitation\n"]


def test_a_task_beyond_the_terms_is_joined_and_refused(settlement, tmp_path, cli, monkeypatch):
    joining(settlement, "me", monkeypatch)
    answer = cli("client", "enroll", tmp_path / "me", "an invitation")  # the default terms admit no mode `none`
    assert answer.code == 4 and "P10" in answer.err and "what is promised" in answer.out
    assert not (tmp_path / "me" / "ledger.sqlite").exists()
    assert cli("client", "start", tmp_path / "me").code == 4


def test_terms_that_cannot_be_read_join_nothing(settlement, tmp_path, cli, monkeypatch):
    asked = joining(settlement, "me", monkeypatch)
    (tmp_path / "terms.toml").write_text("modes = 7")
    for terms in ("terms.toml", "nowhere.toml"):
        assert cli("client", "enroll", tmp_path / "me", "an invitation", "--policy", tmp_path / terms).code == 2
    assert asked == [] and not (tmp_path / "me").exists()


def test_status_of_a_device_that_never_ran(device, cli):
    answer = cli("client", "status", device)
    assert answer.code == 0 and f"{device}: seat 0 at https://127.0.0.1:9, not running" in answer.out
    (row,) = json.loads(cli("client", "status", device, "--format", "json").out)
    assert (row["seat"], row["state"], row["process"], row["round"]) == (0, "not running", None, None)


def test_status_reads_the_ledger_itself(tmp_path, cli):
    site = Settlement(tmp_path, LOCAL)
    folder = site.device(0, policy=GENEROUS)
    with ExitStack() as stack:
        ((hosted,), _) = opened(devices_of([folder]), stack, lambda path, words: None)
        hosted.member.take_part(Turn(1), site.task.model.initial)  # as if killed before it told
    answer = cli("client", "status", folder)
    assert "participations: 1, " in answer.out and re.search(
        r"spent: \(ε=.*δ=.*\), replace-one user, against", answer.out
    )
    (row,) = json.loads(cli("client", "status", folder, "--format", "json").out)
    assert row["participations"] == 1 and row["spent"][0]["relation"] == "replace-one"
    (folder / "ledger.sqlite").write_bytes(b"x" * 100)
    damaged = cli("client", "status", folder)
    assert damaged.code == 4 and "P11" in damaged.err


def test_a_folder_that_is_no_device(tmp_path, cli):
    (tmp_path / "file.csv").write_text("item,time\nx,1\n")
    for words in (("start",), ("status",), ("stop",), ("log", tmp_path / "file.csv"), ("forget", "--all")):
        answer = cli("client", words[0], tmp_path, *words[1:])
        assert answer.code == 5 and "fedrec client enroll" in answer.err, words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv"]


CSV = """kind,item,text,rating,weight,time
rate,{0},,4,,2026-01-02
search,,warm soup,,,2026-01-01
click,{1},,,2,1767400000
"""
FILES = {
    "events.csv": CSV,
    "events.tsv": CSV.replace(",", "\t"),
    "events.jsonl": """{{"kind": "rate", "item": "{0}", "rating": 4, "time": "2026-01-02"}}

{{"kind": "search", "text": "warm soup", "time": "2026-01-01"}}
{{"kind": "click", "item": "{1}", "weight": 2, "time": 1767400000}}
""",
}


@pytest.fixture
def empty(device):
    (device / "events.sqlite").unlink()
    return device


def stored(device, settlement):
    with Store(device / "events.sqlite") as store:
        history = history_of(store, settlement.task.catalogue.rows)
    return [
        history.kinds.tolist(),
        history.items.tolist(),
        history.texts,
        history.weights.tolist(),
        history.times.tolist(),
    ]


@pytest.mark.parametrize("name", [*FILES, "events.parquet"])
def test_events_come_from_files_of_any_kind(settlement, empty, tmp_path, cli, name):
    ids = settlement.task.catalogue.ids
    if name in FILES:
        (tmp_path / name).write_text(FILES[name].format(*ids))
    else:
        columns = {
            "kind": ["rate", "search", "click"], "item": [ids[0], None, ids[1]], "text": [None, "warm soup", ""],
            "rating": [4.0, None, None], "weight": [None, None, 2.0], "time": [1767312000, 1767225600, 1767400000],
        }  # fmt: skip
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / name)
    answer = cli("client", "log", empty, tmp_path / name)
    assert (answer.code, answer.out) == (0, "stored 3 events; the device has 3\n"), answer.err
    assert stored(empty, settlement) == [
        [4, 3, 1],
        [-1, 0, 1],
        ["warm soup", "", ""],
        [1, 1, 2],
        [1767225600, 1767312000, 1767400000],
    ]
    with Store(empty / "events.sqlite") as store:
        assert history_of(store, settlement.task.catalogue.rows).ratings[1] == 0.75


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("item,time\n{0},5\nunheard-of,6\n", r"not in the catalogue: 1 \(.*events.csv row 3, item 'unheard-of'"),
        ("kind,item,time\nclick,{0},5\nteleport,{0},6\n", r"kind is none of view, click.*row 3, kind 'teleport'"),
        ("kind,item,time\nclick,{0},noon\n", "time is missing or cannot be read.*row 2"),
        ("kind,item,time,rating\nrate,{0},5,9\n", "outside its scale.*row 2, rating '9'"),
        ("kind,item,time,weight\nclick,{0},5,-1\n", "weight is not a number.*row 2"),
        ("kind,text,time\nsearch,   ,5\n", "neither an item nor a text"),
        ("kind,item\nclick,{0}\n", r"column is missing.*missing=\['time'\]"),
        ("user,kind,item,time\nme,click,{0},5\n", "names nobody"),
        ("kind,item,time\nclick,{0},5,6,7\n", "columns of the first.*row=2"),
        ("", "not empty"),
    ],
)  # fmt: skip
def test_a_file_with_anything_wrong_in_it_stores_nothing(settlement, empty, tmp_path, cli, content, says):
    (tmp_path / "events.csv").write_text(content.format(*settlement.task.catalogue.ids))
    answer = cli("client", "log", empty, tmp_path / "events.csv")
    assert answer.code == 3 and re.search(says, answer.err), answer.err
    with Store(empty / "events.sqlite") as store:
        assert len(store) == 0


def test_a_text_is_in_no_message(settlement, empty, tmp_path, cli):
    text = f"a whole sentence with a {CANARY} in it"
    (tmp_path / "events.jsonl").write_text(
        json.dumps({"kind": "search", "text": text, "time": "never"})
        + "\n"
        + json.dumps({"kind": text, "time": 3})
        + "\n"
    )
    answer = cli("client", "log", empty, tmp_path / "events.jsonl")
    assert answer.code == 3 and CANARY not in answer.err + answer.out and "row 2" in answer.err


def test_an_empty_file_of_lines_is_told(empty, tmp_path, cli):
    (tmp_path / "events.jsonl").write_text("\n\n")
    answer = cli("client", "log", empty, tmp_path / "events.jsonl")
    assert answer.code == 3 and "column is missing" in answer.err


def test_forgetting_from_the_command_line(settlement, empty, tmp_path, cli):
    ids = settlement.task.catalogue.ids
    lines = [f'{{"item": "{ids[n % 2]}", "text": "{CANARY}", "time": "2026-01-0{n + 1}"}}' for n in range(6)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    cli("client", "log", empty, tmp_path / "events.jsonl")
    assert CANARY.encode() in (empty / "events.sqlite").read_bytes()
    assert cli("client", "forget", empty, "--item", ids[0]).out == "forgot 3 events; the device has 3\n"
    assert cli("client", "forget", empty, "--before", "2026-01-03").out == "forgot 1 events; the device has 2\n"
    for words in ((), ("--all", "--item", ids[0]), ("--before", "soon")):
        assert cli("client", "forget", empty, *words).code == 2
    assert cli("client", "forget", empty, "--all").out == "forgot 2 events; the device has 0\n"
    assert CANARY.encode() not in (empty / "events.sqlite").read_bytes()


def test_events_can_be_stored_while_the_device_is_open(settlement, device, tmp_path, cli):
    ids = settlement.task.catalogue.ids
    (tmp_path / "events.csv").write_text(f"item,time\n{ids[5]},2026-01-01\n")
    with ExitStack() as stack:
        ((hosted,), _) = opened(devices_of([device]), stack, lambda path, words: None)
        before = hosted.take_part(Turn(1), settlement.task.model.initial)
        assert cli("client", "log", device, tmp_path / "events.csv").code == 0
        after = hosted.take_part(Turn(1), settlement.task.model.initial)
    assert before.tobytes() != after.tobytes()


def test_nothing_in_the_folder_names_the_person(device):
    with sqlite3.connect(device / "events.sqlite") as db:
        columns = {
            name
            for table in ("events", "embeddings", "sweep")
            for _, name, *_ in db.execute(f"PRAGMA table_info({table})")
        }
    events = {"id", "time", "kind", "item", "text", "weight", "rating"}
    assert columns == events | {"task", "round", "value", "erased", "swept", "forgets"}
    assert OPEN in (device / "policy.toml").read_text() and time.time() > 0
