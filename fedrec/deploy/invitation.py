"""An invitation: the one string that an operator gives to a device."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from fedrec.errors import SpecError

_CHECK = 4  # bytes that tell a torn string from a whole one


@dataclass(frozen=True)
class Invitation:
    """Where the server is, whom to believe there, and a secret that buys one seat.

    `server` is an https address without a path; `site` is the SHA-256 of its authority's certificate, in hex.
    """

    server: str
    site: str
    secret: str = field(repr=False)

    def encode(self) -> str:
        """One string to paste. The words come first: a string that began with `-` would be taken for a flag."""
        words = json.dumps([self.server, self.site, self.secret]).encode()
        return urlsafe_b64encode(words + _check(words)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """The invitation in `text`; a torn or foreign one is a `SpecError` that does not repeat it."""
        text = "".join(text.split())
        try:
            content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            words, check = content[:-_CHECK], content[-_CHECK:]
            server, site, secret = map(str, json.loads(words))
            if check == _check(words) and _is_origin(server) and _is_hash(site) and secret:
                return cls(server, site, secret)
        except (ValueError, TypeError):
            pass
        remedy = "Paste the whole string as the operator gave it, in quotes."
        raise SpecError("an invitation is one string from `fedrec server`", remedy=remedy, characters=len(text))


def new_secret() -> str:
    """256 random bits, in hex."""
    return secrets.token_hex(32)


def digest(secret: str) -> bytes:
    """What the server keeps of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def _check(words: bytes) -> bytes:
    return hashlib.sha256(words).digest()[:_CHECK]


def _is_origin(server: str) -> bool:
    parts = urlsplit(server)
    return parts.scheme == "https" and bool(parts.hostname) and parts.path + parts.query + parts.fragment == ""


def _is_hash(site: str) -> bool:
    return len(bytes.fromhex(site)) == hashlib.sha256().digest_size
