"""A grid whose nodes are processes of this machine: threads of one process take turns at its interpreter."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedrec.exchange.flower import crashed
from fedrec.population.grid import LocalGrid, answer, context_of
from fedrec.population.workers import one_thread

App = Callable[[], ClientApp]

_LOG = logging.getLogger(__name__)
_PATIENCE = 10.0  # seconds in which a process that is told to end does so


@contextmanager
def process_grid(folder: Path, app: App, nodes: int, config: Mapping[str, str]) -> Iterator[Grid]:
    """A grid of `nodes` processes, each of which answers for one node.

    `app` is a function of some module. Its contexts name `folder` in their run-config, under `run`, beside `config`.
    A process that dies costs the message that it had; another one takes its place.
    """
    told: dict[str, bool | float | int | str] = {"run": str(folder.resolve()), **config}
    with ExitStack() as stack:
        contexts = (replace(context_of(place, nodes), run_config=told) for place in range(nodes))
        workers = [stack.enter_context(_Worker(app, context)) for context in contexts]
        yield LocalGrid(lambda messages: _abreast(workers, messages), nodes)


def _abreast(workers: list[_Worker], messages: Iterable[Message]) -> Iterator[Message]:
    """All are asked before anyone is listened to."""
    asked = list(messages)
    hosts = [workers[message.metadata.dst_node_id - 1] for message in asked]
    for worker, message in zip(hosts, asked, strict=True):
        worker.ask(message)
    for worker, message in zip(hosts, asked, strict=True):
        yield worker.reply(message)


class _Worker:
    """A process, and the one that takes its place when it has died."""

    def __init__(self, app: App, context: Context) -> None:
        self._app, self._context = app, context
        self._start()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, message: Message) -> None:
        """Send a message; one that cannot be sent has no reply."""
        try:
            self._line.send(message)
        except OSError:
            _LOG.debug("node %d is gone", self._context.node_id)

    def reply(self, message: Message) -> Message:
        """The reply to a message, or an error if the process died over it."""
        try:
            said: Message = self._line.recv()
            while said.metadata.reply_to_message_id != message.metadata.message_id:
                said = self._line.recv()  # that one was to a message whose reply nobody took
        except (EOFError, OSError):
            _LOG.warning("the process of node %d died; it misses a round", self._context.node_id - 1)
            self._end()
            self._start()
            return crashed(message, "a worker died")
        return said

    def _start(self) -> None:
        # A fresh interpreter: one that was copied amid torch's threads may wait for them for ever.
        spawn = get_context("spawn")
        self._line, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, self._app, self._context), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is heard here

    def _end(self) -> None:
        self._line.close()
        self._process.join(_PATIENCE)
        self._process.kill()


def _serve(line: Connection, app: App, context: Context) -> None:
    """Answer until nobody asks any more. An interrupt is the asking process' business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serving = app()
    with one_thread(), suppress(EOFError, OSError):  # whoever asks may be gone while this one waits, or works
        while True:
            line.send(answer(serving, line.recv(), context))
