"""Data sets as folders of people: written piece by piece, opened without reading, checked byte by byte."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fedrec.datasets.dataset import Dataset, Stream
from fedrec.datasets.notes import Note, Notes
from fedrec.errors import DataError, require
from fedrec.files import write_atomic
from fedrec.model.catalogue_files import read_catalogue, write_catalogue
from fedrec.population.shards import CATALOGUE, MANIFEST, WORDS, Manifest, Shard, Shards
from fedrec.population.source import Population, content_hash, mapped, offsets_of

SHARD = 10_000  # a file is closed once it holds so many clients

Told = Callable[[int], None]
"""Called with how many clients, or bytes, were just dealt with."""


def write(source: Stream, folder: Path, told: Told = lambda clients: None, *, clients: int = SHARD) -> Manifest:
    """A new folder of people. Files hold `clients` people or some more, and memory a few of these files.

    It also holds every distinct free text, in memory while writing and in a file for good. All is written into
    `NAME.unfinished`, which gets its name at the end: a folder is either whole or not there.

    Errors: `SpecError` when the folder is there already, or somebody else's unfinished one is.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    require(not folder.exists(), "people are written into a new folder", folder=str(folder),
            remedy="Give another name, or remove the folder.")  # fmt: skip
    require(not unfinished.exists(), "one process writes a folder of people", found=str(unfinished),
            remedy="It is being written, or was broken off: then remove it.")  # fmt: skip
    unfinished.mkdir(parents=True)
    try:
        manifest = _fill(source, unfinished, told, clients)
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    return manifest


def read(folder: Path) -> Dataset:
    """The data set in a folder of people; its histories stay on disk."""
    people = Shards.open(folder)
    notes = Notes(tuple(Note(reason, rows) for reason, rows in people.manifest.notes))
    return Dataset(people.manifest.name, read_catalogue(folder / CATALOGUE), people, notes)


def verify(folder: Path, told: Told = lambda size: None) -> Manifest:
    """Read every byte: each file has the sum in the manifest, and the events have the hash.

    Errors: `DataError` that names the first file whose bytes changed.
    """
    people = Shards.open(folder)
    for shard in people.manifest.shards:
        found = _sum(folder / shard.file)
        told(shard.bytes)
        if found != shard.sha256:
            remedy = "It was changed or damaged after it was written: write the folder anew."
            got = {"file": str(folder / shard.file), "sha256": found[:12], "expected": shard.sha256[:12]}
            raise DataError("a file of a folder of people has the bytes it was written with", remedy=remedy, **got)
    if _hash(folder, people.manifest.shards) != people.manifest.hash:
        raise DataError(f"{MANIFEST} names the hash of its events", remedy="Write it anew.", folder=str(folder))
    return people.manifest


def _fill(source: Stream, folder: Path, told: Told, clients: int) -> Manifest:
    write_catalogue(source.catalogue, folder / CATALOGUE)
    shards, texts = [], set[str]()
    for number, piece in enumerate(_gathered(source.people, clients)):
        texts.update(piece.written())
        shards.append(_save(piece, folder / f"part-{number:05d}.arrow"))
        told(len(piece))
    pa.parquet.write_table(pa.table({"text": pa.array(sorted(texts), pa.large_string())}), folder / WORDS)
    manifest = Manifest(
        name=source.name, clients=sum(shard.clients for shard in shards), events=sum(shard.events for shard in shards),
        hash=_hash(folder, shards), shards=tuple(shards),
        notes=tuple((note.reason, note.rows) for note in source.notes.entries),
    )  # fmt: skip
    write_atomic(folder / MANIFEST, manifest.json().encode())
    return manifest


def _gathered(pieces: Iterable[Population], clients: int) -> Iterator[Population]:
    """Pieces joined until they hold `clients` people."""
    waiting: list[Population] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= clients:
            yield Population.joined(waiting)
            waiting = []
    if waiting:
        yield Population.joined(waiting)


def _save(piece: Population, path: Path) -> Shard:
    piece.save(path)
    return Shard(path.name, len(piece), piece.table.num_rows, path.stat().st_size, _sum(path))


def _hash(folder: Path, shards: Iterable[Shard]) -> str:
    paths = [folder / shard.file for shard in shards]
    sizes = [np.diff(mapped(path)[1]) for path in paths]
    offsets = offsets_of(np.concatenate([np.zeros(0, np.int64), *sizes]))
    return content_hash(offsets, lambda: (mapped(path)[0] for path in paths))


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
