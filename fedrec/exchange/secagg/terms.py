"""The public terms of one secure sum, who vouches for a client, and how anything is hashed here."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from typing import Any, Protocol

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

    `task`, `round` and `nonce` name one attempt at one round; sums are of vectors (dim,) modulo 2**bits. Of a `cohort`
    of at most so many, each client has `degree` neighbours (everybody, if they are no more), of whom `threshold` can
    lift its masks together; nothing is unmasked for fewer than `least` survivors. Refuses a threshold of half the
    neighbours or fewer (P13): one half could be asked for a client's one mask, and the other half for the other.
    """

    task: str
    round: int
    nonce: str
    dim: int
    bits: int
    cohort: int
    degree: int
    threshold: int
    least: int

    def __post_init__(self) -> None:
        check_types(self)
        if self.dim < 1 or not 2 <= self.bits <= 64:
            raise WireError("a secure sum has a size, and 2 to 64 bits", dim=self.dim, bits=self.bits)
        if not (2 <= self.threshold <= self.degree < self.cohort and 2 <= self.least <= self.cohort):
            raise WireError("2 ≤ threshold ≤ degree < cohort, and 2 ≤ least ≤ cohort", threshold=self.threshold,
                            degree=self.degree, cohort=self.cohort, least=self.least)  # fmt: skip
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


def check_types(message: Any) -> None:  # noqa: ANN401  (any dataclass of this protocol)
    """Refuse a field that is not of its annotated type: messages are made by strangers."""
    for field in fields(message):
        if not _fits(getattr(message, field.name), str(field.type)):
            raise WireError("a field holds what the protocol says", message=type(message).__name__, field=field.name)


def _fits(value: object, kind: str) -> bool:
    if kind.startswith("tuple"):
        inner = kind.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, tuple) and all(_fits(each, inner) for each in value)
    if kind == "int":
        return type(value) is int and 0 <= value <= LARGEST
    return type(value) is bytes if kind == "bytes" else isinstance(value, str) and value.isascii()
