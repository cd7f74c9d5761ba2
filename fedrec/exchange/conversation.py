"""What a server asks its nodes in a round, and what comes back, over a SuperLink that may be gone for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto import runtime_pb2

from fedrec.errors import RunError, WireError
from fedrec.exchange.flower import absence
from fedrec.exchange.line import A, Readable
from fedrec.exchange.parcels import Parcel

_LONGEST = 0.5  # seconds between two looks while nothing comes
_SETTLING = 90.0  # seconds after an outage in which nodes report back: they pause for a minute at most
_PATIENT = 30.0  # seconds, at most, until a node that is still away is asked again
_SILENCE = (60.0, 600.0)  # seconds without any reply after which what is open is asked again: at least, at most
_ATTEMPTS = 8  # at one request: enough for all of the settling
_SKEW = 600.0  # seconds: Flower lets the clocks of server and node be five minutes apart, either way
_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
_LOG = logging.getLogger(__name__)


class Post(Protocol):
    """What carries messages to nodes and back, or raises `RunError`. Times are of the monotonic clock."""

    def ask(self, what: str, request: Readable, answer: type[A], until: float) -> A:
        """The answer to a request of Flower's protocol."""

    def leave(self, messages: Sequence[Message], until: float) -> list[str]:
        """Leave messages for their nodes; their ids, empty for those that could not be left."""

    def fetch(self, parcel: Parcel, until: float) -> bool:
        """Fetch those parts of a reply that are there by now; whether that is all."""

    def confirm(self, message_id: str, until: float) -> None:
        """Let the carrier forget a reply."""


@dataclass(frozen=True, eq=False)
class _Letter:
    announced: Metadata
    parcel: Parcel


class Mail:
    """Replies on their way: announced, then fetched part by part, never later than `until`.

    They bear the sender that the SuperLink verified, whatever they say of themselves; at most `most` bytes each.
    """

    def __init__(self, post: Post, until: float, most: int) -> None:
        self._post, self._until, self._most = post, until, most
        self._letters: list[_Letter] = []
        self._announced: set[str] = set()

    def collect(self, message_ids: Sequence[str]) -> None:
        """Ask whether there are replies to these messages."""
        asked = [each for each in message_ids if each not in self._announced]  # the SuperLink says it once
        if not asked:
            return
        request = runtime_pb2.PullAppMessagesRequest(message_ids=asked)
        said = self._post.ask("pull-messages", request, runtime_pb2.PullAppMessagesResponse, self._until)
        for envelope, tree in zip(said.messages_list, said.message_object_trees, strict=True):
            letter = _Letter(message_from_proto(envelope).metadata, Parcel(tree, most=self._most))
            self._letters.append(letter)
            self._announced.add(letter.announced.reply_to_message_id)

    def opened(self) -> Iterator[Message]:
        """Every reply that is here in full by now. One that cannot be read becomes an error that says why."""
        for letter in list(self._letters):
            try:
                if not self._post.fetch(letter.parcel, self._until):
                    continue
                read = letter.parcel.open()
                content, error = (None, read.error) if read.has_error() else (read.content, None)
            except WireError as refusal:
                content, error = None, Error(ErrorCode.CLIENT_APP_CRASHED, refusal.rule)
            self._letters.remove(letter)
            self._forget(letter)
            yield make_message(metadata=letter.announced, content=content, error=error)

    def _forget(self, letter: _Letter) -> None:
        try:
            self._post.confirm(letter.announced.message_id, self._until)
        except RunError as error:  # it is swept up when the run ends
            _LOG.info("a reply stays with the SuperLink: %s", error)


class Conversation:
    """Requests, each of which is replied to at most once, by `until` of the monotonic clock.

    A SuperLink that was gone may have lost a request or a reply on its way, and it never hands out a second time what
    a node's broken line has swallowed. What is open then, or after a quarter of the time without any reply, is asked
    again under a new id; the first reply counts, to whichever of them.
    """

    def __init__(self, post: Post, mail: Mail, requests: Sequence[Message], *, until: float) -> None:
        self._post, self._mail, self._requests, self._until = post, mail, requests, until
        self._open = dict.fromkeys(range(len(requests)), 0)  # request: attempts so far
        self._places: dict[str, int] = {}  # id of a message: request
        self._unsent: list[tuple[int, Message]] = []
        self._again, self._again_at = set(self._open), 0.0
        self._broken, self._broke_at = False, float("-inf")
        self._took = 0.0  # seconds of the last look
        least, most = _SILENCE
        self._heard, self._silence = time.monotonic(), max(least, min(most, (until - time.monotonic()) / 4))

    def replies(self, pause: float) -> Iterator[Message]:
        """Replies as they come. `pause` is the first between two looks, in seconds; longer ones follow."""
        longer = pause
        while self._open and time.monotonic() < self._until:
            came = False
            try:
                for reply in self._turn():
                    came, self._heard = True, time.monotonic()
                    yield reply
            except RunError as error:
                _LOG.warning("the SuperLink is out of order: %s", error)
                self._broken, self._broke_at = True, time.monotonic()
            longer = pause if came else min(1.3 * longer, _LONGEST)
            if self._open:
                # A look costs the SuperLink what it takes: nodes have to get their turn.
                rest = max(longer, 2 * self._took)
                time.sleep(max(0.0, min(rest, self._until - time.monotonic())))

    def _turn(self) -> Iterator[Message]:
        yield from self._ask()
        began = time.monotonic()
        self._mail.collect([each for each, place in self._places.items() if place in self._open])
        self._took = time.monotonic() - began
        for reply in self._mail.opened():
            place = self._places.pop(reply.metadata.reply_to_message_id, None)
            if place is None or place not in self._open or self._is_lost(reply, place):
                continue
            del self._open[place]
            yield reply
        if self._broken or time.monotonic() - self._heard > self._silence:
            self._broken, self._heard = False, time.monotonic()
            self._again = {place for place, tries in self._open.items() if tries < _ATTEMPTS}

    def _ask(self) -> Iterator[Message]:
        """Leave what is to be asked; absences of the nodes that nothing can be left for."""
        if not self._unsent and self._again and time.monotonic() >= self._again_at:
            self._unsent = [(place, self._request(place)) for place in sorted(self._again) if place in self._open]
            self._again = set()
        if not self._unsent:
            return
        # Messages keep their ids until they are left for sure: the SuperLink stores an id once.
        ids = self._post.leave([message for _, message in self._unsent], self._until)
        sent, self._unsent = self._unsent, []
        for (place, message), message_id in zip(sent, ids, strict=True):
            self._open[place] += 1
            if message_id:
                self._places[message_id] = place
            else:
                del self._open[place]
                yield absence(message)

    def _request(self, place: int) -> Message:
        asked = self._requests[place]
        told = asked.metadata
        if self._open[place]:
            asked = Message(asked.content, told.dst_node_id, told.message_type, group_id=told.group_id)
        asked.metadata.ttl = min(told.ttl, self._until - time.monotonic() + _SKEW)
        return asked

    def _is_lost(self, reply: Message, place: int) -> bool:
        """Whether an error is but the wake of an outage; then the request is open still, and asked again."""
        if not reply.has_error() or reply.error.code not in _LOST:
            return False
        if place in self._places.values():  # was asked again already
            return True
        recent = time.monotonic() - self._broke_at < _SETTLING
        if recent and self._open[place] < _ATTEMPTS:
            self._again.add(place)
            self._again_at = time.monotonic() + min(0.5 * 2.0 ** self._open[place], _PATIENT)
            return True
        return False
