"""One line to a Flower server: protobuf over HTTPS, a deadline for every request and a limit for every answer.

Flower's own clients wait without a total deadline, and end the process when versions differ or a key is refused.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, Self, TypeVar

import httpcore
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fedrec.errors import FedrecError, RunError, WireError
from fedrec.exchange.outlet import Outlet
from fedrec.exchange.parcels import Kept

_LIVES = 4.0  # seconds: uvicorn hangs up on an idle connection after 5
_ABREAST = 2  # requests at a time: a SuperLink's database is slowed down by a crowd
_PROMPT = 2  # connections more, for what must not wait
_REMEDY_AGAIN = "Try again later; if it stays like this, ask whoever runs the server."
_EXPIRED, _EARLY, _HOST, _ADDRESS = 10, 9, 62, 64  # X509_V_ERR_… of OpenSSL
_UNKNOWN = (2, 7, 18, 19, 20, 21)
_SLOWEST = 16 << 10  # bytes a second
_deadline = threading.local()


class Readable(Protocol):
    """Any message of protobuf."""

    def SerializeToString(self, *, deterministic: bool) -> bytes:  # noqa: N802  (protobuf's name)
        """As bytes."""

    @classmethod
    def FromString(cls, content: bytes, /) -> Self:  # noqa: N802  (protobuf's name)
        """From bytes; raises `DecodeError`."""


A = TypeVar("A", bound=Readable)


@dataclass(frozen=True)
class Limits:
    """How long a request may take, how many bytes its answer may have, and whether it need not wait its turn.

    It may take a second more for each 16 KiB that are on the line: large models pass, a line that drips is given up.
    """

    seconds: float = 30.0
    most: int = 64 << 20
    prompt: bool = False


USUAL = Limits()


class Line:
    """Requests to one server, over connections that all threads share.

    `address` is "host:port". `root_certificates` (PEM) are the only authorities that are believed. `kept` is what was
    fetched over this line, `keep` bytes of it: a model that many nodes of a process are sent is fetched once. What is
    sent passes the `outlet`.
    """

    def __init__(
        self, address: str, root_certificates: bytes, *, keep: int = 0, outlet: Outlet | None = None
    ) -> None:  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=root_certificates.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise WireError("an authority's certificate is PEM", remedy="Enrol again to fetch it anew.") from None
        self.address, self.kept = address, Kept(keep)
        self.ahead = 0  # seconds by which the server's clock was found behind ours
        self._turns = threading.BoundedSemaphore(_ABREAST)
        self._pool = httpcore.ConnectionPool(
            context, max_connections=_ABREAST + _PROMPT, keepalive_expiry=_LIVES,
            network_backend=_Network(outlet or Outlet()),
        )  # fmt: skip

    def ask(
        self, path: str, request: Readable, answer: type[A], headers: Mapping[str, str], limits: Limits = USUAL
    ) -> A:
        """The answer to a request. `RunError` where trying again may help, `WireError` where it does not."""
        _deadline.at = time.monotonic() + limits.seconds
        with self._explained(), self._turn(limits):
            media = [("content-type", PROTOBUF_MEDIA_TYPE), ("accept", PROTOBUF_MEDIA_TYPE)]
            sent = [("host", self.address), *media, *headers.items()]
            content = request.SerializeToString(deterministic=True)
            extensions = {"timeout": {"pool": limits.seconds}}
            call = self._pool.stream(
                "POST", f"https://{self.address}{path}", headers=sent, content=content, extensions=extensions
            )
            with call as response:
                body = _read(response, limits.most)
        if response.status != 200:
            raise _refusal(response.status, body, dict(response.headers))
        try:
            return answer.FromString(body)
        except DecodeError:
            raise WireError("the server answers in Flower's protocol", path=path) from None

    def close(self) -> None:
        """Hang up."""
        self._pool.close()

    @contextmanager
    def _turn(self, limits: Limits) -> Iterator[None]:
        if limits.prompt:
            yield
            return
        if not self._turns.acquire(timeout=max(0.0, _left())):
            raise TimeoutError("others use the line")
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What may go wrong on the way, in words."""
        try:
            yield
        except (OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            cause = error.__cause__ or error.__context__ or error  # httpcore raises again, from None
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise distrust(cause.verify_code, self.address) from None
            if isinstance(cause, ssl.SSLError) and "WRONG_VERSION" in str(cause.reason):
                raise WireError("a server speaks TLS", remedy="Check address and port.", server=self.address) from None
            raise RunError("the server is in reach", remedy="Check address, network and firewall. " + _REMEDY_AGAIN,
                           server=self.address, reason=type(cause).__name__) from None  # fmt: skip


def versions(component: str) -> dict[str, str]:
    """The headers by which Flower's sides compare their versions; `component` is a name of Flower's."""
    return dict(RuntimeVersionMetadata.from_local_component(component).as_metadata())


def distrust(verify_code: int, server: str) -> WireError:
    """Why a server's certificate was refused, by OpenSSL's code, and what to do."""
    match verify_code:
        case code if code == _EXPIRED:
            rule = "the server's certificate has expired"
            remedy = "Check this machine's clock; if it is right, whoever runs the server renews it."
        case code if code == _EARLY:
            rule, remedy = "the server's certificate is not yet valid", "Set this machine's clock."
        case code if code in (_HOST, _ADDRESS):
            rule, remedy = "the server's certificate is for another host", "Use the address that the invitation names."
        case code if code in _UNKNOWN:
            rule = "the server's certificate is not from the authority this device enrolled with"
            remedy = "This may be another server that poses as yours. Do not go on; ask whoever runs it."
        case _:
            rule, remedy = "the server's certificate cannot be verified", "Ask whoever runs the server."
    return WireError(rule, remedy=remedy, server=server, code=verify_code)


def _read(response: httpcore.Response, most: int) -> bytes:
    body = bytearray()
    for piece in response.iter_stream():
        body += piece
        if len(body) > most:
            raise WireError("an answer is no larger than agreed", most=most)
    return bytes(body)


def _refusal(status: int, body: bytes, headers: Mapping[bytes, bytes]) -> FedrecError:
    said = FlowerError.from_json(body[: 1 << 16].decode("utf-8", "replace"))
    code = int(said.code) if said else 0
    match status, code:
        case _, ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE:
            return WireError("both sides run one minor version of Flower", remedy="Upgrade the older side.", code=code)
        case _, ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            remedy = (
                "Enrol this device. If it is enrolled and was cut off a moment ago, it gets back in within two minutes."
            )
            return WireError("a device is enrolled before it connects", remedy=remedy, code=code)
        case _, ApiErrorCode.RUNTIME_AUTHENTICATION_FAILED:
            remedy = "Start the trainer again: it goes on from its checkpoint."
            return WireError("the SuperLink knows the task that asks", remedy=remedy, code=code)
        case 401, 0:
            remedy = "Enrol this device again, if it was taken off the register."
            return WireError("a request is signed by an enrolled key at the server's time", remedy=remedy,
                             seconds_apart=_apart(headers))  # fmt: skip
        case 404, 0:
            return WireError("this is the address of a server of fedrec", remedy="Check address and port.")
        case 413, _:
            return WireError("a request is no larger than the server allows", status=status)
        case ((408 | 425 | 429 | 500 | 502 | 503 | 504), _):
            return RunError("the server is ready", remedy=_REMEDY_AGAIN, status=status, code=code)
    return WireError("the server accepts what it is asked", status=status, code=code)


def _apart(headers: Mapping[bytes, bytes]) -> int | None:
    """Seconds between the server's clock and ours."""
    try:
        told = parsedate_to_datetime(headers[b"date"].decode("ascii"))
    except (KeyError, ValueError):
        return None
    return round((now() - told).total_seconds())


def _left() -> float:
    left = float(_deadline.at - time.monotonic())
    if left <= 0:
        raise TimeoutError("deadline")
    return left


@contextmanager
def _as(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error


class _Stream(httpcore.NetworkStream):
    """A socket whose every operation ends by the deadline of the request it serves."""

    def __init__(self, connected: socket.socket, outlet: Outlet) -> None:
        self._socket, self._outlet = connected, outlet

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as(httpcore.ReadTimeout, httpcore.ReadError):
            self._socket.settimeout(_left())
            content = self._socket.recv(max_bytes)
            _deadline.at += len(content) / _SLOWEST
            return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _as(httpcore.WriteTimeout, httpcore.WriteError):
            for sent in self._outlet.write(self._socket, buffer, _left):
                _deadline.at += sent / _SLOWEST

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            with _as(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._socket.settimeout(_left())
                return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._outlet)
        except BaseException:
            self._socket.close()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  (httpcore's signature)
        if info != "is_readable":
            return self._socket if info == "socket" else None
        if self._socket.fileno() < 0:
            return True  # closed
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))


class _Network(httpcore.NetworkBackend):
    """TCP connections as `_Stream`."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Any = None,  # noqa: ANN401  (httpcore's signature)
    ) -> httpcore.NetworkStream:  # fmt: skip
        with self._outlet.permit():
            pass  # no connection is begun for what may not go out
        with _as(httpcore.ConnectTimeout, httpcore.ConnectError):
            connected = socket.create_connection((host, port), _left())
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _Stream(connected, self._outlet)
