"""A loaded data set: public items, private histories, and notes on what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from fedrec.datasets.notes import Notes
from fedrec.model.catalogue import Catalogue
from fedrec.population.source import People, Population


@dataclass(frozen=True)
class Dataset:
    """A public catalogue, private histories, and what was left out on the way."""

    name: str
    catalogue: Catalogue
    population: People
    notes: Notes = Notes()

    @property
    def hash(self) -> str:
        """SHA-256 over the catalogue's and the population's hashes."""
        return hashlib.sha256((self.catalogue.hash + self.population.hash).encode()).hexdigest()


@dataclass(frozen=True)
class Stream:
    """A data set that is made or read piece by piece. `people` are histories in order, and come once."""

    name: str
    catalogue: Catalogue
    people: Iterable[Population]
    notes: Notes = Notes()

    @classmethod
    def of(cls, dataset: Dataset) -> Stream:
        """A data set that is already loaded."""
        blocks = (block for _, block in dataset.population.blocks())
        return cls(dataset.name, dataset.catalogue, blocks, dataset.notes)
