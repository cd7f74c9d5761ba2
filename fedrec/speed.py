"""How a simulation is computed, as opposed to what: nothing here may change a result or an ε."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fedrec.errors import require

MEBIBYTE = 1 << 20


class Engine(StrEnum):
    """Who runs a cohort."""

    LOOP = "loop"  # one client after the other, each with a message of its own: the definition
    STACKED = "stacked"  # many clients in one batched computation
    RAY = "ray"  # Flower's Ray engine, whose nodes run `stacked` on a shard each


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Engine, device and working memory; equal plans give equal results up to floating-point tolerance.

    `memory` is what one chunk of a stacked cohort may take, in MiB, beside the model and the shared tables. `threads`
    chunks are worked on side by side: 0 stands for as many as torch has threads, one a core. With more than one of
    `processes`, `stacked` cuts the clients into as many shards, each in a process and a thread of its own. `nodes`
    shards run on the Ray cluster at `address`; 0 and "" stand for as many as there is room for, on this machine alone.
    """

    engine: Engine = Engine.STACKED
    device: str = "cpu"
    memory: int = 32
    threads: int = 0
    processes: int = 1
    nodes: int = 0
    address: str = ""

    def __post_init__(self) -> None:
        require(self.memory >= 1, "a chunk has at least 1 MiB", memory=self.memory)
        require(self.nodes >= 0, "shards are counted from 1; 0 leaves it to the cluster", nodes=self.nodes)
        alone = self.processes <= 1 or self.engine is Engine.STACKED
        require(alone, "processes are shards of the stacked engine", remedy="Leave out --processes, or --engine.",
                engine=str(self.engine), processes=self.processes)  # fmt: skip
        require(self.processes >= 1, "processes are counted from 1", processes=self.processes)
        require(self.threads >= 0, "threads are counted from 1; 0 leaves it to torch", threads=self.threads)

    @property
    def budget(self) -> int:
        """Bytes of one chunk."""
        return self.memory * MEBIBYTE


DEFAULT = Speed()
