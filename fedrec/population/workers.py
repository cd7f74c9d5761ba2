"""Chunks of work on several cores: each in one thread of its own, the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

_T = TypeVar("_T")

Job = Callable[[], _T]


def results(jobs: Iterable[Job[_T]], workers: int) -> Iterator[_T]:
    """What `jobs` give, in their order, so that sums do not depend on which is done first.

    At most one more than there are `workers` is begun or waits to be taken: memory is bounded by so many. Within a job
    torch and BLAS run on one thread; jobs side by side keep cores busier than one job on all of them.
    """
    if workers <= 1:
        yield from (job() for job in jobs)
        return
    waiting: deque[Future[_T]] = deque()
    with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS on one thread, which always adds in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
