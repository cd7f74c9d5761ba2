"""Chunks of work on several cores: each in one thread of its own, the results in order."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

_T = TypeVar("_T")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)

Job = Callable[[], _T]


def results(jobs: Iterable[Job[_T]], workers: int) -> Iterator[_T]:
    """What `jobs` give, in their order, so that sums do not depend on which is done first.

    At most one more than there are `workers` is begun or waits to be taken: memory is bounded by so many. Within a job
    torch and BLAS run on one thread; jobs side by side keep cores busier than one job on all of them.
    """
    _keep_freed_memory()
    if workers <= 1:
        yield from (job() for job in jobs)
        return
    waiting: deque[Future[_T]] = deque()
    with one_thread(), _lively():
        try:
            for job in jobs:
                waiting.append(_team(workers).submit(job))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody works on for one who has stopped listening
            for left in waiting:
                left.cancel()
            wait(waiting)


@cache
def _team(workers: int) -> ThreadPoolExecutor:
    """Threads that stay: to start them anew takes milliseconds of each round."""
    return ThreadPoolExecutor(workers, "fedrec", initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # a copied process has none of them
    os.register_at_fork(after_in_child=_team.cache_clear)


@contextmanager
def _lively() -> Iterator[None]:
    """Threads take the interpreter from one another after 0.1 ms.

    A thread that comes back from a product of matrices finds it taken, by one that gives it up for a few microseconds
    at a time: too short to wake up in. By default it waits 5 ms before it insists, in all a tenth of a round.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, 1e-4))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@cache
def _keep_freed_memory() -> None:
    """Ask glibc to keep what a chunk frees for the next one, which wants as much again.

    By default blocks of some MiB go back to the system each time, and zeroing their pages anew is a tenth of a round's
    time, more where threads wait for one another over it. Elsewhere than on glibc nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (AttributeError where mallopt's numbers may mean something else)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 256 << 20)


def give_back_freed_memory() -> None:
    """Ask glibc to return what was freed to the system: after much small work it lies between what is still in use."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """The thread pools of the libraries that came with so many modules: to look for them takes longer than the rest."""
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS on one thread, which always adds in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools(len(sys.modules)).limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
