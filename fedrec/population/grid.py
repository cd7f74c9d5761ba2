"""A Flower `Grid` without a network: the deployed client app, called in this process, one client at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Never

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec.errors import FedrecError
from fedrec.exchange.flower import become_local_server

_FAILED = 1  # Flower's error code for a client app that raised
_LOG = logging.getLogger(__name__)


class LocalGrid(Grid):
    """`clients` nodes that answer at once. Node n hosts client n − 1. A client that raises becomes an error reply."""

    def __init__(self, app: ClientApp, clients: int) -> None:
        become_local_server()
        self._app, self._clients = app, clients
        self._contexts: dict[int, Context] = {}

    def set_run(self, run: Run) -> None:
        """There is one run."""

    @property
    def run(self) -> Run:
        """The only run."""
        return Run.create_empty(1)

    def get_node_ids(self) -> Iterable[int]:
        """1 … clients."""
        return range(1, self._clients + 1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Answer one message after the other, as the caller takes the replies."""
        for serial, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(serial)
            yield self._answer(message)

    def create_message(  # noqa: PLR0913  (Flower's signature)
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Never:
        """Deprecated in Flower: make a `Message`."""
        raise NotImplementedError("make a flwr.app.Message")

    def push_messages(self, messages: Iterable[Message]) -> Never:
        """Nothing waits in this grid."""
        raise NotImplementedError("use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Never:
        """Nothing waits in this grid."""
        raise NotImplementedError("use send_and_receive")

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = self._contexts.setdefault(node, self._context(node))
        try:
            return self._app(message, context)
        except FedrecError as error:
            reason = str(error)
        except Exception as error:  # one client's bug must not end the others' run
            _LOG.exception("client %d failed", node - 1)
            reason = type(error).__name__
        return Message(Error(code=_FAILED, reason=reason), reply_to=message)

    def _context(self, node: int) -> Context:
        config: dict[str, bool | float | int | str] = {"partition-id": node - 1, "num-partitions": self._clients}
        return Context(run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config={})
