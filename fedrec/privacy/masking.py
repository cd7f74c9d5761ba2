"""What a secure aggregation must promise before a plan may claim it. `fedrec.exchange.secagg` does the work.

Masks hide each vector from the server and leave only the sum, modulo a public power of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fedrec.errors import PrivacyRefusal, require
from fedrec.privacy.crossing import Crossing
from fedrec.privacy.terms import Mode

KEY_BITS = 128
TAIL = 10.0  # standard deviations that one client's noise is granted; it exceeds them once in 10²³ coordinates
_WIDEST = 64


class Neighbours(NamedTuple):
    """Among how many others a client shares out what lifts its masks, and how many of these can lift them together."""

    degree: int
    threshold: int


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Public terms of a secure aggregation. Sums are exact modulo 2^`bits`.

    `neighbours` are those of each phase; a degree of a cohort's size or more means everybody. Refuses masks that can be
    guessed (P13): SecAgg+ in flwr up to 1.41 draws them from 28 bits of key.
    """

    bits: int
    neighbours: tuple[Neighbours, ...]
    key_bits: int = 256

    def __post_init__(self) -> None:
        require(2 <= self.bits <= _WIDEST, "sums are modulo 4 to 2^64", bits=self.bits)
        for degree, threshold in self.neighbours:
            require(2 <= threshold <= degree < 2 * threshold, "most neighbours, and not one alone, can lift a mask",
                    threshold=threshold, degree=degree)  # fmt: skip
        if self.key_bits < KEY_BITS:
            _refuse("masks come from keys of at least 128 bits", "Do not use flwr's SecAgg+.", key_bits=self.key_bits)

    def public(self) -> dict[str, Any]:
        """Every field, for ledgers and hashes."""
        return {"bits": self.bits, "neighbours": [list(some) for some in self.neighbours], "key_bits": self.key_bits}

    @classmethod
    def of_public(cls, content: Mapping[str, Any]) -> Masking:
        """The terms that wrote `content`."""
        return cls(**{**content, "neighbours": tuple(Neighbours(*some) for some in content["neighbours"])})

    def check(self, mode: Mode, phases: int) -> None:
        """Refuse a mode in which there is nothing to hide behind masks (P13)."""
        require(len(self.neighbours) == phases, "masks have neighbours in each phase", phases=phases)
        if not mode.shares_noise:
            remedy = "Use user-distributed or layered."
            _refuse("masks hide vectors that carry noise shares", remedy, mode=str(mode))

    def admit(self, place: int, crossing: Crossing, clients: float, colluders: int) -> None:
        """Refuse, in the phase at `place`, colluders who can lift masks alone, and sums that may wrap around (P13).

        A sum is of `clients` vectors.
        """
        degree, threshold = self.neighbours[place]
        if threshold <= colluders and degree >= clients - 1:  # among fewer neighbours it is a question of chance
            remedy = "Raise the threshold above the number of colluders."
            _refuse("colluders cannot lift a mask", remedy, threshold=threshold, colluders=colluders)
        remedy = "Lower the threshold, or enlarge the cohort."
        require(threshold < clients, "a cohort can lift its masks", remedy=remedy,
                threshold=threshold, clients=clients)  # fmt: skip
        if (needed := bits_for(crossing, clients)) > self.bits:
            remedy = "Use a larger modulus, a coarser grid or a smaller cohort."
            _refuse("a sum fits the modulus", remedy, bits=self.bits, needed=needed)


def most(crossing: Crossing) -> int:
    """The largest number, in grid steps, that an honest client sends: one that is larger, by chance, stays away."""
    return int(max(crossing.radius, crossing.bit) + TAIL * crossing.share * crossing.radius)


def bits_for(crossing: Crossing, clients: float) -> int:
    """The least power of two modulo which no sum of so many honest vectors wraps around."""
    return (2 * int(clients + 1) * most(crossing)).bit_length()


def _refuse(rule: str, remedy: str, /, **got: Any) -> None:  # noqa: ANN401  (whatever is refused)
    raise PrivacyRefusal("P13", rule, remedy=remedy, **got)
