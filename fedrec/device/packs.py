"""A device's model packs: the newest that its site signed, and the last good one behind it. Needs no torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.device.download import Fetch as Fetch
from fedrec.device.download import begin, complete, head
from fedrec.errors import DataError, FedrecError, RunError
from fedrec.files import settle, write_atomic
from fedrec.model.encoder_files import ENCODER, EncoderInfo, encoder_beside, encoder_in, remove_encoders, verify_encoder
from fedrec.model.listed import MOST
from fedrec.model.pack_files import Pack, read_manifest, read_pack, signed_manifest, verify_pack
from fedrec.model.pack_format import (
    ENCODERS,
    LATEST,
    MANIFEST,
    MANIFEST_MOST,
    SIGNATURE,
    SIGNATURE_BYTES,
    PackInfo,
    version_of,
    versions,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

STATE = "packs.json"

_REMEMBERED = 20  # refusals


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
    What was refused, and why, is in packs.json. `most` bounds the bytes of a pack, and those of a text encoder.
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

    def encoder(self, pack: Pack) -> Path | None:
        """The folder of the text encoder that `pack` names; None if it names none, or has lost it.

        It was whole when it was taken. Whoever reads texts with it verifies the bytes that are run.
        """
        return encoder_beside(self.folder, pack.reader)

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
        version = version_of(head(fetch, LATEST, 32))
        if version is None:
            return None
        good = self._good()
        state = self._state()
        if version == state.current and version in good and not self._lacks_encoder(version):
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
        if info.text.encoder and encoder_in(self.folder, info.text.encoder) is None:
            self._take_encoder(fetch, info.text.encoder)
        if self._checked(version, info.digest) is None:  # it may be the one before, or one whose taking was cut short
            return info
        begin(incoming, {MANIFEST: manifest, SIGNATURE: signature})
        complete(fetch, str(version), incoming, info.files)
        verify_pack(incoming, self.key, most=self.most)
        settle(incoming, place)
        return info

    def _take_encoder(self, fetch: Fetch, digest: str) -> None:
        """The encoder called `digest`, verified and in its place; like a pack's files, what is complete is kept."""
        name = f"{ENCODERS}/{digest}"
        content = head(fetch, f"{name}/{ENCODER}", MANIFEST_MOST)
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError("an encoder is called by its hash", file=f"{name}/{ENCODER}")
        info = EncoderInfo.of(content)
        if info.size > self.most:
            raise DataError("an encoder is no larger than its reader allows", bytes=info.size, most=self.most)
        (self.folder / ENCODERS).mkdir(exist_ok=True)
        incoming = self.folder / ENCODERS / ".incoming"
        begin(incoming, {ENCODER: content})
        complete(fetch, name, incoming, info.files)
        verify_encoder(incoming, digest=digest, most=self.most)
        settle(incoming, self.folder / name)

    def _head(self, fetch: Fetch, version: int) -> tuple[bytes, bytes]:
        manifest = head(fetch, f"{version}/{MANIFEST}", MANIFEST_MOST)
        return manifest, head(fetch, f"{version}/{SIGNATURE}", SIGNATURE_BYTES)

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

    def _lacks_encoder(self, version: int) -> bool:
        """Whether a good pack names an encoder that is not there."""
        digest = read_manifest(self.folder / str(version), self.key).text.encoder
        return bool(digest) and encoder_in(self.folder, digest) is None

    def _keep(self, info: PackInfo, good: dict[int, str]) -> None:
        """Make `info` current and the newest good one its deputy; nothing else stays but the encoders of both."""
        good = {version: digest for version, digest in good.items() if version != info.version}
        kept = {info.version: info.digest} | dict(list(good.items())[:1])
        self._write(replace(self._state(), kept=kept))
        named = {read_manifest(self.folder / str(version), self.key).text.encoder for version in kept}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in {*map(str, kept), ENCODERS}:
                shutil.rmtree(path, ignore_errors=True)
        remove_encoders(self.folder, named)

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
