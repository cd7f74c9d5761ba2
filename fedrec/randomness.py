"""Seeded randomness, addressed by path. Privacy noise and private cohorts never come from here."""

from __future__ import annotations

import zlib

from numpy.random import Generator, default_rng


def stream(seed: int, *path: int | str) -> Generator:
    """One independent stream per (seed, *path), replayable in any order.

    `stream(7, "cohort", 3)` is the same generator on every machine and in every process.
    """
    words = [zlib.crc32(step.encode()) if isinstance(step, str) else step for step in path]
    return default_rng([seed, *words])
