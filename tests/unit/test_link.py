"""The lines to a SuperLink, piece by piece, against scripted counterparts; a real one is in test_fleet.py."""

import io
import threading
import time
import tomllib
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto import runtime_pb2
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.run import Run

from fedrec.errors import RunError, WireError
from fedrec.exchange import conversation, duty, superlink, wire
from fedrec.exchange.conversation import Conversation, Mail
from fedrec.exchange.duty import run_nodes
from fedrec.exchange.flower import become_local_server
from fedrec.exchange.line import Line, _refusal, distrust
from fedrec.exchange.link import LinkGrid
from fedrec.exchange.parcels import Kept, Parcel, pack

MOST = 1 << 20


@pytest.fixture(autouse=True)
def _server():
    become_local_server()


def shelf(*messages):
    """Messages as parcels, and what their parts are pulled from."""
    packed = pack(messages)
    contents = {name: each.part(name) for each in packed for name in each.parts}

    def pull(name):
        return PullObjectResponse(object_found=name in contents, object_available=True, object_content=contents[name])

    return packed, contents, pull


def hello(node=7):
    return wire.hello(node)


class Counter:
    """A SuperLink that takes whatever is left with it, and notes what came when."""

    kept = Kept(0)

    def __init__(self):
        self.heard = []

    def ask(self, path, request, answer, headers, limits):
        self.heard.append(path.rpartition("/")[2])
        if self.heard[-1] == "push-object":
            return answer(stored=True)
        trees = request.message_object_trees
        wanted = [part.object_id for tree in trees for part in iterate_object_tree(tree)]
        return answer(message_ids=[tree.object_id for tree in trees], objects_to_push=dict.fromkeys(wanted))


def test_many_messages_are_announced_a_few_at_a_time_so_that_no_node_waits_long_for_the_parts_of_its_own():
    line, rung = Counter(), []
    grid = LinkGrid(line, Run.create_empty(1), {}, ring=lambda: rung.append(len(line.heard)))
    assert len(grid.push_messages([hello(node) for node in range(1, 101)])) == 100
    announced = [place for place, what in enumerate(line.heard) if what == "push-messages"]
    assert len(announced) == 4 and all(line.heard[place + 1] == "push-object" for place in announced)
    assert rung == [len(line.heard)]  # once, when all is there


class TestParcels:
    @pytest.mark.parametrize("size", [5, 1 << 16])
    @pytest.mark.parametrize("nodes", [1, 2])
    def test_a_message_comes_out_as_it_went_in(self, size, nodes):
        sent = wire.arrays(np.arange(size, dtype=np.float32))
        packed, _, pull = shelf(*(wire.train(node, wire.Header("task", 3), sent) for node in range(7, 7 + nodes)))
        for place, each in enumerate(packed):
            parcel = Parcel(each.tree, most=MOST)
            assert parcel.fetch(pull, Kept(0))
            read = parcel.open()
            assert read.metadata.message_id == each.envelope.metadata.message_id
            assert (read.metadata.dst_node_id, read.metadata.message_type) == (7 + place, "train")
            np.testing.assert_array_equal(wire.vector(read.content["vector"]), np.arange(size, dtype=np.float32))

    def test_a_message_is_one_part_unless_it_shares_a_large_record_which_is_left_once(self):
        def packed(count, size):
            sent = wire.arrays(np.zeros(size, np.float32))
            return pack([wire.train(node, wire.Header("task", 3), sent) for node in range(count)])

        [alone] = packed(1, 1 << 16)
        assert len(alone.parts) == 1
        assert all(len(each.parts) == 1 for each in packed(2, 5))
        one, other = packed(2, 1 << 16)
        assert len(one.parts) > 2 and len(one.parts.keys() - other.parts.keys()) == 1

    def test_an_error_comes_out_as_it_went_in(self):
        asked = hello()
        asked.metadata.__dict__["_message_id"] = "1"
        [packed], _, pull = shelf(Message(Error(code=7, reason="x"), reply_to=asked))
        assert len(packed.parts) == 1
        parcel = Parcel(packed.tree, most=MOST)
        assert parcel.fetch(pull, Kept(0))
        assert (parcel.open().error.code, parcel.open().error.reason) == (7, "x")

    def test_what_is_not_there_yet_is_fetched_later_and_once(self):
        [packed], _, pull = shelf(hello())
        calls, late = [], {packed.tree.object_id}

        def slow(name):
            calls.append(name)
            return PullObjectResponse(object_found=True) if name in late else pull(name)

        parcel = Parcel(packed.tree, most=MOST)
        assert not parcel.fetch(slow, Kept(0))
        late.clear()
        assert parcel.fetch(slow, Kept(0))
        assert sorted(calls) == sorted([part.object_id for part in iterate_object_tree(packed.tree)] + calls[-1:])

    def test_a_part_that_is_not_what_its_hash_says_is_refused(self):
        [packed], contents, pull = shelf(hello())
        contents[packed.tree.object_id] += b"!"
        with pytest.raises(WireError, match="what its hash says"):
            Parcel(packed.tree, most=MOST).fetch(pull, Kept(0))

    def test_too_many_bytes_or_parts_are_refused(self):
        [packed], _, pull = shelf(wire.train(7, wire.Header("t"), wire.arrays(np.zeros(1000, np.float32))))
        with pytest.raises(WireError, match="no larger"):
            Parcel(packed.tree, most=1000).fetch(pull, Kept(0))
        many = ObjectTree(object_id="root", children=[ObjectTree(object_id=str(place)) for place in range(100)])
        with pytest.raises(WireError, match="no more parts"):
            Parcel(many, most=1000)

    @pytest.mark.parametrize("content", [b"", b"Message  3\x00abc", b"Nothing  0\x00", b"\xff", b"RecordDict  2\x00{}"])
    def test_bytes_that_are_no_message_are_refused(self, content):
        name = get_object_id(content)
        parcel = Parcel(ObjectTree(object_id=name), most=MOST)
        parcel.fetch(lambda _: PullObjectResponse(object_found=True, object_available=True, object_content=content),
                     Kept(0))  # fmt: skip
        with pytest.raises(WireError):
            parcel.open()

    def test_threads_that_want_one_part_fetch_it_once_and_the_oldest_is_forgotten(self):
        kept, calls, gate = Kept(80), [], threading.Event()

        def fetch(name):
            calls.append(name)
            gate.wait(5)
            return b"0123456789"

        threads = [threading.Thread(target=kept.get, args=("a", fetch)) for _ in range(4)]
        for thread in threads:
            thread.start()
        gate.set()
        for thread in threads:
            thread.join()
        assert calls == ["a"]
        for name in "bcdefghi":
            kept.get(name, fetch)
        assert kept.get("a", lambda _: b"new") == b"new"
        assert kept.get("i", lambda _: b"new") == b"0123456789"


class Carrier:
    """A SuperLink as a script: what happens at the first look after so many messages were left, and what fails."""

    def __init__(self, acts, failures=()):
        self.acts, self.failures = acts, list(failures)
        self.left, self.found, self.confirmed, self.contents = [], [], [], {}

    def leave(self, messages, until):
        self._fail("leave")
        pack(messages)
        self.left += messages
        return ["" if each.metadata.dst_node_id == 404 else each.metadata.message_id for each in messages]

    def ask(self, what, request, answer, until):
        self._fail("look")
        self.acts.pop(len(self.left), lambda left: None)(self.left)
        packed, contents, _ = shelf(*self.found)
        self.contents |= contents
        announced, self.found = [message_to_proto(each) for each in self.found], []
        return runtime_pb2.PullAppMessagesResponse(
            messages_list=announced, message_object_trees=[each.tree for each in packed]
        )

    def fetch(self, parcel, until):
        return parcel.fetch(
            lambda name: PullObjectResponse(
                object_found=True, object_available=True, object_content=self.contents[name]
            ),
            Kept(0),
        )

    def confirm(self, message_id, until):
        self.confirmed.append(message_id)

    def answer(self, request, client=1):
        self.found.append(wire.hello_reply(request, wire.Header("task", client=client)))

    def lose(self, request, code):
        self.found.append(Message(Error(code, "gone"), reply_to=request))

    def _fail(self, what):
        if self.failures and self.failures[0] == what:
            self.failures.pop(0)
            raise RunError("out of order")


def talk(carrier, requests, seconds=5.0):
    until = time.monotonic() + seconds
    return list(Conversation(carrier, Mail(carrier, until, MOST), requests, until=until).replies(0.001))


class TestConversations:
    def test_replies_are_handed_on_and_confirmed(self):
        carrier = Carrier({2: lambda left: [carrier.answer(each) for each in left]})
        assert [reply.metadata.src_node_id for reply in talk(carrier, [hello(1), hello(2)])] == [1, 2]
        assert len(carrier.confirmed) == 2

    def test_a_reply_does_not_wait_for_the_others(self):
        carrier = Carrier({2: lambda left: carrier.answer(left[0])})
        until = time.monotonic() + 5
        talking = Conversation(carrier, Mail(carrier, until, MOST), [hello(1), hello(2)], until=until).replies(0.001)
        assert next(talking).metadata.src_node_id == 1
        carrier.answer(carrier.left[1])
        assert next(talking).metadata.src_node_id == 2

    def test_pauses_are_as_long_as_looks_and_not_as_long_as_leaving_many_requests(self, monkeypatch):
        now, rests = [0.0], []

        def passes(seconds):
            now[0] += seconds

        clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda rest: (rests.append(rest), passes(rest)))
        monkeypatch.setattr(conversation, "time", clock)

        class Slow(Carrier):
            def leave(self, messages, until):
                passes(60.0)
                return super().leave(messages, until)

            def ask(self, what, request, answer, until):
                passes(0.5)
                if len(rests) == 2:
                    self.answer(self.left[0])
                return super().ask(what, request, answer, until)

        carrier = Slow({})
        assert len(list(Conversation(carrier, Mail(carrier, 500.0, MOST), [hello(1)], until=500.0).replies(0.001))) == 1
        assert rests[:2] == [pytest.approx(1.0)] * 2

    def test_what_a_broken_line_has_swallowed_is_asked_again_after_a_long_silence(self, monkeypatch):
        now = [0.0]
        clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda rest: now.__setitem__(0, now[0] + rest))
        monkeypatch.setattr(conversation, "time", clock)
        carrier = Carrier({2: lambda left: carrier.answer(left[0], 1), 3: lambda left: carrier.answer(left[2], 2)})
        talking = Conversation(carrier, Mail(carrier, 400.0, MOST), [hello(1), hello(2)], until=400.0).replies(0.1)
        assert [reply.metadata.src_node_id for reply in talking] == [1, 2]
        assert 100 < now[0] < 110 and [each.metadata.dst_node_id for each in carrier.left] == [1, 2, 2]

    def test_a_duplicate_and_a_stranger_are_dropped(self):
        stranger = hello(3)

        def all_at_once(left):
            pack([stranger])
            for request, client in ((left[0], 1), (left[0], 2), (stranger, 3)):
                carrier.answer(request, client)

        carrier = Carrier({2: all_at_once})
        assert [wire.read_header(reply).client for reply in talk(carrier, [hello(1), hello(2)], 0.2)] == [1]

    def test_what_could_not_be_left_is_an_absence(self):
        [reply] = talk(Carrier({}), [hello(404)])
        assert reply.error.code == ErrorCode.NODE_UNAVAILABLE and reply.metadata.src_node_id == 404

    def test_after_an_outage_what_is_open_is_asked_again_and_answered_once(self):
        carrier = Carrier({2: lambda left: [carrier.answer(each) for each in left]}, ["look"])
        [reply] = talk(carrier, [hello(1)])
        assert reply.has_content()
        assert len({each.metadata.message_id for each in carrier.left}) == 2

    def test_a_message_that_may_have_been_left_keeps_its_id(self):
        carrier, request = Carrier({1: lambda left: carrier.answer(left[0])}, ["leave"]), hello(1)
        assert len(talk(carrier, [request])) == 1
        assert carrier.left == [request]

    @pytest.mark.parametrize("code", [ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE])
    def test_an_error_in_the_wake_of_an_outage_is_not_believed_and_any_other_is(self, code):
        carrier = Carrier({1: lambda left: carrier.lose(left[0], code)})
        [reply] = talk(carrier, [hello(1)])
        assert reply.error.code == code
        lost = {2: lambda left: [carrier.lose(each, code) for each in left], 3: lambda left: carrier.answer(left[2])}
        carrier = Carrier(lost, ["look"])
        [reply] = talk(carrier, [hello(1)])
        assert reply.has_content() and len(carrier.left) == 3

    @pytest.mark.parametrize(("back", "heard"), [(65.0, True), (130.0, False)])
    def test_a_node_has_a_minute_to_find_its_way_back_after_an_outage(self, monkeypatch, back, heard):
        now = [0.0]
        clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda rest: now.__setitem__(0, now[0] + rest))
        monkeypatch.setattr(conversation, "time", clock)

        class Away(Carrier):
            def ask(self, *asked):
                if self.left and not self.failures:
                    last = self.left[-1]
                    self.answer(last) if now[0] >= back else self.lose(last, ErrorCode.NODE_UNAVAILABLE)
                return super().ask(*asked)

        carrier = Away({}, ["look"])
        [reply] = Conversation(carrier, Mail(carrier, 400.0, MOST), [hello(1)], until=400.0).replies(0.1)
        assert reply.has_content() is heard and len(carrier.left) <= 8 and now[0] < 130

    def test_a_reply_that_cannot_be_read_says_why(self):
        def answer(left):
            record = RecordDict({"x": ConfigRecord({"x": b"0" * (2 * MOST)})})
            carrier.found.append(Message(record, reply_to=left[0]))

        carrier = Carrier({1: answer})
        [reply] = talk(carrier, [hello(1)])
        assert reply.error.reason == "a message is no larger than agreed"
        assert reply.metadata.src_node_id == 1

    def test_a_node_that_poses_as_another_is_known_by_its_envelope(self):
        """What stands in the message is the node's word; the SuperLink checks the envelope."""

        class Verified(Carrier):
            def ask(self, *asked):
                said = super().ask(*asked)
                for envelope in said.messages_list:
                    envelope.metadata.src_node_id = 1
                return said

        def pose(left):
            carrier.answer(left[0])
            carrier.found[0].metadata.__dict__["_src_node_id"] = 2

        carrier = Verified({1: pose})
        [reply] = talk(carrier, [hello(1)])
        assert reply.has_content() and reply.metadata.src_node_id == 1

    def test_the_timeout_is_kept(self):
        began = time.monotonic()
        assert talk(Carrier({}), [hello(1)], 0.2) == []
        assert 0.2 <= time.monotonic() - began < 5

    def test_a_request_does_not_outlive_the_round_by_much(self):
        carrier = Carrier({})
        talk(carrier, [hello(1)], 0.1)
        assert carrier.left[0].metadata.ttl < 700


class Scripted:
    """A node whose server is a script."""

    def __init__(self, messages=0, failures=0):
        self.messages, self.failures, self.said = messages, failures, []

    def activate(self):
        self.said.append("activate")
        if self.failures:
            self.failures -= 1
            raise RunError("the server is in reach")

    def beat(self):
        self.said.append("beat")

    def once(self, answer):
        self.said.append("look")
        if self.messages:
            self.messages -= 1
            answer(None)
            return True
        return False

    def deactivate(self):
        self.said.append("deactivate")


def happens(condition, seconds=10.0):
    """Whether it does, in time."""
    until = time.monotonic() + seconds
    while not (happened := condition()) and time.monotonic() < until:
        time.sleep(0.005)
    return happened


def end_of(condition, quiet=0.0):
    """What is set once `condition` holds, and `quiet` seconds have passed; if it never holds, after a while."""
    stop = threading.Event()

    def watch():
        happens(condition)
        time.sleep(quiet)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    return stop


def on_duty(nodes, answers, until, *, bell=lambda: not time.sleep(0.02), quiet=0.0):
    """What was heard of nodes that were on duty until `until(heard)`, and for `quiet` seconds more."""
    heard = []
    stop = end_of(lambda: until(heard), quiet)
    run_nodes(nodes, answers, bell=bell, stop=stop, heard=lambda node, error: heard.append((node, error)))
    return heard


class TestDuty:
    def test_nodes_sign_on_look_when_it_rings_and_sign_off(self):
        node, answered = Scripted(messages=2), []
        heard = on_duty([node], [answered.append], lambda _: len(answered) == 2)
        assert node.said[0] == "activate" and node.said[-1] == "deactivate" and len(answered) == 2
        assert heard == [(node, None)]

    def test_nobody_looks_while_it_is_quiet(self):
        node, quiet = Scripted(), threading.Event()
        on_duty([node], [None], lambda _: "look" in node.said, bell=lambda: quiet.wait(5), quiet=0.4)
        quiet.set()
        assert node.said == ["activate", "look", "deactivate"]

    def test_a_bell_that_was_silent_makes_nobody_look_until_some_heartbeats_later(self, monkeypatch):
        monkeypatch.setattr(duty, "INTERVAL", 0.03)
        node = Scripted()
        on_duty([node], [None], lambda _: node.said.count("look") >= 3, bell=lambda: bool(time.sleep(0.01)))
        looks = [place for place, what in enumerate(node.said) if what == "look"]
        assert looks[0] < duty._UNASKED <= np.diff(looks).min() and len(looks) >= 3

    def test_a_node_that_answered_or_failed_looks_again_with_its_next_heartbeat(self, monkeypatch):
        monkeypatch.setattr(duty, "INTERVAL", 0.05)
        monkeypatch.setattr(duty, "_UNASKED", 10**6)  # no other heartbeat makes it look
        node = Scripted(messages=2)
        on_duty([node], [lambda _: None], lambda _: node.said.count("look") >= 3, bell=lambda: bool(time.sleep(0.01)))
        assert not node.messages and node.said.count("look") >= 3

    def test_a_slow_device_does_not_keep_the_others_waiting(self):
        slow, others, answered = Scripted(messages=1), [Scripted(messages=1) for _ in range(3)], []

        def answer_last(message):
            happens(lambda: len(answered) == 3, 15)  # longer than anybody is on duty

        on_duty([slow, *others], [answer_last, *[answered.append] * 3], lambda _: len(answered) == 3)
        assert len(answered) == 3

    def test_a_server_that_was_gone_is_found_again(self):
        node = Scripted(messages=1, failures=1)
        heard = on_duty([node], [lambda _: None], lambda _: not node.messages)
        assert [error is None for _, error in heard] == [False, True] and not node.messages

    def test_a_ring_during_a_heartbeat_is_not_lost(self, monkeypatch):
        monkeypatch.setattr(duty, "INTERVAL", 0.02)
        monkeypatch.setattr(duty, "_UNASKED", 10**6)  # it looks when it rings, and not by itself
        node, beating, over, answered = Scripted(), threading.Event(), threading.Event(), []

        def beat():
            if not beating.is_set():
                node.messages = 1
                beating.set()
                over.wait(5)

        def bell():
            if not beating.is_set():
                return beating.wait(5)
            over.set()  # all have been told of the first ring by now
            return bool(time.sleep(0.01))

        node.beat = beat
        on_duty([node], [answered.append], lambda _: answered, bell=bell)
        assert len(answered) == 1

    def test_whoever_failed_to_look_is_told_to_be_in_touch_again(self, monkeypatch):
        monkeypatch.setattr(duty, "INTERVAL", 0.05)
        node, looks = Scripted(), []

        def look(answer):
            looks.append(answer)
            if len(looks) == 2:  # the first may come before anybody heard that it signed on
                raise RunError("the server is ready")
            return len(looks) == 1

        node.once = look
        heard = on_duty([node], [None], lambda heard: len(heard) >= 3, bell=lambda: bool(time.sleep(0.01)))
        assert [error is None for _, error in heard] == [True, False, True]  # and no heartbeat ever failed

    def test_a_heartbeat_and_a_look_that_find_a_node_well_at_once_tell_it_once(self, monkeypatch):
        class Hesitant(duty._Post):
            @property
            def troubled(self):
                said = self.__dict__["troubled"]
                time.sleep(0.05)  # the other thread reads the same meanwhile, unless it has to wait
                return said

            @troubled.setter
            def troubled(self, value):
                self.__dict__["troubled"] = value

        monkeypatch.setattr(duty, "_Post", Hesitant)
        node = Scripted()
        heard = on_duty([node], [None], lambda _: "look" in node.said, quiet=0.3)
        assert heard == [(node, None)]

    def test_a_listener_that_fails_ends_nobodys_duty(self, monkeypatch):
        monkeypatch.setattr(duty, "INTERVAL", 0.02)
        node, answered, told = Scripted(messages=2), [], []

        def heard(node, error):
            told.append(error)
            raise BrokenPipeError

        stop = end_of(lambda: len(answered) == 2 and node.said.count("beat") > 3)
        run_nodes([node], [answered.append], bell=lambda: not time.sleep(0.01), stop=stop, heard=heard)
        assert told and len(answered) == 2 and node.said.count("beat") > 3 and node.said[-1] == "deactivate"

    def test_a_bell_that_breaks_in_some_other_way_is_listened_to_again(self, monkeypatch):
        node, rings, answered = Scripted(), [], []

        def bell():
            rings.append(time.sleep(0.01))
            if len(rings) == 1:
                node.messages = 1
                raise ValueError
            return True

        on_duty([node], [answered.append], lambda _: answered, bell=bell)
        assert len(answered) == 1

    def test_an_error_of_one_node_is_told_and_ends_nobodys_duty(self):
        broken, fine, answered = Scripted(messages=1), Scripted(messages=1), []

        def breaks(message):
            raise KeyError("of the library's")

        def is_told(heard):
            return any(node is broken and isinstance(error, RunError) for node, error in heard)

        heard = on_duty([broken, fine], [breaks, answered.append], lambda heard: answered and is_told(heard))
        assert answered and is_told(heard)
        assert "deactivate" in broken.said


class TestLine:
    def test_an_authority_that_is_no_certificate_is_refused(self):
        with pytest.raises(WireError, match="PEM"):
            Line("127.0.0.1:1", b"nonsense")

    @pytest.mark.parametrize(("code", "rule"), [(10, "has expired"), (9, "not yet valid"), (62, "another host"),
                                                (64, "another host"), (20, "not from"), (1, "verified")])  # fmt: skip
    def test_why_a_certificate_was_refused(self, code, rule):
        assert rule in distrust(code, "x").rule and distrust(code, "x").remedy

    @pytest.mark.parametrize(("status", "body", "kind", "rule"), [
        (401, b"", WireError, "enrolled key"), (412, b'{"code": 2004, "detail": "x"}', WireError, "before it connects"),
        (404, b"", WireError, "address of a server"), (503, b"<html>", RunError, "ready"),
        (412, b'{"code": 1001, "detail": "x"}', WireError, "minor version"), (418, b"", WireError, "accepts"),
        (401, b'{"code": 1008, "detail": "x"}', WireError, "the task that asks"), (413, b"", WireError, "no larger"),
    ])  # fmt: skip
    def test_why_a_request_was_refused(self, status, body, kind, rule):
        error = _refusal(status, body, {})
        assert type(error) is kind and rule in error.rule

    def test_a_clock_that_is_wrong_is_told_by_how_much(self):
        error = _refusal(401, b"", {b"date": b"Thu, 01 Jan 2015 00:00:00 GMT"})
        assert error.got["seconds_apart"] > 3e8


class TestExecution:
    def test_the_bundle_names_no_code(self):
        with zipfile.ZipFile(io.BytesIO(superlink._bundle({"run": 'a "name"', "rounds": 3}))) as bundle:
            assert bundle.namelist() == ["pyproject.toml"]
            app = tomllib.loads(bundle.read("pyproject.toml").decode())["tool"]["flwr"]["app"]
        assert app["config"] == {"run": 'a "name"', "rounds": 3}
        assert set(app["components"].values()) == {"nobody.here:nothing"}

    def test_tasks_of_other_runs_are_refused(self):
        tasks, ended = [(1, "theirs"), (2, "ours")], []

        class Scripted:
            def ask(self, path, request, answer, headers, limits=None):
                if path.endswith("acquire-task"):
                    run, token = tasks.pop(0)
                    return SimpleNamespace(token=token, task=SimpleNamespace(run_id=run))
                ended.append((headers["flwr-task-token"], request.sub_status))

        task = superlink._Task.acquire(Scripted(), b"secret", 2, 5.0)
        assert ended == [("theirs", "failed")] and task.headers["flwr-task-token"] == "ours"

    def test_the_command_line_shuts_every_door(self, tmp_path):
        files = dict.fromkeys(("authority", "certificate", "key", "database", "secret", "home"), tmp_path)
        link = superlink.SuperLink(port=4711, **files)
        command = link.command()
        assert command[command.index("--host") + 1] == "127.0.0.1"
        assert command[command.index("--isolation") + 1] == "process"
        assert {"--enable-supernode-auth", "--superexec-auth-secret-file"} <= set(
            command
        ) and "--insecure" not in command
        assert link.environment()["FLWR_TELEMETRY_ENABLED"] == "0"
