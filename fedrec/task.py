"""What a run trains: plan, catalogue and model, all public. Server and devices build it from one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedrec.errors import require
from fedrec.files import home
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import read_catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.model.warm_shares import ALONE, recommended
from fedrec.model.warmstart import WarmStart
from fedrec.privacy.interaction import lone_length
from fedrec.privacy.plan import PrivacyPlan
from fedrec.protection import protection, stands_alone, statistics_noise
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import ServerOptimizer
from fedrec.spec import Plan

PLAN, CATALOGUE = "plan.toml", "catalogue.parquet"


def run_folder(config: Mapping[str, object]) -> Path:
    """The run folder that Flower's run-config names under `run`."""
    folder = Path(str(config.get("run", "")))
    remedy = """Prepare one with `fedrec init FOLDER`, then: flwr run . --run-config 'run="/absolute/FOLDER"'"""
    require(folder.is_absolute(), "Flower trains a run folder with an absolute path", remedy=remedy, run=str(folder))
    return folder


@dataclass(frozen=True, eq=False)
class Task:
    """A resolved plan (its number of clients is known) over a catalogue.

    `device` is where texts are encoded: it changes the model by rounding, and the task not at all.
    """

    plan: Plan
    catalogue: Catalogue
    device: str = "cpu"

    @classmethod
    def open(cls, folder: Path, device: str = "cpu") -> Task:
        """The task of a run folder."""
        return cls(Plan.read(folder / PLAN), read_catalogue(folder / CATALOGUE), device)

    @cached_property
    def model(self) -> Model:
        """The model at its public start."""
        spec, cache = self.plan.model, home() / "cache"
        encoder = open_encoder(spec.encoder, cache=cache, precision=spec.precision, device=self.device)
        return Model.build(self.catalogue, encoder, spec, seed=self.plan.seed)

    @cached_property
    def warm(self) -> WarmStart | None:
        """How a first round of statistics becomes the start of training, None without one."""
        if not self.plan.warm.enabled:
            return None
        return self._warm(statistics_noise(self.privacy, fitted=False) if self.privacy else 0.0)

    @cached_property
    def privacy(self) -> PrivacyPlan | None:
        """The calibrated promise, None in mode `none`. Calibration takes seconds."""

        def sized(noise: float) -> tuple[float, int]:
            warm = self._warm(noise)
            return warm.clip, warm.size

        return protection(self.plan, sized)

    def _warm(self, noise: float) -> WarmStart:
        """The statistics that the noise leaves something of: chosen from public numbers alone."""
        if stands_alone(self.plan):
            return WarmStart(self.model, ALONE, self.plan.clients, lone_length(self.plan.interaction.examples))
        shares = recommended(self.plan.clients, len(self.catalogue), noise).shares
        return WarmStart(self.model, shares.making_room(self.plan.warm.opinions), self.plan.clients)

    @cached_property
    def learner(self) -> Learner:
        """What a server makes of releases."""
        decayed = ~self.model.layout.mask("popularity")
        optimizer = ServerOptimizer(self.plan.federation, decayed)
        return Learner(optimizer, self.model.layout.size, self.plan.rounds, self.warm)

    def check_widths(self) -> float:
        """The largest ratio of noise to clip norm of any round; refuses one that drowns everything unless forced."""
        if self.privacy is None:
            return 0.0
        force = self.plan.privacy.force
        return max(self.privacy.check_width(n, self.learner.width(n), force=force) for n in self.privacy.firsts)

    @cached_property
    def foreseen(self) -> dict[str, Any]:
        """What public numbers say of the noise: its norm over the clip norm, phase by phase, and a warm start's signal.

        The signal is the length of the popularity that everybody agrees on over the noise on it. Empty without noise.
        """
        if self.privacy is None:
            return {}
        firsts = zip(self.privacy.firsts, self.privacy.phases, strict=True)
        ratios = {
            str(phase.purpose): self.privacy.check_width(n, self.learner.width(n), force=True) for n, phase in firsts
        }
        if not self.plan.warm.enabled:
            return {"noise over clip": ratios}
        known = recommended(self.plan.clients, len(self.catalogue), statistics_noise(self.privacy))
        return {"noise over clip": ratios, "signal": known.signal}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that both sides must agree on."""
        parts = [self.plan.hash, self.catalogue.hash, self.model.adapter.encoder.hash, self.model.layout.hash]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
