"""Many people's histories on disk: a folder of population files, mapped one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from fedrec.device.history import SCHEMA, History
from fedrec.errors import DataError
from fedrec.population.source import Population, check_head, content_hash, mapped, offsets_of

FORMAT = "fedrec people 1"
MANIFEST = "people.json"
CATALOGUE = "catalogue.parquet"
WORDS = "words.parquet"

_AGAIN = "Write the folder anew with `fedrec data shard`."


class Shard(NamedTuple):
    """One file of a folder, as the manifest describes it. `bytes` is its length."""

    file: str
    clients: int
    events: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of people holds. `notes` are (reason, rows) of what was left out when it was written."""

    name: str
    clients: int
    events: int
    hash: str
    shards: tuple[Shard, ...]
    notes: tuple[tuple[str, int], ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of `folder`; a `DataError` if there is none or it is of another version."""
        content = _content(folder)
        if content.get("format") != FORMAT:
            rule, found = f"{MANIFEST} has the format {FORMAT!r}", content.get("format")
            raise DataError(rule, remedy=_AGAIN, folder=str(folder), format=found)
        try:
            return cls(
                name=content["name"], clients=content["clients"], events=content["events"], hash=content["hash"],
                shards=tuple(Shard(**shard) for shard in content["shards"]),
                notes=tuple((reason, rows) for reason, rows in content["notes"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            rule, reason = f"{MANIFEST} is complete", type(error).__name__
            raise DataError(rule, remedy=_AGAIN, folder=str(folder), reason=reason) from None

    def json(self) -> str:
        """The content of the file."""
        fields = {"format": FORMAT, "name": self.name, "clients": self.clients, "events": self.events}
        shards = [shard._asdict() for shard in self.shards]
        return json.dumps(fields | {"hash": self.hash, "notes": self.notes, "shards": shards}, indent=1)


class Shards:
    """People of a folder that `fedrec.datasets.shards.write` made.

    Memory holds 8 bytes a person, and one file of the folder at a time is mapped. The files' lengths and schemas
    are checked when it is opened; their bytes are checked by `fedrec data check`.
    """

    def __init__(self, folder: Path, manifest: Manifest, offsets: NDArray[np.int64]) -> None:
        """`offsets` (client + 1,) count events across files; there may be fewer clients than the manifest has."""
        self.folder, self.manifest, self.offsets = folder, manifest, offsets
        self._first = offsets_of(np.array([shard.clients for shard in manifest.shards], np.int64))
        self._open: tuple[int, Population] | None = None

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """The people of `folder`, not read yet.

        Errors: `DataError` for a file that is missing, has another length or holds something else.
        """
        manifest = Manifest.read(folder)
        sizes = [_checked(folder / shard.file, shard) for shard in manifest.shards]
        people = cls(folder, manifest, offsets_of(np.concatenate([np.zeros(0, np.int64), *sizes])))
        if (len(people), int(people.offsets[-1])) != (manifest.clients, manifest.events):
            raise DataError(
                f"{MANIFEST} counts what its files hold", remedy=_AGAIN, folder=str(folder),
                clients=len(people), counted=manifest.clients,
            )  # fmt: skip
        return people

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, client: int) -> History:
        # A copy: a history that is kept must not keep a whole file mapped.
        return self.take(np.array([client]))[0]

    def __iter__(self) -> Iterator[History]:
        return (history for _, block in self.blocks() for history in block)

    def __repr__(self) -> str:
        return f"Shards({len(self)} clients, {self.offsets[-1]} events, contents withheld)"

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(client,) how many events each history has."""
        return np.diff(self.offsets)

    @cached_property
    def hash(self) -> str:
        """The hash that the same people have in memory: the manifest's, or computed when some were left out."""
        if len(self) == self.manifest.clients:
            return self.manifest.hash
        return content_hash(self.offsets, lambda: (block.table for _, block in self.blocks()))

    def head(self, clients: int) -> Shards:
        """The first `clients` people."""
        check_head(clients, len(self))
        return Shards(self.folder, self.manifest, self.offsets[: clients + 1])

    def take(self, clients: NDArray[np.int64]) -> Population:
        """These clients in this order, copied out of one file after the other; without their names."""
        if len(clients) and not 0 <= clients.min() <= clients.max() < len(self):
            raise IndexError(f"clients are numbers from 0 to {len(self) - 1}")
        files = np.searchsorted(self._first, clients, side="right") - 1
        order = np.argsort(files, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(files[order])) + 1) if len(order) else []
        starts = [int(files[rows[0]]) for rows in groups]
        gathered = Population.joined(
            [self._shard(n).take(clients[rows] - self._first[n]) for n, rows in zip(starts, groups, strict=True)]
        )
        return gathered if (np.diff(order) > 0).all() else gathered.take(np.argsort(order))

    def blocks(self) -> Iterator[tuple[int, Population]]:
        """Everybody in order, in pieces of mapped files, with the number of the first; without names."""
        for number, start in enumerate(self._first[:-1].tolist()):
            if start < len(self):
                inside = self._shard(number).head(min(self.manifest.shards[number].clients, len(self) - start))
                yield from ((start + first, block) for first, block in inside.blocks())

    def written(self) -> list[str]:
        """Every distinct free text of the folder, sorted, whoever of it was left out."""
        try:
            return list(pa.parquet.read_table(self.folder / WORDS).column("text").to_pylist())
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            raise DataError(
                "a folder of people holds their distinct texts", remedy=_AGAIN, file=str(self.folder / WORDS),
                reason=type(error).__name__,
            ) from None  # fmt: skip

    def _shard(self, number: int) -> Population:
        """One file, mapped until another one is asked for."""
        if self._open is None or self._open[0] != number:
            table, offsets = mapped(self.folder / self.manifest.shards[number].file)
            self._open = number, Population(table.replace_schema_metadata(None), offsets, ())
        return self._open[1]


def _checked(path: Path, shard: Shard) -> NDArray[np.int64]:
    """(client,) events of each client of a file that is what the manifest says, as far as its header shows."""
    found = path.stat().st_size if path.is_file() else None
    if found != shard.bytes:
        rule = "a file of a folder of people has the length it was written with"
        raise DataError(rule, remedy=_AGAIN, file=str(path), bytes=found, expected=shard.bytes)
    table, offsets = mapped(path)
    if table.schema.remove_metadata() != SCHEMA or (len(offsets) - 1, len(table)) != (shard.clients, shard.events):
        raise DataError("a file of a folder of people holds what its manifest says", remedy=_AGAIN, file=str(path))
    return np.diff(offsets)


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            "a folder of people has a manifest, which is written last", remedy=_AGAIN,
            file=str(folder / MANIFEST), reason=error.strerror,
        ) from None  # fmt: skip
    except ValueError as error:
        raise DataError(f"{MANIFEST} is JSON", remedy=_AGAIN, folder=str(folder), reason=type(error).__name__) from None
    return content if isinstance(content, dict) else {}
