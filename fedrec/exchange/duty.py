"""Many nodes of one process on duty: cheap while nothing happens, prompt when the server has something to ask."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fedrec.errors import FedrecError, RunError
from fedrec.exchange.fleet import INTERVAL, Answer, Node
from fedrec.randomness import stream

_SLOWEST = 60.0  # seconds between two tries to reach a server that is gone
_TICK = 0.2  # seconds in which `stop` is noticed
_LOG = logging.getLogger(__name__)

_UNASKED = 8  # heartbeats after which a node looks by itself: what rang may have been lost on the way

Bell = Callable[[], bool]
"""Blocks until it rings, or some seconds. False where it was silent for sure: then no message waits."""
Heard = Callable[[Node, FedrecError | None], None]


@dataclass(eq=False)
class _Post:
    """A node, and where it stands."""

    node: Node
    answer: Answer
    active: bool = False
    wanted: bool = False  # is in the queue, or has to go back there
    busy: bool = False
    failures: int = 0
    beats: int = 0
    troubled: bool = True  # nobody was told yet that it is in touch, or since an error


def run_nodes(
    nodes: Sequence[Node], answers: Sequence[Answer], *, bell: Bell, stop: threading.Event,
    heard: Heard = lambda node, error: None,
) -> None:  # fmt: skip
    """Keep nodes on duty until `stop` is set; replies under way are finished, then every node signs off.

    Nodes look for messages when `bell` rings, after an error, and now and then. A look costs the server as much as an
    answer: a thousand nodes that looked with each heartbeat would be all it can do. `heard` is told of every error,
    and of None when a node is in touch again, from several threads; what it raises is logged. A server that is gone is
    tried again, ever more slowly, for as long as it takes.
    """
    duty = _Duty([_Post(node, answer) for node, answer in zip(nodes, answers, strict=True)], stop, heard)
    workers = [threading.Thread(target=duty.work) for _ in range(min(8, len(nodes)))]
    threads = [threading.Thread(target=duty.beat), *workers]
    for thread in threads:
        thread.start()
    threading.Thread(target=duty.listen, args=(bell,), daemon=True).start()  # nobody waits for a bell that is silent
    stop.wait()
    for thread in threads:
        thread.join()
    duty.sign_off()


class _Duty:
    def __init__(self, posts: list[_Post], stop: threading.Event, heard: Heard) -> None:
        self._posts, self._stop, self._heard = posts, stop, heard
        self._queue: deque[_Post] = deque()
        self._changed = threading.Condition()

    def listen(self, bell: Bell) -> None:
        """Have every node look for a message whenever the bell rings."""
        while not self._stop.is_set():
            rang = True
            try:
                rang = bell()
            except Exception as error:  # whatever it is, nodes that look by themselves are better than deaf ones
                _LOG.info("the bell is out of order: %s", error)
                self._stop.wait(1.0)
            for post in self._posts:
                if rang and post.active:
                    self._want(post)

    def beat(self) -> None:
        """Sign on whoever is not, and send heartbeats, spread over time."""
        jitter = stream(time.time_ns(), "heartbeats")
        due = [(time.monotonic(), place) for place in range(len(self._posts))]
        while not self._stop.is_set():
            if due[0][0] > time.monotonic():
                self._stop.wait(min(_TICK, due[0][0] - time.monotonic() + 0.001))
                continue
            place = due[0][1]
            self._report(self._posts[place])
            pause = _pause(self._posts[place]) * jitter.uniform(0.75, 1.0)
            heapq.heapreplace(due, (time.monotonic() + pause, place))

    def work(self) -> None:
        """Look for a message of whoever is in the queue, one node after the other."""
        while (post := self._next()) is not None:
            post.beats = -1  # after an error or an answer the next heartbeat looks again: more may wait
            with self._told(post):
                if not post.node.once(post.answer):
                    post.beats = 0
                self._tell(post, None)
            self._done(post)

    def sign_off(self) -> None:
        """Tell the server, as long as it is there to be told."""
        for post in self._posts:
            try:
                if post.active:
                    post.node.deactivate()
            except RunError:
                return
            except FedrecError as error:
                self._tell(post, error)

    def _report(self, post: _Post) -> None:
        was, well = post.active, False  # it stays active meanwhile: the bell may ring during a heartbeat
        with self._told(post):
            post.failures += 1
            if was:
                post.node.beat()
            else:
                post.node.activate()
            well, post.failures, post.beats = True, 0, post.beats + 1
        post.active = well
        if well and (not was or post.beats % _UNASKED == 0):
            self._want(post)
        if well:
            self._tell(post, None)

    @contextmanager
    def _told(self, post: _Post) -> Iterator[None]:
        """Tell of an error; no node's failure ends the others' duty."""
        try:
            yield
        except FedrecError as error:
            self._tell(post, error)
        except Exception as error:
            _LOG.exception("a node failed")
            self._tell(post, RunError("a node keeps working", reason=type(error).__name__))

    def _tell(self, post: _Post, error: FedrecError | None) -> None:
        """Tell whoever listens: of every error, and once that a node is well (a heartbeat and a look both find that).

        What goes wrong there, a closed terminal say, must not end a thread of ours.
        """
        with self._changed:
            known = error is None and not post.troubled
            post.troubled = error is not None
        if known:
            return
        try:
            self._heard(post.node, error)
        except Exception:
            _LOG.exception("what was heard of a node could not be told")

    def _want(self, post: _Post) -> None:
        with self._changed:
            if not post.wanted and not post.busy:
                self._queue.append(post)
                self._changed.notify()
            post.wanted = True

    def _next(self) -> _Post | None:
        with self._changed:
            while not self._queue and not self._stop.is_set():
                self._changed.wait(_TICK)
            if self._stop.is_set():
                return None
            post = self._queue.popleft()
            post.wanted, post.busy = False, True
            return post

    def _done(self, post: _Post) -> None:
        with self._changed:
            post.busy = False
            if post.wanted:  # the bell rang in the meantime
                self._queue.append(post)
                self._changed.notify()


def _pause(post: _Post) -> float:
    """Seconds until a node is looked after again, at most: well within the server's patience, longer after failures."""
    return min(_SLOWEST, 0.5 * 2.0 ** min(post.failures, 8)) if post.failures else INTERVAL
