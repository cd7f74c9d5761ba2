"""Telling every tracker of a run, whatever happens to one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from fedrec.runs import Row, Run
from fedrec.task import Task
from fedrec.tracking.services import Service, check
from fedrec.tracking.story import Story, Tracker
from fedrec.tracking.tensorboard import TensorBoard

_LOG = logging.getLogger(__name__)


@contextmanager
def tracked(run: Run, task: Task, services: Sequence[Service] = ()) -> Iterator[Callable[[Row], None]]:
    """Write the TensorBoard file of `run`, and tell `services`; takes each new row of the metrics.

    A service is told of a private run when it stops: rows that leave one by one would tell how long each round took,
    and so how many people were in it.
    """
    check(services)
    story, late = Story.of(run, task), task.privacy is not None
    told = [_Spared("TensorBoard", partial(TensorBoard, story))]
    for service in dict.fromkeys(services):
        opens = partial(_opened, service, story)
        told.append(_Spared(service, partial(_Late, opens) if late else opens))

    def log(row: Row) -> None:
        for each in told:
            each.log(row)

    finished = False
    try:
        yield log
        finished = True
    finally:
        for each in told:
            each.close(finished=finished)


def _opened(service: Service, story: Story) -> Tracker:
    match service:
        case Service.MLFLOW:
            from fedrec.tracking.mlflow import MLflow

            return MLflow(story)
        case Service.WANDB:
            from fedrec.tracking.wandb import WandB

            return WandB(story)


class _Late:
    """A tracker that is opened when the run stops; it finds all rows in the story."""

    def __init__(self, opens: Callable[[], Tracker]) -> None:
        self._opens = opens

    def log(self, row: Row) -> None:
        pass

    def close(self, *, finished: bool) -> None:
        self._opens().close(finished=finished)


class _Spared:
    """A tracker whose failure is reported once; then it is left out."""

    def __init__(self, name: str, opens: Callable[[], Tracker]) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        with self._sparing():
            self._tracker = opens()

    def log(self, row: Row) -> None:
        with self._sparing():
            if self._tracker:
                self._tracker.log(row)

    def close(self, *, finished: bool) -> None:
        with self._sparing():
            if self._tracker:
                self._tracker.close(finished=finished)

    @contextmanager
    def _sparing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a server, a disk or another's code comes up with
            self._tracker = None
            _LOG.warning("%s failed and is left out, the run goes on: %s", self._name, error)
