"""Publishing packs: numbered folders, each whole and signed before anybody sees it; a file names the latest."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedrec.errors import DataError, RunError, require
from fedrec.files import sync, write_atomic
from fedrec.model.pack_files import verify_pack
from fedrec.model.pack_format import (
    FILES,
    LATEST,
    MANIFEST,
    SIGNATURE,
    VERSION_MOST,
    PackInfo,
    manifest_of,
    version_of,
    versions,
)

_SERVED = frozenset((MANIFEST, SIGNATURE, *FILES))


def sign_pack(folder: Path, key: Ed25519PrivateKey, *, version: int) -> PackInfo:
    """Put version, time and signer into the manifest of a whole pack, and the signature over it into pack.sig.

    A crash in between leaves a pack that is refused, and that can be signed again.
    """
    require(1 <= version <= VERSION_MOST, "versions count from 1", version=version)
    stamp = {
        "version": version,
        "published": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "signer": key.public_key().public_bytes_raw().hex(),
    }
    try:
        manifest = manifest_of(json.loads((folder / MANIFEST).read_bytes()) | stamp)
    except (FileNotFoundError, ValueError):
        raise DataError("what is signed is a whole pack", remedy="Write it with write_pack.", file=MANIFEST) from None
    write_atomic(folder / SIGNATURE, key.sign(manifest))
    write_atomic(folder / MANIFEST, manifest)
    return verify_pack(folder, key.public_key())


def publish(
    packs: Path, build: Callable[[Path], None], key: Ed25519PrivateKey, *, keep: int = 3, after: int = 0
) -> int:
    """Publish what `build` writes into an empty folder as the next version in `packs`; gives its number.

    Nobody sees a version before it is whole, signed and verified, on disk. The newest `keep` versions stay, at least
    two: a device may be reading the one before. `after` is a version that devices have and `packs` lost.
    """
    require(keep >= 2, "the version before the latest is kept", remedy="Set keep=2 or more.", keep=keep)
    try:
        packs.mkdir(parents=True, exist_ok=True)
        with _alone(packs):
            return _published(packs, build, key, keep=keep, after=after)
    except OSError as error:
        remedy, reason = "Make room, or get the right to write there; nothing was published.", error.strerror
        raise RunError("the folder of packs can be written", remedy=remedy, path=str(packs), reason=reason) from None


def _published(packs: Path, build: Callable[[Path], None], key: Ed25519PrivateKey, *, keep: int, after: int) -> int:
    before, fresh = latest(packs) or 0, packs / ".new"
    version = max([after, before, *versions(packs)]) + 1
    shutil.rmtree(fresh, ignore_errors=True)  # of a publisher that was killed
    fresh.mkdir()
    try:
        build(fresh)
        sign_pack(fresh, key, version=version)
        for path in (*fresh.iterdir(), fresh):
            sync(path)
        fresh.rename(packs / str(version))
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    write_atomic(packs / LATEST, f"{version}\n".encode())
    for old in versions(packs)[keep:]:
        if old != before:  # it may not be next to the latest: a publisher can die before it names its version
            shutil.rmtree(packs / str(old), ignore_errors=True)
    return version


def latest(packs: Path) -> int | None:
    """The version that devices are given, None where none is published."""
    try:
        return version_of((packs / LATEST).read_bytes())
    except OSError:
        return None


def published_file(packs: Path, name: str) -> Path | None:
    """The file that a device means by `latest` or `VERSION/FILE`; None for all that is not published here."""
    version, _, file = name.partition("/")
    if name != LATEST and not (version_of(version.encode()) and file in _SERVED):
        return None
    linked = (packs / name).is_symlink() or (packs / version).is_symlink()
    return packs / name if (packs / name).is_file() and not linked else None


@contextmanager
def _alone(packs: Path) -> Iterator[None]:
    with (packs / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
