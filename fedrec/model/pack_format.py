"""What a model pack's manifest says: format, version, what it was made from, and the hash of every other file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from fedrec.errors import DataError

FORMAT = 2  # written; this one and the one before are read
KIND = "fedrec model pack"

MANIFEST, SIGNATURE = "pack.json", "pack.sig"
CARD, CATALOGUE, ITEMS, MODEL, STATEMENTS = (
    "README.md", "catalogue.parquet", "items.safetensors", "model.safetensors", "privacy.json",
)  # fmt: skip
FILES = (CARD, CATALOGUE, ITEMS, MODEL, STATEMENTS)

LATEST = "latest"  # a file beside the folders of versions, which are called by their numbers

MANIFEST_MOST = 1 << 20  # bytes
SIGNATURE_BYTES = 64  # Ed25519
VERSION_MOST = 10**9 - 1

ADAPTER = "adapter."  # what names of the text tower's tensors begin with

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shape = tuple[int, ...]

_VERSION = re.compile(rb"[1-9][0-9]{0,8}")


class _Part(BaseModel):
    # What a later writer adds does not concern this reader; whatever it needs has its exact type.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, strict=True)


class Listed(_Part):
    """One file of a pack. `bytes` is None in format 1, which did not say."""

    sha256: Digest
    bytes: int | None = Field(None, ge=1)


class Stock(_Part):
    """The catalogue: how many items, and `Catalogue.hash`."""

    items: int = Field(ge=2)
    hash: Digest


class Reader(_Part):
    """The text encoder that item vectors were made with, and that texts of a person must be read with."""

    name: str
    hash: str
    dim: int = Field(ge=1)


class Ranking(_Part):
    """Width of a vector, decay of each context, and how many shared parameters there are."""

    dim: int = Field(ge=1)
    decays: tuple[float, ...] = Field(min_length=1)
    parameters: int = Field(ge=1)


class _Settings(_Part):
    """The settings of `plan.model` that decide which tensors there are."""

    maps: Literal["full", "diagonal"] = "full"
    projection: bool = True
    residuals: bool = True
    popularity: bool = True


class PackInfo(_Part):
    """A manifest that was read; after `verify_pack` it is true.

    `version` is 0 and `published` is "" in a pack that was never published, and `signer` (an Ed25519 public key
    in hex) is "" in one that nobody signed. `round` is None where the writer did not say. `layout` is the order of
    parameters in the shared vector, empty in format 1. `digest` is the SHA-256 of the manifest: it names the pack.
    """

    format: int
    version: int = Field(ge=0, le=VERSION_MOST)
    round: int | None = Field(ge=0)
    published: str = Field(pattern=r"^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z)?$")
    signer: str = Field(pattern=r"^([0-9a-f]{64})?$")
    task: Digest
    plan: dict[str, Any]
    catalogue: Stock
    encoder: Reader
    ranking: Ranking
    layout: tuple[tuple[str, Shape], ...]
    files: dict[str, Listed]
    digest: Digest

    @classmethod
    def of(cls, manifest: bytes) -> Self:
        """What the bytes of a pack.json say; of format 2, or of format 1 brought up to date."""
        try:
            content = from_json(manifest, allow_inf_nan=False)
            if not isinstance(content, dict):
                raise ValueError("it is not an object")
            current = _current(content) | {"digest": hashlib.sha256(manifest).hexdigest()}
            info = cls.model_validate_json(to_json(current))
            info._settings()  # a plan without them would be refused too late
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise _unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except ValueError as error:
            raise _unreadable(str(error)) from None
        if set(info.files) != set(FILES):
            odd = sorted(set(info.files) ^ set(FILES))[:3]
            raise DataError("a pack's manifest lists the files of its format, and no others", odd=odd)
        return info

    @property
    def size(self) -> int | None:
        """Bytes of all listed files, None in format 1."""
        sizes = [listed.bytes for listed in self.files.values()]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def item_shapes(self, features: int) -> dict[str, Shape]:
        """Shapes in items.safetensors; `features` is the number of feature columns in the catalogue."""
        items, dim, width = self.catalogue.items, self.ranking.dim, self.encoder.dim
        return {"vectors": (items, dim), "prior": (items,), "centre": (width,), "projection": (width + features, dim)}

    def model_shapes(self, features: int) -> dict[str, Shape]:
        """Shapes in model.safetensors, without those of the text tower, which depend on its kind."""
        items, dim, decays, settings = (
            self.catalogue.items,
            self.ranking.dim,
            len(self.ranking.decays),
            self._settings(),
        )
        shapes: dict[str, Shape] = {"maps": (decays, dim, dim) if settings.maps == "full" else (decays, dim)}
        if settings.projection:
            shapes["projection"] = (self.encoder.dim + features, dim)
        if settings.residuals:
            shapes["residuals"] = (items, dim)
        if settings.popularity:
            shapes["popularity"] = (items,)
        return shapes

    def check_parameters(self, shapes: dict[str, Shape], features: int) -> None:
        """Refuse tensors of a model that are not what plan, layout and count of parameters ask for."""
        fixed = {name: shape for name, shape in shapes.items() if not name.startswith(ADAPTER)}
        same_layout = not self.layout or dict(self.layout) == shapes
        count = sum(math.prod(shape) for shape in shapes.values())
        if fixed != self.model_shapes(features) or not same_layout or count != self.ranking.parameters:
            raise DataError("a pack's parameters are those of its plan", found=count, expected=self.ranking.parameters)

    def _settings(self) -> _Settings:
        return _Settings.model_validate(self.plan.get("model", {}))


def manifest_of(about: Mapping[str, Any]) -> bytes:
    """The bytes of a pack.json."""
    return json.dumps(about, indent=2).encode()


def version_of(content: bytes) -> int | None:
    """The version that a file `latest` or a folder's name says, None if it says none."""
    number = content.removesuffix(b"\n")
    return int(number) if _VERSION.fullmatch(number) else None


def versions(folder: Path) -> list[int]:
    """The versions that lie in `folder`, newest first."""
    found = (version_of(path.name.encode()) for path in folder.iterdir() if path.is_dir())
    return sorted(filter(None, found), reverse=True)


def _current(content: dict[str, Any]) -> dict[str, Any]:
    """A manifest of a format that we read, as one of `FORMAT`."""
    match content.get("format"):
        case 1:
            return _from_one(content)
        case 2 if content.get("kind") == KIND:
            return content
        case int(newer) if newer > FORMAT:
            remedy = "Upgrade fedrec here."
            raise DataError("this pack is newer than this fedrec", remedy=remedy, format=newer, readable=[1, 2])
    raise ValueError("it does not say that it is a model pack")


def _from_one(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had no versions, no signatures and no lengths."""
    files = content.get("files")
    listed = {name: {"sha256": digest} for name, digest in files.items()} if isinstance(files, dict) else files
    absent: dict[str, Any] = {"version": 0, "round": None, "published": "", "signer": "", "layout": []}
    return content | absent | {"files": listed}


def _unreadable(reason: str) -> DataError:
    remedy = "Bring the pack back from a copy, or fetch it again."
    return DataError("a pack's manifest can be read", remedy=remedy, file=MANIFEST, reason=reason)
