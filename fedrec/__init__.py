"""Privacy-preserving federated recommendation: behaviour text stays on its device.

Importing this package loads nothing else: each name below brings its module with it when it is first used. Catalogue,
Event, Kind, FedrecError, Recommender and AsyncRecommender are for apps and need nothing optional; the rest needs
`fedrec[train]`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedrec.datasets import load
    from fedrec.datasets.dataset import Dataset
    from fedrec.device.event import Event, Kind
    from fedrec.device.history import History
    from fedrec.embed.asynchronous import AsyncRecommender
    from fedrec.embed.recommender import Recommender
    from fedrec.errors import FedrecError
    from fedrec.model.catalogue import Catalogue
    from fedrec.population.simulate import Simulation
    from fedrec.population.source import Population
    from fedrec.spec import Plan

    __version__: str

__all__ = [
    "AsyncRecommender",
    "Catalogue",
    "Dataset",
    "Event",
    "FedrecError",
    "History",
    "Kind",
    "Plan",
    "Population",
    "Recommender",
    "Simulation",
    "__version__",
    "load",
]

_HOMES = {
    "AsyncRecommender": "fedrec.embed.asynchronous",
    "Catalogue": "fedrec.model.catalogue",
    "Dataset": "fedrec.datasets.dataset",
    "Event": "fedrec.device.event",
    "FedrecError": "fedrec.errors",
    "History": "fedrec.device.history",
    "Kind": "fedrec.device.event",
    "Plan": "fedrec.spec",
    "Population": "fedrec.population.source",
    "Recommender": "fedrec.embed.recommender",
    "Simulation": "fedrec.population.simulate",
    "load": "fedrec.datasets",
}

if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that this function knows

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            return version("fedrec")
        if name not in _HOMES:
            raise AttributeError(f"module 'fedrec' has no attribute {name!r}")
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("fedrec"):
                raise
            from fedrec.errors import RunError

            remedy = 'Run: pip install "fedrec[train]"'
            raise RunError(f"fedrec.{name} has what it needs", remedy=remedy, missing=error.name) from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
