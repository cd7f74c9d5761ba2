"""A store at rest: sealed with a key of the app, and set aside where it is damaged."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec.device.cells import WrongKey
from fedrec.device.store import Store
from fedrec.errors import DataError
from fedrec.files import sync

_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps next to a file


def encrypt(path: Path, key: bytes) -> None:
    """Seal the store at `path` with 32 random bytes, in place; all of it or, if anything fails, nothing.

    Nothing legible is left in the file; see `fedrec.device.cells` for what still shows. Without the key nobody reads
    it again, the app's maker included. Raises `WrongKey` if it is sealed already.
    """
    with Store(path) as store:
        store.seal(key)


def opened(path: Path, *, key: bytes | None = None) -> tuple[Store, Path | None]:
    """The store at `path`, all of it read; and where its file is now if that was damaged: then the store is a new one.

    A key that does not fit, a disk that refuses and a newer file are no damage: they raise, and all stays as it is.
    """
    try:
        return _sound(path, key), None
    except WrongKey:
        raise
    except DataError:
        with _alone(path):
            return _in_place(path, key)


def quarantine(path: Path) -> Path:
    """Move a damaged store out of the way, with what SQLite keeps beside it; where it is now. Nothing is deleted."""
    aside = _free(path)
    for suffix in (*_BESIDE, ""):  # a journal goes first: beside a new file it would be taken for that file's
        if (found := path.with_name(path.name + suffix)).exists():
            os.rename(found, aside.with_name(aside.name + suffix))
    sync(path.parent)
    return aside


def _in_place(path: Path, key: bytes | None) -> tuple[Store, Path | None]:
    """As `opened`, by the only process that does this: another one may just have made a new file."""
    try:
        return _sound(path, key), None
    except WrongKey:
        raise
    except DataError:
        aside = quarantine(path)
    return Store(path, key=key), aside


def _sound(path: Path, key: bytes | None) -> Store:
    store = Store(path, key=key)
    try:
        store.check()
    except BaseException:
        store.close()
        raise
    return store


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _free(path: Path) -> Path:
    """A name that nothing has yet."""
    day, number = time.strftime("%Y%m%d", time.gmtime()), 0
    while (aside := path.with_name(f"{path.name}.damaged-{day}-{number}")).exists():
        number += 1
    return aside
