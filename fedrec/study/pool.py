"""Cells side by side: processes that take one order after the other, and may die of it."""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait as wait_for
from threading import Thread

from fedrec.errors import FedrecError
from fedrec.files import Closing
from fedrec.study.work import Order, work

Finished = Callable[[Order, str], None]  # why it failed, "" if it did not

_DIED = "the process that worked on it died, alone; memory may have run out"


class Pool(Closing):
    """`workers` processes. Each starts torch once, and keeps the data set it was asked about last."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._processes = _Processes(workers)

    def run(self, orders: Sequence[Order], finished: Finished) -> None:
        """Carry out `orders`; each is told of when it ends. One that fails, or kills its process, stops no other."""
        waiting, suspects, flying, alone = deque(orders), deque[Order](), dict[Future[str], Order](), False
        while waiting or suspects or flying:
            if not flying and suspects:
                # Who was there at a death is tried by itself: only then is it known whose death it was.
                order, alone = suspects.popleft(), True
                flying[self._processes.submit(order)] = order
            while waiting and not alone and len(flying) < self._workers:
                order = waiting.popleft()
                flying[self._processes.submit(order)] = order
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            dead = self._told(done, flying, finished)
            if dead and alone:
                finished(dead[0], _DIED)
            else:
                suspects.extend(dead)
            alone = alone and bool(flying)

    def _told(self, done: set[Future[str]], flying: dict[Future[str], Order], finished: Finished) -> list[Order]:
        """Tell of what is `done` and take it out of `flying`; those that were in the air when a process died."""
        for future in done:
            try:
                reason = future.result()
            except BrokenProcessPool:
                dead = list(flying.values())
                flying.clear()
                self._processes.end()
                self._processes = _Processes(self._workers)
                return dead
            finished(flying.pop(future), reason)
        return []

    def close(self) -> None:
        """End the processes; an order that is under way goes on from its last round next time."""
        self._processes.end()


class _Processes:
    """An executor whose processes can be ended."""

    def __init__(self, workers: int) -> None:
        self._others = set(active_children())
        # Forking a process in which torch has threads may hang.
        self._executor = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_settle)

    def submit(self, order: Order) -> Future[str]:
        return self._executor.submit(_attempt, order)

    def end(self) -> None:
        mine = set(active_children()) - self._others
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in mine:
            process.terminate()
            process.join()


def _settle() -> None:
    """Leave Ctrl-C to whoever started this process, and end with it.

    An executor's process does not notice that its parent was killed: it would wait for orders for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        Thread(target=lambda: (wait_for([sentinel]), os._exit(1)), daemon=True).start()


def _attempt(order: Order) -> str:
    """Why the order failed, "" if it did not."""
    note = order.folder / "error.txt"
    try:
        note.unlink(missing_ok=True)  # beside it no run is started
        work(order)
    except FedrecError as error:
        return str(error)
    except Exception as error:  # a bug in one cell must not end the study
        with suppress(OSError):  # the disk may be full
            order.folder.mkdir(parents=True, exist_ok=True)
            note.write_text(traceback.format_exc(), encoding="utf-8")
        return f"{type(error).__name__}: {error} (see error.txt in {order.folder.name})"
    return ""
