"""Files that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Something that `with` closes."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; again is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; after a crash it holds the old bytes or the new, on disk."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync(path.parent)


def settle(fresh: Path, place: Path) -> None:
    """Give a folder of files its place, replacing whatever was there, once all of it is on the disk."""
    for path in (*fresh.iterdir(), fresh):
        sync(path)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    sync(place.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def home() -> Path:
    """Where fedrec keeps data sets and caches: `$FEDREC_HOME`, or `~/.fedrec`."""
    return Path(os.environ.get("FEDREC_HOME", "~/.fedrec")).expanduser()
