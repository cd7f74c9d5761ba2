"""A Flower `Grid` without a network: the deployed client app, called in this process or in others beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Never

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec.errors import FedrecError
from fedrec.exchange.flower import become_local_server

_FAILED = 1  # Flower's error code for a client app that raised
_LOG = logging.getLogger(__name__)


Answers = Callable[[Iterable[Message]], Iterator[Message]]


class LocalGrid(Grid):
    """`nodes` nodes of this machine, 1 … `nodes`, for which `answers` makes replies to messages."""

    def __init__(self, answers: Answers, nodes: int) -> None:
        become_local_server()
        self._answers, self._nodes, self._serials = answers, nodes, count()

    def set_run(self, run: Run) -> None:
        """There is one run."""

    @property
    def run(self) -> Run:
        """The only run."""
        return Run.create_empty(1)

    def get_node_ids(self) -> Iterable[int]:
        """1 … nodes."""
        return range(1, self._nodes + 1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies, as the caller takes them; nobody is waited for any longer than it runs."""
        return self._answers(map(self._numbered, messages))

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

    def _numbered(self, message: Message) -> Message:
        message.metadata.__dict__["_message_id"] = str(next(self._serials))
        return message


def in_process(app: ClientApp, clients: int) -> LocalGrid:
    """A grid that calls `app` for one message after the other, as replies are taken. Node n hosts client n − 1."""
    contexts: dict[int, Context] = {}

    def answers(messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            place = message.metadata.dst_node_id - 1
            yield answer(app, message, contexts.setdefault(place, context_of(place, clients)))

    return LocalGrid(answers, clients)


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """The reply of `app`; an error reply if it raises."""
    try:
        return app(message, context)
    except FedrecError as error:
        reason = str(error)
    except Exception as error:  # one client's bug must not end the others' run
        _LOG.exception("client %d failed", message.metadata.dst_node_id - 1)
        reason = type(error).__name__
    return Message(Error(code=_FAILED, reason=reason), reply_to=message)


def context_of(place: int, among: int) -> Context:
    """The context of the node that hosts partition `place` of `among`."""
    config: dict[str, bool | float | int | str] = {"partition-id": place, "num-partitions": among}
    return Context(run_id=1, node_id=place + 1, node_config=config, state=RecordDict(), run_config={})
