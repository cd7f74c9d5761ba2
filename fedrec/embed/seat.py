"""The site where a person's folder has its seat: where its models come from, and the key that they are signed with."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.errors import DataError, RunError
from fedrec.model.pack_files import read_manifest
from fedrec.model.pack_format import SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CARD, AUTHORITY = "device.json", "ca.pem"  # what enrolment left in the folder


@dataclass(frozen=True)
class Seat:
    """`authority` (PEM) is the only one whose servers are believed."""

    server: str
    key: Ed25519PublicKey
    authority: bytes

    @classmethod
    def of(cls, folder: Path) -> Seat:
        """What enrolment left in `folder`; a `RunError` where nobody was enrolled."""
        if not (folder / CARD).exists():
            remedy = "Contribute with an invitation first, or say where packs are."
            raise RunError("a folder has a seat at a site", remedy=remedy)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(card["roster_key"]))
            return cls(str(card["server"]), key, (folder / AUTHORITY).read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            remedy = "Bring device.json and ca.pem back from a copy."
            raise DataError("what enrolment left in a folder can be read", remedy=remedy, path=str(folder)) from None


def vouching(folder: Path, bundled: Path | None) -> Ed25519PublicKey | None:
    """The key of the site where `folder` has its seat; None without one, or where `bundled` is of another site."""
    if not (folder / CARD).exists():
        return None
    with suppress(DataError):
        key = Seat.of(folder).key
        if bundled is not None and (bundled / SIGNATURE).exists():
            read_manifest(bundled, key)
        return key
    return None
