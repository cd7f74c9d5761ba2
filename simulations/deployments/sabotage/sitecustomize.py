"""Sabotage of processes that were started with it on their path: each ends, or errs, where a file tells it to.

`$SABOTAGE` names the file. Its first line is in force: `WORD MODULE NAME before|after`, for processes with WORD in
their command line. The process kills itself there, and the line is gone: the next start reads the next one.
`clock SECONDS` shifts what a device signs as the time.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any


def _arm() -> None:
    orders = Path(os.environ["SABOTAGE"])
    line = (orders.read_text().splitlines() or [""])[0].split()
    if not line:
        return
    if line[0] == "clock":
        return _shift(float(line[1]))
    word, module, name, when = line
    if any(word in each for each in sys.orig_argv):
        owner: Any = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, _deadly(getattr(owner, last), orders, when))


def _deadly(function: Any, orders: Path, when: str) -> Any:  # noqa: ANN401  (any function)
    @wraps(function)
    def deadly(*given: Any, **got: Any) -> Any:  # noqa: ANN401
        if when == "after":
            function(*given, **got)
        fresh = orders.with_suffix(".fresh")
        fresh.write_text("\n".join(orders.read_text().splitlines()[1:]))
        fresh.replace(orders)
        os.kill(os.getpid(), signal.SIGKILL)

    return deadly


def _shift(seconds: float) -> None:
    from flwr.supercore import date

    now = date.now
    date.now = lambda: now() + timedelta(seconds=seconds)


if os.environ.get("SABOTAGE"):
    _arm()
