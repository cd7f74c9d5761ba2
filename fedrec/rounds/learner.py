"""What becomes of a release: a warm start in its round, a step of the optimiser in the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedrec.errors import RunError
from fedrec.model.warmstart import WarmStart
from fedrec.rounds.aggregate import Release
from fedrec.rounds.optimizer import Optimum, ServerOptimizer


@dataclass(frozen=True, eq=False)
class Learner:
    """The server's half of learning over `rounds` rounds, from updates of `size` numbers.

    With a `warm` start, round 1 asks for statistics instead of updates.
    """

    optimizer: ServerOptimizer
    size: int
    rounds: int
    warm: WarmStart | None = None

    def width(self, number: int) -> int:
        """How many numbers an update of round `number` holds."""
        return self.warm.size if self.warm and number == 1 else self.size

    def step(self, at: Optimum, release: Release, number: int) -> Optimum:
        """The optimum after round `number`. A warm start is where decay pulls back to from then on."""
        if self.warm and number == 1:
            beside = self.warm.beside(release.mean, release.noise)
            return Optimum.start(self.warm.solve(release.mean, release.noise), beside)
        after = self.optimizer.step(at, release.mean, number - (self.warm is not None))
        if not np.isfinite(after.shared).all():
            raise RunError("the shared model diverged", remedy="Lower the learning rate.", round=number)
        return after
