"""Where bytes leave a device: each piece of a message is asked for, and counted."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Lock

PIECE = 64 << 10
_STALLED = 1.0  # seconds that a permission is held for bytes that nobody takes

Permit = Callable[[], AbstractContextManager[object]]


@dataclass(eq=False)
class Outlet:
    """`permit` is entered for each piece, and raises where it may not go out. `sent` counts bytes, without TLS."""

    permit: Permit = nullcontext
    sent: int = 0
    _counting: Lock = field(default_factory=Lock, repr=False)

    def write(self, line: socket.socket, content: bytes, left: Callable[[], float]) -> Iterator[int]:
        """Send `content` piece by piece, and say how long each was; `left` is how many seconds it may still take."""
        rest = memoryview(content)
        while rest:
            if sent := self._piece(line, rest[:PIECE], left()):
                yield sent
                rest = rest[sent:]

    def _piece(self, line: socket.socket, piece: memoryview, seconds: float) -> int:
        with self.permit():
            line.settimeout(min(seconds, _STALLED))
            try:
                sent = line.send(piece)
            except TimeoutError:  # whoever waits for the permission gets it in between
                return 0
        with self._counting:
            self.sent += sent
        return sent
