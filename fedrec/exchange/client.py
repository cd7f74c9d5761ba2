"""A device, or a shard of virtual ones, as a Flower `ClientApp`: two handlers, the rest is its own business."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedrec.errors import FedrecError, WireError
from fedrec.exchange import wire
from fedrec.exchange.flower import absence
from fedrec.rounds.aggregate import Turn

_LOG = logging.getLogger(__name__)


class Device(Protocol):
    """One participant."""

    @property
    def client(self) -> int:
        """Its number in the federation."""

    @property
    def task(self) -> str:
        """Hash of what it was set up to train."""

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any] | None:
        """What it sends in the round whose turn it is; None if a simulation has it fall silent."""


class Shard(Protocol):
    """A slice of a simulation's clients."""

    @property
    def first(self) -> int:
        """The number of its first client."""

    @property
    def hosts(self) -> int:
        """How many clients it has."""

    @property
    def task(self) -> str:
        """Hash of what they were set up to train."""

    def take_part(self, turn: Turn, shared: NDArray[np.float32], clients: NDArray[np.int64]) -> wire.Partial:
        """The sum of what some of its clients send in the round whose turn it is."""


def client_app(open_device: Callable[[Context], Device]) -> ClientApp:
    """The app that answers for the device of each context."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        with _discreet():
            device = open_device(context)
            return wire.hello_reply(message, wire.Header(device.task, client=device.client))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        with _discreet():
            device = open_device(context)
            request, turn = _asked(message, device.task)
            if request.clients is not None:
                raise WireError("a device answers for itself alone")
            sent = device.take_part(turn, request.shared)
            if sent is None:
                return absence(message)
            return wire.update(message, wire.Header(device.task, turn.number), sent)

    return app


def shard_app(open_shard: Callable[[Context], Shard]) -> ClientApp:
    """The app that answers for a slice of a simulation's clients, with the sum of what they send."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        with _discreet():
            shard = open_shard(context)
            return wire.hello_reply(message, wire.Header(shard.task, client=shard.first, hosts=shard.hosts))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        with _discreet():
            shard = open_shard(context)
            request, turn = _asked(message, shard.task)
            if request.clients is None:
                raise WireError("a shard is asked for some of its clients")
            said = shard.take_part(turn, request.shared, request.clients)
            return wire.partial(message, wire.Header(shard.task, turn.number), said)

    return app


def _asked(message: Message, task: str) -> tuple[wire.Request, Turn]:
    request = wire.read_train(message)
    if request.header.task != task:
        raise WireError("server and device were set up for one task", remedy="Start both from one run folder.")
    return request, Turn(request.header.round, request.header.clip or None)


@contextmanager
def _discreet() -> Iterator[None]:
    """Let no more of a failure out than its rule: Flower sends the text of an exception to the server."""
    try:
        yield
    except FedrecError as error:
        _LOG.error("%s", error)
        raise WireError(error.rule) from None
    except Exception as error:
        _LOG.exception("this device failed")
        raise WireError("a device failed", error=type(error).__name__) from None
