"""A site as its operators see it: read from files of which any may be missing, old or torn."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrec.deploy.clock import Steps
from fedrec.deploy.glances import Accuracy, Claim, Condition, Course, Glances, Pack
from fedrec.deploy.quick import certificate_dates, ledger_fault

_FRESH = 1.0  # seconds for which a look is shared: nobody makes a server busy by asking how it is

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How many seats a site has, how many are taken, and whose devices were heard of lately.

    Training begins when `begin` of them are online; 0 where that is not known.
    """

    seats: int
    enrolled: int
    online: int
    begin: int = 0


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is public about the run: `rows` are the finished rounds, `planned` is how many there will be.

    `refused` counts updates by reason: of all rounds where everybody may know, else since the trainer was started.
    `spent` are the terms and the ε of what all charges so far cost; None before the first, and without privacy.
    """

    planned: int | None = None
    rows: tuple[Row, ...] = ()
    refused: Counter[str] = field(default_factory=Counter)
    claims: tuple[Claim, ...] = ()
    promises: tuple[str, ...] = ()
    spent: Claim | None = None
    label: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The host below it. `certificate` holds Unix times; `ledger` says what is wrong with it, "" if nothing is.

    `restarts` and `children` are the supervisor's words about the processes that it has started.
    """

    free: int | None = None
    certificate: tuple[float, float] | None = None
    ledger: str = ""
    stepped: float = 0.0
    restarts: dict[str, int] = field(default_factory=dict)
    children: dict[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything at one moment, `at` in Unix seconds. `torn` names the files that could not be read."""

    at: float
    standing: Standing | None = None
    now: Course | None = None
    last: Course | None = None
    training: Training = Training()
    machine: Machine = Machine()
    packs: tuple[Pack, ...] = ()
    accuracy: Accuracy | None = None
    torn: tuple[str, ...] = ()


class SiteView:
    """The site in the folder `path`. Changes nothing there, and reads no key and nobody's data.

    `standing` counts the seats and who is there; if it fails, the counts are missing and nothing else is.
    """

    def __init__(self, path: Path, standing: Callable[[], Standing], *, clock: Callable[[], float] = time.time) -> None:
        self.path, self._standing, self._clock = path, standing, clock
        self._steps = Steps(clock)
        self._turn = threading.Lock()
        self._seen: tuple[float, Look] | None = None
        self._ledger: tuple[object, str] = (None, "")

    def look(self) -> Look:
        """The site now, or as it was up to a second ago."""
        with self._turn:
            if self._seen is None or time.monotonic() - self._seen[0] >= _FRESH:
                self._seen = (time.monotonic(), self._look())
            return self._seen[1]

    def _look(self) -> Look:
        seen = Glances(self.path)
        last = seen.one("state/last.json", Course)
        return Look(
            at=self._clock(), standing=self._count(), now=seen.one("state/round.json", Course), last=last,
            training=_training(seen, last), machine=self._machine(seen), packs=seen.packs(),
            accuracy=seen.one("state/accuracy.json", Accuracy), torn=tuple(sorted(seen.torn)),
        )  # fmt: skip

    def _count(self) -> Standing | None:
        try:
            return self._standing()
        except Exception:  # of a damaged roster or a dead SuperLink: the page that says so must still come
            return None

    def _machine(self, seen: Glances) -> Machine:
        return Machine(
            free=_free(self.path), certificate=certificate_dates(self.path / "keys" / "server.pem"),
            ledger=self._ledger_fault(), stepped=self._steps.lately(), restarts=seen.counts("state/restarts.json"),
            children=seen.conditions("state/children.json"),
        )  # fmt: skip

    def _ledger_fault(self) -> str:
        """Looked at again only when it has changed."""
        run = self.path / "run"
        mark = tuple(_mark(run / name) for name in ("ledger.jsonl", "ledger.jsonl.head", "checkpoint.safetensors"))
        if self._ledger[0] != mark:
            self._ledger = (mark, ledger_fault(run))
        return self._ledger[1]


def _training(seen: Glances, last: Course | None) -> Training:
    manifest, rows = seen.table("run/run.json"), seen.rows("run/metrics.jsonl")
    refused = sum((Counter(counts) for row in rows if (counts := seen.whole(row.get("refused")))), Counter[str]())
    if not refused and last and last.public:
        refused = Counter(last.refused_so_far or {})
    packages = manifest.get("packages")
    promises = manifest.get("promises")
    return Training(
        planned=seen.planned("run/plan.toml"), rows=rows, refused=refused,
        claims=seen.many("run/statement.json", Claim),
        promises=tuple(map(str, promises)) if isinstance(promises, list) else (),
        spent=_spent(seen, rows), label=_label(manifest),
        versions={str(name): str(is_at) for name, is_at in packages.items()} if isinstance(packages, dict) else {},
    )  # fmt: skip


def _spent(seen: Glances, rows: tuple[Row, ...]) -> Claim | None:
    told = [row["spent"] for row in rows if row.get("spent")]
    return seen.checked(told[-1], Claim) if told else None


def _label(manifest: Row) -> str:
    """The mode that a run may claim; "" for a run without a manifest."""
    if "privacy" not in manifest:
        return ""
    privacy = manifest["privacy"]
    return str(privacy.get("label", "non-private")) if isinstance(privacy, dict) else "non-private"


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
