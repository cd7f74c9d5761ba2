"""Which trackers there are beside TensorBoard; light, so that the command line can name them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from importlib.util import find_spec

from fedrec.errors import require


class Service(StrEnum):
    """Trackers that are written on request; each is an extra of fedrec and a module of the same name."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


def check(services: Iterable[Service]) -> None:
    """Refuse a tracker whose package is not installed."""
    for service in services:
        require(find_spec(service) is not None, "a tracker that is asked for is installed",
                remedy=f"Run pip install 'fedrec[{service}]'.", track=str(service))  # fmt: skip
