"""A run is a folder: what was asked, what it was asked of, what came out, and enough to go on after a crash."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import RunError
from fedrec.files import write_atomic
from fedrec.model.catalogue_files import write_catalogue
from fedrec.privacy.chain import Book
from fedrec.rounds.checkpoint import CHECKPOINT, Checkpoint
from fedrec.spec import Plan
from fedrec.task import CATALOGUE, PLAN, Task

_PACKAGES = ("fedrec", "flwr", "torch", "transformers", "numpy", "pandas", "pyarrow", "dp-accounting", "opacus")

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The folder of one run. Every file in it is written whole or not at all; `metrics.jsonl` only grows."""

    path: Path

    @classmethod
    def create(cls, path: Path, task: Task, *, data: str) -> Run:
        """Start a folder for `task`; `data` is the hash of the data set.

        A folder with a run or anything else in it is left alone; what an interrupted `create` left is replaced.
        """
        if path.is_dir() and any(not _unfinished(entry.name) for entry in path.iterdir()):
            remedy = "Use --resume to go on, or choose another folder."
            raise RunError("a new run needs an empty folder", remedy=remedy, path=str(path))
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_catalogue(task.catalogue, path / CATALOGUE)
            run = cls(path)
            run.write("run.json", json.dumps(_manifest(task, data), indent=2))
            # The plan comes last: a folder that has one is complete.
            run.write(PLAN, task.plan.to_toml())
        except OSError as error:
            remedy, reason = "Choose another folder, or get the right to write there.", error.strerror
            raise RunError("the run folder can be written", remedy=remedy, path=str(path), reason=reason) from None
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run."""
        if not (path / PLAN).is_file():
            raise RunError("a run folder has a plan.toml", remedy="`fedrec runs` lists runs.", path=str(path))
        return cls(path)

    @property
    def manifest(self) -> Row:
        """Hashes, versions and machine."""
        return self.read("run.json") or {}

    @property
    def results(self) -> Row | None:
        """What came out, None while the run is not finished."""
        return self.read("results.json")

    def read(self, name: str) -> Row | None:
        """A JSON file of the run, None if it is not there."""
        try:
            content: Row = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            remedy = "Bring the file back from a copy, or start a new run."
            path = str(self.path / name)
            raise RunError("a run's files are readable", remedy=remedy, path=path, reason=str(error)) from None
        return content

    def read_list(self, name: str) -> list[Row]:
        """A JSON file of the run that holds a list; none if it is not there."""
        rows: Any = self.read(name)
        return list(rows or ())

    def write(self, name: str, text: str) -> None:
        """Replace a text file of the run."""
        write_atomic(self.path / name, text.encode())

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that was changed since the run was started: the manifest speaks of the old one."""
        if self.manifest.get("plan") != plan.hash:
            remedy = "Put plan.toml back as it was, or start a new run with --config."
            raise RunError("a run keeps the plan it was started with", remedy=remedy, path=str(self.path / PLAN))

    def check_data(self, data: str) -> None:
        """Refuse data other than those that the run was started on."""
        if self.manifest.get("data") != data:
            remedy = "Bring back the data set as it was, or start a new run."
            raise RunError("a run resumes on the data it was started on", remedy=remedy, now=data[:12])

    def checkpoint(self, task: Task) -> Checkpoint | None:
        """Where the run stands, None before the first round is over."""
        return Checkpoint.load(self.path / CHECKPOINT, task.hash)

    def model(self, task: Task) -> tuple[int, NDArray[np.float32]]:
        """The last finished round and the shared vector that it left; 0 and the public start before the first."""
        saved = self.checkpoint(task)
        return (saved.round, saved.optimum.shared) if saved else (0, task.model.initial)

    def beside(self, task: Task) -> Mapping[str, NDArray[np.float32]]:
        """What the run's warm start released beside the model, by name."""
        saved = self.checkpoint(task)
        return saved.optimum.beside if saved else {}

    def ledger_head(self, task: Task) -> str:
        """Hash of the ledger's last record, "" where there is none; refuses P16 a model that is not of its release."""
        saved, ledger = self.checkpoint(task), self.path / "ledger.jsonl"
        if task.privacy is None or not (saved or ledger.exists()):
            return ""
        book = Book.read(ledger)
        book.check_export(*((saved.round, saved.digest) if saved else (0, "")))
        return book.head

    def over(self, task: Task) -> bool:
        """Whether the last round is in the checkpoint and was told of: only then its charge is settled for sure."""
        saved, last = self.checkpoint(task), task.plan.rounds
        return saved is not None and saved.round >= last and self.told_last(last)

    def told_last(self, number: int) -> bool:
        """Whether the last row of the metrics is of round `number`."""
        return any(row["round"] == number for row in self.metrics()[-1:])

    def metrics(self) -> list[Row]:
        """One row for each round told so far; a line torn by a crash is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [row for row in map(_parsed, lines) if row is not None]

    def tell(self, row: Mapping[str, Any]) -> None:
        """Append a row, on disk when this returns. A row for a round already told replaces it and all later ones."""
        told = [old for old in self.metrics() if old["round"] < row["round"]]
        lines = [json.dumps(entry) + "\n" for entry in [*told, row]]
        write_atomic(self.path / "metrics.jsonl", "".join(lines).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on the same run."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                remedy = "Wait for it, or stop it."
                raise RunError("one process works on a run", remedy=remedy, path=str(self.path)) from None
            yield


def runs(folder: Path) -> list[Run]:
    """Every run below `folder`, oldest first."""
    found = [Run(plan.parent) for plan in folder.glob(f"*/{PLAN}")]
    return sorted(found, key=lambda run: str(run.manifest.get("created", "")))


def fresh(folder: Path, name: str) -> Path:
    """A path below `folder` that no run has yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    candidates = [folder / f"{name}-{stamp}", *(folder / f"{name}-{stamp}-{n}" for n in range(2, 1000))]
    return next(path for path in candidates if not path.exists())


def _manifest(task: Task, data: str) -> Row:
    promises = task.privacy.promises if task.privacy and task.privacy.private else ()
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "plan": task.plan.hash,
        "data": data,
        "catalogue": task.catalogue.hash,
        "encoder": {"name": task.model.adapter.encoder.name, "hash": task.model.adapter.encoder.hash},
        "task": task.hash,
        "parameters": dict(zip(*_sizes(task), strict=True)),
        "privacy": task.privacy.public() if task.privacy else None,
        "promises": [str(promise.guarantee) for promise in promises],
        "foreseen": task.foreseen,
        "packages": {name: version(name) for name in _PACKAGES},
        "machine": {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()},
    }


def _unfinished(name: str) -> bool:
    return name in (CATALOGUE, "run.json") or name.startswith(".")


def _sizes(task: Task) -> tuple[list[str], list[int]]:
    shapes = task.model.layout.shapes
    sizes = [int(task.model.layout.mask(name).sum()) for name, _ in shapes]
    return ["total", *(name for name, _ in shapes)], [task.model.layout.size, *sizes]


def _parsed(line: str) -> Row | None:
    try:
        row: Row = json.loads(line)
    except ValueError:
        return None
    return row
