"""Reading a model pack: nothing is used that its manifest does not list, and nothing is unpickled. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_lines import from_lines
from fedrec.model.listed import AGAIN, MOST, bounded, check_files, check_names
from fedrec.model.pack_format import (
    ITEMS,
    MANIFEST,
    MANIFEST_MOST,
    MODEL,
    POPULARITY,
    SENTIMENT,
    SIGNATURE,
    SIGNATURE_BYTES,
    STATEMENTS,
    PackInfo,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Floats = NDArray[np.float32]

_ROUNDED = 1e-3  # how far a sum of float32 numbers may be from 1


@dataclass(frozen=True, eq=False)
class Pack:
    """A verified pack in memory: what a device ranks with.

    `parameters` has the names of the model's layout. `vectors` (item, dim) and `prior` (item,) rank; `centre` (width,)
    and `projection` (width + feature, dim) place a free text among the items. `statements` says who is protected from
    whom, one entry for each adversary. `sentiment` (width + 1,) are the weights of a linear head over the
    encoder's own vectors, its intercept last, and `popularity` (item,) is the share of each item in what people choose,
    of sum 1; None in a pack without them.
    """

    info: PackInfo
    catalogue: Catalogue
    parameters: Mapping[str, Floats]
    vectors: Floats
    prior: Floats
    centre: Floats
    projection: Floats
    statements: tuple[dict[str, Any], ...]
    sentiment: Floats | None = None
    popularity: Floats | None = None

    @property
    def reader(self) -> str:
        """Digest of the portable text encoder that reads a person's texts for this pack, "" if it names none."""
        return self.info.text.encoder

    def __repr__(self) -> str:
        return f"Pack(version {self.info.version}, {len(self.catalogue)} items, {self.info.digest[:12]})"

    def scores(self, contexts: Floats, embedding: Floats) -> Floats:
        """(item,) scores of every item from contexts (decay, dim) of one history and the device's embedding (dim,)."""
        maps = self.parameters["maps"]
        wanted = np.einsum("kd,kde->e", contexts, maps) if maps.ndim == 3 else np.einsum("kd,kd->d", contexts, maps)
        scores: Floats = self.vectors @ (wanted + embedding) + self.prior
        return scores


def verify_pack(folder: Path, public_key: Ed25519PublicKey | None, *, most: int = MOST) -> PackInfo:
    """Refuse with `DataError` whatever is not a whole pack of a format we read, signed by `public_key`.

    Without a key an unsigned pack passes, and a signed one needs the signature of the signer it names: that speaks of
    damage, and not of who made it.
    """
    return read_pack(folder, public_key, most=most).info


def read_pack(folder: Path, public_key: Ed25519PublicKey | None, *, most: int = MOST) -> Pack:
    """The pack in `folder`, verified like `verify_pack`."""
    info = read_manifest(folder, public_key)
    try:
        check_names(folder, {MANIFEST, *info.files, *([SIGNATURE] if info.signer else [])})
        check_files(folder, info.files, most)
        return _loaded(folder, info)
    except OSError as error:
        remedy = "Check the disk and the rights on the folder."
        raise DataError("a pack's files are readable", remedy=remedy, reason=error.strerror) from None


def read_manifest(folder: Path, public_key: Ed25519PublicKey | None) -> PackInfo:
    """The manifest alone, its signature checked: what it lists is not looked at."""
    manifest = bounded(folder / MANIFEST, MANIFEST_MOST)
    signature = bounded(folder / SIGNATURE, SIGNATURE_BYTES) if os.path.lexists(folder / SIGNATURE) else b""
    return signed_manifest(manifest, signature, public_key)


def signed_manifest(manifest: bytes, signature: bytes, public_key: Ed25519PublicKey | None) -> PackInfo:
    """What the bytes of a pack.json say, once those of its pack.sig (b"" if there is none) are checked."""
    # A key that is pinned is asked before anything is parsed.
    if public_key is not None:
        _check_signature(public_key, signature, manifest)
    info = PackInfo.of(manifest)
    if public_key is None and info.signer:
        _check_signature(_key(info.signer), signature, manifest)
    if public_key is not None and info.signer != public_key.public_bytes_raw().hex():
        raise DataError("a pack names whoever signed it", remedy=AGAIN, signer=info.signer[:12] or "nobody")
    return info


# An app that brings an unsigned pack along opens it without the package cryptography.
def _key(signer: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))


def _check_signature(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> None:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        remedy = "Use packs of the site whose key is given here; if this is one of them, fetch it again."
        raise DataError("a pack is signed by its site", remedy=remedy, key=key.public_bytes_raw().hex()[:12]) from None


def _loaded(folder: Path, info: PackInfo) -> Pack:
    catalogue = _catalogue(folder, info)
    features = catalogue.features.shape[1]
    items, parameters = _tensors(folder / ITEMS), _tensors(folder / MODEL)
    _check_shapes(items, info.item_shapes(features))
    info.check_parameters({name: value.shape for name, value in parameters.items()}, features)
    _check_agreement(items, parameters)
    return Pack(
        info, catalogue, parameters, statements=_statements(folder / STATEMENTS),
        vectors=items["vectors"], prior=items["prior"], centre=items["centre"], projection=items["projection"],
        sentiment=_extra(folder / SENTIMENT, info, {"weights": (info.encoder.dim + 1,)}),
        popularity=_popularity(folder, info),
    )  # fmt: skip


def _catalogue(folder: Path, info: PackInfo) -> Catalogue:
    path, items = folder / info.catalogue_file, info.catalogue.items
    catalogue = from_lines(path.read_bytes(), items=items) if info.format > 2 else _older(path, items)
    if catalogue.hash != info.catalogue.hash:
        raise DataError("a pack's catalogue is that of its manifest", remedy=AGAIN, found=catalogue.hash[:12])
    return catalogue


def _older(path: Path, items: int) -> Catalogue:
    try:
        from fedrec.model.catalogue_parquet import from_parquet
    except ModuleNotFoundError:
        remedy = "Ask its site to publish it anew, or: pip install pyarrow."
        raise DataError("packs of formats 1 and 2 are read with pyarrow", remedy=remedy, file=path.name) from None
    return from_parquet(path, items=items)


def _popularity(folder: Path, info: PackInfo) -> Floats | None:
    found = _extra(folder / POPULARITY, info, {"popularity": (info.catalogue.items,)})
    if found is not None and not (found.min() > 0 and abs(float(found.sum(dtype=np.float64)) - 1) < _ROUNDED):
        raise DataError("popularities are positive and add up to 1", file=POPULARITY)
    return found


def _extra(path: Path, info: PackInfo, expected: Mapping[str, tuple[int, ...]]) -> Floats | None:
    """The one tensor of a file that not every pack has."""
    if path.name not in info.files:
        return None
    found = _tensors(path)
    shapes = {name: value.shape for name, value in found.items()}
    if shapes != expected:
        raise DataError("what a pack has besides fits its model", file=path.name, found=shapes, expected=dict(expected))
    return next(iter(found.values()))


def _tensors(path: Path) -> dict[str, Floats]:
    """Tensors of a safetensors file: each float32 and finite."""
    tensors = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                kind = file.get_slice(name).get_dtype()
                if kind != "F32":
                    raise DataError("a pack's tensors are float32", file=path.name, tensor=name, dtype=kind)
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise DataError("a pack's tensors can be read", remedy=AGAIN, file=path.name, reason=str(error)) from None
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise DataError("a pack's tensors are finite", file=path.name, tensor=name)
    return tensors


def _check_shapes(tensors: Mapping[str, Floats], expected: Mapping[str, tuple[int, ...]]) -> None:
    found = {name: value.shape for name, value in tensors.items()}
    if found != expected:
        raise DataError("a pack's item vectors are those of its catalogue", found=found, expected=dict(expected))


def _check_agreement(items: Mapping[str, Floats], parameters: Mapping[str, Floats]) -> None:
    """Item vectors and parameters come from one model: what is in both is the same."""
    prior = parameters.get("popularity", np.zeros_like(items["prior"]))
    projection = parameters.get("projection", items["projection"])
    if not (np.array_equal(prior, items["prior"]) and np.array_equal(projection, items["projection"])):
        raise DataError("items and parameters of a pack are of one model", remedy=AGAIN, files=[ITEMS, MODEL])


def _statements(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        claims = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, list) or not claims or not all(isinstance(one, dict) for one in claims):
        raise DataError("a pack states who is protected from whom", remedy=AGAIN, file=path.name)
    return tuple(claims)
