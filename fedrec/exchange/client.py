"""A device, or a shard of virtual ones, as a Flower `ClientApp`: two handlers, the rest is its own business."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedrec.errors import FedrecError, WireError
from fedrec.exchange import wire
from fedrec.exchange.flower import absence
from fedrec.exchange.masks import REVEAL, STEPS, Disguise
from fedrec.exchange.secagg import Delivery
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

    @property
    def disguise(self) -> Disguise | None:
        """Its masks, the same object in every step of a round; None in a task without."""

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any] | None:
        """What it sends in the round whose turn it is; None if a simulation has it fall silent."""

    def revealed(self, number: int) -> None:
        """Its masks of round `number` may be lifted: it will not send for this round again."""


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
            delivery = _delivered(request, device.disguise)
            sent = device.take_part(turn, request.shared)
            if sent is None:
                return absence(message)
            if device.disguise and delivery:
                sent = device.disguise.mask(request.header, sent, delivery)
            return wire.update(message, request.header.echo, sent)

    for step in STEPS:
        app.query(step)(partial(_step, step, open_device))
    return app


def answering(device: Device) -> Callable[[Message], Message]:
    """The app of one device, outside of any engine of Flower's."""
    app = client_app(lambda context: device)
    context = Context(run_id=0, node_id=0, node_config={}, state=RecordDict(), run_config={})
    return lambda message: app(message, context)


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
            return wire.partial(message, request.header.echo, said)

    return app


def _step(step: str, open_device: Callable[[Context], Device], message: Message, context: Context) -> Message:
    """One step of a secure aggregation."""
    with _discreet():
        device, header = open_device(context), wire.read_header(message)
        _same(header.task, device.task)
        if device.disguise is None:
            raise WireError("an update leaves a device behind a mask where the plan says so, and only there")
        said = device.disguise.answer(step, header, message)
        if step == REVEAL:
            device.revealed(header.round)
        return wire.tell(message, header.echo, said)


def _asked(message: Message, task: str) -> tuple[wire.Request, Turn]:
    request = wire.read_train(message)
    _same(request.header.task, task)
    return request, Turn(request.header.round, request.header.clip or None)


def _delivered(request: wire.Request, disguise: Disguise | None) -> Delivery | None:
    """What masks need, in a task with masks. Refuses, before anything is spent, what could not be masked."""
    if (request.said is None) is not (disguise is None):
        raise WireError("an update leaves a device behind a mask where the plan says so, and only there")
    if disguise is None:
        return None
    disguise.check(request.header)
    return wire.spoken(request.said, Delivery)


def _same(asked: str, task: str) -> None:
    if asked != task:
        raise WireError("server and device were set up for one task", remedy="Start both from one run folder.")


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
