"""What server and device must agree on to hide updates behind masks, and the device's steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal, WireError
from fedrec.exchange import wire
from fedrec.exchange.secagg import Consents, Delivery, Identity, Masker, Roster, Survivors, Terms, Witness
from fedrec.privacy.masking import most
from fedrec.privacy.phase import crowd
from fedrec.rounds.filter import Filter
from fedrec.task import Task

STEPS = KEYS, SHARES, CONSENT, REVEAL = "keys", "shares", "consent", "reveal"


def terms_of(task: Task, header: wire.Header) -> Terms:
    """The terms of one attempt at a round, from the plan alone; refuses P13 a task without masks."""
    privacy = task.privacy
    if privacy is None or privacy.masking is None:
        raise PrivacyRefusal("P13", "masks are in the plan", remedy="Set shares.masked = true.")
    (degree, threshold), bits = privacy.masking.neighbours[privacy.phase_at(header.round)], privacy.masking.bits
    largest = int(crowd(privacy.place(header.round).phase.schedule, privacy.population))
    dim = privacy.crossing(header.round, header.clip or None).width(task.learner.width(header.round))
    return Terms(
        task=task.hash, round=header.round, nonce=header.nonce, dim=dim, bits=bits, cohort=largest,
        degree=degree, threshold=threshold, least=max(2, privacy.required),
    )  # fmt: skip


def form(terms: Terms) -> Filter:
    """The form of a masked vector. Nothing else can be told from it."""
    dtype = np.dtype(np.uint32 if terms.bits <= 32 else np.uint64)
    return Filter(terms.dim, dtype, lambda vector: not terms.bits % 32 or int(vector.max(initial=0)) < 2**terms.bits)


@dataclass(frozen=True)
class Enrolled:
    """A device as the other devices of its site know it."""

    identity: Identity
    witness: Witness


@dataclass(frozen=True)
class Unsigned:
    """The identity of a virtual device, whom nobody enrolled."""

    client: int
    certificate: bytes = b""

    def sign(self, message: bytes) -> bytes:
        """Nothing."""
        return b""


class Trusting:
    """A witness among virtual devices: everybody is who they say."""

    def check(self, client: int, certificate: bytes, message: bytes, signature: bytes) -> bool:
        """Always."""
        return True


@dataclass
class Disguise:
    """One device's masks, in one attempt at one round at a time. They are in memory alone.

    Whoever is killed on the way is left out of the sum.
    """

    task: Task
    enrolled: Enrolled
    _worn: tuple[wire.Header, Masker] | None = field(default=None, repr=False)

    def answer(self, step: str, header: wire.Header, message: Message) -> wire.Said:
        """What it says in one of `STEPS`; refuses what an honest server does not ask."""
        match step:
            case "keys":
                return self._begin(header).advertise()
            case "shares":
                return self._worn_for(header).share(wire.heard(message, Roster))
            case "consent":
                return self._worn_for(header).consent(wire.heard(message, Survivors))
            case "reveal":
                return self._worn_for(header).reveal(wire.heard(message, Consents))
        raise WireError("a secure aggregation has four steps beside the update", step=step)

    def mask(
        self, header: wire.Header, vector: NDArray[np.signedinteger[Any]], delivery: Delivery
    ) -> NDArray[np.unsignedinteger[Any]]:
        """(dim,) what leaves the device instead of `vector`."""
        privacy = self.task.privacy
        assert privacy is not None  # terms were made of it
        crossing = privacy.crossing(header.round, header.clip or None)
        return self._worn_for(header).mask(vector.astype(np.int64), delivery, most=most(crossing))

    def check(self, header: wire.Header) -> None:
        """Refuse an attempt that the device did not begin."""
        self._worn_for(header)

    def _begin(self, header: wire.Header) -> Masker:
        """Masks for an attempt, the same if it is begun again; those of an earlier one are over."""
        if self._worn and self._worn[0] == header.echo:
            return self._worn[1]
        if self._worn:
            self._worn[1].close()
        masker = Masker(terms_of(self.task, header), self.enrolled.identity, self.enrolled.witness)
        self._worn = (header.echo, masker)
        return masker

    def _worn_for(self, header: wire.Header) -> Masker:
        if self._worn is None or self._worn[0] != header.echo:
            raise WireError("a device has masks for the attempt that it began", round=header.round)
        return self._worn[1]
