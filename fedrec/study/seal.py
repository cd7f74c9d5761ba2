"""Test items are looked at once: every contestant of a run brings one model to them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import DataError
from fedrec.runs import Run

LOOKS = "looks.json"


@dataclass(frozen=True)
class Seal:
    """Which model of each contestant has been measured on the test items of the run in `folder`.

    Whoever picks a round, or a setting, by its test figures has to look twice. That is refused, and remembered. It
    keeps people from mistakes; a forger, who can rewrite every file, it does not stop.
    """

    folder: Path

    @property
    def looks(self) -> dict[str, str]:
        """Contestant → `fingerprint` of its model. `RunError` if the file is torn."""
        return dict(Run(self.folder).read(LOOKS) or {})

    def look(self, arm: str, digest: str) -> None:
        """Note the look before it is taken. The same model may be measured again: a crash may have come between."""
        looks = self.looks
        if looks.setdefault(arm, digest) != digest:
            remedy = "Choose rounds and settings on validation items; a new run has test items of its own to ask."
            raise DataError("test items are asked once, of one model", remedy=remedy, arm=arm, run=str(self.folder))
        Run(self.folder).write(LOOKS, json.dumps(looks, indent=2))


def fingerprint(values: NDArray[np.float32]) -> str:
    """SHA-256 of a model's shared parameters, or of its answers if it has none."""
    return hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()
