"""Public data sets and your own, loaded into one shape: a catalogue, a population, and notes on what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.errors import DataError, SpecError, require

if TYPE_CHECKING:
    from fedrec.datasets.dataset import Dataset

NAMES = ("synthetic", "movielens-100k", "movielens-1m", "movielens-25m", "amazon", "mind", "table")
NO_OPTIONS: Mapping[str, str] = {}


def load(name: str, path: Path | None = None, options: Mapping[str, str] = NO_OPTIONS) -> Dataset:
    """The data set `name` in `path`, or where `fedrec data get NAME` puts it.

    Options: synthetic `users items seed`; amazon `items` (a metadata file); table `items` (needed) and those of
    `fedrec.datasets.table`. Errors: `SpecError` for a name or option we do not know, `DataError` for the files.
    """
    match name:
        case "synthetic":
            from fedrec.datasets import synthetic

            require(
                path is None, "the synthetic data set is made, not read", path=str(path), remedy="Leave out the path."
            )
            return synthetic.generate(**_whole(name, options, ("users", "items", "seed")))
        case "movielens-100k":
            from fedrec.datasets.movielens import movielens_100k

            _known(name, options, ())
            return movielens_100k(_place(name, path))
        case "movielens-1m":
            from fedrec.datasets.movielens import movielens_1m

            _known(name, options, ())
            return movielens_1m(_place(name, path))
        case "movielens-25m":
            from fedrec.datasets.movielens import movielens_25m

            _known(name, options, ())
            return movielens_25m(_place(name, path))
        case "amazon":
            from fedrec.datasets.amazon import amazon

            _known(name, options, ("items",))
            return amazon(_place(name, path), Path(options["items"]) if "items" in options else None)
        case "mind":
            from fedrec.datasets.mind import mind

            _known(name, options, ())
            return mind(_place(name, path))
        case "table":
            from fedrec.datasets import table

            _known(name, options, ("items", *table.OPTIONS))
            require(
                "items" in options, "a table needs a file of items", remedy="Give items=PATH.", options=list(options)
            )
            columns = {option: column for option, column in options.items() if option != "items"}
            return table.table(_place(name, path), Path(options["items"]), columns)
    raise SpecError(f"a data set is one of {', '.join(NAMES)}", remedy="See `fedrec data list`.", name=name)


def _known(name: str, options: Mapping[str, str], known: tuple[str, ...]) -> None:
    unknown = sorted(set(options) - set(known))
    rule = f"the options of {name} are: {', '.join(known) or 'none'}"
    require(not unknown, rule, remedy="Leave the others out.", unknown=unknown)


def _whole(name: str, options: Mapping[str, str], known: tuple[str, ...]) -> dict[str, int]:
    _known(name, options, known)
    for option, value in options.items():
        rule, remedy = f"the option {option} of {name} is a whole number", f"For example {option}=100."
        require(value.strip().isdecimal(), rule, remedy=remedy, value=value)
    return {option: int(value) for option, value in options.items()}


def _place(name: str, path: Path | None) -> Path:
    """`path`, or the default folder; an absent one is a `DataError`."""
    from fedrec.datasets.download import folder_of

    place = folder_of(name) if path is None else path
    if not place.exists():
        remedy = f"Run `fedrec data get {name}`, or give the path." if path is None else "Check the path."
        raise DataError(f"the data set {name} is not here", remedy=remedy, path=str(place))
    return place
