"""The server's end of Flower's wire: a grid over a SuperLink that hands replies on as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto import message_pb2, runtime_pb2
from flwr.proto.node_pb2 import Node, NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec.errors import RunError
from fedrec.exchange.conversation import Conversation, Mail
from fedrec.exchange.line import A, Limits, Line, Readable
from fedrec.exchange.parcels import Packed, Parcel, pack

MOST = 64 << 20

_AT_ONCE = 32  # messages in one request: a node that finds one of them waits until all its parts are there
_USUAL = 30.0  # seconds for a request


@dataclass(frozen=True)
class Pace:
    """How a grid waits: the first pause between two looks in seconds, how long it does without a SuperLink."""

    pause: float = 0.05
    patience: float = 60.0


class LinkGrid(Grid):
    """A grid over the SuperLink at the other end of `line`, for the task that `headers` prove to be ours.

    Replies bear the sender that the SuperLink verified, whatever they say of themselves. `ring` is called when messages
    wait for nodes. A reply is at most `most` bytes.
    """

    def __init__(  # noqa: PLR0913  (where, for whom; the rest are limits)
        self, line: Line, run: Run, headers: Mapping[str, str], *,
        ring: Callable[[], None] = lambda: None, pace: Pace = Pace(), most: int = MOST,  # noqa: B008  (frozen)
    ) -> None:  # fmt: skip
        self._line, self._run, self._headers = line, run, headers
        self._ring, self._pace, self._most = ring, pace, most
        self._me = Node(node_id=SUPERLINK_NODE_ID)

    def set_run(self, run: Run) -> None:
        """Speak for another run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that this grid speaks for."""
        return self._run

    def create_message(  # noqa: PLR0913  (Flower's signature)
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node (Flower would rather have `Message` called)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """The nodes on duty."""
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Sequence[NodeInfo]:
        """The nodes on duty, and what the SuperLink knows of them."""
        until = time.monotonic() + self._pace.patience
        while True:
            try:
                return list(self.ask("get-nodes", runtime_pb2.GetNodesRequest(), runtime_pb2.GetNodesResponse).nodes)
            except RunError:
                if time.monotonic() > until:
                    raise
            time.sleep(10 * self._pace.pause)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Leave messages for their nodes; their ids, empty for those that could not be left."""
        return self.leave(list(messages), float("inf"))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there in full by now, each once."""
        mail = Mail(self, float("inf"), self._most)
        mail.collect(list(message_ids))
        return list(mail.opened())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Ask nodes and yield their replies as they come, until all have replied or `timeout` seconds are over.

        Every request is replied to at most once. A SuperLink that is gone is waited for; what it may have lost is asked
        again, so a node may get a request twice.
        """
        until = time.monotonic() + (timeout if timeout is not None else float("inf"))
        mail = Mail(self, until, self._most)
        return Conversation(self, mail, list(messages), until=until).replies(self._pace.pause)

    def leave(self, messages: Sequence[Message], until: float) -> list[str]:
        """`push_messages` that does not take longer than until a time of the monotonic clock."""
        packed, ids = pack(messages), list[str]()
        for first in range(0, len(packed), _AT_ONCE):
            ids += self._push(packed[first : first + _AT_ONCE], until)
        self._ring()
        return ids

    def fetch(self, parcel: Parcel, until: float) -> bool:
        """Fetch those parts of a reply that are there by now; whether that is all."""

        def pull(object_id: str) -> message_pb2.PullObjectResponse:
            request = message_pb2.PullObjectRequest(node=self._me, run_id=self._run.run_id, object_id=object_id)
            return self.ask("pull-object", request, message_pb2.PullObjectResponse, until)

        return parcel.fetch(pull, self._line.kept)

    def confirm(self, message_id: str, until: float) -> None:
        """Let the SuperLink forget a reply."""
        request = message_pb2.ConfirmMessageReceivedRequest(
            node=self._me, run_id=self._run.run_id, message_object_id=message_id
        )
        self.ask("confirm-message-received", request, message_pb2.ConfirmMessageReceivedResponse, until)

    def ask(self, what: str, request: Readable, answer: type[A], until: float = float("inf")) -> A:
        """The SuperLink's answer to our task."""
        limits = Limits(min(_USUAL, until - time.monotonic()), 2 * self._most)
        return self._line.ask(f"/v1/runtime/{what}", request, answer, self._headers, limits)

    def _push(self, packed: Sequence[Packed], until: float) -> list[str]:
        request = runtime_pb2.PushAppMessagesRequest(
            messages_list=[each.envelope for each in packed], message_object_trees=[each.tree for each in packed]
        )
        said = self.ask("push-messages", request, runtime_pb2.PushAppMessagesResponse, until)
        parts = {object_id: each for each in packed for object_id in each.parts}
        for object_id in said.objects_to_push:
            part = message_pb2.PushObjectRequest(
                node=self._me, run_id=self._run.run_id, object_id=object_id,
                object_content=parts[object_id].part(object_id), session_id=said.session_id,
            )  # fmt: skip
            if not self.ask("push-object", part, message_pb2.PushObjectResponse, until).stored:
                raise RunError("the SuperLink stores what it asks for")
        return list(said.message_ids)
