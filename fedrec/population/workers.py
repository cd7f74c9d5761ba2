"""Chunks of work on several cores: each in one thread of its own, the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")

Job = Callable[[], _T]


def results(jobs: Iterable[Job[_T]], workers: int) -> Iterator[_T]:
    """What `jobs` give, in their order, so that sums do not depend on which is done first.

    At most one more than there are `workers` is begun or waits to be taken: memory is bounded by so many. Tensor
    operations within a job run on one thread; large ones side by side keep cores busier than one large one on all.
    """
    if workers <= 1:
        yield from (job() for job in jobs)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    waiting: deque[Future[_T]] = deque()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(before)
