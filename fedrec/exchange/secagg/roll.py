"""Who takes part, as everybody may know it: hashes of adverts, and the graph that follows from all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedrec.errors import WireError
from fedrec.exchange.secagg.messages import HASH
from fedrec.exchange.secagg.terms import Terms, digest


@dataclass(frozen=True)
class Roll:
    """The hashes of all adverts, ascending and distinct."""

    terms: Terms
    leaves: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if any(one >= next_one for one, next_one in zip(self.leaves, self.leaves[1:], strict=False)):
            raise WireError("a roster lists every advert once, in order")

    @classmethod
    def read(cls, terms: Terms, leaves: bytes) -> Roll:
        """The roll that a roster carries."""
        if len(leaves) % HASH:
            raise WireError("a roster lists hashes of 32 bytes", length=len(leaves))
        return cls(terms, tuple(leaves[start : start + HASH] for start in range(0, len(leaves), HASH)))

    @cached_property
    def root(self) -> bytes:
        """One hash of terms and roster: keys derived under different ones have nothing in common."""
        return digest("roster", self.terms.digest, b"".join(self.leaves))

    def neighbours(self, leaf: bytes) -> frozenset[bytes]:
        """Half of the degree on each side of `leaf`, on a ring whose order nobody chose alone; everybody, if few."""
        count, half = len(self.leaves), self.terms.degree // 2
        if self.terms.degree >= count - 1:
            return frozenset(self.leaves) - {leaf}
        at = self._places[leaf]
        return frozenset(self._ring[(at + step) % count] for step in range(-half, half + 1) if step)

    def flags(self, alive: Iterable[bytes]) -> bytes:
        """One bit per leaf: whether it is in `alive`."""
        among = frozenset(alive)
        return np.packbits([leaf in among for leaf in self.leaves]).tobytes()

    def flagged(self, flags: bytes) -> frozenset[bytes]:
        """The leaves whose bit is set; bits beyond the roster are refused."""
        if len(flags) != (len(self.leaves) + 7) // 8:
            raise WireError("survivors are told by one bit per advert", length=len(flags))
        bits = np.unpackbits(np.frombuffer(flags, np.uint8))
        if bits[len(self.leaves) :].any():
            raise WireError("survivors are on the roster")
        return frozenset(leaf for leaf, bit in zip(self.leaves, bits.tolist(), strict=False) if bit)

    @cached_property
    def _ring(self) -> list[bytes]:
        return sorted(self.leaves, key=lambda leaf: digest("ring", self.root, leaf))

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {leaf: place for place, leaf in enumerate(self._ring)}
