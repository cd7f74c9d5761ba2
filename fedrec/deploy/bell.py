"""The bell: tells waiting devices that there may be something for them, and says nothing about whom.

The trainer rings by counting up in a file; whoever waits is told the new count. Lost rings cost a device one wait.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

from fedrec.deploy.limits import network

_LOOK = 0.02  # seconds between two looks at the file, by one task for all who wait
EACH = 32  # waits of one address: a home of many devices has fewer, and all devices of a host share one
_LONGEST = 25.0  # seconds until a wait is answered anyway: proxies on the way cut longer ones


def ring(path: Path) -> None:
    """Count up. One process rings; the file need not survive a power cut, so nothing waits for the disk."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(str(count(path) + 1))
    os.replace(fresh, path)


def count(path: Path) -> int:
    """How often it rang; 0 when there is no file, or none that can be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


class Bell:
    """The side of the listeners: any number of waits, one reader of the file, and none while nobody waits."""

    def __init__(self, path: Path, *, waits: int, longest: float = _LONGEST) -> None:
        self._path, self._free, self._longest = path, waits, longest
        self._waiting: dict[asyncio.Future[int], int] = {}
        self._here: Counter[str] = Counter()
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return len(self._waiting) >= self._free

    def crowded(self, address: str) -> bool:
        """Whether as many from `address` wait as may; others shall be able to."""
        return self._here[network(address)] >= EACH

    async def wait(self, after: int, address: str = "") -> int:
        """The count, as soon as it is not `after` (it starts again when a site is restored), or after a while."""
        now = count(self._path)
        if now != after or self._closed:
            return now
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[told] = after
        name = network(address)
        self._here[name] += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(self._longest):
                return await told
        except TimeoutError:
            return count(self._path)
        finally:
            del self._waiting[told]
            self._here[name] -= 1
            self._here += Counter()  # forgets who is gone

    def close(self) -> None:
        """Answer everybody now."""
        self._closed = True

    async def _read(self) -> None:
        while self._waiting:
            now = count(self._path)
            for told, after in self._waiting.items():
                if not told.done() and (now != after or self._closed):
                    told.set_result(now)
            await asyncio.sleep(_LOOK)
