"""The server's half of one secure sum, phase by phase: who is in it, what they sent, and what to ask next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange.secagg import journal, keys
from fedrec.exchange.secagg.cohort import Cohort
from fedrec.exchange.secagg.messages import (
    HASH,
    Advert,
    Consent,
    Consents,
    Delivery,
    Revealed,
    Roster,
    Shares,
    Survivors,
    advertised,
)
from fedrec.exchange.secagg.terms import Terms, Witness
from fedrec.exchange.secagg.unmasking import Unmasking

Sent = TypeVar("Sent")


class Aggregation:
    """One attempt at one secure sum: `roster`, `deliveries`, `add` …, `survivors`, `consents`, `total`.

    Messages come by the client that the transport says sent them. One that is malformed drops its client, with the
    reason in `refused`. A sum that cannot be finished raises `WireError`, and then nobody has learnt anything of it.
    """

    def __init__(self, terms: Terms, clients: Sequence[int], witness: Witness) -> None:
        if len(clients) > terms.cohort:
            raise WireError("a cohort is as large as its terms say", clients=len(clients), cohort=terms.cohort)
        self.terms = terms
        self.refused: dict[int, str] = {}
        self._asked, self._witness = frozenset(clients), witness
        self._cohort: Cohort | None = None
        self._shares: dict[int, Shares] = {}
        self._alive: set[int] = set()
        self._total = np.zeros(terms.dim, terms.residues.dtype)
        self._unmasking: Unmasking | None = None

    @classmethod
    def of_journal(cls, content: bytes, witness: Witness) -> Aggregation:
        """The aggregation that wrote `journal`, ready to ask the survivors again. `RunError` if `content` is torn."""
        unmasking = journal.read(content)
        resumed = cls(unmasking.cohort.terms, sorted(unmasking.cohort.adverts), witness)
        resumed._unmasking = unmasking
        return resumed

    def roster(self, adverts: Mapping[int, Advert]) -> dict[int, Roster]:
        """What each client with a sound advert is told of the others."""
        sound = self._sound(adverts, self._advert_fault)
        used = Counter(key for advert in sound.values() for key in (advert.envelope_key, advert.mask_key))
        sound = self._sound(sound, lambda _, advert: _reused(advert, used))
        self._check_enough(len(sound), max(self.terms.least, self.terms.threshold + 1))
        cohort = Cohort(self.terms, sound)
        self._check_enough(min(map(len, cohort.near.values())), self.terms.threshold)
        self._cohort = cohort
        return cohort.rosters()

    def deliveries(self, shares: Mapping[int, Shares]) -> dict[int, Delivery]:
        """The envelopes for each client that shared its secrets and whose neighbours did."""
        near = self._known.near
        sound = self._sound(shares, lambda client, sent: _shares_fault(client, sent, near.get(client)))
        dealers = self._known.held(sound)
        self._shares = self._sound(sound, lambda client, _: None if client in dealers else "too few neighbours")
        self._check_enough(len(dealers), self.terms.least)
        return {holder: self._delivery(holder) for holder in self._shares}

    def add(self, client: int, masked: NDArray[Any]) -> None:
        """Put a masked vector into the sum; the first from each client that shared its secrets, until `survivors`."""
        fault = self._masked_fault(client, masked)
        if fault:
            self.refused.setdefault(client, fault)
        else:
            self._alive.add(client)
            self._total += masked

    def survivors(self) -> dict[int, Survivors]:
        """Fix whose vectors are in the sum, and what they are all told. The same again when asked again."""
        if self._unmasking is None:
            self._unmasking = self._closed()
        return dict.fromkeys(sorted(self._unmasking.alive), Survivors(self._unmasking.flags))

    def journal(self) -> bytes:
        """All that `of_journal` needs to finish, once the survivors are fixed. It names the cohort: keep it private."""
        return journal.write(self._fixed)

    def consents(self, consents: Mapping[int, Consent]) -> dict[int, Consents]:
        """For each survivor with enough consenting neighbours, what they signed."""
        unmasking = self._fixed
        return unmasking.consents(
            self._sound(consents, lambda client, sent: unmasking.consent_fault(client, sent, self._witness))
        )

    def total(self, revealed: Mapping[int, Revealed]) -> NDArray[np.int64]:
        """The exact sum (dim,) of the survivors' vectors, in [-2**(bits-1), 2**(bits-1)).

        If a mask cannot be lifted it raises `WireError`, with those whose masks stay in `refused`: too few of their
        neighbours answered, or they dealt false shares. It may be called again with more answers.
        """
        unmasking = self._fixed
        secrets = unmasking.secrets(self._sound(revealed, unmasking.revealed_fault))
        stuck = unmasking.dealers - secrets.keys()
        if stuck:
            self.refused |= {dealer: "mask not lifted" for dealer in stuck - self.refused.keys()}
            remedy = "Ask the survivors that have not answered, or try the round again."
            raise WireError("every mask can be lifted", remedy=remedy, stuck=len(stuck))
        return unmasking.total(secrets)

    @property
    def alive(self) -> frozenset[int]:
        """Whose vectors are in the sum so far."""
        return self._unmasking.alive if self._unmasking else frozenset(self._alive)

    @property
    def _known(self) -> Cohort:
        if self._cohort is None:
            raise _early("roster")
        return self._cohort

    @property
    def _fixed(self) -> Unmasking:
        if self._unmasking is None:
            raise _early("survivors")
        return self._unmasking

    def _sound(self, sent: Mapping[int, Sent], fault: Callable[[int, Sent], str | None]) -> dict[int, Sent]:
        """What has no fault, in the order of client numbers; the rest is refused."""
        faults = {client: fault(client, message) for client, message in sent.items()}
        for client, reason in faults.items():
            if reason:
                self.refused.setdefault(client, reason)
        return {client: sent[client] for client in sorted(sent) if faults[client] is None}

    def _advert_fault(self, client: int, advert: Advert) -> str | None:
        if client != advert.client or client not in self._asked:
            return "not asked"
        if not (keys.usable(advert.envelope_key) and keys.usable(advert.mask_key)):
            return "unusable key"
        said = advertised(self.terms, client, advert.envelope_key, advert.mask_key)
        sound = self._witness.check(client, advert.certificate, said, advert.signature)
        return None if sound else "wrong signature"

    def _masked_fault(self, client: int, masked: NDArray[Any]) -> str | None:
        if self._unmasking is not None:
            return "late"
        if client not in self._shares:
            return "not in the round"
        return "duplicate" if client in self._alive else self.terms.residues.fault(masked)

    def _delivery(self, holder: int) -> Delivery:
        dealers = tuple(dealer for dealer in self._known.near[holder] if dealer in self._shares)
        sent = [self._shares[dealer] for dealer in dealers]
        return Delivery(dealers, tuple(shares.envelopes[shares.holders.index(holder)] for shares in sent))

    def _closed(self) -> Unmasking:
        cohort, alive = self._known, frozenset(self._alive)
        self._check_enough(len(alive), self.terms.least)
        if not all(cohort.reachable(dealer, alive) for dealer in self._shares):
            raise WireError("every client has as many surviving neighbours as lift its masks",
                            remedy="Try the round again.", threshold=self.terms.threshold)  # fmt: skip
        seals = {
            dealer: shares.seed_seals if dealer in alive else shares.key_seals
            for dealer, shares in self._shares.items()
        }
        prints = {dealer: shares.seed_print for dealer, shares in self._shares.items()}
        return Unmasking(cohort, frozenset(self._shares), alive, seals, prints, self._total)

    def _check_enough(self, clients: int, least: int) -> None:
        if clients < least:
            raise WireError("enough clients take part in a secure sum", remedy="Try the round again.",
                            clients=clients, least=least)  # fmt: skip


def _reused(advert: Advert, used: Counter[bytes]) -> str | None:
    return "reused key" if max(used[advert.envelope_key], used[advert.mask_key]) > 1 else None


def _shares_fault(client: int, shares: Shares, near: Collection[int] | None) -> str | None:
    if client != shares.client or near is None:
        return "not in the round"
    if shares.holders != near or len(shares.seed_print) != HASH:
        return "wrong shares"
    sizes = {*map(len, shares.envelopes)} == {keys.ENVELOPE}
    seals = {*map(len, shares.seed_seals), *map(len, shares.key_seals)} == {HASH}
    return None if sizes and seals else "wrong size"


def _early(phase: str) -> WireError:
    return WireError("a secure sum has its phases in order", missing=phase)
