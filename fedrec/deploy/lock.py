"""One process at a time: a file that its holder keeps locked, and that says who it is."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.errors import RunError


@contextmanager
def held(path: Path, rule: str, remedy: str) -> Iterator[None]:
    """Be the process that holds `path`, as long as this lasts; `RunError` of `rule` where another one is."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(file, fcntl.LOCK_EX):
            raise RunError(rule, remedy=remedy, path=str(path.parent), process=_number(file))
        os.ftruncate(file, 0)
        os.pwrite(file, b"%d\n" % os.getpid(), 0)
        yield
        os.ftruncate(file, 0)
    finally:
        os.close(file)


def holder(path: Path) -> int | None:
    """The id of the process that holds `path`, 0 while it is being written; None if nobody does."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _locked(file, fcntl.LOCK_SH) else _number(file)
    finally:
        os.close(file)


def _locked(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(file: int) -> int:
    return int(os.pread(file, 32, 0).strip() or 0)
