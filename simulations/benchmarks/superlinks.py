"""A SuperLink on loopback for benchmarks, with devices of this process: TLS, enrolled keys, a database."""

from __future__ import annotations

import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message

from fedrec.deploy.certificates import CA, SERVER, SERVER_KEY, create_authority, issue_server
from fedrec.exchange import wire
from fedrec.exchange.duty import run_nodes
from fedrec.exchange.fleet import Node
from fedrec.exchange.line import Line
from fedrec.exchange.link import LinkGrid
from fedrec.exchange.superlink import SuperLink, executing, register

Keys = Sequence[ec.EllipticCurvePrivateKey]


@dataclass(frozen=True)
class Site:
    """A SuperLink that runs."""

    address: str
    authority: bytes
    secret: bytes
    numbers: dict[ec.EllipticCurvePrivateKey, int] = field(default_factory=dict)  # of those that were enrolled

    def enrol(self, count: int) -> list[ec.EllipticCurvePrivateKey]:
        """Devices that may come in."""
        keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(count)]
        for key in keys:
            self.numbers[key] = register(self.address, self.authority, key.public_key())
        return keys

    @contextmanager
    def fleet(self, keys: Keys, *, address: str = "", alone: bool = False) -> Iterator[Callable[[], None]]:
        """Devices on duty in this process, which send back as much as they get; and their bell.

        They share what they are sent, unless each is `alone`, as on a machine of its own.
        """
        rung, stop = threading.Event(), threading.Event()

        def bell() -> bool:
            rang = rung.wait(25.0)
            rung.clear()
            return rang

        address = address or self.address
        with ExitStack() as lines:
            shared = None if alone else lines.enter_context(closing(Line(address, self.authority, keep=64 << 20)))
            nodes = [lines.enter_context(closing(self._node(key, address, shared))) for key in keys]
            duty = threading.Thread(target=lambda: run_nodes(nodes, [echo] * len(nodes), bell=bell, stop=stop))
            duty.start()
            try:
                yield rung.set
            finally:
                stop.set()
                duty.join()

    def _node(self, key: ec.EllipticCurvePrivateKey, address: str, line: Line | None) -> Node:
        """A device that knows its number: it may have been on duty a moment ago."""
        return Node(address, key, self.authority, number=self.numbers[key], line=line)

    @contextmanager
    def executing(self, ring: Callable[[], None]) -> Iterator[LinkGrid]:
        """The grid of a new run."""
        with executing(self.address, self.authority, self.secret, {}, ring=ring) as grid:
            yield grid


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """A SuperLink whose files lie in a folder; it is killed at the end."""
    create_authority(folder)
    issue_server(folder, [])
    (folder / "secret").write_bytes(secret := secrets.token_bytes(32))
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    link = SuperLink(
        port=port, authority=folder / CA, certificate=folder / SERVER, key=folder / SERVER_KEY,
        database=folder / "superlink.db", secret=folder / "secret", home=folder / "home",
    )  # fmt: skip
    with (folder / "superlink.log").open("wb") as log:
        process = subprocess.Popen(link.command(), env=link.environment(), cwd=folder, stdout=log, stderr=log)
    try:
        _wait(port, process)
        yield Site(f"127.0.0.1:{port}", (folder / CA).read_bytes(), secret)
    finally:
        process.kill()
        process.wait()


def echo(message: Message) -> Message:
    """A device without people: it sends back what it got, with a mark of its own."""
    request = wire.read_train(message)
    mark = np.float32(message.metadata.dst_node_id % 65521)  # Flower does not carry the same content twice
    return wire.update(message, request.header.echo, request.shared + mark)


def ask(nodes: Sequence[int], shared: np.ndarray, number: int) -> list[Message]:
    """The requests of a round."""
    header = wire.Header("benchmark", number, model=wire.digest(shared))
    record = wire.arrays(shared)
    return [wire.train(node, header, record) for node in nodes]


def everybody(grid: LinkGrid, count: int) -> list[int]:
    """The nodes, as soon as all of them are on duty, and those of before are not any more."""
    while len(nodes := grid.get_node_ids()) != count:
        time.sleep(0.1)
    return nodes


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the SuperLink did not start")
