"""The device's half of one secure sum: what it is asked, what it answers, and where it stops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange.secagg import keys
from fedrec.exchange.secagg.field import SECRET, Entropy, split
from fedrec.exchange.secagg.messages import (
    Advert,
    Consent,
    Consents,
    Delivery,
    Revealed,
    Roster,
    Shares,
    Survivors,
    advertised,
    consented,
)
from fedrec.exchange.secagg.residues import Words
from fedrec.exchange.secagg.roll import Roll
from fedrec.exchange.secagg.seals import KEY, SEED, place_of, print_of, seal_of
from fedrec.exchange.secagg.terms import Identity, Terms, Witness, digest, refusal

Answer = TypeVar("Answer")
_ADVERTISE, _SHARE, _MASK, _CONSENT, _REVEAL = range(5)


@dataclass
class _Secrets:
    """What nobody else may have together. `held`: my neighbours' shares of seed and mask key."""

    seed: bytes = field(repr=False)
    envelope_key: bytes = field(repr=False)
    mask_key: bytes = field(repr=False)
    held: dict[int, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Surroundings:
    """What the roster told: the roll, my neighbours' adverts, and which client is behind which leaf."""

    roll: Roll
    adverts: dict[int, Advert]

    def among(self, leaves: frozenset[bytes]) -> frozenset[int]:
        """My neighbours in `leaves`."""
        return frozenset(client for client, advert in self.adverts.items() if advert.leaf in leaves)


class Masker:
    """One device in one attempt at one round: five answers, each given once, in order.

    The same request gets the same answer again; another one at the same point is refused, as is everything that an
    honest server does not send. A refusal (`PrivacyRefusal` P13 or `WireError`) or `close` forgets all secrets and
    ends the device's part. `entropy` is for tests.
    """

    def __init__(self, terms: Terms, identity: Identity, witness: Witness, *, entropy: Entropy = os.urandom) -> None:
        self.terms = terms
        self._identity, self._witness, self._entropy = identity, witness, entropy
        secrets = _Secrets(entropy(SECRET), entropy(SECRET), entropy(SECRET))
        self._secrets: _Secrets | None = secrets
        self._mine = self._advertised(secrets)
        self._around: _Surroundings | None = None
        self._dealers: frozenset[int] = frozenset()
        self._survivors = b""
        self._said: list[tuple[object, object]] = []

    def advertise(self) -> Advert:
        """Two public keys for this round."""
        return self._once(_ADVERTISE, None, lambda _: self._mine)

    def share(self, roster: Roster) -> Shares:
        """Shares of this device's secrets for the neighbours that the roster gives it, once they prove who they are."""
        return self._once(_SHARE, roster, lambda secrets: self._shared(secrets, roster))

    def mask(self, vector: NDArray[np.int64], delivery: Delivery, *, most: int) -> Words:
        """What hides `vector` (dim,) until enough neighbours agree on whose vectors are in the sum.

        `most`: the largest |x| that an honest client sends. Masks with every neighbour that the server names: an
        envelope that does not open only means that there is no share to reveal later.
        """
        request = (digest("vector", vector.tobytes()), vector.dtype, vector.shape, delivery, most)
        return self._once(_MASK, request, lambda secrets: self._masked(secrets, vector, delivery, most))

    def consent(self, survivors: Survivors) -> Consent:
        """A signature under the one set of survivors that this device accepts."""
        return self._once(_CONSENT, survivors, lambda _: self._consented(survivors))

    def reveal(self, consents: Consents) -> Revealed:
        """One share of each neighbour: of its seed if it survived, of its mask key if not.

        Only for the survivors consented to, and only when `threshold` surviving neighbours signed the same. Which of
        them did does not matter, so a server that lost its memory may ask with other signatures.
        """
        with self._or_forget():
            self._check_consents(consents)
        return self._once(_REVEAL, self._survivors, self._revealed)

    def close(self) -> None:
        """Forget all secrets and answers."""
        self._secrets, self._around = None, None
        self._said.clear()

    def _once(self, step: int, request: object, work: Callable[[_Secrets], Answer]) -> Answer:
        with self._or_forget():
            secrets = self._open
            if step < len(self._said):
                asked, answer = self._said[step]
                if asked != request:
                    raise refusal("a device is asked one thing at each step of a round", step=step)
                return cast(Answer, answer)
            if step > len(self._said):
                raise refusal("a round has its steps in order", step=step, done=len(self._said))
            fresh = work(secrets)
        self._said.append((request, fresh))
        return fresh

    @property
    def _open(self) -> _Secrets:
        if self._secrets is None:
            raise refusal("a device that left a round does not come back to it")
        return self._secrets

    @property
    def _known(self) -> _Surroundings:
        if self._around is None:
            raise refusal("a round has its steps in order")
        return self._around

    @contextmanager
    def _or_forget(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _advertised(self, secrets: _Secrets) -> Advert:
        client, ours = self._identity.client, (keys.public(secrets.envelope_key), keys.public(secrets.mask_key))
        signature = self._identity.sign(advertised(self.terms, client, *ours))
        return Advert(client, self._identity.certificate, *ours, signature)

    def _shared(self, secrets: _Secrets, roster: Roster) -> Shares:
        self._around = around = self._surroundings(roster)
        me, root, holders = self._identity.client, around.roll.root, sorted(around.adverts)
        places = [place_of(holder) for holder in holders]
        seed_shares = split(secrets.seed, self.terms.threshold, places, self._entropy)
        key_shares = split(secrets.mask_key, self.terms.threshold, places, self._entropy)
        envelopes = []
        for holder, both in zip(holders, zip(seed_shares, key_shares, strict=True), strict=True):
            where = keys.place(root, me, holder)
            key = keys.envelope_key(secrets.envelope_key, around.adverts[holder].envelope_key, where)
            envelopes.append(keys.closed(key, both, where, self._entropy))
        return Shares(
            me, tuple(holders), tuple(envelopes),
            tuple(seal_of(root, SEED, me, share) for share in seed_shares),
            tuple(seal_of(root, KEY, me, share) for share in key_shares),
            print_of(root, me, secrets.seed),
        )  # fmt: skip

    def _surroundings(self, roster: Roster) -> _Surroundings:
        """What the roster says, if every word of it is true as far as this device can tell."""
        roll, mine = Roll.read(self.terms, roster.leaves), self._mine
        if mine.leaf not in roll.leaves:
            raise refusal("a device is on the roster as it advertised itself")
        if not self.terms.least <= len(roll.leaves) <= self.terms.cohort:
            raise refusal("a roster is of at most the cohort, and of as many as must survive", clients=len(roll.leaves),
                          cohort=self.terms.cohort, least=self.terms.least)  # fmt: skip
        adverts = roster.adverts()
        if frozenset(advert.leaf for advert in adverts) != roll.neighbours(mine.leaf):
            raise refusal("a device's neighbours follow from the whole roster")
        if len(adverts) < self.terms.threshold:
            raise refusal("a device has as many neighbours as lift its masks", neighbours=len(adverts),
                          threshold=self.terms.threshold)  # fmt: skip
        everyone = [mine, *adverts]
        public = {key for advert in everyone for key in (advert.envelope_key, advert.mask_key)}
        if len({advert.client for advert in everyone}) < len(everyone) or len(public) < 2 * len(everyone):
            raise refusal("neighbours have numbers and keys of their own", neighbours=len(adverts))
        for advert in adverts:
            self._check_advert(advert)
        return _Surroundings(roll, {advert.client: advert for advert in adverts})

    def _check_advert(self, advert: Advert) -> None:
        said = advertised(self.terms, advert.client, advert.envelope_key, advert.mask_key)
        if not self._witness.check(advert.client, advert.certificate, said, advert.signature):
            raise refusal("neighbours are enrolled, and signed these keys for these terms")

    def _masked(self, secrets: _Secrets, vector: NDArray[np.int64], delivery: Delivery, most: int) -> Words:
        self._check_vector(vector, most)
        around, me = self._known, self._identity.client
        if not frozenset(delivery.dealers) <= frozenset(around.adverts):
            raise refusal("envelopes come from neighbours")
        for dealer, envelope in zip(delivery.dealers, delivery.envelopes, strict=True):
            where = keys.place(around.roll.root, dealer, me)
            key = keys.envelope_key(secrets.envelope_key, around.adverts[dealer].envelope_key, where)
            shares = keys.opened(key, envelope, where)
            if shares is not None:
                secrets.held[dealer] = shares
        if len(secrets.held) < self.terms.threshold:
            raise refusal("as many neighbours as lift a mask have shared theirs", shared=len(secrets.held),
                          threshold=self.terms.threshold)  # fmt: skip
        self._dealers = frozenset(delivery.dealers)
        return self._sum_of_masks(secrets, self.terms.residues.of(vector), delivery.dealers)

    def _sum_of_masks(self, secrets: _Secrets, total: Words, dealers: tuple[int, ...]) -> Words:
        ring, around = self.terms.residues, self._known
        total += ring.mask(keys.self_seed(secrets.seed, around.roll.root))
        for dealer in dealers:
            mask = ring.mask(keys.pair_seed(secrets.mask_key, around.adverts[dealer].mask_key, around.roll.root))
            if self._identity.client > dealer:
                total += mask
            else:
                total -= mask
        sent = ring.folded(total)
        sent.setflags(write=False)  # it is kept, in case it is asked for again
        return sent

    def _check_vector(self, vector: NDArray[np.int64], most: int) -> None:
        if vector.dtype != np.int64 or vector.shape != (self.terms.dim,):
            raise WireError("a secure sum is of int64 vectors of one size", dtype=str(vector.dtype),
                            shape=vector.shape, dim=self.terms.dim)  # fmt: skip
        if not 0 <= most < 2 ** (self.terms.bits - 1):
            remedy = "Use a larger modulus, or a coarser grid."
            raise refusal("what a client sends fits the modulus", remedy, most=most, bits=self.terms.bits)
        if not -most <= int(vector.min()) <= int(vector.max()) <= most:
            raise refusal("a vector is within the bound of its kind", "Clip it first.", most=most)

    def _consented(self, survivors: Survivors) -> Consent:
        around, mine = self._known, self._mine
        alive = around.roll.flagged(survivors.alive)
        near = around.among(alive)
        if mine.leaf not in alive or not near <= self._dealers:
            raise refusal("survivors are those who masked with this device, and itself")
        if len(alive) < self.terms.least or len(near) < self.terms.threshold:
            raise refusal("enough clients survive", survivors=len(alive), least=self.terms.least,
                          neighbours=len(near), threshold=self.terms.threshold)  # fmt: skip
        self._survivors = survivors.alive
        client = self._identity.client
        return Consent(client, self._identity.sign(consented(around.roll.root, client, survivors.alive)))

    def _check_consents(self, consents: Consents) -> None:
        around, _ = self._known, self._open
        if len(self._said) <= _CONSENT:
            raise refusal("nothing is revealed before survivors are agreed on")
        near = around.among(around.roll.flagged(self._survivors))
        given = {client: sign for client, sign in zip(consents.clients, consents.signatures, strict=True)}
        agreed = sum(self._agrees(around.adverts[client], given[client]) for client in near & given.keys())
        if agreed < self.terms.threshold:
            raise refusal("enough surviving neighbours agree on the survivors", agreed=agreed,
                          threshold=self.terms.threshold)  # fmt: skip

    def _agrees(self, advert: Advert, signature: bytes) -> bool:
        said = consented(self._known.roll.root, advert.client, self._survivors)
        return self._witness.check(advert.client, advert.certificate, said, signature)

    def _revealed(self, secrets: _Secrets) -> Revealed:
        near = self._known.among(self._known.roll.flagged(self._survivors))
        alive = tuple(sorted(secrets.held.keys() & near))
        dropped = tuple(sorted(secrets.held.keys() - near))
        return Revealed(
            self._identity.client,
            alive, tuple(secrets.held[dealer][SEED] for dealer in alive),
            dropped, tuple(secrets.held[dealer][KEY] for dealer in dropped),
        )  # fmt: skip
