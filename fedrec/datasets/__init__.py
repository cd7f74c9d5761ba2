"""Public data sets and your own, loaded into one shape: a catalogue, a population, and notes on what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.errors import DataError, SpecError, require

if TYPE_CHECKING:
    from fedrec.datasets.dataset import Dataset, Stream

NAMES = ("synthetic", "movielens-100k", "movielens-1m", "movielens-25m", "amazon", "mind", "table", "shards")
SYNTHETIC = ("users", "items", "seed", "phrases")
NO_OPTIONS: Mapping[str, str] = {}


def load(name: str, path: Path | None = None, options: Mapping[str, str] = NO_OPTIONS) -> Dataset:
    """The data set `name` in `path`, or where `fedrec data get NAME` puts it.

    Options: synthetic `users items seed phrases`; amazon `items` (a metadata file); table `items` (needed) and those of
    `fedrec.datasets.table`. Errors: `SpecError` for a name or option we do not know, `DataError` for the files.
    """
    match name:
        case "synthetic":
            from fedrec.datasets import synthetic

            return synthetic.generate(**_synthetic(path, options))
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
        case "shards":
            from fedrec.datasets import shards

            _known(name, options, ())
            return shards.read(_place(name, path))
    raise SpecError(f"a data set is one of {', '.join(NAMES)}", remedy="See `fedrec data list`.", name=name)


def pieces(name: str, path: Path | None = None, options: Mapping[str, str] = NO_OPTIONS) -> Stream:
    """The data set that `load` gives, a piece at a time; memory does not grow with the synthetic one.

    Options and errors are those of `load`.
    """
    if name == "synthetic":
        from fedrec.datasets import synthetic

        return synthetic.stream_of(**_synthetic(path, options))
    from fedrec.datasets.dataset import Stream

    return Stream.of(load(name, path, options))


def _synthetic(path: Path | None, options: Mapping[str, str]) -> dict[str, int]:
    rule, remedy = "the synthetic data set is made, not read", "Leave out the path."
    require(path is None, rule, path=str(path), remedy=remedy)
    return _whole("synthetic", options, SYNTHETIC)


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
