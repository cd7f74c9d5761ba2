"""What a run trains: plan, catalogue and model, all public. Server and devices build it from one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedrec.errors import require
from fedrec.files import home
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import read_catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.privacy.noise import Level
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.terms import Budget
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
    """A resolved plan (its number of clients is known) over a catalogue."""

    plan: Plan
    catalogue: Catalogue

    @classmethod
    def open(cls, folder: Path) -> Task:
        """The task of a run folder."""
        return cls(Plan.read(folder / PLAN), read_catalogue(folder / CATALOGUE))

    @cached_property
    def model(self) -> Model:
        """The model at its public start."""
        encoder = open_encoder(self.plan.model.encoder, cache=home() / "cache")
        return Model.build(self.catalogue, encoder, self.plan.model, seed=self.plan.seed)

    @cached_property
    def privacy(self) -> PrivacyPlan | None:
        """The calibrated promise, None in mode `none`. Calibration takes seconds."""
        spec, federation, clients = self.plan.privacy, self.plan.federation, self.plan.clients
        if spec.mode == "none":
            return None
        require(
            federation.cohort <= clients, "an expected cohort is at most the population",
            remedy="Lower federation.cohort.", cohort=federation.cohort, clients=clients,
        )  # fmt: skip
        budget = Budget.of(spec.epsilon, clients, delta=spec.delta or None, over_cap=spec.allow_large_epsilon)
        rate = federation.cohort / clients
        return PrivacyPlan.within(budget, rounds=federation.rounds, rate=rate, clip=spec.clip, level=Level(spec.noise))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that both sides must agree on."""
        parts = [self.plan.hash, self.catalogue.hash, self.model.adapter.encoder.hash, self.model.layout.hash]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
