"""What crosses the network, and the only place with Flower's string keys.

Every update is one vector of public length and type; beside it travel what round it is for and the hash of the task,
and nothing else: no counts, no losses, no norms, no durations.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import Field, dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange.flower import is_absence
from fedrec.privacy.crossing import Summed

VERSION = 4
HELLO = "query.hello"
TRAIN = "train"
NO_REPLY = "no reply"

_VECTOR = "vector"
_HEADER = "header"
_FIELDS = ("version", "task", "round", "client", "hosts", "clip", "nonce", "model")
_CLIENTS = "clients"
_PARTIAL = "partial"
_SAID = "said"
_PREAMBLE = 128  # bytes that numpy puts before the numbers of a vector


@dataclass(frozen=True)
class Header:
    """What every message says of itself: protocol version, task hash, round, who (hello only).

    A node answers for `hosts` clients from `client` on: for one, unless it is a shard of a simulation. `clip` is where
    an adaptive clip norm stands in this round, 0 for the plan's; in requests only. `nonce` is another in each attempt
    at a round, and `model` the hash of the shared vector that it starts from: replies repeat both, so that none counts
    for another attempt or another model.
    """

    task: str
    round: int = 0
    client: int = -1
    hosts: int = 1
    clip: float = 0.0
    nonce: str = ""
    model: str = ""

    @property
    def echo(self) -> Header:
        """The header of a reply."""
        return replace(self, clip=0.0)

    def record(self) -> ConfigRecord:
        """As Flower carries it."""
        return ConfigRecord({"version": VERSION, **{name: getattr(self, name) for name in _FIELDS[1:]}})


@dataclass(frozen=True, eq=False)
class Request:
    """A round to take part in: the header, the shared vector and, for a shard, which of its clients are asked.

    `said` is what a secure aggregation adds.
    """

    header: Header
    shared: NDArray[np.float32]
    clients: NDArray[np.int64] | None = None
    said: ConfigRecord | None = None


@dataclass(frozen=True, eq=False)
class Partial:
    """What a shard says: the sum over the clients it accepted, and how many it refused for what reason."""

    summed: Summed
    refused: Counter[str]


def hello(node: int) -> Message:
    """Ask a node which client it is and which task it was set up for."""
    return Message(RecordDict({_HEADER: Header(task="").record()}), dst_node_id=node, message_type=HELLO)


def hello_reply(to: Message, header: Header) -> Message:
    """The answer to `hello`."""
    read_header(to)
    return Message(RecordDict({_HEADER: header.record()}), reply_to=to)


def arrays(vector: NDArray[Any]) -> ArrayRecord:
    """A vector as Flower carries it."""
    return ArrayRecord({_VECTOR: Array(np.ascontiguousarray(vector))})


def vector(record: ArrayRecord, *, most: int | None = None) -> NDArray[Any]:
    """The vector in a record; one that holds anything else is refused.

    So is one of more than `most` bytes of numbers, before a byte is decoded.
    """
    if list(record.keys()) != [_VECTOR]:
        raise WireError("an array record holds exactly one vector", keys=sorted(record.keys())[:5])
    if most is not None and (length := len(record[_VECTOR].data)) > most + _PREAMBLE:
        raise WireError("a vector is no longer than its kind", bytes=length, most=most)
    try:
        decoded = record[_VECTOR].numpy()
    except Exception as error:  # numpy's reader fails in many ways on bytes that were made to fail it
        raise WireError("the vector cannot be decoded", reason=type(error).__name__) from None
    if not isinstance(decoded, np.ndarray):  # numpy also reads archives
        raise WireError("the vector cannot be decoded", reason=type(decoded).__name__)
    return decoded


class Said(Protocol):
    """What a secure aggregation says in one step: a dataclass of numbers, bytes and tuples of these.

    It checks its own fields when it is made, with `WireError`: strangers make them.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Spoken = TypeVar("Spoken", bound=Said)


def digest(shared: NDArray[np.float32]) -> str:
    """The name of a shared vector."""
    return hashlib.sha256(np.ascontiguousarray(shared).data).hexdigest()


def ask(node: int, step: str, header: Header, said: Said | None = None) -> Message:
    """Ask a node for its part in a step of a secure aggregation."""
    content = RecordDict({_HEADER: header.record()})
    if said is not None:
        content[_SAID] = _record(said)
    return Message(content, dst_node_id=node, message_type=f"query.{step}", group_id=str(header.round))


def tell(to: Message, header: Header, said: Said) -> Message:
    """The answer to `ask`."""
    return Message(RecordDict({_HEADER: header.record(), _SAID: _record(said)}), reply_to=to)


def heard(message: Message, kind: type[Spoken]) -> Spoken:
    """What a message says in its step; anything but a `kind` of sound form is refused."""
    _records(message)
    return spoken(message.content.get(_SAID), kind)


def read_reply(message: Message, expected: Header) -> None:
    """Refuse a reply that belongs to another task, round, attempt or model."""
    header = read_header(message)
    if (header.task, header.round) != (expected.task, expected.round):
        raise WireError("an update belongs to the round that asked for it", round=header.round, asked=expected.round)
    if (header.nonce, header.model) != (expected.nonce, expected.model):
        raise WireError("an update belongs to the attempt and to the model that it was asked for", round=header.round)


def spoken(record: object, kind: type[Spoken]) -> Spoken:
    """A record as a `kind`."""
    if not isinstance(record, ConfigRecord) or set(record.keys()) != {field.name for field in fields(kind)}:
        raise WireError("a step of a secure aggregation says what its kind says", kind=kind.__name__)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})


def _record(said: Said) -> ConfigRecord:
    values = {field.name: getattr(said, field.name) for field in fields(said)}
    return ConfigRecord({name: list(value) if isinstance(value, tuple) else value for name, value in values.items()})


def train(
    node: int, header: Header, shared: ArrayRecord, clients: NDArray[np.int64] | None = None, said: Said | None = None
) -> Message:
    """Ask a node to take part in a round, a shard for some of its clients. `shared` may be one record for all nodes."""
    content = RecordDict({_VECTOR: shared, _HEADER: header.record()})
    if clients is not None:
        content[_CLIENTS] = arrays(clients)
    if said is not None:
        content[_SAID] = _record(said)
    return Message(content, dst_node_id=node, message_type=TRAIN, group_id=str(header.round))


def read_train(message: Message) -> Request:
    """What `train` said."""
    header, shared = read_header(message), vector(_records(message)[1])
    if shared.dtype != np.float32:
        raise WireError("the shared vector is float32", dtype=str(shared.dtype))
    if header.model != digest(shared):
        raise WireError("a request holds the model that it names")
    asked = message.content.get(_CLIENTS)
    clients = vector(asked) if isinstance(asked, ArrayRecord) else None
    if clients is not None and (clients.dtype != np.int64 or clients.ndim != 1):
        raise WireError("clients are named by their numbers", dtype=str(clients.dtype))
    said = message.content.get(_SAID)
    return Request(header, shared, clients, said if isinstance(said, ConfigRecord) else None)


def update(to: Message, header: Header, sent: NDArray[Any]) -> Message:
    """A client's answer to `train`."""
    return Message(RecordDict({_VECTOR: arrays(sent), _HEADER: header.record()}), reply_to=to)


def read_update(message: Message, expected: Header, *, most: int | None = None) -> NDArray[Any]:
    """The vector of an answer, if it has the right form, belongs to this round and has `most` bytes of numbers."""
    read_reply(message, expected)
    return vector(_records(message)[1], most=most)


def partial(to: Message, header: Header, said: Partial) -> Message:
    """A shard's answer to `train`."""
    reasons = sorted(said.refused)
    counts = ConfigRecord({"count": said.summed.count, "reasons": reasons,
                           "refused": [said.refused[reason] for reason in reasons]})  # fmt: skip
    content = RecordDict({_VECTOR: arrays(said.summed.total), _HEADER: header.record()})
    content[_PARTIAL] = counts
    return Message(content, reply_to=to)


def read_partial(message: Message, expected: Header) -> Partial:
    """What `partial` said, if it belongs to this round of this task."""
    total = read_update(message, expected)
    counts = message.content.get(_PARTIAL)
    if not isinstance(counts, ConfigRecord) or set(counts.keys()) != {"count", "reasons", "refused"}:
        raise WireError("a shard counts whom it accepted and whom it refused")
    count, reasons, refused = (counts[name] for name in ("count", "reasons", "refused"))
    if not (isinstance(count, int) and isinstance(reasons, list) and isinstance(refused, list)):
        raise WireError("a shard counts whom it accepted and whom it refused")
    numbers = [number for number in refused if isinstance(number, int)]
    return Partial(Summed(total, count), Counter(dict(zip(map(str, reasons), numbers, strict=False))))


def read_header(message: Message) -> Header:
    """The header of a message; another protocol version is refused."""
    record = _records(message)[0]
    if set(record.keys()) != set(_FIELDS):
        raise WireError(f"a header names {', '.join(_FIELDS)} and nothing else", keys=sorted(record.keys())[:5])
    version, task, number, client, hosts, clip, nonce, model = (record[name] for name in _FIELDS)
    if version != VERSION:
        raise WireError("both sides speak one protocol version", remedy="Upgrade the older side.", got=version)
    if not (isinstance(number, int) and isinstance(client, int) and isinstance(hosts, int)):
        raise WireError("a header holds a round number and client numbers")
    if not (isinstance(task, str) and isinstance(nonce, str) and isinstance(model, str) and isinstance(clip, float)):
        raise WireError("a header holds hashes, a nonce and a clip norm")
    return Header(task, number, client, hosts, clip, nonce, model)


def _records(message: Message) -> tuple[ConfigRecord, ArrayRecord]:
    if message.has_error():
        rule = NO_REPLY if is_absence(message) else "the node answered with an error"
        raise WireError(rule, code=message.error.code, reason=message.error.reason)
    content = message.content
    extra = set(content.keys()) - {_HEADER, _VECTOR, _CLIENTS, _PARTIAL, _SAID}
    if extra:
        raise WireError("a message holds a header and at most one vector", extra=sorted(extra)[:5])
    header, record = content.get(_HEADER), content.get(_VECTOR, ArrayRecord())
    if not isinstance(header, ConfigRecord) or not isinstance(record, ArrayRecord):
        raise WireError("a message holds a header and at most one vector", keys=sorted(content.keys())[:5])
    return header, record
