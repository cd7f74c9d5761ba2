"""How often an address may be wrong."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable


class Misses:
    """A bucket of wrong tries for each address, refilled one at a time; memory for `most` addresses.

    Right answers cost nothing, so a machine can enrol as many devices as it has invitations. Addresses of IPv6 count
    by their network of 64 bits: one subscriber has all of it.
    """

    def __init__(
        self, tries: int = 10, *, refill: float = 6.0, most: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tries, self._refill, self._most, self._clock = tries, refill, most, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when the bucket will be full again

    def blocked(self, address: str) -> bool:
        """Whether this address was wrong too often of late."""
        return self._full_at.get(network(address), 0.0) - self._clock() > (self._tries - 1) * self._refill

    def note(self, address: str) -> None:
        """It was wrong once more."""
        name, now = network(address), self._clock()
        self._full_at[name] = max(self._full_at.get(name, now), now) + self._refill
        self._full_at.move_to_end(name)
        while len(self._full_at) > self._most:
            self._full_at.popitem(last=False)


def network(address: str) -> str:
    """Who is counted as one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
