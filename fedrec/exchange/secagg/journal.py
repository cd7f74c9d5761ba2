"""An unmasking as bytes, and back: what a server writes down before it asks the survivors."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fedrec.errors import FedrecError, RunError
from fedrec.exchange.secagg.cohort import Cohort
from fedrec.exchange.secagg.messages import HASH, Advert
from fedrec.exchange.secagg.terms import Terms
from fedrec.exchange.secagg.unmasking import Unmasking

_CHECK = hashlib.sha256().digest_size


def write(unmasking: Unmasking) -> bytes:
    """A hash, then JSON: terms, adverts, seals, prints, survivors and the masked total."""
    content = {
        "terms": asdict(unmasking.cohort.terms),
        "adverts": [[advert.client, *map(_text, _columns(advert))] for advert in unmasking.cohort.adverts.values()],
        "seals": {dealer: _text(b"".join(seals)) for dealer, seals in unmasking.seals.items()},
        "prints": {dealer: _text(seen) for dealer, seen in unmasking.prints.items()},
        "alive": sorted(unmasking.alive),
        "masked": _text(unmasking.masked.astype(unmasking.masked.dtype.newbyteorder("<")).tobytes()),
    }
    body = json.dumps(content, separators=(",", ":")).encode()
    return hashlib.sha256(body).digest() + body


def read(content: bytes) -> Unmasking:
    """What `write` wrote. Refuses anything else, torn files included (`RunError`)."""
    check, body = content[:_CHECK], content[_CHECK:]
    if hashlib.sha256(body).digest() != check:
        raise _torn()
    try:
        return _read(json.loads(body))
    except (ValueError, KeyError, TypeError, FedrecError):
        raise _torn() from None


def _read(content: Mapping[str, Any]) -> Unmasking:
    terms = Terms(**content["terms"])
    adverts = [Advert(client, *map(_bytes, columns)) for client, *columns in content["adverts"]]
    seals = {int(dealer): _bytes(joined) for dealer, joined in content["seals"].items()}
    little = np.frombuffer(_bytes(content["masked"]), terms.residues.dtype.newbyteorder("<"))
    return Unmasking(
        Cohort(terms, {advert.client: advert for advert in adverts}),
        frozenset(seals),
        frozenset(content["alive"]),
        {
            dealer: tuple(joined[at : at + HASH] for at in range(0, len(joined), HASH))
            for dealer, joined in seals.items()
        },
        {int(dealer): _bytes(seen) for dealer, seen in content["prints"].items()},
        little.astype(terms.residues.dtype),
    )


def _columns(advert: Advert) -> tuple[bytes, ...]:
    return advert.certificate, advert.envelope_key, advert.mask_key, advert.signature


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _torn() -> RunError:
    return RunError(
        "a secure sum resumes from what was written down whole", remedy="Try the round again from the start."
    )
