"""Listeners: uvicorn with the patience that the public needs."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from fedrec.deploy.bell import Bell
from fedrec.deploy.certificates import serving
from fedrec.deploy.desk import Desk, Register
from fedrec.deploy.door import Door, superlink
from fedrec.deploy.limits import network
from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site, SiteSpec
from fedrec.errors import RunError

_HANDSHAKE = 15.0  # seconds for TLS to begin
_PARTING = 2.0  # seconds for the other side to agree that it ends
_HEADER = 20.0  # seconds for a request line and its headers
_IDLE = 75  # seconds that a connection is kept open between requests
_FAREWELL = 10  # seconds for what is under way when we stop


@dataclass(frozen=True, eq=False)
class Listener:
    """One application on one bound socket; at most so many connections, in all and from one address."""

    app: ASGIApp
    place: socket.socket
    tls: ssl.SSLContext | None = None
    connections: int = 1024
    connections_per_address: int | None = None
    behind_proxy: bool = False


def bind(host: str, port: int) -> socket.socket:
    """A socket to listen on; port 0 is any free one."""
    place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as error:
        place.close()
        remedy = "Stop what listens there, or choose another port in server.toml."
        raise RunError("the port is free", remedy=remedy, address=host, port=port, reason=error.strerror) from None
    return place


async def listen(
    listeners: Sequence[Listener], stop: asyncio.Event, farewell: Callable[[], None] = lambda: None
) -> None:
    """Serve until `stop` is set; then `farewell` is called, and what is under way is finished.

    The sockets are closed in the end.
    """
    servers = [_Server(listener) for listener in listeners]
    running = [asyncio.create_task(server.serve()) for server in servers]
    ending = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([ending, *running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        farewell()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)


@dataclass(frozen=True)
class Places:
    """The two sockets of a site."""

    public: socket.socket
    operators: socket.socket

    @classmethod
    def of(cls, spec: SiteSpec) -> Places:
        """Where the settings say. Behind nginx even the public one is on the loopback."""
        outer = ("127.0.0.1", spec.desk) if spec.front == "nginx" else (spec.bind, spec.port)
        return cls(bind(*outer), bind(*spec.operators_at))


def serve(site: Site, operators: ASGIApp, *, register: Register) -> None:
    """Keep the site's door open, and a listener for its operators, until SIGTERM or SIGINT."""
    places = Places.of(site.spec)

    async def run() -> None:
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await keep_open(site, operators, register=register, places=places, stop=stop)

    asyncio.run(run())


async def keep_open(site: Site, operators: ASGIApp, *, register: Register, places: Places, stop: asyncio.Event) -> None:
    """What `serve` does, in a loop and on sockets of the caller's."""
    spec = site.spec
    bell = Bell(site.bell, waits=spec.connections // 2)
    with Roster(site.roster, spec.seats) as roster:
        async with superlink(site) as upstream:
            door = Door(upstream, Desk(site, roster, register, bell).app, spec.request_bytes)
            public = _public(site, door, places.public)
            await listen([public, Listener(operators, places.operators, connections=64)], stop, bell.close)


def _public(site: Site, door: Door, place: socket.socket) -> Listener:
    spec = site.spec
    if spec.front == "nginx":
        # nginx has counted who comes, and all come from its address.
        return Listener(door, place, connections=spec.connections, behind_proxy=True)
    return Listener(
        door,
        place,
        tls=serving(site.keys),
        connections=spec.connections,
        connections_per_address=spec.connections_per_address,
    )


class _Server(uvicorn.Server):
    """Uvicorn on a socket of ours. It leaves signals to its caller."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(_config(listener))
        self._listener, self._guests = listener, _Guests(listener)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. Unlike uvicorn's own, with a limit on handshakes and on guests."""
        at, tls = self._listener.place, self._listener.tls
        greeting, parting = (_HANDSHAKE, _PARTING) if tls else (None, None)
        server = await asyncio.get_running_loop().create_server(
            self._meet,
            sock=at,
            ssl=tls,
            backlog=self.config.backlog,
            ssl_handshake_timeout=greeting,
            ssl_shutdown_timeout=parting,
        )
        self.servers, self.started = [server], True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def _meet(self) -> _Connection:
        return _Connection(self.config, self.server_state, self._guests)


def _config(listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        http=H11Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # its messages can hold what somebody sent; ours say what went wrong
        access_log=False,
        server_header=False,
        proxy_headers=listener.behind_proxy,
        forwarded_allow_ips="127.0.0.1",
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_FAREWELL,
    )


class _Guests:
    """How many connections there are, in all and by address."""

    def __init__(self, listener: Listener) -> None:
        self._most = listener.connections
        self._each = listener.connections_per_address or listener.connections
        self._here: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Whether there is room for one more from `address`; then it is counted."""
        if self._here.total() >= self._most or self._here[address] >= self._each:
            return False
        self._here[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One of `address` is gone."""
        self._here[address] -= 1
        if not self._here[address]:
            del self._here[address]


class _Connection(H11Protocol):
    """A connection that is dropped when there is no room, or when its next request does not come to an end."""

    def __init__(self, config: uvicorn.Config, state: ServerState, guests: _Guests) -> None:
        super().__init__(config, state, {})
        self._guests, self._address = guests, ""
        self._admitted = False
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, if there is room."""
        super().connection_made(transport)
        self._address = network(self.client[0] if self.client else "")
        self._admitted = self._guests.admit(self._address)
        if self._admitted:
            self._expect_header()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._forget_header()
        if self._admitted:
            self._guests.leave(self._address)

    def data_received(self, data: bytes) -> None:
        """Go on."""
        super().data_received(data)
        self._expect_header()

    def on_response_complete(self) -> None:
        """Go on with what came early."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._expect_header()

    def _expect_header(self) -> None:
        # h11 is idle until a whole header is there. Uvicorn's own timer stops at its first byte.
        if self.conn.their_state is not h11.IDLE:
            self._forget_header()
        elif self._late is None:
            self._late = self.loop.call_later(_HEADER, self.transport.abort)

    def _forget_header(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
