"""Which model an app ranks with: the newest that its device took from the site, or the one that came with the app."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.device.packs import STATE, Packs
from fedrec.embed.reader import Reader, open_reader
from fedrec.errors import DataError, SpecError
from fedrec.model.encoder_files import encoder_beside
from fedrec.model.pack_files import Pack, read_manifest, read_pack
from fedrec.model.pack_format import SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Mark = tuple[int, int, int]
_NOTHING: Mark = (0, 0, 0)


@dataclass(frozen=True)
class Model:
    """A verified pack, and the folder of the encoder that its texts are read with, None where it has none.

    The encoder is not verified: its `reader` does that, with the bytes that it runs. `bare` is the same model without
    items of today, which reads texts for both.
    """

    pack: Pack
    encoder: Path | None
    bare: Model | None = None

    @cached_property
    def reader(self) -> Reader:
        """What texts are read with; see `open_reader`."""
        return self.bare.reader if self.bare else open_reader(self.pack, self.encoder)


@dataclass(frozen=True)
class Models:
    """The packs in a device's folder, signed by `key`, and the `bundled` one that the app brings along.

    The app vouches for what it brings: that may be unsigned, and then it is older than any of the site. Signed, it
    needs the site's signature.
    """

    folder: Path
    key: Ed25519PublicKey | None
    bundled: Path | None

    @property
    def packs(self) -> Packs | None:
        """What is taken from the site; None without its key, for then nothing can be checked."""
        return None if self.key is None else Packs(self.folder, self.key)

    @property
    def mark(self) -> Mark:
        """Another one as soon as this or another process has taken a pack."""
        return mark_of(self.folder / STATE)

    def newest(self) -> Model | None:
        """The newest whole pack, None if there is none at all.

        A damaged bundled pack is passed over where the device has another one; otherwise it is a `DataError`.
        """
        kept = self._kept()
        if self.bundled is None or (kept and kept.pack.info.version >= self._version(self.bundled)):
            return kept
        try:
            return self._brought(self.bundled)
        except DataError:
            if kept is None:
                raise
            return kept

    def _kept(self) -> Model | None:
        packs = self.packs
        pack = packs.current() if packs else None
        return Model(pack, packs.encoder(pack)) if packs and pack else None

    def _brought(self, bundled: Path) -> Model:
        pack = read_pack(bundled, self._signer(bundled))
        return Model(pack, encoder_beside(bundled.parent, pack.reader) or encoder_beside(self.folder, pack.reader))

    def _version(self, bundled: Path) -> int:
        try:
            return read_manifest(bundled, self._signer(bundled)).version
        except DataError:
            return 0

    def _signer(self, bundled: Path) -> Ed25519PublicKey | None:
        return self.key if (bundled / SIGNATURE).exists() else None


def mark_of(path: Path) -> Mark:
    """Another one as soon as the file is another; the same for all that are not there."""
    try:
        found = path.stat()
    except OSError:
        return _NOTHING
    return found.st_ino, found.st_mtime_ns, found.st_size


def public_key(key: Ed25519PublicKey | str | None) -> Ed25519PublicKey | None:
    """A site's key, also from its 64 hexadecimal digits."""
    if not isinstance(key, str):
        return key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except ValueError:
        raise SpecError("a site's key is an Ed25519 key, or its 64 hexadecimal digits", digits=len(key)) from None
