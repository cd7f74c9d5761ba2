"""How what a person did and said is written into cells of the file: as it is, or sealed with a key of the app.

Sealed: AES-256-GCM with a random nonce for each cell, bound to its place, so that no cell passes for another. In the
place of an item's id stands its HMAC-SHA-256, by which it is found. Whoever has the file and not the key still sees
how many events there are, their times, kinds, weights and ratings, how long their texts are, and which of them are
about the same item.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Protocol

from fedrec.errors import DataError, require

Cell = str | bytes
KEY_BYTES = 32
_NONCE = 12
_MARK = 16  # bytes of the HMAC: no two of 2³² items share them but by a chance of 2⁻⁶⁵
_LENGTH = 4
_DIGEST = 32


class WrongKey(DataError):
    """The file is sound, and the key is not the one that it was sealed with."""


class Cells(Protocol):
    """One way of writing cells. Whatever cannot be read back is a `ValueError` without contents."""

    def mark(self, item: str) -> Cell:
        """What stands for an item's id, the same for the same item."""

    def pair(self, place: str, item: str, text: str) -> tuple[Cell, Cell]:
        """An event's two cells: the mark of its item, and its text."""

    def parted(self, place: str, mark: object, cell: object) -> tuple[str, str]:
        """The item and the text of a pair."""

    def seal(self, place: str, content: bytes) -> bytes:
        """A cell that holds `content`."""

    def open(self, place: str, cell: object) -> bytes:
        """The content of such a cell."""


class Plain:
    """Cells as they are."""

    def mark(self, item: str) -> str:
        """The item's id."""
        return item

    def pair(self, place: str, item: str, text: str) -> tuple[Cell, Cell]:
        """The item's id and the text."""
        return item, text

    def parted(self, place: str, mark: object, cell: object) -> tuple[str, str]:
        """The item and the text."""
        if not (isinstance(mark, str) and isinstance(cell, str)):
            raise ValueError("cells of an event are texts")
        return mark, cell

    def seal(self, place: str, content: bytes) -> bytes:
        """The content."""
        return content

    def open(self, place: str, cell: object) -> bytes:
        """The content."""
        return _bytes(cell)


class Sealed:
    """Cells that only the holder of `key`, 32 random bytes, can read or make."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # a plain file is opened without it

        remedy = "Make one with os.urandom(32), and keep it where the system keeps secrets."
        require(len(key) == KEY_BYTES, "a key of a store has 32 bytes", remedy=remedy, bytes=len(key))
        self._marks = _derived(key, b"marks")
        self._cipher = AESGCM(_derived(key, b"cells"))

    def mark(self, item: str) -> bytes:
        """The item's HMAC."""
        return hmac.digest(self._marks, item.encode(), "sha256")[:_MARK]

    def pair(self, place: str, item: str, text: str) -> tuple[Cell, Cell]:
        """The item's mark, and both of them sealed."""
        name = item.encode()
        return self.mark(item), self.seal(place, len(name).to_bytes(_LENGTH, "big") + name + text.encode())

    def parted(self, place: str, mark: object, cell: object) -> tuple[str, str]:
        """The item and the text."""
        content = self.open(place, cell)
        end = _LENGTH + int.from_bytes(content[:_LENGTH], "big")
        item = content[_LENGTH:end].decode()
        if not hmac.compare_digest(self.mark(item), _bytes(mark)):
            raise ValueError("an event is found by the item that it is about")
        return item, content[end:].decode()

    def seal(self, place: str, content: bytes) -> bytes:
        """Nonce, ciphertext, tag."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, place.encode())

    def open(self, place: str, cell: object) -> bytes:
        """The content, if it was sealed with this key for this place."""
        from cryptography.exceptions import InvalidTag

        sealed = _bytes(cell)
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode())
        except InvalidTag:
            raise ValueError("a cell was sealed with this key for this place") from None


def proof(cells: Sealed) -> bytes:
    """What a sealed file keeps to know its key by, and a digest of that: damage is no wrong key."""
    cell = cells.seal("proof", b"fedrec")
    return cell + hashlib.sha256(cell).digest()


def opened(sealed: Sealed | None, kept: bytes | None) -> Cells:
    """The cells of a file that keeps the proof `kept`, None if it is not sealed.

    Raises `WrongKey` if the key does not fit, and `ValueError` if the proof is not what it was.
    """
    if sealed is None and kept is None:
        return Plain()
    if sealed is None:
        raise WrongKey("a sealed store is opened with its key", remedy="Nothing was changed. Give its key.")
    if kept is None:
        raise WrongKey("a store that is not sealed is opened without a key", remedy="Seal it first: vault.encrypt().")
    cell, digest = _bytes(kept)[:-_DIGEST], kept[-_DIGEST:]
    if hashlib.sha256(cell).digest() != digest:
        raise ValueError("a proof is what it was")
    try:
        sealed.open("proof", cell)
    except ValueError:
        raise WrongKey("a store is opened with the key that it was sealed with",
                       remedy="Nothing was changed. Give the key of this file.") from None  # fmt: skip
    return sealed


def _derived(key: bytes, use: bytes) -> bytes:
    """A key for one use (HKDF of RFC 5869, its second step: `key` is uniform already)."""
    return hmac.digest(key, b"fedrec store 1 " + use + b"\x01", hashlib.sha256)


def _bytes(cell: object) -> bytes:
    if not isinstance(cell, bytes):
        raise ValueError("a cell holds bytes")
    return cell
