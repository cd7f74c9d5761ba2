"""Files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; after a crash it holds the old bytes or the new, on disk."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def home() -> Path:
    """Where fedrec keeps data sets and caches: `$FEDREC_HOME`, or `~/.fedrec`."""
    return Path(os.environ.get("FEDREC_HOME", "~/.fedrec")).expanduser()
