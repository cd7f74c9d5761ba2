"""Steps of the wall clock, told from the passing of time."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST = 5.0  # seconds: below that, a clock is set by a time service as it should be
_REMEMBERED = 3600.0


class Steps:
    """Compares a wall clock with one that cannot be set. Not for several threads at once."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._before = (wall(), steady())
        self._found: tuple[float, float] | None = None  # when, on the steady clock, and how far

    def lately(self) -> float:
        """How far the clock was set, in seconds, at the last step that was seen within the hour; 0 without one."""
        wall, steady = self._wall(), self._steady()
        moved = (wall - self._before[0]) - (steady - self._before[1])
        self._before = (wall, steady)
        if abs(moved) >= LEAST:
            self._found = (steady, moved)
        if self._found is None or steady - self._found[0] > _REMEMBERED:
            return 0.0
        return self._found[1]
