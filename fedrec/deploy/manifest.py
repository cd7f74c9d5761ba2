"""The signed list of what a device downloads to take part: names, lengths, hashes, and the task they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError

from fedrec.errors import WireError
from fedrec.files import write_atomic
from fedrec.settings import Section

MANIFEST, SIGNATURE, STATEMENT = "manifest.json", "manifest.sig", "statement.txt"
PLAN, CATALOGUE = "plan.toml", "catalogue.parquet"  # as in fedrec.task, which this side of a site does not load
FILES = (PLAN, CATALOGUE, STATEMENT)

_WORDS = b"fedrec task\n"  # what else the key signs begins otherwise
_HEX = r"^[0-9a-f]{64}$"


class Listed(Section):
    """A file: its length and its SHA-256."""

    bytes: int = Field(ge=0, le=2**32)
    sha256: str = Field(pattern=_HEX)


class Manifest(Section):
    """What makes a task: its hash (`fedrec.task.Task.hash`) and its files by name."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    task: str = Field(pattern=_HEX)
    files: dict[str, Listed]

    @classmethod
    def read(cls, content: bytes, signature: bytes, roster_key: bytes) -> Manifest:
        """A manifest that the site signed; any other is a `WireError`."""
        remedy = "Ask the operator to run `fedrec doctor` on the site, then try again."
        try:
            Ed25519PublicKey.from_public_bytes(roster_key).verify(signature, _WORDS + content)
        except (InvalidSignature, ValueError):
            raise WireError("a task is signed by its site", remedy=remedy) from None
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError:
            raise WireError("a task's manifest can be read", remedy="Upgrade fedrec.") from None
        if set(manifest.files) != set(FILES):
            raise WireError("a task has the files we know", remedy="Upgrade fedrec.", files=sorted(manifest.files))
        return manifest


def seal(folder: Path, sources: Mapping[str, Path], task: str, signing: Ed25519PrivateKey) -> None:
    """Write manifest and signature for the files `sources` of the task with this hash into `folder`."""
    files = {name: listed(path) for name, path in sources.items()}
    content = json.dumps(Manifest(task=task, files=files).model_dump(), indent=2).encode()
    write_atomic(folder / MANIFEST, content)
    write_atomic(folder / SIGNATURE, signing.sign(_WORDS + content))


def listed(path: Path) -> Listed:
    """A file as a manifest lists it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Listed(bytes=path.stat().st_size, sha256=digest)
