"""The arithmetic floor: what the model's own products and its traffic with memory must cost, whoever runs it.

Counted from shapes, in operations and bytes a client, for one step forward and back. A product with one constant factor
counts twice (forward, one way back), any other three times. Clients computed one by one each pay for the catalogue's
way through the tower; in a batch they share it. Rates are measured on this machine in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

FLOAT = 4  # bytes
TRIALS = 15


@dataclass(frozen=True)
class Rates:
    """What this machine reaches on the shapes of the workload: operations and bytes a second."""

    product: float
    copy: float

    @classmethod
    def measured(cls, facts: Mapping[str, float], threads: int) -> Rates:
        """Best of `TRIALS`: of the catalogue's projection or a large square, the faster one, and of a large copy."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        items, width, dim = (int(facts[name]) for name in ("items", "width", "dim"))
        product = max(_product(items, width, dim), _product(1024, 1024, 1024))
        block, into = torch.ones(16 << 20), torch.empty(16 << 20)
        copy = 2 * FLOAT * block.numel() / _best(lambda: into.copy_(block))
        torch.set_num_threads(before)
        return cls(product, copy)


@dataclass(frozen=True)
class Floor:
    """Work a client."""

    operations: float
    bytes: float

    @classmethod
    def of(cls, facts: Mapping[str, float], passes: float) -> Floor:
        """Of a workload's means, where the catalogue goes so many times through the tower in a round."""
        every = passes / facts["cohort"]
        texts = facts["items"] * every + facts["texts"]
        return cls(texts * _tower(facts) + _head(facts), every * _catalogue_bytes(facts) + _head_bytes(facts))

    def milliseconds(self, rates: Rates) -> float:
        """No faster than the slower of the two."""
        return 1e3 * max(self.operations / rates.product, self.bytes / rates.copy)


def _tower(facts: Mapping[str, float]) -> float:
    """Operations of one text: adapter and projection, or a transformer block with LoRA and projection."""
    width, dim, rank, tokens = (facts[name] for name in ("width", "dim", "rank", "tokens"))
    projected = 3 * 2 * width * dim
    if not tokens:
        return projected + 2 * width * rank * (2 + 3)
    block = tokens * (2 * 12 * width**2 + 2 * 2 * tokens * width)
    return projected + 2 * block  # no gradient of the block's own maps; those of rank r are small beside it


def _head(facts: Mapping[str, float]) -> float:
    """Operations of contexts, context maps and scores; a context holds only what lies before it, half a history."""
    examples, decays, dim = facts["examples"], facts["decays"], facts["dim"]
    contexts = 2 * 2 * decays * facts["products"] / 2 * dim
    maps = 3 * 2 * examples * decays * dim * dim
    return contexts + maps + 3 * 2 * examples * facts["items"] * dim


def _catalogue_bytes(facts: Mapping[str, float]) -> float:
    """The catalogue's vectors read forward and back; the parameters read, their gradient written."""
    read = 2 * facts["items"] * facts["width"] * max(1.0, facts["tokens"])
    return FLOAT * (read + 2 * facts["size"])


def _head_bytes(facts: Mapping[str, float]) -> float:
    """Scores written, read by the softmax, and the same back."""
    return FLOAT * 4 * facts["examples"] * facts["items"]


def _product(rows: int, inner: int, columns: int) -> float:
    left, right = torch.ones(rows, inner), torch.ones(inner, columns)
    return 2 * rows * inner * columns / _best(lambda: left @ right)


def _best(work: Callable[[], object]) -> float:
    took = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)
