"""Hostile replies: the model is that of the honest rest, reasons are counted, and no word of theirs is kept."""

import io
import logging
import pickle
import zipfile

import numpy as np
import pytest
from federation import CLIENTS, INITIAL, OPEN, ROUNDS, SIZE, Tampered, grid_of, masked, saved, train, vector_of
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from plans import plan_of

from fedrec.errors import PrivacyRefusal
from fedrec.exchange import wire
from fedrec.privacy.chain import Book
from fedrec.privacy.noise import Level

CANARY = "canary-4711"
PLAIN = plan_of("shares", rounds=ROUNDS, level=Level.TEST)
PLANS = {"open": None, "behind masks": masked(PLAIN)}
LIARS = {"open": int(OPEN.cohort(1, CLIENTS)[0]), "behind masks": 0}

ONE = "an array record holds exactly one vector"
LONG = "a vector is no longer than its kind"
BYTES = "the vector cannot be decoded"
ROUND = "an update belongs to the round that asked for it"
ATTEMPT = "an update belongs to the attempt and to the model that it was asked for"
CONTENT = "a message holds a header and at most one vector"
HEADER = "a header names version, task, round, client, hosts, clip, nonce, model and nothing else"


pytestmark = pytest.mark.usefixtures("no_disk")


def records(**given):
    """Forge a reply: other records in place of its own, or beside them."""
    return lambda request, reply: Message(RecordDict({**reply.content, **given}), reply_to=request)


def header(**change):
    return lambda request, reply: records(header=ConfigRecord({**reply.content["header"], **change}))(request, reply)


def raw(data, stype="numpy.ndarray"):
    """Forge a reply: these bytes for a vector."""
    array = Array(dtype="float32", shape=(SIZE,), stype=stype, data=data)
    return records(vector=ArrayRecord({"vector": array}))


def npy(value, **options):
    buffer = io.BytesIO()
    np.save(buffer, value, **options)
    return buffer.getvalue()


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{CANARY}.npy", b"")
    return buffer.getvalue()


class Bomb:
    """What unpickling would run."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def claiming(shape):
    """A small file that says it holds a vector of another shape."""
    plain, other = f"({SIZE},), }}".encode(), f"{shape}, }}".encode()
    return npy(np.zeros(SIZE, np.float32)).replace(plain + b" " * (len(other) - len(plain)), other)


def objects():
    """A file of objects as short as one of numbers."""
    preamble = npy(np.zeros(1, np.float32))[:-4].replace(b"'<f4'", b"'|O' ")
    return preamble + pickle.dumps(Bomb())[:20]


def without(name):
    def forge(request, reply):
        return Message(RecordDict({k: v for k, v in reply.content.items() if k != name}), reply_to=request)

    return forge


def error(code, reason):
    return lambda request, reply: Message(Error(code=code, reason=reason), reply_to=request)


HOSTILE = {
    "not numbers": (vector_of(lambda v: np.full(SIZE, np.nan, np.float32)), {"open": "not finite"}),
    "infinite": (vector_of(lambda v: np.full(SIZE, np.inf, np.float32)), {"open": "not finite"}),
    "other type": (vector_of(lambda v: np.zeros(SIZE, np.int32)), {}),
    "other byte order": (vector_of(lambda v: v.astype(v.dtype.newbyteorder(">"))), {}),
    "shorter": (vector_of(lambda v: v[:-1]), "wrong shape"),
    "one number for all": (vector_of(lambda v: v[:1]), "wrong shape"),
    "a column": (vector_of(lambda v: v[:, None]), "wrong shape"),
    "no number": (vector_of(lambda v: v[:0]), "wrong shape"),
    "one too many": (vector_of(lambda v: np.append(v, v[:1])), LONG),
    "a hundred megabytes": (raw(bytes(10**8)), LONG),
    "long and undecodable": (raw(CANARY.encode() * 100), LONG),
    "nonsense": (raw(CANARY.encode()), BYTES),
    "nothing": (raw(b""), BYTES),
    "a shape beyond memory": (raw(claiming((2**45,))), BYTES),
    "a shape below zero": (raw(claiming((-1,))), BYTES),
    "a pickle": (raw(pickle.dumps(Bomb())), BYTES),
    "an array of objects": (raw(npy(np.array([None], object), allow_pickle=True)), LONG),
    "a short array of objects": (raw(objects()), BYTES),
    "an archive": (raw(archive()), BYTES),
    "another encoding": (raw(npy(INITIAL), stype=CANARY), BYTES),
    "no vector": (without("vector"), ONE),
    "no header": (without("header"), CONTENT),
    "another key": (records(vector=ArrayRecord({CANARY: Array(INITIAL)})), ONE),
    "two keys": (records(vector=ArrayRecord({"vector": Array(INITIAL), CANARY: Array(INITIAL)})), ONE),
    "a header for a vector": (records(vector=ConfigRecord({CANARY: 1})), CONTENT),
    "another record": (records(**{CANARY: MetricRecord({"loss": 0.5})}), CONTENT),
    "another word in the header": (header(**{CANARY: 1}), HEADER),
    "another version": (header(version=wire.VERSION - 1), "both sides speak one protocol version"),
    "an earlier round": (header(round=0), ROUND),
    "another task": (header(task=CANARY), ROUND),
    "another attempt": (header(nonce=CANARY), ATTEMPT),
    "a stale model": (header(model=wire.digest(INITIAL + 1)), ATTEMPT),
    "a long error": (error(1, CANARY * 10**5), "the node answered with an error"),
    "an error code of its own": (error(4711, CANARY), "the node answered with an error"),
}


def lying(crew, forge, message_type="train"):
    """A grid on which one client lies in one kind of message."""

    def tamper(requests, replies):
        if not requests or requests[0].metadata.message_type != message_type:
            return replies
        pairs = zip(requests, replies, strict=True)
        return [forge(q, r) if q.metadata.dst_node_id - 1 == LIARS[crew] else r for q, r in pairs]

    return Tampered(grid_of(PLANS[crew]), tamper)


@pytest.fixture(scope="module")
def rest(tmp_path_factory):
    """What is released of a round to which everybody came but the liar; without masks, for they change nothing."""

    def missing(crew):
        def tamper(requests, replies):
            return [reply for reply in replies if reply.metadata.src_node_id - 1 != LIARS[crew]]

        plan, folder = None if crew == "open" else PLAIN, tmp_path_factory.mktemp("rest")
        train(folder, plan, grid=Tampered(grid_of(plan), tamper), rounds=1)
        return saved(folder).digest

    return {crew: missing(crew) for crew in PLANS}


@pytest.mark.parametrize("crew", PLANS)
@pytest.mark.parametrize("name", HOSTILE)
def test_the_model_is_that_of_the_honest_rest(tmp_path, caplog, rest, name, crew):
    forge, reason = HOSTILE[name]
    if not isinstance(reason, str):
        reason = reason.get(crew, "wrong type")
    with caplog.at_level(logging.DEBUG):
        _, told = train(tmp_path, PLANS[crew], grid=lying(crew, forge), rounds=1)
    assert saved(tmp_path).digest == rest[crew]
    assert told[0].judged.refused == {reason: 1}
    assert told[0].judged.accepted == told[0].judged.asked - 1
    assert CANARY not in caplog.text + repr(told)
    assert all(CANARY.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize("crew", PLANS)
def test_an_honest_reply_is_none_of_these(tmp_path, rest, crew):
    _, told = train(tmp_path, PLANS[crew], grid=lying(crew, lambda request, reply: reply), rounds=1)
    assert saved(tmp_path).digest != rest[crew]
    assert (told[0].judged.refused, told[0].judged.accepted) == ({}, told[0].judged.asked)


@pytest.mark.parametrize("crew", PLANS)
def test_what_was_sent_before_does_not_count_again(tmp_path, crew):
    """Every reply of round 1 once more, in round 2 and in a second attempt at round 1."""
    old = []

    def replay(requests, replies):
        if requests and requests[0].metadata.message_type == "train":
            old.append(replies)
            return [
                Message(then.content, reply_to=request) for request, then in zip(requests, old[0], strict=False)
            ]  # fmt: skip
        return replies

    grid, plan = Tampered(grid_of(PLANS[crew]), replay), PLANS[crew]
    train(tmp_path / "first", plan, grid=grid, rounds=1)
    error, words = (PrivacyRefusal, "P06") if plan else (Exception, "quorum")
    with pytest.raises(error, match=words):
        train(tmp_path / "second", plan, grid=grid, rounds=1)
    before = saved(tmp_path / "first").digest
    if plan is None:
        with pytest.raises(error, match=words):
            train(tmp_path / "first", plan, grid=grid, rounds=2)
    else:  # the last round is given up, and the run ends as it was
        train(tmp_path / "first", plan, grid=grid, rounds=2)
    assert (saved(tmp_path / "first").round, saved(tmp_path / "first").digest) == (1, before)


@pytest.mark.parametrize("crew", PLANS)
def test_the_second_of_two_answers_is_a_duplicate(tmp_path, crew):
    plan = PLANS[crew]

    def twice(requests, replies):
        train = requests and requests[0].metadata.message_type == "train"
        return [*replies, *replies] if train else replies

    _, told = train(tmp_path / "twice", plan, grid=Tampered(grid_of(plan), twice), rounds=1)
    train(tmp_path / "once", plan, rounds=1)
    assert saved(tmp_path / "twice").digest == saved(tmp_path / "once").digest
    assert told[0].judged.refused == {"duplicate": told[0].judged.asked}


# Steps of a secure aggregation.

KIND = "a step of a secure aggregation says what its kind says"
STEPS = ["keys", "shares", "consent", "reveal"]


def said(**change):
    return lambda request, reply: records(said=ConfigRecord({**reply.content["said"], **change}))(request, reply)


SAID = {
    "no words": (without("said"), KIND),
    "words of another kind": (records(said=ConfigRecord({CANARY: 1})), KIND),
    "a word more": (said(**{CANARY: "x"}), KIND),
    "a vector for words": (records(said=ArrayRecord({"vector": Array(INITIAL)})), KIND),
    "text for a number": (said(client=CANARY), "a field holds what the protocol says"),
    "a number below zero": (said(client=-1), "a field holds what the protocol says"),
    "another attempt": (header(nonce=CANARY), ATTEMPT),
    "another model": (header(model=CANARY), ATTEMPT),
    "another round": (header(round=7), ROUND),
    "a long error": (error(1, CANARY * 10**5), "the node answered with an error"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", SAID)
def test_a_lie_in_a_step_costs_the_liar_its_place_and_nobody_else(tmp_path, caplog, rest, step, name):
    forge, reason = SAID[name]
    with caplog.at_level(logging.DEBUG):
        grid = lying("behind masks", forge, f"query.{step}")
        _, told = train(tmp_path / "lie", PLANS["behind masks"], grid=grid, rounds=1)
    train(tmp_path / "honest", PLAIN, rounds=1)
    honest = saved(tmp_path / "honest").digest if step in ("consent", "reveal") else rest["behind masks"]
    assert saved(tmp_path / "lie").digest == honest
    assert told[0].judged.refused == {reason: 1}
    assert CANARY not in caplog.text


@pytest.mark.parametrize("step", STEPS)
def test_nobody_speaks_for_another_in_a_step(tmp_path, rest, step):
    """A client that signs as its neighbour loses its own place, and the neighbour keeps his."""
    grid = lying("behind masks", said(client=4), f"query.{step}")
    _, told = train(tmp_path / "lie", PLANS["behind masks"], grid=grid, rounds=1)
    train(tmp_path / "honest", PLAIN, rounds=1)
    honest = saved(tmp_path / "honest").digest if step in ("consent", "reveal") else rest["behind masks"]
    assert saved(tmp_path / "lie").digest == honest
    reason = {"keys": "not asked", "shares": "not in the round"}.get(step, "not a survivor")
    assert told[0].judged.refused == {reason: 1}


def test_a_lie_behind_a_mask_spoils_one_round_and_not_the_run(tmp_path):
    """Nobody can tell whose it was. What no honest devices have together is not released, and not paid for."""
    plan = PLANS["behind masks"]
    loud = vector_of(lambda v: v + np.uint32(2**30))
    shared, told = train(tmp_path, plan, grid=lying("behind masks", loud))
    assert [progress.round for progress in told] == [2, 3, 4]
    assert Book.read(tmp_path / "ledger.jsonl").position.charged == (2, 3, 4)
    assert np.abs(shared - INITIAL).max() < 2
