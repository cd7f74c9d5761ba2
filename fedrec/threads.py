"""Work beside other work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def every(seconds: float, step: Callable[[], object]) -> Iterator[None]:
    """Take `step` from a thread, first after so many seconds and then again and again, until the block ends.

    A step under way is waited for. One that raises is the last.
    """
    done = Event()

    def steps() -> None:
        while not done.wait(seconds):
            step()

    thread = Thread(target=steps, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
