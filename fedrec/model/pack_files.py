"""Reading a model pack: nothing is used that its manifest does not list, and nothing is unpickled. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_format import (
    CATALOGUE,
    FILES,
    ITEMS,
    MANIFEST,
    MANIFEST_MOST,
    MODEL,
    SIGNATURE,
    SIGNATURE_BYTES,
    STATEMENTS,
    Listed,
    PackInfo,
)

Floats = NDArray[np.float32]

MOST = 1 << 30  # bytes of all files of a pack that a reader takes on, unless told otherwise

_AGAIN = "Bring the pack back from a copy, or fetch it again."
_COLUMNS = {"id": pa.string(), "text": pa.string(), "tags": pa.list_(pa.string()), "features": pa.list_(pa.float32())}


@dataclass(frozen=True, eq=False)
class Pack:
    """A verified pack in memory: what a device ranks with.

    `parameters` has the names of the model's layout. `vectors` (item, dim) and `prior` (item,) rank; `centre` (width,)
    and `projection` (width + feature, dim) place a free text among the items. `statements` says who is protected from
    whom, one entry for each adversary.
    """

    info: PackInfo
    catalogue: Catalogue
    parameters: Mapping[str, Floats]
    vectors: Floats
    prior: Floats
    centre: Floats
    projection: Floats
    statements: tuple[dict[str, Any], ...]

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
        _check_names(folder, {MANIFEST, *FILES, *([SIGNATURE] if info.signer else [])})
        _check_files(folder, info.files, most)
        return _loaded(folder, info)
    except OSError as error:
        remedy = "Check the disk and the rights on the folder."
        raise DataError("a pack's files are readable", remedy=remedy, reason=error.strerror) from None


def read_manifest(folder: Path, public_key: Ed25519PublicKey | None) -> PackInfo:
    """The manifest alone, its signature checked: what it lists is not looked at."""
    manifest = _bounded(folder / MANIFEST, MANIFEST_MOST)
    signature = _bounded(folder / SIGNATURE, SIGNATURE_BYTES) if os.path.lexists(folder / SIGNATURE) else b""
    return signed_manifest(manifest, signature, public_key)


def signed_manifest(manifest: bytes, signature: bytes, public_key: Ed25519PublicKey | None) -> PackInfo:
    """What the bytes of a pack.json say, once those of its pack.sig (b"" if there is none) are checked."""
    # A key that is pinned is asked before anything is parsed.
    if public_key is not None:
        _check_signature(public_key, signature, manifest)
    info = PackInfo.of(manifest)
    if public_key is None and info.signer:
        _check_signature(Ed25519PublicKey.from_public_bytes(bytes.fromhex(info.signer)), signature, manifest)
    if public_key is not None and info.signer != public_key.public_bytes_raw().hex():
        raise DataError("a pack names whoever signed it", remedy=_AGAIN, signer=info.signer[:12] or "nobody")
    return info


def _check_signature(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> None:
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        remedy = "Use packs of the site whose key is given here; if this is one of them, fetch it again."
        raise DataError("a pack is signed by its site", remedy=remedy, key=key.public_bytes_raw().hex()[:12]) from None


def _bounded(path: Path, most: int) -> bytes:
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


def _check_names(folder: Path, expected: set[str]) -> None:
    with os.scandir(folder) as entries:
        plain = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if set(plain) != expected or not all(plain.values()):
        odd = sorted((set(plain) ^ expected) | {name for name, is_plain in plain.items() if not is_plain})
        remedy = "Remove what does not belong to it, or fetch it again."
        raise DataError("a pack holds the files of its format, and no others", remedy=remedy, odd=odd[:3])


def _check_files(folder: Path, files: Mapping[str, Listed], most: int) -> None:
    # All lengths come first: what is too much is not read.
    sizes = {name: (folder / name).stat().st_size for name in files}
    if sum(sizes.values()) > most:
        raise DataError("a pack is no larger than its reader allows", bytes=sum(sizes.values()), most=most)
    for name, listed in files.items():
        if listed.bytes not in (None, sizes[name]):
            expected = listed.bytes
            raise DataError("a file has its length", remedy=_AGAIN, file=name, bytes=sizes[name], expected=expected)
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != listed.sha256:
            raise DataError("a file has the hash that the manifest names", remedy=_AGAIN, file=name, found=found[:12])


def _loaded(folder: Path, info: PackInfo) -> Pack:
    catalogue = _catalogue(folder / CATALOGUE, info)
    features = catalogue.features.shape[1]
    items, parameters = _tensors(folder / ITEMS), _tensors(folder / MODEL)
    _check_shapes(items, info.item_shapes(features))
    info.check_parameters({name: value.shape for name, value in parameters.items()}, features)
    _check_agreement(items, parameters)
    return Pack(
        info, catalogue, parameters, statements=_statements(folder / STATEMENTS),
        vectors=items["vectors"], prior=items["prior"], centre=items["centre"], projection=items["projection"],
    )  # fmt: skip


def _catalogue(path: Path, info: PackInfo) -> Catalogue:
    """Read with nothing but Arrow: a device needs no table library, and a pack's columns have exact types."""
    try:
        with pyarrow.parquet.ParquetFile(str(path)) as file:
            _check_columns(file, info.catalogue.items)
            table = file.read()
        if any(column.null_count for column in table.columns):
            raise DataError("a pack's catalogue has no gaps", remedy=_AGAIN)
        ids, texts, tags = (table.column(name).to_pylist() for name in ("id", "text", "tags"))
        catalogue = Catalogue(ids, texts, _features(table), tags)
    except (pa.ArrowException, OSError, TypeError, ValueError, LookupError) as error:
        raise DataError("a pack's catalogue can be read", remedy=_AGAIN, reason=type(error).__name__) from None
    if catalogue.hash != info.catalogue.hash:
        raise DataError("a pack's catalogue is that of its manifest", remedy=_AGAIN, found=catalogue.hash[:12])
    return catalogue


def _check_columns(file: pyarrow.parquet.ParquetFile, items: int) -> None:
    # What the file says of itself comes first: more rows than the manifest has items are not read.
    columns = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    needed = {name: kind for name, kind in _COLUMNS.items() if name in columns or name != "features"}
    rows = file.metadata.num_rows
    if rows != items or columns != needed:
        raise DataError("a pack's catalogue has its items and its columns", items=rows, columns=sorted(columns))


def _features(table: pa.Table) -> Floats:
    if "features" not in table.column_names:
        return np.zeros((len(table), 0), np.float32)
    lists = table.column("features")
    widths = pc.list_value_length(lists).unique().to_pylist()
    if len(widths) != 1:
        raise DataError("all items have equally many features", remedy=_AGAIN, widths=widths[:3])
    return pc.list_flatten(lists).to_numpy().reshape(len(table), -1)  # type: ignore[no-any-return]


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
        raise DataError("a pack's tensors can be read", remedy=_AGAIN, file=path.name, reason=str(error)) from None
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
        raise DataError("items and parameters of a pack are of one model", remedy=_AGAIN, files=[ITEMS, MODEL])


def _statements(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        claims = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, list) or not claims or not all(isinstance(one, dict) for one in claims):
        raise DataError("a pack states who is protected from whom", remedy=_AGAIN, file=path.name)
    return tuple(claims)
