"""Disks that are full for a while: small file systems in memory, which only root may mount."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulations.deployments.trial import MANY, TEN, Outcome, trial

_SERVER, _DEVICE = "64m", "16m"


def full_server(folder: Path) -> Outcome:
    """Nothing more can be written on the server from the second round on, for 15 seconds."""
    with disk(folder / "site", _SERVER) as place, trial(folder) as run:
        run.at(2, "keys")
        with filled(place):
            time.sleep(15)
        return run.end(400)


def full_device(folder: Path) -> Outcome:
    """One of three hosts cannot write from the second round on. Its devices stay out rather than send unbooked."""
    with disk(folder / "host-1", _DEVICE) as place, trial(folder, TEN, devices=MANY) as run:
        run.at(2, "keys")
        with filled(place):
            return run.end(400)


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(place: Path) -> Iterator[None]:
    """No byte is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()
