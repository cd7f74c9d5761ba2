"""One process at a time: a file that its holder keeps locked, and that says who it is."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.errors import RunError

_GLANCES = 10  # tries at a lock: whoever asks who holds it has it for a moment, too
_GLANCE = 0.02  # seconds between two of them


@contextmanager
def held(path: Path, rule: str, remedy: str) -> Iterator[None]:
    """Be the process that holds `path`, as long as this lasts; `RunError` of `rule` where another one is."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _taken(file):
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


def end(process: int) -> None:
    """Ask the process that holds a lock to end, by `SIGTERM`. 0, who has yet to say who it is, is left alone."""
    if not process:
        return  # to a system call it means this process and all its kin
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has ended by itself
    except PermissionError:
        remedy = "Stop it as the user who started it."
        raise RunError("a process is stopped by its own user", remedy=remedy, process=process) from None


def _taken(file: int) -> bool:
    for _ in range(_GLANCES):
        if _locked(file, fcntl.LOCK_EX):
            return True
        time.sleep(_GLANCE)
    return False


def _locked(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(file: int) -> int:
    return int(os.pread(file, 32, 0).strip() or 0)
