"""The device's end of Flower's wire: messages are answered by installed code, and nothing that was sent is executed.

Flower's SuperNode fetches a bundle of code from the server and runs it. These nodes never ask for it.
"""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, Metadata
from flwr.common.constant import (
    HEARTBEAT_CALL_TIMEOUT,
    HEARTBEAT_DEFAULT_INTERVAL,
    HEARTBEAT_MIN_INTERVAL,
    TIMESTAMP_HEADER,
)
from flwr.common.serde import message_from_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.proto.node_pb2 import Node as Named
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedrec.errors import FedrecError, RunError, WireError
from fedrec.exchange.flower import crashed
from fedrec.exchange.line import A, Limits, Line, Readable, versions
from fedrec.exchange.parcels import Packed, Parcel, pack

MOST = 64 << 20
INTERVAL = HEARTBEAT_DEFAULT_INTERVAL  # seconds

_PROMISED = 2 * INTERVAL  # the server takes a node for lost after twice as long: under load heartbeats are late
_FAREWELL = HEARTBEAT_MIN_INTERVAL  # of a node that leaves: the server fetches its last reply within twice as long
_SIGNED_FOR = 20.0  # seconds; the server accepts a signature for five minutes
_DRIFT = 2  # seconds between two clocks that are told apart by whole seconds
_PROMPT = Limits(HEARTBEAT_CALL_TIMEOUT, 1 << 16, prompt=True)
_CALL = Limits(30.0, 1 << 20)
_LOG = logging.getLogger(__name__)

T = TypeVar("T")
Answer = Callable[[Message], Message]


class Node:
    """One enrolled device's connection to the server at `address` ("host:port").

    `number` is what `activate` returned in an earlier life, if that is known. `line` is one that the nodes of a process
    share, and that its maker closes. A message is at most `most` bytes.
    Where the line breaks in the middle of a message, a step is repeated for `patience` seconds.
    """

    def __init__(  # noqa: PLR0913  (where, who, whom to believe; the rest may be left out)
        self, address: str, key: ec.EllipticCurvePrivateKey, root_certificates: bytes, *,
        number: int = 0, line: Line | None = None, most: int = MOST, patience: float = 30.0,
    ) -> None:  # fmt: skip
        self._line = line or Line(address, root_certificates)
        self._shared = line is not None
        self._key, self._public = key, public_key_to_bytes(key.public_key())
        self._most, self._patience = most, patience
        self._signed = (float("-inf"), 0, dict[str, str]())
        self._answered = float("-inf")
        self._me = Named(node_id=number)

    @property
    def number(self) -> int:
        """What the server knows this node by, 0 before it is known."""
        return int(self._me.node_id)

    def activate(self) -> int:
        """Report for duty: the number by which the server knows this node, the same for a key each time.

        A server takes a node that was killed for one on duty until it has been silent for two minutes, and refuses to
        let it in a second time. Whoever knows the node's number need not wait.
        """
        if self._me.node_id:
            try:
                self.beat()
                return int(self._me.node_id)
            except WireError:  # the number is of a database that the server lost
                self._me = Named()
        request = fleet_pb2.ActivateNodeRequest(public_key=self._public, heartbeat_interval=_PROMISED)
        said = self._ask("activate-node", request, fleet_pb2.ActivateNodeResponse, _PROMPT)
        self._me = Named(node_id=said.node_id)
        return int(said.node_id)

    def beat(self) -> None:
        """Say that this node is still there, every `INTERVAL`."""
        self._beat(_PROMISED)

    def once(self, answer: Answer) -> bool:
        """Answer one message if one is waiting; whether there was one.

        An `answer` that raises gives a reply that says so, without its text. So does a message that cannot be read.
        """
        said = self._ask("pull-messages", fleet_pb2.PullMessagesRequest(node=self._me), fleet_pb2.PullMessagesResponse)
        if not said.messages_list:
            return False
        announced, tree = message_from_proto(said.messages_list[0]), said.message_object_trees[0]
        try:
            reply = self._reply(announced, tree, answer)
            self._insist(lambda: self._push(reply))
            self._answered = time.monotonic()
            self._confirm(announced.metadata)
        except WireError as error:
            if error.got.get("code") != ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
                raise
            _LOG.info("too late: the run has ended")
        return True

    def deactivate(self) -> None:
        """Sign off; the server will not wait for this node.

        A SuperLink drops a reply that it holds of a node that is off duty. Soon after an answer the node therefore
        says nothing but that it is not to be waited for long.
        """
        if time.monotonic() - self._answered < 2 * _FAREWELL:
            self._beat(_FAREWELL)
            return
        request = fleet_pb2.DeactivateNodeRequest(node_id=self._me.node_id)
        self._ask("deactivate-node", request, fleet_pb2.DeactivateNodeResponse, _PROMPT)

    def close(self) -> None:
        """Hang up, unless others share the line."""
        if not self._shared:
            self._line.close()

    def _beat(self, promised: float) -> None:
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=self._me, heartbeat_interval=promised)
        said = self._ask("send-node-heartbeat", request, heartbeat_pb2.SendNodeHeartbeatResponse, _PROMPT)
        if not said.success:
            raise WireError("the server knows this node", remedy="Enrol this device again.")

    def _reply(self, announced: Message, tree: message_pb2.ObjectTree, answer: Answer) -> Packed:
        try:
            message = self._fetch(announced.metadata, tree)
        except WireError as error:
            _LOG.error("%s", error)
            reply = crashed(announced, error.rule)
        else:
            reply = _replied(answer, message)
        return pack([reply])[0]

    def _fetch(self, announced: Metadata, tree: message_pb2.ObjectTree) -> Message:
        run, parcel = announced.run_id, Parcel(tree, most=self._most)

        def pull(object_id: str) -> message_pb2.PullObjectResponse:
            request = message_pb2.PullObjectRequest(node=self._me, run_id=run, object_id=object_id)
            return self._ask(
                "pull-object", request, message_pb2.PullObjectResponse, Limits(most=self._most + (1 << 16))
            )

        self._insist(lambda: _all_there(parcel.fetch(pull, self._line.kept)))
        message = parcel.open()
        if (message.metadata.dst_node_id, message.metadata.run_id) != (self._me.node_id, run):
            raise WireError("a message is for the node that gets it")
        return message

    def _confirm(self, announced: Metadata) -> None:
        """Let the server forget the message. It sweeps up after the run anyway."""
        request = message_pb2.ConfirmMessageReceivedRequest(
            node=self._me, run_id=announced.run_id, message_object_id=announced.message_id
        )
        with suppress(RunError):
            self._ask("confirm-message-received", request, message_pb2.ConfirmMessageReceivedResponse)

    def _push(self, reply: Packed) -> None:
        run = reply.envelope.metadata.run_id
        request = fleet_pb2.PushMessagesRequest(
            node=self._me, messages_list=[reply.envelope], message_object_trees=[reply.tree]
        )
        said = self._ask("push-messages", request, fleet_pb2.PushMessagesResponse)
        for object_id in said.objects_to_push:
            content = reply.part(object_id)
            part = message_pb2.PushObjectRequest(
                node=self._me, run_id=run, object_id=object_id, object_content=content, session_id=said.session_id
            )
            stored = self._ask("push-object", part, message_pb2.PushObjectResponse)
            if not stored.stored:
                raise RunError("the server stores what it asks for")

    def _insist(self, step: Callable[[], T]) -> T:
        """Repeat a step over a broken line, ever more slowly."""
        until, pause = time.monotonic() + self._patience, 0.02
        while True:
            try:
                return step()
            except RunError:
                if time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause = min(1.6 * pause, 5.0)

    def _ask(self, what: str, request: Readable, answer: type[A], limits: Limits = _CALL) -> A:
        try:
            return self._line.ask(f"/v1/fleet/{what}", request, answer, self._headers(), limits)
        except WireError as refusal:
            if not self._follows(refusal.got.get("seconds_apart")):
                raise
        return self._line.ask(f"/v1/fleet/{what}", request, answer, self._headers(), limits)

    def _follows(self, seconds: object) -> bool:
        """Sign by the server's clock from now on, all nodes of this line, if it is not the one that we followed.

        A SuperLink takes nothing that is signed five seconds ahead of it. A signature is of use to that server alone,
        and TLS says that it is the one.
        """
        _, followed, _ = self._signed
        if not isinstance(seconds, int) or abs(seconds - followed) < _DRIFT:
            return False
        self._line.ahead = seconds
        return True

    def _headers(self) -> dict[str, str]:
        """Who asks: Flower's signature covers the time alone, so that one may serve for several requests."""
        signed_at, followed, headers = self._signed
        ahead = self._line.ahead
        if abs(time.time() - signed_at) > _SIGNED_FOR or followed != ahead:
            stamp = (now() - timedelta(seconds=ahead + _DRIFT if ahead else 0)).isoformat()
            signature = self._key.sign(stamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
            headers = {
                FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self._public).decode("ascii"),
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
                TIMESTAMP_HEADER: stamp,
                **versions("SuperNode"),
            }
            self._signed = (time.time(), ahead, headers)
        return headers


def _replied(answer: Answer, message: Message) -> Message:
    try:
        return answer(message)
    except FedrecError as error:
        _LOG.error("%s", error)
        return crashed(message, error.rule)
    except Exception as error:
        _LOG.exception("this device failed")
        return crashed(message, f"a device failed: {type(error).__name__}")


def _all_there(complete: bool) -> None:  # noqa: FBT001
    if not complete:
        raise RunError("a message arrives whole", remedy="Its sender may still be at it.")
