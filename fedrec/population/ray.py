"""A grid whose nodes run on Ray: in processes of this machine, or on a cluster of several."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition
from typing import Any

import ray
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from ray.exceptions import RayError, RayTaskError

from fedrec.errors import RunError, require
from fedrec.exchange.flower import client_app_actor, crashed, engine
from fedrec.population.machines import check_machines, machines

PATIENCE = 300.0  # seconds that a message waits while no worker runs
_POLL = 0.05
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where Ray runs, and what each worker takes of it.

    `address` is "" for a cluster of this machine's cores that ends with the run, else that of one which is there:
    "auto" or HOST:PORT. A worker is a process that answers for one node of the grid at a time.
    """

    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        require(self.cpus > 0, "a worker takes some of a machine's cores", cpus=self.cpus)
        require(self.gpus >= 0, "a worker takes GPUs or none", gpus=self.gpus)


@contextmanager
def ray_grid(
    folder: Path, app: Callable[[], ClientApp], nodes: int = 0, *,
    cluster: Cluster | None = None, config: Mapping[str, str] | None = None,
) -> Iterator[Grid]:  # fmt: skip
    """A grid of `nodes` nodes on Ray; 0 stands for as many as the cluster has room for workers.

    `app` is a function that every machine can import. Its contexts name `folder` in their run-config, under `run`,
    beside `config`. A worker that dies costs the message that it had; another one takes its place.
    Raises `RunError` for machines that cannot work on one run together.
    """
    cluster, folder = cluster or Cluster(), folder.resolve()
    with _connected(cluster.address):
        room = _room(cluster)
        remedy = "Add machines, or let a worker take less."
        require(room > 0, "a Ray cluster has room for a worker", remedy=remedy, cpus=cluster.cpus, gpus=cluster.gpus)
        check_machines(folder)
        count = min(nodes or room, room)
        workers = Workers(app, count, cluster, {"run": str(folder), **(config or {})})
        with engine(workers, nodes or room, abreast=count) as grid:
            try:
                yield grid
            finally:
                workers.close()


class Workers:
    """`count` of Flower's Ray actors, and others in place of those that die.

    Flower's pool takes an actor that has died for the next one to be used, and then fails every message at once
    (BasicActorPool, flwr 1.41). Here another actor is asked for, and used when it runs. If its machine is gone and no
    other has room, that is never, and the rest do its work.
    """

    def __init__(
        self, app: Callable[[], ClientApp], count: int, cluster: Cluster, config: Mapping[str, str]
    ) -> None:  # fmt: skip
        options = client_app_actor().options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, scheduling_strategy="SPREAD"
        )  # fmt: skip
        self._app = app
        self._config: dict[str, bool | float | int | str] = dict(config)
        self._workers = [_Worker(options.remote) for _ in range(count)]
        self._freed, self._closed = Condition(), False

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """A worker's answer, or an error. What a node keeps is on disk, not in its context."""
        place = int(context.node_config["partition-id"])
        worker = self._take(place)
        if worker is None:
            return crashed(message, "no worker runs"), context
        try:
            told = replace(context, run_config=self._config)
            _, reply, _ = ray.get(worker.actor.run.remote(self._app, message, str(place), told))
        except RayTaskError as error:  # the app failed, the worker lives
            reason = str(error.cause).rpartition("Message: ")[2]  # what Flower's exception says before is its name
            _LOG.warning("node %d answered with an error: %s", place, reason)
            reply = crashed(message, reason)
        except RayError as error:
            self._mourn(worker, error)
            reply = crashed(message, "a worker died")
        finally:
            self._give(worker)
        return reply, context

    def close(self) -> None:
        """Stop every worker, also in the middle of a message."""
        with self._freed:
            self._closed = True
            self._freed.notify_all()
            for worker in self._workers:
                ray.kill(worker.actor)

    def _take(self, place: int) -> _Worker | None:
        """A free worker that runs, if there will be one: best the one that had this node's last message.

        A node has one message at a time, also when the server has not waited for its last one.
        """
        deadline = time.monotonic() + PATIENCE
        with self._freed:
            while not self._closed:
                busy = [worker for worker in self._workers if worker.busy]
                worker = None if any(worker.place == place for worker in busy) else self._free(place)
                if worker:
                    worker.busy, worker.place = True, place
                    return worker
                if busy:
                    deadline = time.monotonic() + PATIENCE
                if time.monotonic() > deadline:
                    _LOG.warning("no worker of the Ray cluster has been running for %d seconds", PATIENCE)
                    break
                self._freed.wait(_POLL)
        return None

    def _free(self, place: int) -> _Worker | None:
        free = sorted((worker for worker in self._workers if not worker.busy), key=lambda worker: worker.place != place)
        return next((worker for worker in free if worker.runs()), None)

    def _give(self, worker: _Worker) -> None:
        with self._freed:
            worker.busy = False
            self._freed.notify_all()

    def _mourn(self, worker: _Worker, error: RayError) -> None:
        with self._freed:
            if not self._closed:
                _LOG.warning("the worker of node %d died (%s); it misses a round", worker.place, type(error).__name__)
                worker.replace()


class _Worker:
    """An actor, the node of its last message, and whether it has one now."""

    def __init__(self, hire: Callable[[], Any]) -> None:
        self.busy, self.place, self._hire = False, -1, hire
        self._start()

    def runs(self) -> bool:
        """Whether the actor has started. One that cannot is replaced."""
        if not ray.wait([self._ready], timeout=0)[0]:
            return False
        try:
            ray.get(self._ready)
        except RayError as error:
            _LOG.warning("a worker did not start (%s)", type(error).__name__)
            self.replace()
            return False
        return True

    def replace(self) -> None:
        """Another actor in its place. This does not wait for it."""
        ray.kill(self.actor)  # it may be alive, and only out of reach
        self._start()

    def _start(self) -> None:
        self.actor = self._hire()
        self._ready = self.actor.__ray_ready__.remote()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Ray, without its dashboard; what it prints goes to standard error.

    One that this process is connected to already is used as it is.
    """
    if ray.is_initialized():
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
        try:
            _knock(address)
            if not address:
                os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is for helpers; these do all the work
            ray.init(
                address=address or "local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False
            )  # fmt: skip
        except ConnectionError:
            remedy = "Start it with `ray start --head`, or leave out --address for a cluster of this machine alone."
            raise RunError("a Ray cluster answers at its address", remedy=remedy, address=address) from None
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise `ConnectionError` at once if nobody is there: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    require(bool(colon) or address in ("", "auto"), "a Ray cluster is at HOST:PORT, or auto", address=address)
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionError from error


def _room(cluster: Cluster) -> int:
    """How many workers fit: each on one machine, which need not be of a size."""
    return sum(_fit(node["Resources"], cluster) for node in machines())


def _fit(resources: Mapping[str, float], cluster: Cluster) -> int:
    workers = int(resources.get("CPU", 0) / cluster.cpus)
    return min(workers, int(resources.get("GPU", 0) / cluster.gpus)) if cluster.gpus else workers
