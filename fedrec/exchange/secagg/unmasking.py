"""From the masked total of known survivors to their sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange.secagg import keys
from fedrec.exchange.secagg.cohort import Cohort
from fedrec.exchange.secagg.field import join
from fedrec.exchange.secagg.messages import Consent, Consents, Revealed, consented
from fedrec.exchange.secagg.residues import Words
from fedrec.exchange.secagg.seals import KEY, SEED, place_of, print_of, seal_of
from fedrec.exchange.secagg.terms import Witness


@dataclass(frozen=True, eq=False)
class Unmasking:
    """All that the server needs once the survivors are fixed; none of it is secret.

    `dealers` shared their secrets, and the vectors of those `alive` are in `masked` (dim,). `seals`: for each dealer
    the seals of the secret that may be revealed of it, in the order of its neighbours; `prints`: of the seeds.
    """

    cohort: Cohort
    dealers: frozenset[int]
    alive: frozenset[int]
    seals: Mapping[int, tuple[bytes, ...]]
    prints: Mapping[int, bytes]
    masked: Words

    @cached_property
    def flags(self) -> bytes:
        """The survivors, as they are told."""
        return self.cohort.flags(self.alive)

    def consent_fault(self, client: int, consent: Consent, witness: Witness) -> str | None:
        """Why a consent counts for nothing."""
        if client != consent.client or client not in self.alive:
            return "not a survivor"
        said = consented(self.cohort.roll.root, client, self.flags)
        sound = witness.check(client, self.cohort.adverts[client].certificate, said, consent.signature)
        return None if sound else "wrong signature"

    def consents(self, sound: Mapping[int, Consent]) -> dict[int, Consents]:
        """What each client that consented is shown: its neighbours' consents. Those with too few are left alone."""
        shown = {}
        for client in sound:
            near = [other for other in self.cohort.near[client] if other in sound]
            if len(near) >= self.cohort.terms.threshold:
                shown[client] = Consents(tuple(near), tuple(sound[other].signature for other in near))
        return shown

    def revealed_fault(self, client: int, revealed: Revealed) -> str | None:
        """Why nothing that a client reveals is used."""
        if client != revealed.client or client not in self.alive:
            return "not a survivor"
        near = frozenset(self.cohort.near[client]) & self.dealers
        if not (frozenset(revealed.alive) <= near & self.alive and frozenset(revealed.dropped) <= near - self.alive):
            return "wrong shares"
        return None

    def secrets(self, sound: Mapping[int, Revealed]) -> dict[int, bytes]:
        """The seed of each survivor and the mask key of each dropped client, where true shares of it suffice."""
        shares = self._shares(sound)
        secrets = {dealer: self._secret(dealer, shares[dealer]) for dealer in sorted(self.dealers)}
        return {dealer: secret for dealer, secret in secrets.items() if secret is not None}

    def total(self, secrets: Mapping[int, bytes]) -> NDArray[np.int64]:
        """The exact sum (dim,) of the survivors' vectors, centred, given the secrets of all dealers."""
        ring, root = self.cohort.terms.residues, self.cohort.roll.root
        total = self.masked.copy()
        for client in sorted(self.alive):
            total -= ring.mask(keys.self_seed(secrets[client], root))
        for gone in sorted(self.dealers - self.alive):
            self._lift(total, gone, secrets[gone])
        return ring.centred(ring.folded(total))

    def _lift(self, total: Words, gone: int, key: bytes) -> None:
        """Take away the masks that survivors put on for a client that never sent its own."""
        for client in self.cohort.near[gone]:
            if client in self.alive:
                seed = keys.pair_seed(key, self.cohort.adverts[client].mask_key, self.cohort.roll.root)
                mask = self.cohort.terms.residues.mask(seed)
                if client > gone:
                    total -= mask
                else:
                    total += mask

    def _shares(self, sound: Mapping[int, Revealed]) -> dict[int, dict[int, bytes]]:
        """The true shares of each dealer by place, no more than it takes."""
        shares: dict[int, dict[int, bytes]] = {dealer: {} for dealer in self.dealers}
        for holder, revealed in sorted(sound.items()):
            given = (*zip(revealed.alive, revealed.seed_shares, strict=True),
                     *zip(revealed.dropped, revealed.key_shares, strict=True))  # fmt: skip
            for dealer, share in given:
                if len(shares[dealer]) < self.cohort.terms.threshold and self._true(holder, dealer, share):
                    shares[dealer][place_of(holder)] = share
        return shares

    def _true(self, holder: int, dealer: int, share: bytes) -> bool:
        secret = SEED if dealer in self.alive else KEY
        seal = self.seals[dealer][self.cohort.near[dealer].index(holder)]
        return seal_of(self.cohort.roll.root, secret, dealer, share) == seal

    def _secret(self, dealer: int, shares: Mapping[int, bytes]) -> bytes | None:
        """The secret of a dealer; None with too few shares, or if it dealt shares of another than it uses."""
        if len(shares) < self.cohort.terms.threshold:
            return None
        try:
            secret = join(shares)
        except WireError:
            return None
        if dealer in self.alive:
            return secret if print_of(self.cohort.roll.root, dealer, secret) == self.prints[dealer] else None
        return secret if keys.public(secret) == self.cohort.adverts[dealer].mask_key else None
