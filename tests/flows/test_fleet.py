"""A real SuperLink with TLS, enrolled nodes and a database; devices in this process."""

import io
import threading
import time
import zipfile
from contextlib import closing, contextmanager
from datetime import timedelta

import numpy as np
import pytest
from federation import CLIENTS, ROUNDS, Toy, partition, train
from flwr.proto import control_pb2, fab_pb2
from flwr.supercore import date
from links import Authority, answering, eventually, new_key, posing, serving

from fedrec.errors import RunError, WireError
from fedrec.exchange import fleet, line, wire
from fedrec.exchange.client import client_app
from fedrec.exchange.fleet import Node
from fedrec.exchange.line import Limits, Line, versions
from fedrec.exchange.superlink import executing, register, unregister
from fedrec.population.grid import in_process


def device(context):
    toy = Toy(partition(context))
    toy.disguise = None
    return toy


APP = client_app(device)
SECRET_TEXT = "what a person did"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(server):
    return server.enrol(CLIENTS)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The model of a grid in this process."""
    model, _ = train(tmp_path_factory.mktemp("expected"), grid=in_process(APP, CLIENTS))
    return model


@contextmanager
def federation(server, keys, answers):
    """A grid of ours with its nodes on duty."""
    with server.fleet(keys, answers) as bell, server.executing(ring=bell.ring) as grid:
        eventually(lambda: len(grid.get_node_ids()) == len(keys))
        yield grid


def honest(count=CLIENTS):
    return [answering(APP, place) for place in range(count)]


def replies(grid, requests, timeout=20.0):
    return list(grid.send_and_receive(requests, timeout=timeout))


def test_a_model_trained_over_the_wire_is_the_one_of_a_grid_in_process(server, keys, expected, tmp_path):
    with federation(server, keys, honest()) as grid:
        model, told = train(tmp_path / "run", grid=grid)
    np.testing.assert_array_equal(model, expected)
    assert [progress.round for progress in told] == list(range(1, ROUNDS + 1))


def test_a_superlink_killed_in_the_middle_of_rounds_costs_nothing(server, keys, expected, tmp_path):
    answered, crashes = threading.Semaphore(0), []

    def crash():
        for answers in (CLIENTS + 1, 9):  # the first of round 1, somewhere in round 2
            for _ in range(answers):
                answered.acquire()
            server.kill()
            time.sleep(0.3)
            server.start()
            crashes.append(answers)

    def counted(answer):
        def count(message):
            answered.release()
            return answer(message)

        return count

    crasher = threading.Thread(target=crash)
    with federation(server, keys, [counted(answer) for answer in honest()]) as grid:
        crasher.start()
        model, _ = train(tmp_path / "run", grid=grid)
        crasher.join()
    assert len(crashes) == 2
    np.testing.assert_array_equal(model, expected)


def test_a_key_has_one_node_and_a_revoked_one_does_not_come_back(server):
    key = new_key()
    node = register(server.address, server.authority.pem, key.public_key())
    assert register(server.address, server.authority.pem, key.public_key()) == node
    with closing(Node(server.address, key, server.authority.pem)) as device:
        assert device.activate() == node
        device.beat()
        unregister(server.address, server.authority.pem, node)
        with pytest.raises(WireError, match="enrolled key"):
            device.beat()
    unregister(server.address, server.authority.pem, node)
    with pytest.raises(WireError, match="new key"):
        register(server.address, server.authority.pem, key.public_key())


@pytest.mark.parametrize("seconds", [-7200, 20, 7200])
def test_a_device_whose_clock_is_off_signs_by_the_servers(server, monkeypatch, seconds):
    for reader in (fleet, line):
        monkeypatch.setattr(reader, "now", lambda: date.now() + timedelta(seconds=seconds))
    key = server.enrol(1)[0]
    with closing(Node(server.address, key, server.authority.pem)) as device:
        assert device.activate() == device.number != 0
        device.beat()
        device.deactivate()
    with closing(Node(server.address, new_key(), server.authority.pem)) as stranger, pytest.raises(WireError):
        stranger.activate()


def test_an_unknown_key_is_told_to_enrol(server):
    with (
        closing(Node(server.address, new_key(), server.authority.pem)) as stranger,
        pytest.raises(WireError, match="enrolled before it connects"),
    ):
        stranger.activate()


def test_a_device_that_was_killed_comes_back_at_once_if_it_knows_its_number(server):
    [key] = server.enrol(1)
    with closing(Node(server.address, key, server.authority.pem)) as killed:
        number = killed.activate()
    with (
        closing(Node(server.address, key, server.authority.pem)) as forgetful,
        pytest.raises(WireError, match="within two minutes"),
    ):
        forgetful.activate()
    with closing(Node(server.address, key, server.authority.pem, number=number)) as back:
        assert back.activate() == back.number == number
        assert not back.once(APP)
        back.deactivate()


@pytest.mark.parametrize(
    ("certificate", "rule"),
    [
        ({"days": -1}, "has expired"),
        ({"address": "127.0.0.9"}, "for another host"),
        ({"authority": Authority()}, "not from the authority"),
    ],
)
def test_every_bad_certificate_is_told_by_its_name(tmp_path, certificate, rule):
    ours = Authority()
    authority = certificate.pop("authority", ours)
    authority.issue(tmp_path, **certificate)
    with (
        posing(tmp_path) as address,
        closing(Node(address, new_key(), ours.pem)) as device,
        pytest.raises(WireError, match=rule),
    ):
        device.activate()


def test_nobody_at_the_address_is_out_of_reach():
    with closing(Node("127.0.0.1:9", new_key(), Authority().pem)) as device, pytest.raises(RunError, match="in reach"):
        device.activate()


def test_a_device_that_fails_says_so_and_no_more(server, keys):
    def fails(message):
        raise ValueError(SECRET_TEXT)

    with federation(server, keys[:2], [fails, answering(APP, 1)]) as grid:
        first, second = keys_in_order(server, keys[:2])
        got = {reply.metadata.src_node_id: reply for reply in replies(grid, [wire.hello(first), wire.hello(second)])}
    assert got[first].has_error() and SECRET_TEXT not in got[first].error.reason
    assert "ValueError" in got[first].error.reason
    assert wire.read_header(got[second]).client == 1


def test_a_message_that_is_too_large_is_refused_before_all_of_it_came(server, keys):
    with (
        server.executing() as grid,
        closing(server.node(keys[0], most=4096)) as device,
    ):
        node = device.activate()
        request = wire.train(node, wire.Header("task", 1), wire.arrays(np.zeros(10_000, np.float32)))
        seen = []
        device_thread = threading.Thread(target=lambda: eventually(lambda: device.once(seen.append)))
        device_thread.start()
        [reply] = replies(grid, [request])
        device_thread.join()
        device.deactivate()
    assert reply.error.reason == "a message is no larger than agreed" and not seen


def test_what_cannot_be_left_for_a_node_is_an_absence(server, keys):
    with federation(server, keys[:1], honest(1)) as grid:
        [there] = keys_in_order(server, keys[:1])
        got = {reply.metadata.src_node_id: reply for reply in replies(grid, [wire.hello(12345), wire.hello(there)])}
    assert got[12345].has_error() and not got[there].has_error()


def test_a_reply_counts_though_its_device_left_at_once(server, keys):
    with server.executing() as grid, closing(server.node(keys[0])) as device:
        [asked] = grid.push_messages([wire.hello(device.activate())])
        eventually(lambda: device.once(answering(APP, 0)))
        device.deactivate()
        [reply] = grid.pull_messages([asked])
    assert wire.read_header(reply).client == 0


def test_nobody_waits_beyond_the_timeout(server, keys):
    with server.executing() as grid, closing(server.node(keys[0])) as silent:
        node = silent.activate()
        began = time.monotonic()
        assert replies(grid, [wire.hello(node)], timeout=0.5) == []
        assert time.monotonic() - began < 5
        silent.deactivate()


def test_only_who_knows_the_secret_executes(server):
    with (
        pytest.raises(WireError, match="the task that asks"),
        executing(server.address, server.authority.pem, b"a guess", {}),
    ):
        pytest.fail("a stranger became the executor")


def test_no_code_of_a_bundle_is_executed(server, keys, tmp_path):
    planted = tmp_path / "planted"
    with closing(Line(server.address, server.authority.pem)) as line:

        def control(what, request, answer):
            return line.ask(f"/v1/control/{what}", request, answer, versions("flwr CLI"))

        def plant():
            bundle = fab_pb2.Fab(content=bundle_that_writes(planted))
            return control("start-run", control_pb2.StartRunRequest(fab=bundle), control_pb2.StartRunResponse).run_id

        before = plant()
        with federation(server, keys[:2], honest(2)) as grid:
            during = plant()
            assert len(replies(grid, [wire.hello(node) for node in grid.get_node_ids()])) == 2
            ours = grid.run.run_id
        runs = control("list-runs", control_pb2.ListRunsRequest(), control_pb2.ListRunsResponse).run_dict
    assert not planted.exists()
    assert [runs[run].status.sub_status for run in (before, ours, during)] == ["stopped", "completed", "stopped"]


def bundle_that_writes(path):
    code = f"open({str(path)!r}, 'w').close()\nfrom flwr.serverapp import ServerApp\napp = ServerApp()\n"
    project = (
        '[project]\nname = "planted"\nversion = "1.0.0"\ndescription = ""\nlicense = "x"\n'
        '[tool.flwr.app]\npublisher = "somebody"\n'
        '[tool.flwr.app.components]\nserverapp = "planted:app"\nclientapp = "planted:app"\n'
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as bundle:
        bundle.writestr("pyproject.toml", project)
        bundle.writestr("planted.py", code)
    return content.getvalue()


def keys_in_order(server, some):
    return [register(server.address, server.authority.pem, key.public_key()) for key in some]


def drip(connection):
    """Answer at a few bytes a second."""
    connection.recv(1 << 16)
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silent(connection):
    """Say nothing until the other side hangs up, or for far too long."""
    connection.settimeout(10)
    while connection.recv(1 << 16):
        pass


@pytest.mark.parametrize("serve", [drip, lambda connection: None, silent])
def test_a_line_that_drips_breaks_or_is_silent_ends_at_the_deadline(tmp_path, serve):
    authority = Authority()
    authority.issue(tmp_path)
    with posing(tmp_path, serve) as address, closing(Line(address, authority.pem)) as line:
        began = time.monotonic()
        with pytest.raises(RunError, match="in reach"):
            line.ask("/x", control_pb2.ListRunsRequest(), control_pb2.ListRunsResponse, {}, Limits(0.6))
        assert time.monotonic() - began < 5


def test_an_answer_without_end_is_refused(tmp_path):
    def gush(connection):
        connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000)

    authority = Authority()
    authority.issue(tmp_path)
    with (
        posing(tmp_path, gush) as address,
        closing(Line(address, authority.pem)) as line,
        pytest.raises(WireError, match="no larger"),
    ):
        line.ask("/x", control_pb2.ListRunsRequest(), control_pb2.ListRunsResponse, {}, Limits(5.0, 1000))
