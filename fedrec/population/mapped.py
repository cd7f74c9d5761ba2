"""Arrays on disk that are read and written in place, and that memory forgets when it is told to."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from fedrec.errors import RunError

_ROWS = 1 << 16  # filled at a time


class Mapped:
    """A NumPy file of a planned shape. What is written to `array` survives the process, though not a power cut.

    A file takes no more disk than what was ever written to it.
    """

    array: NDArray[Any]
    _map: mmap.mmap

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], *, fill: int = 0) -> None:
        """Open the file at `path`, or make it, full of `fill`. Raises `RunError` for one of another form."""
        if path.exists():
            self._open(open_memmap(path, mode="r+"))
            if self.array.shape != shape or self.array.dtype != dtype:
                raise RunError("device states fit the plan", path=str(path), shape=self.array.shape, expected=shape)
            return
        fresh = path.with_suffix(".new")
        self._open(open_memmap(fresh, mode="w+", dtype=dtype, shape=shape))
        for first in range(0, shape[0] if fill else 0, _ROWS):
            self.array[first : first + _ROWS] = fill
            self.drop()
        fresh.replace(path)

    def drop(self) -> None:
        """Let go of the pages that were touched: a process then grows with its cohorts, not with its population.

        Nothing is lost: the system keeps what was written, and brings it to disk in its own time.
        """
        self._map.madvise(mmap.MADV_DONTNEED)

    def _open(self, file: np.memmap[Any, Any]) -> None:
        assert isinstance(file.base, mmap.mmap)
        self.array, self._map = np.asarray(file), file.base
