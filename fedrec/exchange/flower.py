"""The one place that knows Flower's switches and its private corners; tested per Flower version."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol, cast

from fedrec.errors import RunError

# Read by Flower and Ray when they are imported: nothing of ours phones home, updates or installs.
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.update(SWITCHES)

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.serverapp import Grid


def ignored() -> tuple[str, ...]:
    """The switches that are not ours: changed in the environment, or not what Flower read when it was imported."""
    from flwr.supercore import telemetry

    wrong = [name for name, value in SWITCHES.items() if os.environ.get(name) != value]
    if SWITCHES["FLWR_TELEMETRY_ENABLED"] != telemetry.FLWR_TELEMETRY_ENABLED:
        wrong.append("FLWR_TELEMETRY_ENABLED")
    return tuple(dict.fromkeys(wrong))


def become_local_server() -> None:
    """Let this process make messages. Outside a Flower process, `Message` refuses otherwise (flwr 1.41)."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class Answering(Protocol):
    """Who answers the messages of an engine, several at a time, each in a thread of the engine's. It never raises."""

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """The reply, and the context of the node's next message."""


@contextmanager
def engine(answering: Answering, nodes: int, *, abreast: int) -> Iterator[Grid]:
    """Flower's simulation engine: a grid of `nodes` nodes. `answering` gets their messages, `abreast` at a time.

    These are the parts of `flwr.simulation.run_simulation` (flwr 1.41), put together the other way round. There the
    engine has the main thread: after Ctrl-C or an error the server's thread waits for replies until its timeout, and
    at most cores + 4 messages are under way, however large a cluster is. Here the server stays where it is.
    """
    from flwr.server.superlink.fleet.vce import vce_api
    from flwr.server.superlink.fleet.vce.metrics import VceMetrics
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    become_local_server()
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    run = _only_run(factory.state())
    places = vce_api._register_nodes(nodes, factory)
    stores = vce_api._register_node_info_stores(places, run)
    asked: Queue[Message] = Queue()
    answered: Queue[Message] = Queue()
    stop = Event()
    work = (asked, answered, stores, cast(Any, answering), stop, VceMetrics())
    threads = [
        Thread(target=vce_api.add_messages_to_queue, args=(factory.state(), asked, places, stop), daemon=True),
        Thread(target=vce_api.put_message_into_state, args=(factory.state(), answered, stop), daemon=True),
        *(Thread(target=vce_api.worker, args=work, daemon=True) for _ in range(abreast)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield _watched(factory, run, threads)
    finally:
        stop.set()


def client_app_actor() -> Any:  # noqa: ANN401  (a class that Ray has made its own)
    """The Ray actor of Flower's engine; `run` takes what makes a client app, a message, a name and a context."""
    from flwr.simulation.ray_transport.ray_actor import ClientAppActor

    return ClientAppActor


def crashed(message: Message, reason: str) -> Message:
    """The reply of Flower's for a client app that will not answer any more."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode

    return Message(Error(code=ErrorCode.CLIENT_APP_CRASHED, reason=reason), reply_to=message)


def absence(message: Message) -> Message:
    """The reply of Flower's on behalf of a node that is out of reach."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode

    return Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="the device is silent"), reply_to=message)


def is_absence(reply: Message) -> bool:
    """Whether a reply says that its node was out of reach."""
    from flwr.common.constant import ErrorCode

    return reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE


def _only_run(state: Any) -> Any:  # noqa: ANN401  (InMemoryLinkState and Run of flwr 1.41)
    """The run that `become_local_server` speaks for, known to the link between server and nodes."""
    from flwr.proto.task_pb2 import Task
    from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

    run = Run.create_empty(TaskIdentity.run_id)
    run.primary_task_id, run.federation_id = TaskIdentity.task_id, NOOP_FEDERATION_ID
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[run.primary_task_id] = Task(task_id=run.primary_task_id, run_id=run.run_id)
    return run


def _watched(factory: Any, run: Any, threads: list[Thread]) -> Grid:  # noqa: ANN401
    """Flower's grid in memory, which hands replies on as they come and does not wait for an engine that is gone."""
    from flwr.superlink.grid import InMemoryGrid

    class Watched(InMemoryGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Iterator[Message]:  # noqa: ANN401
            waiting, deadline = set(self.push_messages(messages)), time.monotonic() + (timeout or float("inf"))
            while waiting and time.monotonic() < deadline:
                if not all(thread.is_alive() for thread in threads):
                    raise RunError("Flower's engine runs as long as a run", remedy="Look at the log; --resume goes on.")
                for reply in self.pull_messages(waiting):
                    waiting.discard(reply.metadata.reply_to_message_id)
                    yield reply
                if waiting:
                    time.sleep(self.pull_interval)

    grid = Watched(factory)
    grid.set_run(run)
    return grid
