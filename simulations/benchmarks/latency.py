"""How long a round takes that has nothing to compute: `python simulations/benchmarks/latency.py`.

Forty devices of this process get a vector and send it back, over one SuperLink with TLS, enrolled keys and a database,
in one run of Flower's. First the way of fedrec: a bell, and a grid that looks when something may have come. Then the
stock way, with Flower's own clients and intervals: every device asks each 3 s, fetches parts with a first pause of 1 s,
and the server looks each 3 s. Devices are threads in both, where stock Flower would start a process for each message.
The table names the median of `--rounds` rounds, and their range.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, run_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from superlinks import Keys, Site, ask, echo, everybody, running
from tables import table

from fedrec.exchange.link import LinkGrid
from fedrec.exchange.superlink import online

STOCK = 3.0  # seconds between two looks, of flwr's SuperNode and of its HttpGrid

Send = Callable[[Iterable[Message]], Iterable[Message]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1000, help="numbers in the vector")
    given = parser.parse_args()
    shared = np.zeros(given.size, np.float32)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as site:
        keys = site.enrol(given.clients)
        ours = measured_ours(site, keys, shared, given.rounds)
        stock = measured_stock(site, keys, shared, given.rounds)
    print(f"{given.clients} devices, {given.size} numbers there and back, {given.rounds} rounds\n")
    rows = [["stock Flower", *_cells(stock, stock)], ["fedrec", *_cells(ours, stock)]]
    print("\n".join(table(["way", "s a round", "range", "× faster than stock"], rows)))


def measured_ours(site: Site, keys: Keys, shared: np.ndarray, rounds: int) -> list[float]:
    """Seconds of every round, the way of fedrec."""
    with site.fleet(keys) as ring, site.executing(ring) as grid:
        return timed(grid, partial(grid.send_and_receive, timeout=300.0), len(keys), shared, rounds)


def measured_stock(site: Site, keys: Keys, shared: np.ndarray, rounds: int) -> list[float]:
    """Seconds of every round, with stock clients and intervals."""
    while online(site.address, site.authority):  # ours leave within seconds; two of one key are not let in
        time.sleep(0.5)
    with stock_fleet(site, keys), site.executing(lambda: None) as grid:
        flower = HttpGrid(site.address, root_certificates=site.authority, token=grid._headers[TASK_TOKEN_HEADER])
        flower.set_run(grid.run)
        try:
            return timed(grid, partial(flower.send_and_receive, timeout=300.0), len(keys), shared, rounds)
        finally:
            flower.close()


def timed(grid: LinkGrid, send: Send, count: int, shared: np.ndarray, rounds: int) -> list[float]:
    """Seconds of every round after the first."""
    nodes, took = everybody(grid, count), []
    for number in range(rounds + 1):
        requests = ask(nodes, shared, number)
        began = time.perf_counter()
        replies = list(send(requests))
        took.append(time.perf_counter() - began)
        if len(replies) < count or any(reply.has_error() for reply in replies):
            raise RuntimeError("every device replies in every round")
    return took[1:]


@contextmanager
def stock_fleet(site: Site, keys: Keys) -> Iterator[None]:
    """Devices of this process that speak through Flower's own clients, at stock intervals."""
    stop = threading.Event()
    with ExitStack() as stack:
        devices = [_StockDevice(stack.enter_context(_client(site, key)), key) for key in keys]
        threads = [threading.Thread(target=device.run, args=(stop,)) for device in devices]
        for place, thread in enumerate(threads):
            thread.start()
            stop.wait(STOCK / len(threads) if place + 1 < len(threads) else 0.0)  # nodes do not start at one time
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


class _StockDevice:
    """What flwr's SuperNode does for a message, but for the process that it starts."""

    def __init__(self, client: FleetHttpClient, key: ec.EllipticCurvePrivateKey) -> None:
        self.client, self.public, self.node, self.beat_at = client, public_key_to_bytes(key.public_key()), Node(), 0.0

    def run(self, stop: threading.Event) -> None:
        """Look for a message every three seconds."""
        request = fleet_pb2.ActivateNodeRequest(public_key=self.public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        self.node = Node(node_id=self.client.ActivateNode(request).node_id)
        while not stop.is_set():
            began = time.monotonic()
            self.beat()
            try:
                self.look()
            except httpx.HTTPError:
                continue
            stop.wait(max(0.0, began + STOCK - time.monotonic()))
        self.client.DeactivateNode(fleet_pb2.DeactivateNodeRequest(node_id=self.node.node_id))

    def beat(self) -> None:
        if time.monotonic() < self.beat_at:
            return
        self.beat_at = time.monotonic() + 0.8 * HEARTBEAT_DEFAULT_INTERVAL
        self.client.SendNodeHeartbeat(
            heartbeat_pb2.SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        )

    def look(self) -> None:
        said = self.client.PullMessages(fleet_pb2.PullMessagesRequest(node=self.node))
        if not said.messages_list:
            return
        announced, tree = message_from_proto(said.messages_list[0]).metadata, said.message_object_trees[0]
        pull = make_pull_object_fn_protobuf(self.client.PullObject, self.node, announced.run_id)
        confirm = make_confirm_message_received_fn_protobuf(
            self.client.ConfirmMessageReceived, self.node, announced.run_id
        )
        message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
        message.metadata.__dict__["_message_id"] = announced.message_id
        self.client.GetRun(run_pb2.GetRunRequest(node=self.node, run_id=announced.run_id))
        self.push(echo(message), announced.run_id)

    def push(self, reply: Message, run: int) -> None:
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            request = fleet_pb2.PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
            said = self.client.PushMessages(request)
            push = make_push_object_fn_protobuf(self.client.PushObject, self.node, run, said.session_id)
            push_objects(get_all_nested_objects(reply), push, object_ids_to_push=set(said.objects_to_push))


def _client(site: Site, key: ec.EllipticCurvePrivateKey) -> FleetHttpClient:
    return FleetHttpClient.from_server_address(
        site.address, False, site.authority,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )  # fmt: skip


def _cells(seconds: Sequence[float], stock: Sequence[float]) -> list[str]:
    middle = median(seconds)
    return [f"{middle:.2f}", f"{min(seconds):.2f}–{max(seconds):.2f}", f"{median(stock) / middle:.1f}"]


if __name__ == "__main__":
    main()
