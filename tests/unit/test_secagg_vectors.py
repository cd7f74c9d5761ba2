"""Worked vectors: published ones for what the protocol is made of, and one whole round with fixed secrets."""

import hashlib
from dataclasses import astuple

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from masked import Session, bytes_of, terms_of

from fedrec.exchange.secagg import keys
from fedrec.exchange.secagg.residues import Residues
from fedrec.exchange.secagg.terms import digest


def test_keys_are_x25519():
    """RFC 7748, section 5.2: the scalar 9 times the base point 9, the first step of the iterated test."""
    expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert keys.public(bytes([9, *bytes(31)])).hex() == expected


def test_masks_are_aes_256_in_counter_mode():
    """The first blocks under the key 0: AES-256 of the counters 0 and 1 (NIST's GFSbox and its successor)."""
    words = Residues(8, 32).mask(bytes(32))
    assert words[:4].tobytes().hex() == "dc95c078a2408989ad48a21492842087"
    assert words[4:].tobytes().hex() == "530f8afbc74536b9a963b4f1c4cb738b"


@pytest.mark.parametrize("bits", [2, 20, 32, 33, 64])
def test_a_narrow_mask_is_the_low_end_of_a_wide_one(bits):
    wide = 32 if bits <= 32 else 64
    full = Residues(5, wide).mask(bytes(32))
    assert Residues(5, bits).mask(bytes(32)).tolist() == [word % 2**bits for word in full.tolist()]


def test_hashes_tell_parts_apart():
    """SHA-256 of a tag, then each part after its length in eight bytes."""

    def part(raw):
        return len(raw).to_bytes(8, "big") + raw

    plain = b"fedrec secagg 1 " + part(b"seal") + part(b"\x01\x02") + part(b"7")
    assert digest("seal", b"\x01\x02", 7) == hashlib.sha256(plain).digest()
    assert digest("seal", b"\x01", b"\x02") != digest("seal", b"\x01\x02")
    assert digest("seal", b"\x01\x02") != digest("print", b"\x01\x02")


def test_two_clients_agree_on_one_mask_and_two_envelopes():
    one, other = bytes_of("one")(32), bytes_of("other")(32)
    root, there, back = b"root", keys.place(b"root", 1, 2), keys.place(b"root", 2, 1)
    assert keys.pair_seed(one, keys.public(other), root) == keys.pair_seed(other, keys.public(one), root)
    assert keys.pair_seed(one, keys.public(other), root) != keys.pair_seed(one, keys.public(other), b"rook")
    outward = keys.envelope_key(one, keys.public(other), there)
    assert outward == keys.envelope_key(other, keys.public(one), there)
    assert outward != keys.envelope_key(one, keys.public(other), back)


def test_an_envelope_opens_where_it_was_sent_and_nowhere_else():
    key, shares = bytes_of("key")(32), (b"a" * 33, b"b" * 33)
    envelope = keys.closed(key, shares, b"here", bytes_of("nonce"))
    assert len(envelope) == keys.ENVELOPE == 94
    assert keys.opened(key, envelope, b"here") == shares
    assert keys.opened(key, envelope, b"there") is None
    assert keys.opened(bytes(32), envelope, b"here") is None
    assert keys.opened(key, envelope[:-1], b"here") is None
    assert keys.opened(key, envelope[:-1] + bytes([envelope[-1] ^ 1]), b"here") is None


def told(message):
    """A message as one hash."""
    return hashlib.sha256(repr(astuple(message)).encode()).hexdigest()[:16]


def test_a_whole_round_with_fixed_secrets():
    """Whoever changes these numbers has made another protocol, and tells old devices from new ones by its version."""
    session = Session(terms_of(dim=3), seed="vector", dropped={"share": {6}, "mask": {1}})
    session.vectors = {client: np.array([client, -client, 1000 - client]) for client in session.clients}
    adverts = session.answers("advertise", dict.fromkeys(session.clients))
    shares = session.answers("share", session.server.roster(adverts))
    masked = session.answers("mask", session.server.deliveries(shares))
    for client, words in masked.items():
        session.server.add(client, words)
    consents = session.answers("consent", session.server.survivors())
    revealed = session.answers("reveal", session.server.consents(consents))
    assert session.server.total(revealed).tolist() == [21, -21, 5979]
    assert session.server._cohort.roll.root.hex()[:16] == "e8d944968b26d315"
    assert [told(message[0]) for message in (adverts, shares, consents, revealed)] == [
        "a1ac089839221066", "7faad7254ae9ddb6", "5fd9613f95bbf9bb", "d74ee9775f6b56d3"
    ]  # fmt: skip
    assert masked[0].tolist() == [3478735038, 200381083, 421264403] == masked_by_hand(session, adverts)


def masked_by_hand(session, adverts):
    """What client 0 sends for (0, 0, 1000), from primitives alone: its self-mask, less a mask for each dealer."""
    drawn = bytes_of("vector", 3, 0)
    seed, _, mask_key = drawn(32), drawn(32), X25519PrivateKey.from_private_bytes(drawn(32))
    root = session.server._cohort.roll.root
    total = np.array([0, 0, 1000]) + keystream(seed, b"self", root)
    for dealer in (1, 2, 3, 4, 5, 7):  # 6 never shared; all have greater numbers
        shared = mask_key.exchange(X25519PublicKey.from_public_bytes(adverts[dealer].mask_key))
        total = total - keystream(shared, b"mask", root)
    return (total % 2**32).tolist()


def keystream(secret, purpose, root):
    lengths = [len(part).to_bytes(8, "big") + part for part in (purpose, root)]
    info = b"fedrec secagg 1 " + hashlib.sha256(b"fedrec secagg 1 " + b"".join(lengths)).digest()
    key = HKDF(SHA256(), 32, salt=bytes(32), info=info).derive(secret)
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(12))
    return np.frombuffer(stream, "<u4").astype(np.int64)
