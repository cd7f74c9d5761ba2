"""A device as a Flower `ClientApp`: two handlers, everything else is the device's own business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange import wire


class Device(Protocol):
    """One participant."""

    @property
    def client(self) -> int:
        """Its number in the federation."""

    @property
    def task(self) -> str:
        """Hash of what it was set up to train."""

    def take_part(self, number: int, shared: NDArray[np.float32]) -> NDArray[Any]:
        """What it sends in round `number`."""


def client_app(open_device: Callable[[Context], Device]) -> ClientApp:
    """The app that answers for the device of each context."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        device = open_device(context)
        return wire.hello_reply(message, wire.Header(device.task, client=device.client))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        device, request = open_device(context), wire.read_train(message)
        if request.header.task != device.task:
            raise WireError("server and device were set up for one task", remedy="Start both from one run folder.")
        sent = device.take_part(request.header.round, request.shared)
        return wire.update(message, wire.Header(device.task, request.header.round), sent)

    return app
