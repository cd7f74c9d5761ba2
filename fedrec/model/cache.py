"""Arrays computed from public texts, kept on disk by the hash of what they were computed from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]

_log = logging.getLogger(__name__)
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype(np.float32), "I64": np.dtype(np.int64)}


def content_key(*parts: str, texts: Sequence[str]) -> str:
    """SHA-256 that names the arrays computed from `texts`; any change of a part, a text or the order changes it."""
    digest = hashlib.sha256()
    for part in (str(len(parts)), *parts, *texts):
        data = part.encode("utf-8", "surrogatepass")
        # The length comes first, so that ["ab", "c"] and ["a", "bc"] differ.
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def remember(folder: Path | None, key: str, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays stored under `key`, or `compute()`, stored for the next time.

    Stored arrays are mapped copy-on-write: they cost memory only where touched, and writing to one
    never reaches the file. An entry that is torn, altered or filed under a wrong name is computed
    again, with a note in the log. Many processes may share the folder. The check is against
    accidents: whoever can write to the folder can forge an entry.
    """
    if folder is None:
        return compute()
    path = folder / f"{key}.safetensors"
    found = _read(path, key)
    if found is None:
        found = compute()
        _write(path, key, found)
    return found


def _read(path: Path, key: str) -> Arrays | None:
    try:
        arrays, promised = _map(path)
        if promised == {"key": key, "sha256": _digest(arrays)}:
            return arrays
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        pass  # a header of random bytes can be any JSON, or none
    _log.warning("cache entry %s is damaged or misplaced; it is computed again", path.name)
    return None


def _map(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a safetensors file, without reading the arrays.

    The file is an 8-byte little-endian length, a JSON header of that length, then the data. The
    safetensors package reads the data into memory; we want it mapped.
    """
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > path.stat().st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(start - 8))
    promised = header.pop("__metadata__")
    return {name: _array(path, start, entry) for name, entry in header.items()}, promised


def _array(path: Path, start: int, entry: Mapping[str, Any]) -> Array:
    dtype = _DTYPES[entry["dtype"]]
    shape: tuple[int, ...] = tuple(entry["shape"])
    if 0 in shape:  # the operating system maps no empty range
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c", offset=start + entry["data_offsets"][0], shape=shape))


def _write(path: Path, key: str, arrays: Arrays) -> None:
    from safetensors.numpy import save_file

    metadata = {"key": key, "sha256": _digest(arrays)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as scratch:
            whole = Path(scratch) / path.name
            save_file(dict(arrays), whole, metadata)
            os.replace(whole, path)
    except OSError as error:  # a full or read-only disk costs time, not the run
        _log.warning("cannot keep a cache entry in %s (%s)", path.parent, error.strerror)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(repr((name, arrays[name].dtype.str, arrays[name].shape)).encode())
        if arrays[name].size:  # an empty view cannot be cast to bytes
            digest.update(np.ascontiguousarray(arrays[name]).data.cast("B"))
    return digest.hexdigest()
