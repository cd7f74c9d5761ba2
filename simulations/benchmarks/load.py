"""What one SuperLink and one host of devices bear on this machine: `python simulations/benchmarks/load.py`.

Devices are real but for their people: keys, TLS, heartbeats, Flower's messages. They live in this process, so server
and devices share its cores. The first table tells how fast devices are enrolled and sign on, how many updates of a
default size the server takes in a second, and what a node costs that waits, by the growth of this process from half
of them to all. The second is of `fedrec client start` with few devices and with many, which hold people's events and
wait for round 1 of a site. The third tells the bytes of a round for one device on a machine of its own, counted on the
wire with everything that TLS and HTTP add, for the model of each adapter.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from superlinks import Keys, Site, ask, everybody, running
from tables import table
from workload import Size

from fedrec.deploy.presence import standing
from fedrec.exchange.link import LinkGrid
from fedrec.population.world import World
from fedrec.task import Task
from simulations.deployments.federation import Federation, await_

ADAPTERS = ("none", "bottleneck", "lora")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--encoder", default="minilm")
    given = parser.parse_args()
    sizes = {adapter: numbers(adapter, given.items, given.encoder) for adapter in ADAPTERS}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as site:
        began = time.perf_counter()
        keys = site.enrol(given.devices)
        enrolled = given.devices / (time.perf_counter() - began)
        rows = [["devices enrolled a second", f"{enrolled:,.0f}"], *sustained(site, keys, given.rounds, sizes)]
        print("\n".join(table([f"{given.devices} devices", ""], rows)), end="\n\n")
        print(
            "\n".join(table(["devices of one `fedrec client start`", "MiB", "MiB a device more"], hosted())), end="\n\n"
        )
        rows = [[adapter, f"{size:,}", *traffic(site, keys[:8], size, given.rounds)] for adapter, size in sizes.items()]
        print("\n".join(table(["adapter", "numbers", "kB down", "kB up", "× the bare vectors"], rows)))


def numbers(adapter: str, items: int, encoder: str) -> int:
    """How many numbers the model of a plan shares."""
    plan = Size(clients=40, cohort=10, items=items, adapter=adapter, encoder=encoder).plan
    return Task(plan, World.open(plan).dataset.catalogue).model.layout.size


def sustained(site: Site, keys: Keys, rounds: int, sizes: dict[str, int]) -> list[list[str]]:
    """The rows on signing on, on memory and on updates of everybody."""
    half, process = len(keys) // 2, psutil.Process()
    with site.executing(lambda: None) as grid, site.fleet(keys[:half]):
        everybody(grid, half)
        before, began = process.memory_info().rss, time.perf_counter()
        with site.fleet(keys[half:]):
            everybody(grid, len(keys))
            joined = (len(keys) - half) / (time.perf_counter() - began)
            grown = (process.memory_info().rss - before) / (len(keys) - half)
    with site.fleet(keys) as ring, site.executing(ring) as grid:
        rate = len(keys) * rounds / seconds(grid, len(keys), sizes["bottleneck"], rounds)
    return [["signed on a second", f"{joined:,.0f}"], ["kB of memory a node that waits", f"{grown / 1e3:,.0f}"],
            [f"updates of {sizes['bottleneck']:,} numbers a second", f"{rate:,.1f}"]]  # fmt: skip


def hosted(few: int = 20, many: int = 200) -> list[list[str]]:
    """What a host's process takes while its devices wait."""
    small, large = resident(few), resident(many)
    return [[f"{few}", f"{small:,.0f}", ""], [f"{many}", f"{large:,.0f}", f"{(large - small) / (many - few):.2f}"]]


def resident(count: int) -> float:
    """MiB of `fedrec client start` with so many devices, at a site that needs one more for round 1."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Size(clients=count + 1, cohort=count + 1, encoder="hash").plan
        federation = Federation.make(Path(folder) / "it", plan)
        try:
            federation.serve()
            federation.enrol(1, seats=count)
            federation.join()
            await_(lambda: standing(federation.site).online == count, "all devices wait", seconds=300, look=1.0)
            return psutil.Process(federation.processes["host-0"].pid).memory_info().rss / (1 << 20)
        finally:
            federation.stop()


def traffic(site: Site, keys: Keys, size: int, rounds: int) -> list[str]:
    """What a round sends to a device and what it sends back, with all that carries it."""
    with (
        relay(site.address) as counted,
        site.fleet(keys, address=counted.address, alone=True) as ring,
        site.executing(ring) as grid,
    ):
        seconds(grid, len(keys), size, 1)
        counted.down = counted.up = 0
        seconds(grid, len(keys), size, rounds)
        down, up = counted.down / rounds / len(keys), counted.up / rounds / len(keys)
    return [f"{down / 1e3:,.1f}", f"{up / 1e3:,.1f}", f"{(down + up) / (8 * size):.2f}"]


def seconds(grid: LinkGrid, count: int, size: int, rounds: int) -> float:
    """How long rounds of everybody take."""
    nodes, began = everybody(grid, count), time.perf_counter()
    for number in range(rounds):
        shared = np.full(size, time.time_ns() % 1000, np.float32)  # nobody has it yet
        replies = list(grid.send_and_receive(ask(nodes, shared, number), timeout=600.0))
        if len(replies) < count or any(reply.has_error() for reply in replies):
            raise RuntimeError("every device replies in every round")
    return time.perf_counter() - began


@dataclass
class Relay:
    """What went through a relay, in bytes."""

    address: str
    down: int = 0
    up: int = 0


@contextmanager
def relay(target: str) -> Iterator[Relay]:
    """Somebody in between who hands on every byte and counts it."""
    host, _, port = target.rpartition(":")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        counted = Relay(f"127.0.0.1:{listener.getsockname()[1]}")
        pipes = [threading.Thread(target=_accept, args=(listener, (host, int(port)), counted))]
        pipes[0].start()
        try:
            yield counted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            pipes[0].join()


def _accept(listener: socket.socket, target: tuple[str, int], counted: Relay) -> None:
    with suppress(OSError):
        while True:
            device, _ = listener.accept()
            server = socket.create_connection(target)
            for source, sink, way in ((server, device, "down"), (device, server, "up")):
                threading.Thread(target=_pipe, args=(source, sink, counted, way), daemon=True).start()


def _pipe(source: socket.socket, sink: socket.socket, counted: Relay, way: str) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            sink.sendall(content)
            setattr(counted, way, getattr(counted, way) + len(content))
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
