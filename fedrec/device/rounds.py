"""What a device computes in each round of a task: statistics in a warm start, an update in training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedrec.device.examples import Examples, pieces
from fedrec.device.history import History
from fedrec.device.participation import Exit
from fedrec.device.profile import Events, Tower
from fedrec.device.statistics import statistics
from fedrec.device.training import LocalTraining, Outcome
from fedrec.errors import RunError
from fedrec.privacy.interaction import Blocks, private_statistics
from fedrec.privacy.noise import Level, noise_source
from fedrec.randomness import stream
from fedrec.rounds.aggregate import Turn
from fedrec.spec import ProfileSpec
from fedrec.task import Task


@dataclass(frozen=True, eq=False)
class Holding:
    """What one device may learn from, in the forms that training takes; each is made once. Never leaves the device."""

    history: History
    profile: ProfileSpec
    tower: Tower
    _made: dict[object, object] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return "Holding(contents withheld)"

    @property
    def events(self) -> Events:
        """The whole history."""
        made = self._made.get("events")
        if not isinstance(made, Events):
            made = self._made["events"] = Events.of(self.history, self.profile, self.tower)
        return made

    def examples(self, blocks: Blocks) -> Examples:
        """The history cut into examples that share no event."""
        made = self._made.get(blocks)
        if not isinstance(made, Examples):
            made = self._made[blocks] = Examples.of(self.history, self.profile, self.tower, blocks)
        return made

    def apart(self, blocks: Blocks) -> list[Events]:
        """The same examples, each as a history of its own."""
        return [Events.of(piece, self.profile, self.tower) for piece in pieces(self.history, blocks)]


class DeviceRounds:
    """The work of a device that was set up with `task`, whatever it holds.

    In modes that protect interactions all of it hides each of them: the statistics, the update and the embedding.
    """

    def __init__(self, task: Task, *, hidden: NDArray[np.bool_] | None = None) -> None:
        """`hidden` (item,) marks items that are not yet public."""
        self.task = task
        self.open = LocalTraining(task.model, task.plan.training, hidden=hidden)
        self.inside = task.privacy.interaction if task.privacy else None
        self.noisy = None
        if task.privacy and self.inside and self.inside.terms:
            # Imported here, because Opacus takes seconds and most modes do without it.
            from fedrec.device.private_training import PrivateTraining

            self.noisy = PrivateTraining(
                task.model, task.plan.training, self.inside.terms, hidden=hidden, level=task.privacy.level
            )

    def round(
        self, number: int, at: tuple[NDArray[np.float32], NDArray[np.float32]], holding: Holding, rng: Generator
    ) -> Outcome:
        """The outcome of round `number` from `at`, the shared vector and the device's own embedding.

        In a warm start the outcome's delta are statistics, and the embedding stays.
        """
        shared, embedding = at
        if self.task.warm and number == 1:
            return Outcome(self._statistics(holding, rng).astype(np.float32), embedding)
        if self.noisy:
            return self.noisy.round(shared, embedding, holding.examples(self.noisy.terms.blocks), rng)
        return self.open.round(shared, embedding, holding.events, rng)

    def coins(self, client: int, number: int) -> Generator:
        """What a device draws its examples and rivals from; never noise of a promise."""
        return stream(self.task.plan.seed, "client", number, client)

    def out(self, client: int, turn: Turn, shared: NDArray[np.float32], tower: Tower) -> Exit:
        """A device's way out of a private round: its half of the crossing, with noise of its own if it adds any."""
        privacy = self.task.privacy
        if privacy is None:
            raise RunError("a round without promises has no crossing")
        crossing, width = privacy.crossing(turn.number, turn.clip), self.task.learner.width(turn.number)
        replayed = None if privacy.private else stream(self.task.plan.seed, "share", turn.number, client)
        noise = privacy.noise(replayed) if crossing.share else None

        def idle() -> NDArray[np.floating[Any]]:
            """The update of a device that holds nothing: noise alone, where training adds it."""
            start = (shared, np.zeros(self.task.plan.model.dim, np.float32))
            nothing = Holding(History.of([]), self.task.plan.profile, tower)
            rng = stream(self.task.plan.seed, "idle", turn.number, client)
            return self.round(turn.number, start, nothing, rng).delta

        return Exit(
            cross=lambda update: crossing.send(update, noise), size=width, sent=(crossing.width(width), crossing.dtype),
            idle=idle if privacy.interaction else None,
        )  # fmt: skip

    def rivals(self, holding: Holding, rng: Generator) -> NDArray[np.int64]:
        """Catalogue rows with which one target competes in a step of training. For leak checks."""
        if self.noisy:
            return self.noisy.rivals(holding.examples(self.noisy.terms.blocks), rng)
        return self.open.rivals(holding.events, rng)

    def _statistics(self, holding: Holding, rng: Generator) -> NDArray[np.float64]:
        warm = self.task.warm
        assert warm is not None  # asked for in warm starts only
        terms = self.inside.statistics if self.inside else None
        if terms is None:
            return statistics(warm, holding.events)
        rows = [statistics(warm, events) for events in holding.apart(terms.blocks)]
        level = self.task.privacy.level if self.task.privacy else Level.HARDENED
        noise = noise_source(level, rng if level is Level.TEST else None)
        return private_statistics(np.array(rows).reshape(-1, warm.size), terms, noise)
