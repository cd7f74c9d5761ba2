"""What a model pack's manifest says: format, version, what it was made from, and the hash of every other file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from fedrec.errors import DataError
from fedrec.model.listed import Digest, Listed
from fedrec.strict import counted, parsed, read, spelled, within

FORMAT = 3  # written; those before it are read too
READABLE = [1, 2, 3]
KIND = "fedrec model pack"

MANIFEST, SIGNATURE = "pack.json", "pack.sig"
CARD, CATALOGUE, ITEMS, MODEL, STATEMENTS = (
    "README.md", "catalogue.jsonl", "items.safetensors", "model.safetensors", "privacy.json",
)  # fmt: skip
FILES = (CARD, CATALOGUE, ITEMS, MODEL, STATEMENTS)
POPULARITY, SENTIMENT = "popularity.safetensors", "sentiment.safetensors"
EXTRAS = (POPULARITY, SENTIMENT)  # in some packs
PARQUET = "catalogue.parquet"  # the catalogue of formats 1 and 2

ENCODERS = "encoders"  # a folder beside the folders of versions: text encoders, called by their digests

LATEST = "latest"  # a file beside the folders of versions, which are called by their numbers

MANIFEST_MOST = 1 << 20  # bytes
SIGNATURE_BYTES = 64  # Ed25519
VERSION_MOST = 10**9 - 1

ADAPTER = "adapter."  # what names of the text tower's tensors begin with

Shape = tuple[int, ...]

_VERSION = re.compile(rb"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Stock:
    """The catalogue: how many items, and `Catalogue.hash`."""

    items: Annotated[int, within(2)]
    hash: Digest


@dataclass(frozen=True)
class Reader:
    """The text encoder that item vectors were made with, and that texts of a person must be read with."""

    name: str
    hash: str
    dim: Annotated[int, within(1)]


@dataclass(frozen=True)
class Words:
    """The portable text encoder that reads a person's texts where there is no torch: SHA-256 of its encoder.json."""

    encoder: Annotated[str, spelled("([0-9a-f]{64})?")] = ""


@dataclass(frozen=True)
class Ranking:
    """Width of a vector, decay of each context, and how many shared parameters there are."""

    dim: Annotated[int, within(1)]
    decays: Annotated[tuple[float, ...], counted(1)]
    parameters: Annotated[int, within(1)]


@dataclass(frozen=True)
class Profile:
    """How much an event counts in a profile: `plan.profile`, see `fedrec.sections.ProfileSpec`."""

    view: float = 0.5
    click: float = 1.0
    like: float = 1.5
    rate: float = 1.0
    search: float = 1.0
    review: float = 1.0
    skip: float = -0.5
    rating: float = 0.0
    text: float = 0.5

    def kinds(self) -> tuple[float, ...]:
        """Weights in the order of `Kind`."""
        return (self.view, self.click, self.like, self.rate, self.search, self.review, self.skip)


@dataclass(frozen=True)
class _Settings:
    """The settings of `plan.model` that decide which tensors there are."""

    maps: Literal["full", "diagonal"] = "full"
    projection: bool = True
    residuals: bool = True
    popularity: bool = True


@dataclass(frozen=True)
class PackInfo:
    """A manifest that was read; after `verify_pack` it is true.

    `version` is 0 and `published` is "" in a pack that was never published, and `signer` (an Ed25519 public key
    in hex) is "" in one that nobody signed. `round` is None where the writer did not say. `layout` is the order of
    parameters in the shared vector, empty in format 1. `text.encoder` is "" where no portable encoder was published.
    `digest` is the SHA-256 of the manifest: it names the pack.
    """

    format: int
    version: Annotated[int, within(0, VERSION_MOST)]
    round: Annotated[int, within(0)] | None
    published: Annotated[str, spelled("([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")]
    signer: Annotated[str, spelled("([0-9a-f]{64})?")]
    task: Digest
    plan: dict[str, Any]
    catalogue: Stock
    encoder: Reader
    ranking: Ranking
    layout: tuple[tuple[str, Shape], ...]
    files: dict[str, Listed]
    digest: Digest
    text: Words = Words()

    @classmethod
    def of(cls, manifest: bytes) -> Self:
        """What the bytes of a pack.json say; what format 1 did not say is filled in."""
        try:
            content = parsed(manifest)
            if not isinstance(content, dict):
                raise ValueError("it is not an object")
            info = read(cls, _current(content) | {"digest": hashlib.sha256(manifest).hexdigest()})
            _ = info._settings, info.profile  # a plan without them would be refused too late
        except ValueError as error:
            raise _unreadable(str(error)) from None
        info._check_files()
        return info

    @cached_property
    def profile(self) -> Profile:
        """What the plan says of events."""
        return read(Profile, self.plan.get("profile", {}))

    @property
    def catalogue_file(self) -> str:
        """Where the catalogue is."""
        return CATALOGUE if self.format > 2 else PARQUET

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
        items, dim, decays = self.catalogue.items, self.ranking.dim, len(self.ranking.decays)
        settings = self._settings
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

    def _check_files(self) -> None:
        needed = set(FILES) - {CATALOGUE} | {self.catalogue_file}
        allowed = needed | (set(EXTRAS) if self.format > 2 else set())
        if not needed <= set(self.files) <= allowed:
            odd = sorted(needed - set(self.files) | set(self.files) - allowed)[:3]
            raise DataError("a pack's manifest lists the files of its format, and no others", odd=odd)

    @cached_property
    def _settings(self) -> _Settings:
        return read(_Settings, self.plan.get("model", {}))


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
            return content | {"text": {}}  # it could not name an encoder
        case 3 if content.get("kind") == KIND:
            return content
        case int(newer) if newer > FORMAT:
            remedy = "Upgrade fedrec here."
            raise DataError("this pack is newer than this fedrec", remedy=remedy, format=newer, readable=READABLE)
    raise ValueError("it does not say that it is a model pack")


def _from_one(content: dict[str, Any]) -> dict[str, Any]:
    """Format 1 had no versions, no signatures and no lengths."""
    files = content.get("files")
    listed = {name: {"sha256": digest} for name, digest in files.items()} if isinstance(files, dict) else files
    absent: dict[str, Any] = {"version": 0, "round": None, "published": "", "signer": "", "layout": [], "text": {}}
    return content | absent | {"files": listed}


def _unreadable(reason: str) -> DataError:
    remedy = "Bring the pack back from a copy, or fetch it again."
    return DataError("a pack's manifest can be read", remedy=remedy, file=MANIFEST, reason=reason)
