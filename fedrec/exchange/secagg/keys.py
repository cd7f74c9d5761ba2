"""What two clients do with their keys: agree on a secret, and pass each other envelopes."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedrec.errors import WireError
from fedrec.exchange.secagg.field import WIDTH, Entropy
from fedrec.exchange.secagg.terms import TAG, digest

NONCE = 12
ENVELOPE = NONCE + 2 * WIDTH + 16  # bytes: nonce, two shares, tag


def public(private: bytes) -> bytes:
    """The public key (32 bytes) of a private one (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def usable(key: bytes) -> bool:
    """Whether a public key leads to secrets: some points lead everybody to the same."""
    try:
        _agreed(bytes(32), key)
    except WireError:
        return False
    return True


def pair_seed(private: bytes, key: bytes, root: bytes) -> bytes:
    """The seed (32 bytes) of the mask between two clients of one roster; the same from either side."""
    return _derived(_agreed(private, key), "mask", root)


def self_seed(seed: bytes, root: bytes) -> bytes:
    """The seed (32 bytes) of a client's self-mask."""
    return _derived(seed, "self", root)


def envelope_key(private: bytes, key: bytes, place: bytes) -> bytes:
    """The key of the one envelope that `place` names: from whom, to whom, on which roster."""
    return _derived(_agreed(private, key), "envelope", place)


def place(root: bytes, dealer: int, holder: int) -> bytes:
    """What an envelope is bound to, so that it opens nowhere else."""
    return digest("place", root, dealer, holder)


def closed(key: bytes, shares: tuple[bytes, bytes], where: bytes, entropy: Entropy) -> bytes:
    """An envelope (94 bytes) with two shares."""
    nonce = entropy(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, b"".join(shares), where)


def opened(key: bytes, envelope: bytes, where: bytes) -> tuple[bytes, bytes] | None:
    """The two shares in an envelope; None if it was not written for `where` with this key."""
    if len(envelope) != ENVELOPE:
        return None
    try:
        both = AESGCM(key).decrypt(envelope[:NONCE], envelope[NONCE:], where)
    except InvalidTag:
        return None
    return both[:WIDTH], both[WIDTH:]


def _agreed(private: bytes, key: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        raise WireError("a public key is a point of large order") from None


def _derived(secret: bytes, purpose: str, context: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=TAG + digest(purpose, context)).derive(secret)
