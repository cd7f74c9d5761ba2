"""Vectors modulo 2**bits: what is sent, added up and unmasked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Residues:
    """Vectors (dim,) modulo 2**bits, in the smallest of uint32 and uint64 that holds them."""

    dim: int
    bits: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The type of one word."""
        return np.dtype(np.uint32 if self.bits <= 32 else np.uint64)

    def of(self, vector: NDArray[np.int64]) -> Words:
        """A signed vector, modulo 2**bits."""
        return self.folded(vector.astype(self.dtype))

    def folded(self, words: Words) -> Words:
        """Sums and differences of residues, which numpy takes modulo the word, modulo 2**bits."""
        spare = 8 * self.dtype.itemsize - self.bits
        return words if spare == 0 else words & self.dtype.type(2**self.bits - 1)

    def centred(self, words: Words) -> NDArray[np.int64]:
        """The representatives in [-2**(bits-1), 2**(bits-1))."""
        spare = 64 - self.bits
        return (words.astype(np.uint64) << np.uint64(spare)).view(np.int64) >> np.int64(spare)

    def mask(self, seed: bytes) -> Words:
        """What AES-256 in counter mode makes of a seed of 32 bytes. A seed masks one vector, ever: the counter is 0."""
        stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor().update(bytes(self.dim * self.dtype.itemsize))
        little = np.frombuffer(stream, self.dtype.newbyteorder("<"))
        return self.folded(little.astype(self.dtype, copy=False))

    def fault(self, words: NDArray[Any]) -> str | None:
        """Why `words` cannot be residues, in two words; None if they can."""
        if words.dtype != self.dtype:
            return "wrong type"
        if words.shape != (self.dim,):
            return "wrong shape"
        return "out of bound" if int(words.max()) >> self.bits else None
