"""A loaded data set: public items, private histories, and notes on what was left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedrec.datasets.notes import Notes
from fedrec.model.catalogue import Catalogue
from fedrec.population.source import Population


@dataclass(frozen=True)
class Dataset:
    """A public catalogue, private histories, and what was left out on the way."""

    name: str
    catalogue: Catalogue
    population: Population
    notes: Notes = Notes()

    @property
    def hash(self) -> str:
        """SHA-256 over the catalogue's and the population's hashes."""
        return hashlib.sha256((self.catalogue.hash + self.population.hash).encode()).hexdigest()
