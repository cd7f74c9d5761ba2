"""A SuperLink on loopback with throw-away certificates, and nodes in this process."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from flwr.app import Context, RecordDict

from fedrec.errors import RunError
from fedrec.exchange.duty import run_nodes
from fedrec.exchange.fleet import Node
from fedrec.exchange.line import Line
from fedrec.exchange.link import Pace
from fedrec.exchange.superlink import SuperLink, executing, register

SECRET = b"a secret of this test"


def new_key():
    return ec.generate_private_key(ec.SECP384R1())


@dataclass
class Authority:
    """A certificate authority, as PEM, that issues what it is asked for."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def __post_init__(self):
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        self.certificate = self._signed(self.name, self.key.public_key(), None, days=30)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, *, address="127.0.0.1", days=30):
        """A server's certificate and key in files; with negative `days` it has expired."""
        key, name = new_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        certificate = self._signed(name, key.public_key(), address, days=days)
        folder.mkdir(exist_ok=True)
        (folder / "ca.pem").write_bytes(self.pem)
        (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "server.key").write_bytes(key.private_bytes(*plain))

    def _signed(self, name, public, address, *, days):
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self.name, name, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(60)).not_valid_after(now + datetime.timedelta(days))
        builder = builder.add_extension(x509.BasicConstraints(ca=address is None, path_length=None), critical=True)
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            builder = builder.add_extension(names, critical=False).add_extension(usage, critical=False)
        return builder.sign(self.key, hashes.SHA384())


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """A SuperLink that can be killed and started again."""

    folder: Path
    authority: Authority = field(default_factory=Authority)
    process: subprocess.Popen | None = None

    def __post_init__(self):
        self.authority.issue(self.folder)
        (self.folder / "secret").write_bytes(SECRET)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def start(self):
        folder = self.folder
        link = SuperLink(
            port=self.port, authority=folder / "ca.pem", certificate=folder / "server.pem", key=folder / "server.key",
            database=folder / "superlink.db", secret=folder / "secret", home=folder / "home",
        )  # fmt: skip
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                link.command(), env=link.environment(), cwd=folder, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self):
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)
        raise AssertionError("the SuperLink does not come up")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def enrol(self, count):
        """Keys that the SuperLink knows."""
        keys = [new_key() for _ in range(count)]
        for key in keys:
            register(self.address, self.authority.pem, key.public_key())
        return keys

    def node(self, key, **more):
        """The node of an enrolled key, which knows its number: it may have been on duty a moment ago."""
        number = register(self.address, self.authority.pem, key.public_key())
        return Node(self.address, key, self.authority.pem, number=number, **more)

    def executing(self, *, ring=lambda: None):
        return executing(self.address, self.authority.pem, SECRET, {"run": "a test"}, ring=ring, pace=Pace(0.02))

    @contextmanager
    def fleet(self, keys, answers):
        """Nodes on duty in this process, and what rings their bell."""
        bell, stop = Bell(), Event()
        with closing(Line(self.address, self.authority.pem, keep=1 << 20)) as line:
            nodes = [self.node(key, line=line) for key in keys]
            duty = Thread(target=partial(run_nodes, nodes, answers, bell=bell.wait, stop=stop))
            duty.start()
            try:
                yield bell
            finally:
                stop.set()
                bell.ring()
                duty.join()


class Bell:
    """Rings in this process."""

    def __init__(self):
        self._rung = Event()

    def ring(self):
        self._rung.set()

    def wait(self):
        rang = self._rung.wait(5)
        self._rung.clear()
        return rang


def answering(app, place):
    """An app of Flower's as what answers the messages of the node with this number."""

    def answer(message):
        config = {"partition-id": place}
        return app(message, Context(message.metadata.run_id, message.metadata.dst_node_id, config, RecordDict(), {}))

    return answer


@contextmanager
def serving(folder):
    server = Server(folder)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def eventually(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RunError("it happens in time")
        time.sleep(0.02)


@contextmanager
def posing(folder, serve=lambda connection: None):
    """The address of somebody who speaks TLS with the certificate in a folder, and then does what `serve` says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept():
            with suppress(OSError):
                while True:
                    raw, _ = listener.accept()
                    with suppress(OSError), raw, context.wrap_socket(raw, server_side=True) as connection:
                        serve(connection)

        thread = Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
