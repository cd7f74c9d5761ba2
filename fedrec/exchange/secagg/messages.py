"""The messages of one secure sum, in order. Fields are int, bytes, or tuples of these: one codec carries all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fedrec.errors import WireError
from fedrec.exchange.secagg.terms import TAG, Terms, check_types, digest

KEY = 32  # bytes of an X25519 key
HASH = 32
LONGEST = 4096  # bytes of a certificate or a signature


@dataclass(frozen=True)
class Advert:
    """Device: my two public keys for this round, signed with my identity."""

    client: int
    certificate: bytes
    envelope_key: bytes
    mask_key: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_types(self)
        keys = (self.envelope_key, self.mask_key)
        if any(len(key) != KEY for key in keys) or max(len(self.certificate), len(self.signature)) > LONGEST:
            raise WireError("an advert holds two keys of 32 bytes, a certificate and a signature")

    @cached_property
    def leaf(self) -> bytes:
        """Its hash, which stands for the client wherever its number is nobody's business."""
        return digest("advert", self.client, self.certificate, self.envelope_key, self.mask_key, self.signature)


@dataclass(frozen=True)
class Roster:
    """Server, to one client: all adverts' hashes, ascending, end to end; and its neighbours' adverts in columns."""

    leaves: bytes
    clients: tuple[int, ...]
    certificates: tuple[bytes, ...]
    envelope_keys: tuple[bytes, ...]
    mask_keys: tuple[bytes, ...]
    signatures: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_types(self)
        columns = (self.certificates, self.envelope_keys, self.mask_keys, self.signatures)
        if any(len(column) != len(self.clients) for column in columns):
            raise WireError("columns are of one length", clients=len(self.clients))

    @classmethod
    def of(cls, leaves: bytes, adverts: Sequence[Advert]) -> Roster:
        """The roster with these neighbours."""
        return cls(
            leaves,
            tuple(advert.client for advert in adverts),
            tuple(advert.certificate for advert in adverts),
            tuple(advert.envelope_key for advert in adverts),
            tuple(advert.mask_key for advert in adverts),
            tuple(advert.signature for advert in adverts),
        )

    def adverts(self) -> list[Advert]:
        """The neighbours' adverts."""
        columns = (self.clients, self.certificates, self.envelope_keys, self.mask_keys, self.signatures)
        return [Advert(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Shares:
    """Device: for each neighbour, ascending, an envelope with a share of my self-mask seed and of my mask key.

    The seals let the server tell a true share from a false one when it is revealed, the print a true seed; they are
    hashes of what nobody can guess.
    """

    client: int
    holders: tuple[int, ...]
    envelopes: tuple[bytes, ...]
    seed_seals: tuple[bytes, ...]
    key_seals: tuple[bytes, ...]
    seed_print: bytes

    def __post_init__(self) -> None:
        check_types(self)
        columns = (self.envelopes, self.seed_seals, self.key_seals)
        if any(len(column) != len(self.holders) for column in columns):
            raise WireError("columns are of one length", holders=len(self.holders))


@dataclass(frozen=True)
class Delivery:
    """Server, to one client: the envelopes that its neighbours wrote to it."""

    dealers: tuple[int, ...]
    envelopes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_types(self)
        if len(self.dealers) != len(self.envelopes) or len(set(self.dealers)) != len(self.dealers):
            raise WireError("every dealer has one envelope", dealers=len(self.dealers))


@dataclass(frozen=True)
class Survivors:
    """Server, to all who sent a masked vector: whose vectors are in the sum, one bit per leaf of the roster."""

    alive: bytes

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Consent:
    """Device: I was shown these survivors, and will be shown no others."""

    client: int
    signature: bytes

    def __post_init__(self) -> None:
        check_types(self)
        if len(self.signature) > LONGEST:
            raise WireError("a consent holds a signature")


@dataclass(frozen=True)
class Consents:
    """Server, to one client: what its neighbours signed."""

    clients: tuple[int, ...]
    signatures: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_types(self)
        if len(self.clients) != len(self.signatures):
            raise WireError("every consent has a signature", clients=len(self.clients))


@dataclass(frozen=True)
class Revealed:
    """Device: the shares I hold of my surviving neighbours' seeds and of the dropped ones' mask keys."""

    client: int
    alive: tuple[int, ...]
    seed_shares: tuple[bytes, ...]
    dropped: tuple[int, ...]
    key_shares: tuple[bytes, ...]

    def __post_init__(self) -> None:
        check_types(self)
        whole = len(self.alive) == len(self.seed_shares) and len(self.dropped) == len(self.key_shares)
        named = (*self.alive, *self.dropped)
        if not whole or len(set(named)) != len(named):
            raise WireError("one share of each neighbour is revealed", alive=len(self.alive), dropped=len(self.dropped))


Message = Advert | Roster | Shares | Delivery | Survivors | Consent | Consents | Revealed


def advertised(terms: Terms, client: int, envelope_key: bytes, mask_key: bytes) -> bytes:
    """What a client signs with its advert."""
    return TAG + digest("keys", terms.digest, client, envelope_key, mask_key)


def consented(root: bytes, client: int, alive: bytes) -> bytes:
    """What a client signs with its consent."""
    return TAG + digest("consent", root, client, alive)
