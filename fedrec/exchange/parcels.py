"""A message in parts, as Flower carries it: a tree of objects, each fetched or sent by the hash of its content."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Envelope
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_body,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedrec.errors import WireError

_SMALL = 1 << 14  # bytes
_PARTS = 64  # of a message, besides one for each MiB of its content


class Kept:
    """What was fetched last, up to `most` bytes, an eighth of it an object at most.

    Threads may share it: an object that several of them want is fetched once, and the others wait.
    """

    def __init__(self, most: int) -> None:
        self._room, self._each = most, most // 8
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._coming: set[str] = set()
        self._changed = threading.Condition()

    def get(self, object_id: str, fetch: Callable[[str], bytes]) -> bytes:
        """The content, fetched if it is not here; empty if there is none yet."""
        with self._changed:
            while object_id in self._coming:
                self._changed.wait()
            if object_id in self._contents:
                self._contents.move_to_end(object_id)
                return self._contents[object_id]
            self._coming.add(object_id)
        content = b""
        try:
            content = fetch(object_id)
        finally:
            with self._changed:
                self._put(object_id, content)
                self._coming.remove(object_id)
                self._changed.notify_all()
        return content

    def _put(self, object_id: str, content: bytes) -> None:
        if not content or len(content) > self._each:
            return
        self._contents[object_id] = content
        self._room -= len(content)
        while self._room < 0:
            self._room += len(self._contents.popitem(last=False)[1])


class Parcel:
    """A message on its way here: at most `most` bytes, every part what its hash says."""

    def __init__(self, tree: ObjectTree, *, most: int) -> None:
        self._root, self._most, self._size = tree.object_id, most, 0
        self._missing = list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree)))
        if len(self._missing) > _PARTS + (most >> 20):
            raise WireError("a message has no more parts than its size allows", parts=len(self._missing), most=most)
        self._contents: dict[str, bytes] = {}

    def fetch(self, pull: Callable[[str], PullObjectResponse], kept: Kept) -> bool:
        """Fetch what there is by now; whether that is all. What was fetched before an error stays."""
        while self._missing:
            object_id = self._missing[0]
            content = kept.get(object_id, lambda wanted: _checked(wanted, pull(wanted)))
            if not content:
                return False
            self._size += len(content)
            if self._size > self._most:
                raise WireError("a message is no larger than agreed", most=self._most)
            self._contents[object_id] = content
            del self._missing[0]
        return True

    def open(self) -> Message:
        """The message, when all of it is here."""
        try:
            message = self._inflated()
        except Exception as error:  # Flower's readers fail in many ways on bytes that were made to fail them
            raise WireError("a message can be read", reason=type(error).__name__) from None
        if not isinstance(message, Message):
            raise WireError("what was sent is a message", got=type(message).__name__)
        message.metadata.__dict__["_message_id"] = self._root  # where Flower's own clients put it
        return message

    def _inflated(self) -> object:
        if len(self._contents) > 1:
            return inflate_object_from_contents(self._root, self._contents)
        return message_from_proto(Envelope.FromString(get_object_body(self._contents[self._root], Message)))


@dataclass(frozen=True, eq=False)
class Packed:
    """A message ready to be sent: its envelope, the tree of its parts, and the parts by their hashes."""

    envelope: Envelope
    tree: ObjectTree
    parts: Mapping[str, InflatableObject | bytes]

    def part(self, object_id: str) -> bytes:
        """The content of a part."""
        if object_id not in self.parts:
            raise WireError("a server asks for the parts of what it is sent")
        part = self.parts[object_id]
        return part if isinstance(part, bytes) else part.deflate()


def pack(messages: Sequence[Message]) -> list[Packed]:
    """Messages ready to be sent; each gets its id here.

    A SuperLink takes a request for each part of a message, both ways: a message is one part, unless it shares a record
    that is worth a request of its own. Such records are hashed, left and fetched once.
    """
    times = Counter(id(record) for message in messages for record in _records(message))
    with no_object_id_recompute():
        return [
            _parts(message)
            if any(times[id(each)] > 1 and each.count_bytes() > _SMALL for each in _records(message))
            else _one_part(message)
            for message in messages
        ]


def _records(message: Message) -> Iterable[ArrayRecord | MetricRecord | ConfigRecord]:
    return message.content.values() if message.has_content() else ()


def _parts(message: Message) -> Packed:
    """As Flower packs: an object for the message, for its content, and for each record and array."""
    message.metadata.__dict__["_message_id"] = message.object_id
    return Packed(_envelope(message), get_object_tree(message), get_all_nested_objects(message))


def _one_part(message: Message) -> Packed:
    """As an object of Flower's store that has the message with its content in it, and no children."""
    told = message_to_proto(message)
    told.metadata.message_id = ""  # follows from the rest
    body = told.SerializeToString(deterministic=True)
    content = f"{Message.__qualname__}{HEAD_VALUE_DIVIDER * 2}{len(body)}".encode() + HEAD_BODY_DIVIDER + body
    object_id = get_object_id(content)
    message.metadata.__dict__["_message_id"] = object_id
    return Packed(_envelope(message), ObjectTree(object_id=object_id), {object_id: content})


def _envelope(message: Message) -> Envelope:
    return message_to_proto(remove_content_from_message(message) if message.has_content() else message)


def _checked(object_id: str, said: PullObjectResponse) -> bytes:
    """The content of a part, empty while it is still on its way."""
    if not said.object_found:
        raise WireError("every part of a message can be fetched")
    if said.object_available and get_object_id(said.object_content) != object_id:
        raise WireError("a part of a message is what its hash says")
    return said.object_content if said.object_available else b""
