"""Publishing packs: numbered folders, each whole and signed before anybody sees it; a file names the latest."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedrec.errors import DataError, RunError, require
from fedrec.files import settle, write_atomic
from fedrec.model.encoder_files import encoder_file, encoder_in, place_encoder, remove_encoders
from fedrec.model.pack_files import read_manifest, verify_pack
from fedrec.model.pack_format import (
    ENCODERS,
    EXTRAS,
    FILES,
    LATEST,
    MANIFEST,
    PARQUET,
    SIGNATURE,
    VERSION_MOST,
    PackInfo,
    manifest_of,
    version_of,
    versions,
)

_SERVED = frozenset((MANIFEST, SIGNATURE, PARQUET, *EXTRAS, *FILES))  # also of versions from before format 3


def sign_pack(folder: Path, key: Ed25519PrivateKey, *, version: int, encoder: str = "") -> PackInfo:
    """Put version, time and signer into the manifest of a whole pack, and the signature over it into pack.sig.

    `encoder` is the digest of the portable text encoder that devices read texts with; "" leaves what the pack says.
    A crash in between leaves a pack that is refused, and that can be signed again.
    """
    require(1 <= version <= VERSION_MOST, "versions count from 1", version=version)
    stamp: dict[str, object] = {"text": {"encoder": encoder}} if encoder else {}
    stamp |= {
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


def publish(  # noqa: PLR0913  (what, where, by whom; the rest has defaults)
    packs: Path, build: Callable[[Path], None], key: Ed25519PrivateKey, *, keep: int = 3, after: int = 0,
    encoder: Path | None = None,
) -> int:  # fmt: skip
    """Publish what `build` writes into an empty folder as the next version in `packs`; gives its number.

    Nobody sees a version before it is whole, signed and verified, on disk. The newest `keep` versions stay, at least
    two: a device may be reading the one before. `after` is a version that devices have and `packs` lost. `encoder` is
    the folder of a portable text encoder: the version names it, and it is copied to where devices fetch it.
    """
    require(keep >= 2, "the version before the latest is kept", remedy="Set keep=2 or more.", keep=keep)
    try:
        packs.mkdir(parents=True, exist_ok=True)
        with _alone(packs):
            digest = place_encoder(packs, encoder) if encoder else ""
            before = latest(packs) or 0
            version = _published(packs, build, key, after=after, encoder=digest)
            write_atomic(packs / LATEST, f"{version}\n".encode())
            _tidy(packs, before, keep)
            return version
    except OSError as error:
        remedy, reason = "Make room, or get the right to write there; nothing was published.", error.strerror
        raise RunError("the folder of packs can be written", remedy=remedy, path=str(packs), reason=reason) from None


def _published(packs: Path, build: Callable[[Path], None], key: Ed25519PrivateKey, *, after: int, encoder: str) -> int:
    fresh = packs / ".new"
    version = max([after, latest(packs) or 0, *versions(packs)]) + 1
    shutil.rmtree(fresh, ignore_errors=True)  # of a publisher that was killed
    fresh.mkdir()
    try:
        build(fresh)
        _check_encoder(packs, sign_pack(fresh, key, version=version, encoder=encoder))
        settle(fresh, packs / str(version))
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return version


def _check_encoder(packs: Path, info: PackInfo) -> None:
    digest = info.text.encoder
    if digest and encoder_in(packs, digest) is None:
        remedy = "Publish it with encoder=FOLDER, as it was exported."
        raise DataError("the encoder that a pack names is published with it", remedy=remedy, encoder=digest[:12])


def _tidy(packs: Path, before: int, keep: int) -> None:
    """Remove old versions, but not the one before the latest, and the encoders that no version names any more."""
    for old in versions(packs)[keep:]:
        if old != before:  # it may not be next to the latest: a publisher can die before it names its version
            shutil.rmtree(packs / str(old), ignore_errors=True)
    with suppress(DataError):  # where a version cannot be read, nobody knows what its devices need
        remove_encoders(packs, {read_manifest(packs / str(version), None).text.encoder for version in versions(packs)})


def latest(packs: Path) -> int | None:
    """The version that devices are given, None where none is published."""
    try:
        return version_of((packs / LATEST).read_bytes())
    except OSError:
        return None


def published_file(packs: Path, name: str) -> Path | None:
    """The file that a device means by `latest`, `VERSION/FILE` or `encoders/DIGEST/FILE`; None for all else."""
    if name.startswith(f"{ENCODERS}/"):
        return encoder_file(packs, name)
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
