"""Model, optimiser, round and the digest of the last release, on disk in one atomic step."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedrec.errors import RunError
from fedrec.files import write_atomic
from fedrec.rounds.filter import Tally
from fedrec.rounds.optimizer import Optimum

CHECKPOINT = "checkpoint.safetensors"  # its name in a run folder

_NAMES = ("shared", "first", "second", "anchor")
_BESIDE = "beside."  # what the names of tensors beside these begin with


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands after `round` rounds of `task`; `digest` is that of the round's release.

    `clip` is where an adaptive clip norm stands for the next round, None for the plan's. `tally` lets a
    restarted server tell of a round that it finished but had not told of; None where the cohort is a
    secret.
    """

    round: int
    task: str
    digest: str
    optimum: Optimum
    tally: Tally | None = None
    clip: float | None = None

    def save(self, path: Path) -> None:
        """Replace the checkpoint at `path`; a crash leaves the old one or the new one."""
        tensors = {name: np.ascontiguousarray(getattr(self.optimum, name)) for name in _NAMES}
        tensors |= {_BESIDE + name: np.ascontiguousarray(value) for name, value in self.optimum.beside.items()}
        header = {
            "round": str(self.round), "task": self.task, "digest": self.digest, "tally": _packed(self.tally),
            "clip": "" if self.clip is None else self.clip.hex(),
        }  # fmt: skip
        write_atomic(path, _ordered(save(tensors, metadata=header)))

    @classmethod
    def load(cls, path: Path, task: str) -> Checkpoint | None:
        """The checkpoint at `path`, None if there is none yet. One of another task is refused."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                header = file.metadata() or {}
                beside = {
                    name.removeprefix(_BESIDE): file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118  (it is no dictionary)
                    if name.startswith(_BESIDE)
                }
                optimum = Optimum(**{name: file.get_tensor(name) for name in _NAMES}, beside=beside)
                number, of, digest = int(header["round"]), header["task"], header["digest"]
                tally = _unpacked(header.get("tally", ""))
                clip = float.fromhex(header["clip"]) if header.get("clip") else None
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            remedy = "Bring it back from a copy, or start a new run."
            raise RunError("the checkpoint cannot be read", remedy=remedy, path=str(path), reason=str(error)) from None
        if of != task:
            remedy = "Resume with the plan, data and encoder that the run was started with."
            raise RunError("a checkpoint belongs to one task", remedy=remedy, path=str(path))
        return cls(number, task, digest, optimum, tally, clip)


def _ordered(file: bytes) -> bytes:
    """The same safetensors file with its header sorted: the library's own order changes from run to run."""
    size = int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + file[8 + size :]


def _packed(tally: Tally | None) -> str:
    return "" if tally is None else json.dumps([tally.asked, tally.accepted, dict(sorted(tally.refused.items()))])


def _unpacked(text: str) -> Tally | None:
    if not text:
        return None
    asked, accepted, refused = json.loads(text)
    return Tally(asked, accepted, Counter(refused))
