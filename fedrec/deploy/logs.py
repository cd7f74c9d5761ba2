"""Logs as JSON lines: what happened, where in the code, and counts. Never what somebody wrote, did, or is called.

A line has `ts`, `level`, `process`, `event` and plain figures. Text reaches a line only from our own code: of a
message by somebody else's code only its place is kept, and of an error only its class and where it was raised.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType

from fedrec.errors import FedrecError

LARGEST, KEPT = 10 * 2**20, 5  # bytes of one file, and older ones beside it
WORDS = frozenset({"phase", "reason", "state", "child", "signal"})  # figures that may be words, of ours
REFUSED = frozenset({
    "address", "client", "cohort", "device", "email", "event", "history", "host", "ip", "item", "items", "key", "kind",
    "level", "message", "name", "node", "path", "peer", "process", "query", "rating", "seat", "secret", "text", "time",
    "title", "token", "ts", "url", "user",
})  # fmt: skip

_WORD = re.compile(r"[A-Za-z][A-Za-z ,_-]{0,39}")
_PLACE = re.compile(r"(?P<before>\b\w+[\s=:#]+)?%[-#0 +]*[\d.]*[a-zA-Z]")
_FIGURES = "fedrec_figures"

Figure = bool | int | float | str | None


def note(log: logging.Logger, event: str, figures: Mapping[str, Figure] | None = None, *, level: int = 20) -> None:
    """Log `event`, words of our own code, with public counts. A figure that could be about somebody is left out."""
    log.log(level, event, extra={_FIGURES: dict(figures or {})}, stacklevel=2)


def start_logging(process: str, folder: Path | None = None, *, level: int = logging.INFO) -> None:
    """Send all logs of this process, warnings and fatal errors included, to stderr and to `folder`/`process`.jsonl."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        handlers.append(_file(folder / f"{process}.jsonl"))
    for handler in handlers:
        handler.setFormatter(JsonLines(process))
    logging.basicConfig(handlers=handlers, level=level, force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written must not print what it would have said
    sys.excepthook = _fatal
    threading.excepthook = lambda args: _fatal(args.exc_type, args.exc_value, args.exc_traceback)


class JsonLines(logging.Formatter):
    """One JSON object a line; see the module."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Figure | list[str]] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "process": self.process, "event": _event(record),
        }  # fmt: skip
        figures, left_out = _figures(getattr(record, _FIGURES, {}))
        line |= figures
        if left_out:
            line["left_out"] = left_out
        if record.exc_info and record.exc_info[0]:
            line |= _error(*record.exc_info)
        return json.dumps(line)


def _event(record: logging.LogRecord) -> str:
    """Our own words with their numbers; of anybody else's, where they come from."""
    if record.name.partition(".")[0] != "fedrec" or not isinstance(record.msg, str):
        return f"{record.name}:{record.lineno}"
    values = iter(record.args if isinstance(record.args, tuple) else ())
    return _PLACE.sub(lambda place: _filled(place["before"] or "", next(values, None)), record.msg)


def _filled(before: str, value: object) -> str:
    """A place of a message with its value; the number of a node or a client is somebody's."""
    if before.rstrip(" =:#").lower() in REFUSED:
        return f"{before}…"
    return before + _shown(value)


def _shown(value: object) -> str:
    """Numbers, errors by their class, and what the code itself has named: classes and members of an `Enum`."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, BaseException):
        return " ".join(filter(None, (type(value).__name__, getattr(value, "code", ""))))
    return "…"


def _figures(given: Mapping[str, object]) -> tuple[dict[str, Figure], list[str]]:
    """The figures that may be written, and the names of the others."""
    kept = {name: value for name, value in given.items() if _harmless(name, value)}
    return kept, sorted(set(given) - set(kept))  # type: ignore[return-value]


def _harmless(name: str, value: object) -> bool:
    if REFUSED & set(name.lower().split("_")):
        return False
    if isinstance(value, str):
        return name in WORDS and _WORD.fullmatch(value) is not None
    return value is None or (isinstance(value, bool | int | float) and math.isfinite(value))


def _error(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> dict[str, Figure | list[str]]:
    """The class of an error and the line that raised it. What it says may quote a person."""
    found: dict[str, Figure | list[str]] = {"error": kind.__name__ if kind else ""}
    if isinstance(error, FedrecError) and (code := getattr(error, "code", "")):
        found["code"] = code
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace:
        found["at"] = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return found


def _fatal(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("fedrec").critical("the process ends with an error", exc_info=(kind, error or kind(), trace))


class _Private(RotatingFileHandler):
    """A file that its owner alone reads, also once it was rotated."""

    def _open(self) -> TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return open(file, "a", encoding=self.encoding)


def _file(path: Path) -> RotatingFileHandler:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _Private(path, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8")
