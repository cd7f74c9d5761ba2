"""A grid that tells how far each step of a round is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Never

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec.exchange import wire

_NAMES = {wire.HELLO: "hello", wire.TRAIN: "updates", "query.reveal": "unmasking"}


class Step(NamedTuple):
    """One step of a round: how many were asked, and how many have answered so far, whatever they say."""

    phase: str
    round: int
    asked: int
    answered: int


class Watched(Grid):
    """`grid`, whose every step is told to `told` when it begins, and at every answer."""

    def __init__(self, grid: Grid, told: Callable[[Step], None]) -> None:
        self._grid, self._told = grid, told

    def set_run(self, run: Run) -> None:
        """Speak for another run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that the grid speaks for."""
        return self._grid.run

    def create_message(  # noqa: PLR0913  (Flower's signature)
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Never:
        """Deprecated in Flower: make a `Message`."""
        raise NotImplementedError("make a flwr.app.Message")

    def get_node_ids(self) -> Iterable[int]:
        """The nodes on duty."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid does it."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid does it."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """As the grid does it; told of as it goes on."""
        asked = list(messages)
        if not asked:
            return
        kind, group = asked[0].metadata.message_type, asked[0].metadata.group_id
        step = Step(_NAMES.get(kind, kind.removeprefix("query.")), int(group or 0), len(asked), 0)
        self._told(step)
        for answered, reply in enumerate(self._grid.send_and_receive(asked, timeout=timeout), 1):
            self._told(step._replace(answered=answered))
            yield reply
