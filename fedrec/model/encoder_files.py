"""A portable text encoder as a folder called by the digest of its encoder.json, shared by the packs that name it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationError
from pydantic_core import from_json, to_json

from fedrec.errors import DataError
from fedrec.files import settle
from fedrec.model.listed import AGAIN, MOST, Digest, Listed, Part, bounded, check_files, check_names
from fedrec.model.pack_format import ENCODERS, MANIFEST_MOST

ENCODER = "encoder.json"

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*"
_Name = Annotated[str, StringConstraints(pattern=f"^{_NAME}$", max_length=64)]


class Weighed(Listed):
    """A file whose length is always said."""

    bytes: int = Field(ge=1)


class EncoderInfo(Part):
    """What encoder.json says of its folder; what else it says is for those who read texts with it.

    `digest` is the SHA-256 of encoder.json: it names the folder and, through `files`, all that is in it.
    """

    files: dict[_Name, Weighed] = Field(min_length=1, max_length=16)
    digest: Digest

    @classmethod
    def of(cls, content: bytes) -> Self:
        """What the bytes of an encoder.json say."""
        digest = hashlib.sha256(content).hexdigest()
        try:
            told = from_json(content, allow_inf_nan=False)
            if not isinstance(told, dict):
                raise ValueError("it is not an object")
            return cls.model_validate_json(to_json(told | {"digest": digest}))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except ValueError as error:
            reason = str(error)
        raise DataError("what an encoder consists of can be read", remedy=AGAIN, file=ENCODER, reason=reason)

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(each.bytes for each in self.files.values())


def read_encoder(folder: Path) -> EncoderInfo:
    """What encoder.json says; the files that it lists are not looked at."""
    return EncoderInfo.of(bounded(folder / ENCODER, MANIFEST_MOST))


def verify_encoder(folder: Path, *, digest: str = "", most: int = MOST) -> EncoderInfo:
    """Refuse with `DataError` a folder that is no whole encoder, or not the one called `digest`."""
    info = read_encoder(folder)
    if digest and info.digest != digest:
        raise DataError("an encoder is called by its hash", remedy=AGAIN, named=digest[:12], found=info.digest[:12])
    try:
        check_names(folder, {ENCODER, *info.files})
        check_files(folder, info.files, most)
    except OSError as error:
        remedy = "Check the disk and the rights on the folder."
        raise DataError("an encoder's files are readable", remedy=remedy, reason=error.strerror) from None
    return info


def encoder_in(packs: Path, digest: str) -> Path | None:
    """The folder of a whole encoder called `digest` beside the packs in `packs`, None if there is none."""
    folder = packs / ENCODERS / digest
    try:
        return folder if digest and verify_encoder(folder, digest=digest) else None
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
