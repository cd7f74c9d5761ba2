"""The roster as the server knows it: every advert, and who is whose neighbour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from fedrec.exchange.secagg.messages import Advert, Roster
from fedrec.exchange.secagg.roll import Roll
from fedrec.exchange.secagg.terms import Terms


@dataclass(frozen=True)
class Cohort:
    """All whose adverts are on the roster, by client."""

    terms: Terms
    adverts: Mapping[int, Advert]

    @cached_property
    def roll(self) -> Roll:
        """What everybody knows of it."""
        return Roll(self.terms, tuple(sorted(advert.leaf for advert in self.adverts.values())))

    @cached_property
    def near(self) -> dict[int, tuple[int, ...]]:
        """The neighbours of each client, ascending."""
        clients = {advert.leaf: client for client, advert in self.adverts.items()}
        return {
            client: tuple(sorted(clients[leaf] for leaf in self.roll.neighbours(advert.leaf)))
            for client, advert in self.adverts.items()
        }

    def rosters(self) -> dict[int, Roster]:
        """What each client is told."""
        leaves = b"".join(self.roll.leaves)
        return {
            client: Roster.of(leaves, [self.adverts[other] for other in near]) for client, near in self.near.items()
        }

    def held(self, clients: Collection[int]) -> frozenset[int]:
        """The most of `clients` that each have `threshold` neighbours among themselves."""
        kept = frozenset(clients)
        while True:
            fewer = frozenset(client for client in kept if self.reachable(client, kept))
            if fewer == kept:
                return kept
            kept = fewer

    def reachable(self, client: int, clients: Collection[int]) -> bool:
        """Whether `client` has enough neighbours in `clients` to lift its masks."""
        return len(frozenset(self.near[client]) & frozenset(clients)) >= self.terms.threshold

    def flags(self, alive: Collection[int]) -> bytes:
        """Survivors, one bit per leaf."""
        return self.roll.flags(self.adverts[client].leaf for client in alive)
