"""What a device and the desk say to each other when the device enrols."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from fedrec.deploy.identity import parse_point, point_of
from fedrec.deploy.invitation import digest
from fedrec.settings import Section

_ALGORITHM = ec.ECDSA(hashes.SHA384())


class Application(Section):
    """An invitation's secret, a public key, and a proof that whoever asks has the private one. All in hex."""

    secret: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    key: str = Field(pattern=r"^[0-9a-f]{98}$")
    signature: str = Field(pattern=r"^(?:[0-9a-f]{2}){8,128}$", repr=False)

    @classmethod
    def of(cls, key: ec.EllipticCurvePrivateKey, site: str, secret: str) -> Application:
        """An application to `site`, good there and for this secret only."""
        signature = key.sign(_words(site, secret), _ALGORITHM)
        return cls(secret=secret, key=point_of(key.public_key()).hex(), signature=signature.hex())

    def proven(self, site: str) -> ec.EllipticCurvePublicKey | None:
        """The public key, None if it is none or its owner did not sign."""
        try:
            public = parse_point(bytes.fromhex(self.key))
            public.verify(bytes.fromhex(self.signature), _words(site, self.secret), _ALGORITHM)
        except (InvalidSignature, ValueError):
            return None
        return public


class Card(Section):
    """What a device is told once it has a seat: its number, the site's word for it, and the key that checks words."""

    seat: int = Field(ge=0, lt=2**32)
    certificate: str = Field(pattern=r"^(?:[0-9a-f]{2})+$", max_length=1024)
    roster_key: str = Field(pattern=r"^[0-9a-f]{64}$")


def _words(site: str, secret: str) -> bytes:
    return b"fedrec enrol" + bytes.fromhex(site) + digest(secret)
