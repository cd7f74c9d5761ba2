"""The public terms of one secure sum, who vouches for a client, and how anything is hashed here."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Protocol

from fedrec.errors import PrivacyRefusal, WireError
from fedrec.exchange.secagg.residues import Residues

TAG = b"fedrec secagg 1 "  # so that no signature given here means anything elsewhere
LARGEST = 2**63 - 1  # of a client's number, a round, a size


class Identity(Protocol):
    """A client's long-lived key, certified at enrolment."""

    @property
    def client(self) -> int:
        """Its number."""
        ...

    @property
    def certificate(self) -> bytes:
        """What ties its key to its number; opaque here."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Its signature."""
        ...


class Witness(Protocol):
    """Who can tell whether a certificate is the site's, and a signature its owner's."""

    def check(self, client: int, certificate: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `client` is who `certificate` says and signed `message`. Never raises on their account."""
        ...


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all sides agree on. A device compares them with its plan before it makes a `Masker` of them.

    `task`, `round` and `nonce` name one attempt at one round; sums are of vectors (dim,) modulo 2**bits. Each client
    has `degree` neighbours (everybody, if they are no more), of whom `threshold` can lift its masks together; nothing
    is unmasked for fewer than `least` survivors. Refuses a threshold of half the neighbours or fewer (P13): one half
    could be asked for a client's one mask, and the other half for the other.
    """

    task: str
    round: int
    nonce: str
    dim: int
    bits: int
    threshold: int
    degree: int
    least: int

    def __post_init__(self) -> None:
        if not (0 <= self.round <= LARGEST and 1 <= self.dim <= LARGEST and 2 <= self.bits <= 64):
            raise WireError("a secure sum has a round, a size, and 2 to 64 bits",
                            round=self.round, dim=self.dim, bits=self.bits)  # fmt: skip
        if not (2 <= self.threshold <= self.degree <= LARGEST and 2 <= self.least <= LARGEST):
            raise WireError("2 ≤ threshold ≤ degree, and at least 2 survivors",
                            threshold=self.threshold, degree=self.degree, least=self.least)  # fmt: skip
        if 2 * self.threshold <= self.degree:
            remedy = "Take the terms of `degree_for`."
            raise refusal("most of a client's neighbours are needed to lift its masks", remedy,
                          threshold=self.threshold, degree=self.degree)  # fmt: skip

    @cached_property
    def digest(self) -> bytes:
        """Their hash."""
        return digest("terms", *astuple(self))

    @property
    def residues(self) -> Residues:
        """The arithmetic of these terms."""
        return Residues(self.dim, self.bits)


def digest(purpose: str, *parts: bytes | int | str) -> bytes:
    """SHA-256 of parts, each after its length, so that no two lists of the same types are hashed alike."""
    hashed = hashlib.sha256(TAG)
    for part in (purpose, *parts):
        raw = str(part).encode() if isinstance(part, int | str) else part
        hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.digest()


def refusal(rule: str, remedy: str = "The round goes on without this device.", /, **got: object) -> PrivacyRefusal:
    """A client's refusal to go on (P13)."""
    return PrivacyRefusal("P13", rule, remedy=remedy, **got)
