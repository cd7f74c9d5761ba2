"""Folders of files that a manifest lists with lengths and hashes: there is nothing else in them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fedrec.errors import DataError
from fedrec.strict import spelled, within

MOST = 1 << 30  # bytes of all files of such a folder that a reader takes on, unless told otherwise
AGAIN = "Bring the pack back from a copy, or fetch it again."

Digest = Annotated[str, spelled("[0-9a-f]{64}")]


@dataclass(frozen=True)
class Listed:
    """One file. `bytes` is None in packs of format 1, which did not say."""

    sha256: Digest
    bytes: Annotated[int, within(1)] | None = None


def listed(content: bytes) -> dict[str, str | int]:
    """What a manifest says of a file with this content."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def bounded(path: Path, most: int) -> bytes:
    """The content of a plain file of at most so many bytes; no link, pipe or device is followed."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError("a pack holds plain files only", file=path.name)
            content = file.read(most + 1)
    except OSError as error:
        remedy = "Give the folder of a whole pack."
        raise DataError("a pack's files are there", remedy=remedy, file=path.name, reason=error.strerror) from None
    if len(content) > most:
        raise DataError("a pack's manifest and signature are short", file=path.name, most=most)
    return content


def check_names(folder: Path, expected: set[str]) -> None:
    """Refuse a folder that does not hold these plain files and nothing else."""
    with os.scandir(folder) as entries:
        plain = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if set(plain) != expected or not all(plain.values()):
        odd = sorted((set(plain) ^ expected) | {name for name, is_plain in plain.items() if not is_plain})
        remedy = "Remove what does not belong to it, or fetch it again."
        raise DataError("a pack holds the files of its format, and no others", remedy=remedy, odd=odd[:3])


def check_lengths(folder: Path, files: Mapping[str, Listed], most: int = MOST) -> None:
    """Refuse files that are too much together, or not of the lengths that are listed; none is read."""
    sizes = {name: (folder / name).stat().st_size for name in files}
    if sum(sizes.values()) > most:
        raise DataError("a pack is no larger than its reader allows", bytes=sum(sizes.values()), most=most)
    for name, each in files.items():
        if each.bytes not in (None, sizes[name]):
            expected = each.bytes
            raise DataError("a file has its length", remedy=AGAIN, file=name, bytes=sizes[name], expected=expected)


def check_files(folder: Path, files: Mapping[str, Listed], most: int) -> None:
    """Refuse files that are too much together, or not of the lengths and hashes that are listed."""
    check_lengths(folder, files, most)  # what is too much is not read
    for name, each in files.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != each.sha256:
            raise DataError("a file has the hash that the manifest names", remedy=AGAIN, file=name, found=found[:12])
