"""A TCP relay between devices and a site's door, in which the weather may be bad."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

_PIECE = 16 << 10
_LOOK = 0.05  # seconds
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

Heard = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Weather:
    """What happens to every connection, each way: bytes a second, seconds of delay a piece.

    A connection is reset after `reset` bytes; after `half` bytes the device hears that the server has said all.
    `dead`: nothing comes through, and nobody says so.
    """

    rate: float = math.inf
    delay: float = 0.0
    reset: float = math.inf
    half: float = math.inf
    dead: bool = False


FAIR = Weather()


class _Reset(Exception):
    """A connection has carried enough."""


@dataclass(frozen=True)
class Tls:
    """Both ends of a relay that reads what it relays: who it poses as, and whom it believes."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@dataclass
class Relay:
    """Relays from a port of its own, `at`, to `port`, both on the loopback. `weather` may change at any time.

    `heard` gets every piece with its direction, "up" or "down"; in the clear, with `tls`.
    """

    port: int
    heard: Heard = lambda direction, piece: None
    tls: Tls | None = None
    weather: Weather = FAIR
    resets: int = 0
    bytes: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})

    def __enter__(self) -> Self:
        self._place = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.at: int = self._place.getsockname()[1]
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._place, ssl=self.tls and self.tls.server)
        await self._stop.wait()
        server.close()
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await asyncio.sleep(0)  # a handshake that was under way begins a task of its own

    async def _serve(self, source: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        writers = [answer]
        try:
            tls = self.tls and self.tls.client
            back, sink = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
            writers.append(sink)
            await asyncio.gather(self._pump(source, sink, "up"), self._pump(back, answer, "down"))
        except _Reset:
            self.resets += 1
            for writer in writers:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        except (OSError, asyncio.CancelledError):
            pass
        for writer in writers:
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        passed = 0
        while piece := await source.read(max(1, int(min(_PIECE, self.weather.rate / 5)))):
            await self._suffer(len(piece))
            self.heard(way, piece)
            passed += len(piece)
            self.bytes[way] += len(piece)
            if passed > self.weather.reset:
                raise _Reset
            sink.write(piece)
            await sink.drain()
            if way == "down" and passed > self.weather.half:
                break
        if sink.can_write_eof():
            sink.write_eof()
        else:
            sink.close()  # TLS has no half-closed connections

    async def _suffer(self, length: int) -> None:
        await asyncio.sleep(self.weather.delay + length / self.weather.rate)
        while self.weather.dead:
            await asyncio.sleep(_LOOK)
