"""Hashes by which the server knows a true share or seed when it sees one."""

from __future__ import annotations

from fedrec.exchange.secagg.terms import digest

SEED, KEY = 0, 1  # the two secrets of a client, in the order of an envelope


def place_of(holder: int) -> int:
    """Where on a dealer's polynomials a holder's shares lie; never at 0, where the secret is."""
    return holder + 1


def seal_of(root: bytes, secret: int, dealer: int, share: bytes) -> bytes:
    """The seal of one share."""
    return digest("seal", root, secret, dealer, share)


def print_of(root: bytes, dealer: int, seed: bytes) -> bytes:
    """The print of a seed."""
    return digest("print", root, dealer, seed)
