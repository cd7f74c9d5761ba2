"""A device's model packs: the newest that its site signed, and the last good one behind it. Needs no torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedrec.errors import DataError, FedrecError, RunError, WireError
from fedrec.files import sync, write_atomic
from fedrec.model.pack_files import MOST, Pack, read_pack, signed_manifest, verify_pack
from fedrec.model.pack_format import (
    LATEST,
    MANIFEST,
    MANIFEST_MOST,
    SIGNATURE,
    SIGNATURE_BYTES,
    Listed,
    PackInfo,
    version_of,
    versions,
)

Fetch = Callable[[str], Iterator[bytes]]
"""`latest` or `VERSION/FILE` → bytes, piece by piece. Has timeouts of its own; raises `OSError` or `FedrecError`."""

STATE = "packs.json"

_REMEMBERED = 20  # refusals
_LATER = "Try again: what is complete is kept."


@dataclass(frozen=True)
class Refusal:
    """Why a version was not used (0: why the notes were not), and when that was found (UTC)."""

    version: int
    reason: str
    at: str


@dataclass(frozen=True)
class _State:
    """`kept`: version → digest of its manifest, the current one first."""

    kept: dict[int, str]
    refused: tuple[Refusal, ...] = ()

    @property
    def current(self) -> int:
        return next(iter(self.kept), 0)


@dataclass(frozen=True)
class Packs:
    """The packs of one site in a folder of a device, which several processes may share.

    A version is used once its signature, its hashes and its tensors are right, and it is newer than the current one.
    What was refused, and why, is in packs.json. `most` bounds the bytes of a pack.
    """

    folder: Path
    key: Ed25519PublicKey
    most: int = field(default=MOST, kw_only=True)

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """The last refusals, oldest first."""
        return self._state().refused

    def current(self) -> Pack | None:
        """The newest pack that is whole, None if there is none. One damaged on disk is passed over, and noted."""
        for version, digest in self._state().kept.items():
            try:
                pack = read_pack(self.folder / str(version), self.key, most=self.most)
                _check_version(pack.info, version, digest)
            except DataError as error:
                self._note_if_free(version, error)
            else:
                return pack
        return None

    def offer(self, fetch: Fetch, *, older: bool = False) -> PackInfo | None:
        """Take the site's latest pack if it is not the current one; None if there is nothing new.

        An interrupted download goes on where it stopped, file by file. `older` is for the owner alone: a version before
        the current one is then taken too. Errors: `DataError` for a pack that is refused, `WireError` for a
        download that failed, `RunError` for a folder that cannot be written; in all cases the current pack stays.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                return self._offered(fetch, older=older)
        except OSError as error:
            remedy, reason = "Make room, or get the right to write there. The current pack stays.", error.strerror
            where = str(self.folder)
            raise RunError("the folder of packs can be written", remedy=remedy, path=where, reason=reason) from None

    def _offered(self, fetch: Fetch, *, older: bool) -> PackInfo | None:
        version = version_of(_bounded(fetch, LATEST, 32))
        if version is None:
            return None
        good = self._good()
        state = self._state()
        if version == state.current and version in good:
            return None
        try:
            if version < state.current and not older:
                remedy = "Ask the site; the owner of this device can take it with older=True."
                raise DataError("a device takes no older pack", remedy=remedy, version=version, current=state.current)
            info = self._taken(fetch, version, state.kept.get(version, ""))
        except DataError as error:
            self._note(version, error)
            raise
        self._keep(info, good)
        return info

    def _taken(self, fetch: Fetch, version: int, digest: str) -> PackInfo:
        """Version `version`, verified and in its place; whatever was in that place was no good."""
        incoming, place = self.folder / ".incoming", self.folder / str(version)
        manifest, signature = self._head(fetch, version)
        info = signed_manifest(manifest, signature, self.key)
        _check_version(info, version, digest)
        if info.size is None or info.size > self.most:
            raise DataError("a pack is no larger than its reader allows", bytes=info.size, most=self.most)
        if self._checked(version, info.digest) is None:  # it may be the one before, or one whose taking was cut short
            return info
        _begin(incoming, manifest, signature)
        for name, listed in info.files.items():
            if not _is_there(incoming / name, listed):
                _receive(fetch, f"{version}/{name}", incoming / name, listed)
        verify_pack(incoming, self.key, most=self.most)
        sync(incoming)
        shutil.rmtree(place, ignore_errors=True)
        incoming.rename(place)
        sync(self.folder)
        return info

    def _head(self, fetch: Fetch, version: int) -> tuple[bytes, bytes]:
        manifest = _bounded(fetch, f"{version}/{MANIFEST}", MANIFEST_MOST)
        return manifest, _bounded(fetch, f"{version}/{SIGNATURE}", SIGNATURE_BYTES)

    def _good(self) -> dict[int, str]:
        """The kept packs that are whole; damage is noted."""
        good = {}
        for version, digest in self._state().kept.items():
            damage = self._checked(version, digest)
            if damage is None:
                good[version] = digest
            else:
                self._note(version, damage)
        return good

    def _checked(self, version: int, digest: str) -> DataError | None:
        """What is wrong with a pack that was taken."""
        try:
            info = verify_pack(self.folder / str(version), self.key, most=self.most)
            _check_version(info, version, digest)
        except DataError as error:
            return error
        return None

    def _keep(self, info: PackInfo, good: dict[int, str]) -> None:
        """Make `info` current and the newest good one its deputy; nothing else stays."""
        kept = {info.version: info.digest} | dict(list(good.items())[:1])
        self._write(replace(self._state(), kept=kept))
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in map(str, kept):
                shutil.rmtree(path, ignore_errors=True)

    def _state(self) -> _State:
        try:
            content = json.loads((self.folder / STATE).read_bytes())
            kept = {int(version): str(digest) for version, digest in content["kept"]}
            return _State(kept, tuple(Refusal(**refusal) for refusal in content["refused"]))
        except FileNotFoundError:
            return _State(self._found())
        except (OSError, ValueError, TypeError, KeyError):
            return _State(self._found(), (_refusal(0, f"{STATE} cannot be read"),))

    def _found(self) -> dict[int, str]:
        """What there is by the folders alone: their signatures say whether it is good."""
        there = versions(self.folder) if self.folder.is_dir() else []
        return {version: "" for version in there if self._checked(version, "") is None}

    def _write(self, state: _State) -> None:
        content = {"kept": list(state.kept.items()), "refused": [asdict(refusal) for refusal in state.refused]}
        write_atomic(self.folder / STATE, json.dumps(content, indent=2).encode())

    def _note(self, version: int, error: FedrecError) -> None:
        state = self._state()
        known = any((old.version, old.reason) == (version, str(error)) for old in state.refused)
        if not known:
            self._write(replace(state, refused=(*state.refused, _refusal(version, str(error)))[-_REMEMBERED:]))

    def _note_if_free(self, version: int, error: FedrecError) -> None:
        # Reading goes on where nothing can be written; whoever holds the lock looks at the same packs, and notes it.
        with suppress(OSError), self._locked(fcntl.LOCK_NB):
            self._note(version, error)

    @contextmanager
    def _locked(self, how: int = 0) -> Iterator[None]:
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | how)
            yield


def _check_version(info: PackInfo, version: int, digest: str) -> None:
    """`digest` is that of the manifest as it was taken; "" where it never was."""
    if info.version != version:
        raise DataError("a pack is the version it is offered as", offered=version, version=info.version)
    if digest and info.digest != digest:
        remedy = "Ask the site to publish it as a new version."
        raise DataError("a version is published once", remedy=remedy, version=version, now=info.digest[:12])


def _refusal(version: int, reason: str) -> Refusal:
    return Refusal(version, reason, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def _begin(incoming: Path, manifest: bytes, signature: bytes) -> None:
    """A folder for these files: what is left of the same pack, or an empty one."""
    with suppress(OSError):
        if (incoming / MANIFEST).read_bytes() == manifest and (incoming / SIGNATURE).read_bytes() == signature:
            return
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    write_atomic(incoming / SIGNATURE, signature)
    write_atomic(incoming / MANIFEST, manifest)


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


def _bounded(fetch: Fetch, name: str, most: int) -> bytes:
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
