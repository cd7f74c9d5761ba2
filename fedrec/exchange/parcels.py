"""A message in parts, as Flower carries it: a tree of objects, each fetched or sent by the hash of its content."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as Envelope
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.recorddict_pb2 import RecordDict as Records
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedrec.errors import WireError

_BUNDLE = "bundle"
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
            message = inflate_object_from_contents(self._root, self._contents)
        except Exception as error:  # Flower's readers fail in many ways on bytes that were made to fail them
            raise WireError("a message can be read", reason=type(error).__name__) from None
        if not isinstance(message, Message):
            raise WireError("what was sent is a message", got=type(message).__name__)
        message.metadata.__dict__["_message_id"] = self._root  # where Flower's own clients put it
        return message


@dataclass(frozen=True, eq=False)
class Packed:
    """A message ready to be sent: its envelope, the tree of its parts, and the parts by their hashes."""

    envelope: Envelope
    tree: ObjectTree
    parts: dict[str, InflatableObject]

    def part(self, object_id: str) -> bytes:
        """The content of a part."""
        if object_id not in self.parts:
            raise WireError("a server asks for the parts of what it is sent")
        return self.parts[object_id].deflate()


def pack(messages: Iterable[Message]) -> list[Packed]:
    """Messages ready to be sent; parts that they share are hashed once. A message gets its id here."""
    packed = []
    with no_object_id_recompute():
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            bare = remove_content_from_message(message) if message.has_content() else message
            packed.append(Packed(message_to_proto(bare), get_object_tree(message), get_all_nested_objects(message)))
    return packed


def bundled(message: Message) -> Message:
    """The same reply with all of its content in one part: a SuperLink takes a request for each part, both ways."""
    if message.has_error():
        return message
    content = recorddict_to_proto(message.content).SerializeToString(deterministic=True)
    return make_message(metadata=message.metadata, content=RecordDict({_BUNDLE: ConfigRecord({_BUNDLE: content})}))


def unbundled(content: RecordDict) -> RecordDict:
    """What was bundled; content that was not is left as it is."""
    bundle = content.get(_BUNDLE)
    if not isinstance(bundle, ConfigRecord):
        return content
    try:
        return recorddict_from_proto(Records.FromString(bundle[_BUNDLE]))
    except Exception as error:  # Flower's readers fail in many ways on bytes that were made to fail them
        raise WireError("a bundle holds records", reason=type(error).__name__) from None


def _checked(object_id: str, said: PullObjectResponse) -> bytes:
    """The content of a part, empty while it is still on its way."""
    if not said.object_found:
        raise WireError("every part of a message can be fetched")
    if said.object_available and get_object_id(said.object_content) != object_id:
        raise WireError("a part of a message is what its hash says")
    return said.object_content if said.object_available else b""
