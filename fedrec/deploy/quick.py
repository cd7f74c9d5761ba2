"""Checks that are cheap enough to be made at every look; `fedrec doctor` makes the thorough ones."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

from fedrec.errors import FedrecError

_AGAIN = 0.05  # seconds between the two files of a ledger, at most, while one round is written


def certificate_dates(path: Path) -> tuple[float, float] | None:
    """From when and until when a certificate is valid, in Unix time; None if there is none to read."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        found = load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def ledger_fault(run: Path) -> str:
    """What is wrong with a run's ledger, "" if nothing: hashes, links and head, but not what its entries cost."""
    path = run / "ledger.jsonl"
    fault = ""
    for _ in range(3):  # whoever reads while a record is written may see it without its head
        fault = _fault(path)
        if not fault:
            break
        time.sleep(_AGAIN)
    return fault


def _fault(path: Path) -> str:
    from fedrec.privacy.chain import head_of, on_disk

    try:
        if not path.exists():
            return "the ledger is gone, and its head is still there" if head_of(path).exists() else ""
        records = on_disk(path).records
    except FedrecError as error:
        return error.rule
    except OSError as error:
        return f"the ledger cannot be read: {error.strerror}"
    linked = all(after.prev == before.hash and after.seq == before.seq + 1 for before, after in pairwise(records))
    return "" if linked else "each record of the ledger follows the one before it"
