"""Run a command under GNU time, watch the memory of everything it starts, and say what kind of machine this is."""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from fedrec.errors import require

GNU_TIME = Path("/usr/bin/time")
ROOT = Path(__file__).parents[2]
MEBIBYTE = 1 << 20
_PEAK = re.compile(r"Maximum resident set size \(kbytes\): (\d+)")
_PACKAGES = ("torch", "flwr", "ray", "numpy")


@dataclass(frozen=True)
class Usage:
    """`peak` is the largest resident size of a single process, by GNU time; `tree` that of all, shared pages once."""

    peak: float  # MiB
    tree: float  # MiB, sampled


def watched(command: Sequence[str | Path], log: Path) -> Usage:
    """Run `command` to its end, with its output in `log`; a failure shows the end of that."""
    require(GNU_TIME.exists(), "memory is measured by GNU time", remedy="apt-get install time", path=str(GNU_TIME))
    report = log.with_suffix(".time")
    with log.open("w") as sink:
        timed = [str(GNU_TIME), "-v", "-o", str(report), *map(str, command)]
        process = subprocess.Popen(
            timed, stdout=sink, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True
        )  # fmt: skip
        try:
            tree = _largest(process)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # its own group: nothing stays behind an interrupt
            raise
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{tail}")
    found = _PEAK.search(report.read_text())
    return Usage(int(found[1]) / 1024 if found else float("nan"), tree)


def machine() -> dict[str, object]:
    """What the numbers of a table depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.machine(), "cores": len(os.sched_getaffinity(0)),
        "memory GiB": round(psutil.virtual_memory().total / MEBIBYTE / 1024, 1), "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES}, "torch threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def _environment() -> dict[str, str]:
    """Ours, with fedrec importable; how many threads an engine takes is its own business."""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return kept | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}


def _largest(process: subprocess.Popen[bytes]) -> float:
    largest, done = 0.0, threading.Event()

    def sample() -> None:
        nonlocal largest
        while not done.wait(1.0):
            largest = max(largest, _together(process.pid))

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    process.wait()
    done.set()
    watcher.join()
    return largest


def _together(pid: int) -> float:
    total = 0.0
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return 0.0
    for member in family:
        try:
            total += member.memory_full_info().pss / MEBIBYTE
        except (psutil.Error, AttributeError):
            continue  # it has just ended, or this system does not say
    return total


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def over_people(description: str | None) -> argparse.Namespace:
    """The options of benchmarks over people on disk."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--people", type=Path, help="what `fedrec data shard` wrote, instead of making it")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--out", type=Path, default=ROOT / "simulations" / "results")
    return parser.parse_args()
