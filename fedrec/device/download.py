"""Listed files as they arrive from a site: bounded, checked one by one, and kept when a download breaks off."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fedrec.errors import DataError, WireError
from fedrec.files import write_atomic
from fedrec.model.listed import Listed

Fetch = Callable[[str], Iterator[bytes]]
"""`latest`, `VERSION/FILE` or `encoders/DIGEST/FILE` → bytes, piece by piece.

Has timeouts of its own; raises `OSError` or `FedrecError`.
"""

_LATER = "Try again: what is complete is kept."


def begin(incoming: Path, heads: Mapping[str, bytes]) -> None:
    """A folder for what goes with these files: what is left of the same pack or encoder, or an empty one."""
    with suppress(OSError):
        if all((incoming / name).read_bytes() == content for name, content in heads.items()):
            return
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    for name, content in heads.items():
        write_atomic(incoming / name, content)


def complete(fetch: Fetch, where: str, incoming: Path, files: Mapping[str, Listed]) -> None:
    """Fetch the listed files of the site's folder `where` that are not there yet, each with its length and hash."""
    for name, listed in files.items():
        if not _is_there(incoming / name, listed):
            _receive(fetch, f"{where}/{name}", incoming / name, listed)


def _is_there(path: Path, listed: Listed) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == listed.sha256
    except OSError:
        return False


def _receive(fetch: Fetch, name: str, path: Path, listed: Listed) -> None:
    """Write one file as it arrives; it gets its name when its bytes are the listed ones."""
    part, digest = path.with_name(".part"), hashlib.sha256()
    expected = listed.bytes or 0  # only format 1 does not say, and nobody signed that
    with part.open("wb") as file:
        for piece in _pieces(fetch, name, expected):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        length = file.tell()
    if length < expected:
        raise WireError("a file arrives whole", remedy=_LATER, file=name, bytes=length, expected=expected)
    if digest.hexdigest() != listed.sha256:
        remedy = "Try again; if it comes back, the site's files are damaged."
        raise DataError("a file has the hash that the manifest names", remedy=remedy, file=name)
    os.replace(part, path)


def head(fetch: Fetch, name: str, most: int) -> bytes:
    """A file of at most so many bytes, whole."""
    return b"".join(_pieces(fetch, name, most))


def _pieces(fetch: Fetch, name: str, most: int) -> Iterator[bytes]:
    """What arrives, as long as it is no more than it should be."""
    arrived = 0
    try:
        for piece in fetch(name):
            arrived += len(piece)
            if arrived > most:
                raise DataError("a file is no longer than it should be", file=name, most=most)
            yield piece
    except OSError as error:
        raise WireError("a file arrives whole", remedy=_LATER, file=name, reason=type(error).__name__) from None
