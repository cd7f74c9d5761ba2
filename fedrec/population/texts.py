"""What the frozen part of an encoder makes of private texts, once for all simulations of a process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from fedrec.model.adapter import Adapter, TowerInputs


def prepared(adapter: Adapter, device: str, texts: tuple[str, ...]) -> TowerInputs:
    """`adapter.prepare` of private texts; the last answer is kept in memory, and never on disk.

    A study asks again and again about the same people, whatever it trains on top of the frozen part.
    """
    return _prepared(_Asked(adapter.encoder.hash, adapter.blocks, device, texts, adapter))


@dataclass(frozen=True)
class _Asked:
    """Everything that the answer depends on, and who gives it."""

    encoder: str
    blocks: int
    device: str
    texts: tuple[str, ...] = field(repr=False)
    adapter: Adapter = field(compare=False, repr=False)


@lru_cache(maxsize=1)
def _prepared(asked: _Asked) -> TowerInputs:
    return asked.adapter.prepare(asked.texts)
