"""What a client may put into a message, and that nothing else comes through."""

import io
import zipfile

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from fedrec.errors import WireError
from fedrec.exchange import wire
from fedrec.exchange.flower import become_local_server
from fedrec.rounds.filter import Filter

become_local_server()
GOOD = np.array([1, -2, 3], np.float32)
HEADER = wire.Header("task", 3, nonce="once", model=wire.digest(GOOD))
FIELDS = {
    "version": wire.VERSION, "task": "task", "round": 3, "client": -1, "hosts": 1, "clip": 0.0, "nonce": "once",
    "model": wire.digest(GOOD),
}  # fmt: skip
lawful = settings(derandomize=True, deadline=None, max_examples=200)


def request():
    message = wire.train(1, HEADER, wire.arrays(GOOD))
    message.metadata.__dict__["_message_id"] = "1"
    return message


def reply(content):
    return Message(content, reply_to=request())


def record(vector=None, **fields):
    """A reply, right but for what is given."""
    sent = wire.arrays(GOOD) if vector is None else vector
    return RecordDict({"vector": sent, "header": ConfigRecord(FIELDS | fields)})


def raw(data, dtype="float32", stype="numpy.ndarray"):
    return ArrayRecord({"vector": Array(dtype=dtype, shape=(3,), stype=stype, data=data)})


def npy(vector):
    buffer = io.BytesIO()
    np.save(buffer, vector)
    return buffer.getvalue()


def dtypes():
    return some.sampled_from([np.float32, np.float64, np.int32, np.int64, np.int8, np.bool_])


@lawful
@given(dtypes(), some.lists(some.integers(0, 3), min_size=1, max_size=3), some.text(), some.integers(0, 2**40),
       some.floats(allow_nan=False))  # fmt: skip
def test_what_is_sent_is_what_is_read(dtype, shape, task, number, clip):
    header = wire.Header(task, number, clip=clip, nonce=task, model=wire.digest(GOOD))
    vector = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    asked = wire.train(7, header, wire.arrays(GOOD))
    asked.metadata.__dict__["_message_id"] = "1"
    got = wire.read_train(asked)
    assert (got.header, got.shared.tolist(), asked.metadata.dst_node_id) == (header, GOOD.tolist(), 7)
    answer = wire.update(asked, header, vector)
    read = wire.read_update(answer, header)
    assert (read.dtype, read.shape, read.tobytes()) == (vector.dtype, vector.shape, vector.tobytes())
    assert answer.metadata.src_node_id == 7


@lawful
@given(some.text(), some.integers(-1, 2**31))
def test_hello_says_who_and_for_which_task(task, client):
    asked = wire.hello(7)
    asked.metadata.__dict__["_message_id"] = "1"
    answer = wire.hello_reply(asked, wire.Header(task, client=client))
    assert wire.read_header(answer) == wire.Header(task, 0, client)


def test_a_reply_holds_a_vector_a_round_and_a_task_and_nothing_about_the_person():
    content = wire.update(request(), HEADER, GOOD).content
    assert sorted(content.keys()) == ["header", "vector"]
    assert dict(content["header"]) == FIELDS
    assert list(content["vector"].keys()) == ["vector"]


def test_the_right_reply_passes():
    np.testing.assert_array_equal(wire.read_update(reply(record()), HEADER), GOOD)


WITHOUT = {name: ConfigRecord({other: FIELDS[other] for other in FIELDS if other != name}) for name in FIELDS}
HOSTILE = {
    "nothing": RecordDict({}),
    "no vector": RecordDict({"header": ConfigRecord(FIELDS)}),
    "no header": RecordDict({"vector": wire.arrays(GOOD)}),
    "no array": record(ArrayRecord({})),
    "extra array": record(ArrayRecord({"vector": Array(GOOD), "more": Array(GOOD)})),
    "renamed array": record(ArrayRecord({"weights": Array(GOOD)})),
    "extra record": RecordDict({**record(), "metrics": MetricRecord({"loss": 0.5})}),
    "extra field": record(examples=12),
    "vector is a header": RecordDict({"vector": ConfigRecord(FIELDS), "header": ConfigRecord(FIELDS)}),
    "header is a vector": RecordDict({"vector": wire.arrays(GOOD), "header": wire.arrays(GOOD)}),
    "other version": record(version=wire.VERSION + 1),
    "version in words": record(version="1"),
    "wrong round": record(round=4),
    "earlier round": record(round=2),
    "wrong task": record(task="other"),
    "another attempt": record(nonce="twice"),
    "another model": record(model=wire.digest(-GOOD)),
    "nonce is a number": record(nonce=1),
    "model is bytes": record(model=b"abc"),
    "task is a number": record(task=3),
    "round in words": record(round="3"),
    "round is a fraction": record(round=3.0),
    "client in words": record(client="me"),
    "clip in words": record(clip="1.0"),
    "clip is a whole number": record(clip=1),
    "clip is a list": record(clip=[1.0]),
    "list of rounds": record(round=[3]),
    **{f"no {name}": RecordDict({"vector": wire.arrays(GOOD), "header": header}) for name, header in WITHOUT.items()},
    "no bytes": record(raw(b"")),
    "noise for bytes": record(raw(b"\x00" * 64)),
    "torn bytes": record(raw(npy(GOOD)[:-1])),
    "pickled object": record(raw(npy(np.array([{}], object)))),
    "unknown encoding": record(raw(npy(GOOD), stype="torch")),
    "endless header": record(raw(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)),
    "torn header": record(raw(b"\x93NUMPY\x01\x00\x08\x00{'descr'")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_other_reply_is_refused(name):
    with pytest.raises(WireError) as refusal:
        wire.read_update(reply(HOSTILE[name]), HEADER)
    assert refusal.value.exit_code == 6


@pytest.mark.parametrize("size", [4, 2**45, 2**62, 10**30, -1])
def test_a_size_that_is_not_that_of_the_bytes_is_refused(size):
    plain, other = b"(3,), }", f"({size},), }}".encode()
    lying = npy(GOOD).replace(plain + b" " * (len(other) - len(plain)), other)
    assert len(lying) == len(npy(GOOD))
    with pytest.raises(WireError, match="the vector cannot be decoded"):
        wire.read_update(reply(record(raw(lying))), HEADER)


def test_an_archive_in_place_of_a_vector_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("0.npy", npy(GOOD))
    with pytest.raises(WireError, match="the vector cannot be decoded; got reason='NpzFile'"):
        wire.read_update(reply(record(raw(buffer.getvalue()))), HEADER)


def test_an_error_reply_is_refused():
    with pytest.raises(WireError, match="the node answered with an error; got code=7"):
        wire.read_update(Message(Error(code=7, reason="x"), reply_to=request()), HEADER)


names = some.sampled_from(["header", "vector", "metrics", ""])
scalars = some.one_of(some.integers(-(2**40), 2**40), some.floats(), some.text(max_size=5), some.booleans())
values = some.one_of(scalars, some.sampled_from([1, 3, "task", [3], ["task"]]))
fields = some.one_of(
    some.dictionaries(some.sampled_from([*FIELDS, "loss"]), values, max_size=5),
    some.builds(lambda some_of: FIELDS | some_of, some.dictionaries(some.sampled_from([*FIELDS]), values, max_size=1)),
)
payloads = some.one_of(
    some.binary(max_size=40),
    some.binary(max_size=40).map(lambda tail: b"\x93NUMPY" + tail),
    some.tuples(some.integers(0, 139), some.binary(min_size=1, max_size=3)).map(
        lambda at: npy(GOOD)[: at[0]] + at[1] + npy(GOOD)[at[0] + len(at[1]) :]
    ),
    some.sampled_from([GOOD.astype(kind) for kind in ("f4", "f4", ">f4", "f8", "c8", "U3", "S3", "M8[s]")]).map(npy),
    some.just(npy(np.zeros(3, [("a", "f4"), ("b", "i4")]))),
)
vectors = some.dictionaries(some.sampled_from(["vector", "other"]), payloads, max_size=2).map(
    lambda parts: ArrayRecord(
        {name: Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=data) for name, data in parts.items()}
    )
)
records = some.one_of(vectors, fields.map(ConfigRecord), some.just(MetricRecord({"loss": 1.0})))
contents = some.one_of(
    some.dictionaries(names, records, max_size=3),
    some.builds(
        lambda vector, header: {"vector": vector, "header": ConfigRecord(header)}, vectors, fields
    ),
)  # fmt: skip
FORM = Filter(3, np.dtype(np.float32), lambda vector: True)


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(contents)
def test_whatever_is_sent_is_refused_or_has_exactly_the_right_form(content):
    try:
        vector = wire.read_update(reply(RecordDict(content)), HEADER)
    except WireError:
        return
    assert set(content) == {"header", "vector"}
    assert {**content["header"], "client": -1, "hosts": 1, "clip": 0.0} == FIELDS  # neither is asked of a reply
    assert list(content["vector"]) == ["vector"]
    if FORM.reason(vector) is None:  # and it is safe to add
        total = np.zeros(3)
        total += vector
        assert np.isfinite(total).all()


@lawful
@given(contents)
def test_a_device_refuses_what_a_server_would_not_send(content):
    asked = Message(RecordDict(content), dst_node_id=1, message_type=wire.TRAIN)
    try:
        got = wire.read_train(asked)
    except WireError:
        return
    assert got.shared.dtype == np.float32
    assert got.header.model == wire.digest(got.shared)
    assert isinstance(got.header.task, str)
    assert isinstance(got.header.clip, float)


@lawful
@given(some.integers(0, 138), some.integers(1, 255))
def test_one_byte_changed_is_refused_or_changes_numbers_only(place, flip):
    data = bytearray(npy(GOOD))
    assume(place < len(data))
    data[place] ^= flip
    try:
        vector = wire.read_update(reply(record(raw(bytes(data)))), HEADER)
    except WireError:
        return
    if FORM.reason(vector) is None:
        assert (vector.dtype, vector.shape) == (np.float32, (3,))
