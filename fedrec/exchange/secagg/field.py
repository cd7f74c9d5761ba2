"""Shamir's secret sharing (1979) of 256-bit secrets, over the integers modulo the first prime above 2²⁵⁶."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fedrec.errors import WireError

PRIME = 2**256 + 297
WIDTH = 33  # bytes of a share
SECRET = 32  # bytes of a secret

Entropy = Callable[[int], bytes]  # so many bytes that nobody can guess; `os.urandom` outside tests


def split(secret: bytes, threshold: int, places: Sequence[int], entropy: Entropy) -> list[bytes]:
    """One share for each of the distinct positive `places`; any `threshold` of them tell the secret, fewer nothing."""
    if len(secret) != SECRET or not 1 <= threshold <= len(set(places)) == len(places) or not _placed(places):
        raise WireError("a secret of 32 bytes is shared among at least `threshold` distinct places",
                        threshold=threshold, places=len(places))  # fmt: skip
    coefficients = [int.from_bytes(secret, "big"), *(element(entropy) for _ in range(threshold - 1))]
    return [_value(coefficients, place).to_bytes(WIDTH, "big") for place in places]


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind shares by place, as many as the threshold says. Fewer, or false ones, give something else.

    Raises `WireError` where the shares cannot belong to any secret of 32 bytes.
    """
    values = {place: int.from_bytes(share, "big") for place, share in shares.items()}
    if not values or not _placed(values) or any(len(share) != WIDTH for share in shares.values()):
        raise WireError("shares are 33 bytes each, at distinct places", shares=len(shares))
    if max(values.values()) >= PRIME:
        raise WireError("a share is an element of the field")
    total = sum(value * _weight(place, values) for place, value in values.items()) % PRIME
    if total >= 2 ** (8 * SECRET):
        raise WireError("shares belong to a secret of 32 bytes")
    return total.to_bytes(SECRET, "big")


def element(entropy: Entropy) -> int:
    """A uniform element of the field, by rejection: every other draw of 257 bits is one."""
    while True:
        drawn = int.from_bytes(entropy(WIDTH), "big") >> 7
        if drawn < PRIME:
            return drawn


def _placed(places: Sequence[int] | Mapping[int, int]) -> bool:
    return all(0 < place < PRIME for place in places)  # at 0 lies the secret itself


def _value(coefficients: Sequence[int], place: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % PRIME
    return value


def _weight(place: int, places: Mapping[int, int]) -> int:
    """Lagrange's weight of the value at `place` in the value at 0."""
    above, below = 1, 1
    for other in places:
        if other != place:
            above = above * other % PRIME
            below = below * (other - place) % PRIME
    return above * pow(below, -1, PRIME)
