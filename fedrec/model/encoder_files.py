"""A portable text encoder as a folder called by the digest of its encoder.json, shared by the packs that name it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from fedrec.errors import DataError
from fedrec.files import settle
from fedrec.model.listed import AGAIN, MOST, Digest, Listed, bounded, check_files, check_lengths, check_names
from fedrec.model.pack_format import ENCODERS, MANIFEST_MOST
from fedrec.strict import counted, parsed, read, spelled, within

ENCODER = "encoder.json"

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
_Name = Annotated[str, spelled(_NAME), counted(1, 64)]


@dataclass(frozen=True)
class Weighed(Listed):
    """A file whose length is always said."""

    bytes: Annotated[int, within(1)] = field()


@dataclass(frozen=True)
class EncoderInfo:
    """What encoder.json says of its folder; what else it says is for those who read texts with it.

    `digest` is the SHA-256 of encoder.json: it names the folder and, through `files`, all that is in it.
    """

    files: Annotated[dict[_Name, Weighed], counted(1, 16)]
    digest: Digest

    @classmethod
    def of(cls, content: bytes) -> Self:
        """What the bytes of an encoder.json say."""
        digest = hashlib.sha256(content).hexdigest()
        try:
            told = parsed(content)
            if not isinstance(told, dict):
                raise ValueError("it is not an object")
            return read(cls, told | {"digest": digest})
        except ValueError as error:
            rule, reason = "what an encoder consists of can be read", str(error)
            raise DataError(rule, remedy=AGAIN, file=ENCODER, reason=reason) from None

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(each.bytes for each in self.files.values())


def read_encoder(folder: Path) -> EncoderInfo:
    """What encoder.json says; the files that it lists are not looked at."""
    return EncoderInfo.of(bounded(folder / ENCODER, MANIFEST_MOST))


def verify_encoder(folder: Path, *, digest: str = "", most: int = MOST) -> EncoderInfo:
    """Refuse with `DataError` a folder that is no whole encoder, or not the one called `digest`."""
    return _checked(folder, digest, partial(check_files, most=most))


def encoder_in(packs: Path, digest: str) -> Path | None:
    """The folder of a whole encoder called `digest` beside the packs in `packs`, None if there is none."""
    folder = packs / ENCODERS / digest
    try:
        return folder if digest and verify_encoder(folder, digest=digest) else None
    except DataError:
        return None


def encoder_beside(packs: Path, digest: str) -> Path | None:
    """As `encoder_in`, but quick: of the files that encoder.json lists, only names and lengths are looked at.

    Their bytes were when they were taken, and are again by whoever reads texts with them: `PortableEncoder`.
    """
    folder = packs / ENCODERS / digest
    try:
        return folder if digest and _checked(folder, digest, check_lengths) else None
    except DataError:
        return None


def place_encoder(packs: Path, encoder: Path) -> str:
    """Copy a whole encoder beside the packs in `packs`, unless it is there; its digest."""
    digest, fresh = verify_encoder(encoder).digest, packs / ENCODERS / ".new"
    if encoder_in(packs, digest) is None:
        shutil.rmtree(fresh, ignore_errors=True)  # of a publisher that was killed
        shutil.copytree(encoder, fresh)
        verify_encoder(fresh, digest=digest)
        settle(fresh, packs / ENCODERS / digest)
    return digest


def remove_encoders(packs: Path, named: Collection[str]) -> None:
    """Remove the encoders beside the packs in `packs` that nobody names."""
    folder = packs / ENCODERS
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in named:
            shutil.rmtree(path, ignore_errors=True)


def _checked(folder: Path, digest: str, check: Callable[[Path, Mapping[str, Listed]], None]) -> EncoderInfo:
    info = read_encoder(folder)
    if digest and info.digest != digest:
        raise DataError("an encoder is called by its hash", remedy=AGAIN, named=digest[:12], found=info.digest[:12])
    try:
        check_names(folder, {ENCODER, *info.files})
        check(folder, info.files)
    except OSError as error:
        remedy = "Check the disk and the rights on the folder."
        raise DataError("an encoder's files are readable", remedy=remedy, reason=error.strerror) from None
    return info


def encoder_file(packs: Path, name: str) -> Path | None:
    """The file that a device means by `encoders/DIGEST/FILE`; None for all that is no part of an encoder here."""
    if not re.fullmatch(rf"{ENCODERS}/[0-9a-f]{{64}}/{_NAME}", name):
        return None
    file = packs / name
    try:
        known = {ENCODER, *read_encoder(file.parent).files}
    except DataError:
        return None
    linked = any(path.is_symlink() for path in (packs / ENCODERS, file.parent, file))
    return file if file.name in known and file.is_file() and not linked else None
