"""Who a device is: its key, its seat, and the site's word that they belong together.

The only place that can read a seat certificate: 49 bytes of public key (X9.62, compressed), then 64 bytes of Ed25519
signature by the site over b"fedrec seat", the seat and the key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedrec.deploy.certificates import write_secret
from fedrec.errors import DataError

CARD, KEY = "device.json", "key.pem"

_POINT = 49
_ALGORITHM = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True, eq=False)
class Identity:
    """A device that can sign for its seat."""

    seat: int
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: bytes = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> Identity:
        """The identity of an enrolled device's folder."""
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            seat, certificate = int(card["seat"]), bytes.fromhex(card["certificate"])
        except (OSError, ValueError, KeyError, TypeError):
            remedy = "`fedrec client enroll` makes one; an invitation is used up by one folder."
            raise DataError("a device's folder has a device.json", remedy=remedy, path=str(folder)) from None
        return cls(seat, read_key(folder / KEY), certificate)

    @property
    def client(self) -> int:
        """The client number: the seat."""
        return self.seat

    def sign(self, message: bytes) -> bytes:
        """ECDSA on P-384 with SHA-384, in DER."""
        return self.key.sign(message, _ALGORITHM)


@dataclass(frozen=True)
class Witness:
    """Checks what devices of one site signed, by the site's Ed25519 public key."""

    roster_key: bytes

    def check(self, client: int, certificate: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the site gave the seat `client` to the key that signed `message`. Never raises."""
        point = certificate[:_POINT]
        try:
            roster = Ed25519PublicKey.from_public_bytes(self.roster_key)
            roster.verify(certificate[_POINT:], _seat_words(client, point))
            parse_point(point).verify(signature, message, _ALGORITHM)
        except (InvalidSignature, ValueError, OverflowError):
            return False
        return True


def issue(signing: Ed25519PrivateKey, seat: int, public: ec.EllipticCurvePublicKey) -> bytes:
    """The site's word that `seat` belongs to `public`."""
    point = point_of(public)
    return point + signing.sign(_seat_words(seat, point))


def point_of(public: ec.EllipticCurvePublicKey) -> bytes:
    """A public key in 49 bytes."""
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def parse_point(point: bytes) -> ec.EllipticCurvePublicKey:
    """The public key in 49 bytes; anything that is no point of P-384 is a ValueError."""
    if len(point) != _POINT:
        raise ValueError("a compressed point of P-384 has 49 bytes")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)


def make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The device's key, made if there is none; it never leaves the folder."""
    if not path.exists():
        plain = serialization.NoEncryption()
        key = ec.generate_private_key(ec.SECP384R1())
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        write_secret(path, key.private_bytes(*form, plain))
    return read_key(path)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A device's key."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
            return key
    except (OSError, ValueError, TypeError):
        pass
    remedy = "Bring it back from a copy; without one, enrol a new folder with a new invitation."
    raise DataError("a device's key is a P-384 key in PEM", remedy=remedy, path=str(path))


def _seat_words(seat: int, point: bytes) -> bytes:
    return b"fedrec seat" + seat.to_bytes(8, "big") + point
