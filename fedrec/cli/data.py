"""`fedrec data`: list, get and check data sets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from fedrec.errors import SpecError

if TYPE_CHECKING:
    from fedrec.datasets.dataset import Dataset
    from fedrec.model.catalogue import Catalogue
    from fedrec.population.source import People

data = typer.Typer(name="data", help="List, get, check and shard data sets.", no_args_is_help=True)


class Format(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="Print for people or for programs.")]
ReaderOption = Annotated[list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE, such as items=items.csv.")]


@data.command("list")
def list_(form: FormatOption = Format.TEXT) -> None:
    """Show the data sets fedrec reads, and where each comes from."""
    from fedrec.datasets import NAMES
    from fedrec.datasets.download import BY_HAND, RELEASES, here

    rows = [
        {
            "name": name,
            "here": here(name),
            "size": RELEASES[name].size if name in RELEASES else None,
            "source": RELEASES[name].url if name in RELEASES else BY_HAND[name],
        }
        for name in NAMES
    ]
    if form is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
    for row in rows if form is Format.TEXT else ():
        size = f" ({row['size'] / 1e6:,.1f} MB)" if isinstance(row["size"], int) else ""
        typer.echo(f"{row['name']}{' (here)' if row['here'] else ''}\n    {row['source']}{size}")


@data.command()
def get(
    name: Annotated[str, typer.Argument(help="A data set of `fedrec data list`.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put it, instead of fedrec's own folder.")] = None,
    url: Annotated[str | None, typer.Option(help="A mirror that serves the same bytes.")] = None,
) -> None:
    """Download a data set, resume a download that broke off, and check every byte."""
    from fedrec.datasets import download

    fetched = download.get(name, folder, url)
    release = download.RELEASES[name]
    typer.echo(f"{'downloaded' if fetched.fresh else 'already here, intact'}: {fetched.path}")
    typer.echo(f"size: {fetched.size:,} bytes")
    typer.echo(f"sha256: {fetched.sha256}")
    typer.echo(
        f"checked against: {f'published MD5 {release.md5}' if release.md5 else 'our own record of the first download'}"
    )
    typer.echo(f"terms: {release.terms}")


@data.command()
def check(
    path: Annotated[Path, typer.Argument(help="A file, a folder or a zip archive.")],
    name: Annotated[
        str | None, typer.Option("--as", help="What it is, when that cannot be told from its files.")
    ] = None,
    option: ReaderOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Read a data set and say what is in it and what is wrong with it. Changes nothing."""
    from fedrec import datasets
    from fedrec.datasets.detect import CATALOGUE, detect
    from fedrec.model.catalogue_files import read_catalogue

    name = name or detect(path)
    if name == CATALOGUE:
        report = {"format": name, **_items(read_catalogue(path))}
    else:
        if name == "shards":
            _verify(path)
        report = _report(datasets.load(name, path, _options(option or [])))
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if form is Format.JSON else _readable(report))


@data.command()
def shard(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    source: Annotated[str, typer.Option("--data", help="NAME or NAME:PATH, see `fedrec data list`.")] = "synthetic",
    option: ReaderOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Write a data set as a folder of files that a simulation maps, so that memory does not grow with its people.

    Then `fedrec simulate --data shards:FOLDER`. The synthetic set is written as it is made, however large.
    """
    from fedrec import datasets
    from fedrec.datasets.shards import write

    name, _, path = source.partition(":")
    options, start = _options(option or []), time.monotonic()
    pieces = datasets.pieces(name, Path(path) if path else None, options)
    users = options.get("users", "1000") if name == "synthetic" else None
    with _bar("people", int(users) if users else None) as told:
        manifest = write(pieces, folder, told)
    written = {
        "folder": str(folder), "people": manifest.clients, "events": manifest.events, "files": len(manifest.shards),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()), "hash": manifest.hash,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    typer.echo(json.dumps(written, indent=2) if form is Format.JSON else _readable(written))


def _verify(folder: Path) -> None:
    from fedrec.datasets.shards import verify
    from fedrec.population.shards import Manifest

    with _bar("bytes", sum(part.bytes for part in Manifest.read(folder).shards)) as told:
        verify(folder, told)


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Call what this yields with how many are done; shown on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


def _options(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if any(not equals for _, equals, _ in split):
        raise SpecError("an option is KEY=VALUE", options=pairs)
    return {key: value for key, _, value in split}


def _items(catalogue: Catalogue) -> dict[str, object]:
    return {
        "items": len(catalogue),
        "items with text": sum(bool(text.strip()) for text in catalogue.texts),
        "feature columns": catalogue.features.shape[1],
        "distinct tags": len({tag for tags in catalogue.tags for tag in tags}),
        "catalogue hash": catalogue.hash,
    }


def _report(loaded: Dataset) -> dict[str, object]:
    import numpy as np

    people, content = loaded.population, Content.of(loaded.population)
    sizes = people.sizes
    return {
        "format": loaded.name,
        **_items(loaded.catalogue),
        "users": len(people),
        "events": int(sizes.sum()),
        "events per user": {"least": int(sizes.min()), "median": float(np.median(sizes)), "most": int(sizes.max())},
        "kinds": content.kinds,
        "from": datetime.fromtimestamp(content.first, UTC).isoformat(),
        "to": datetime.fromtimestamp(content.last, UTC).isoformat(),
        "share of events with text": round(content.with_text / int(sizes.sum()), 4),
        "distinct texts": content.texts,
        "hash": loaded.hash,
        "notes": [
            {"reason": note.reason, "rows": note.rows, "examples": [place._asdict() for place in note.examples]}
            for note in loaded.notes.entries
        ],
    }


class Content(NamedTuple):
    """What the events of a data set are, counted."""

    kinds: dict[str, int]
    first: int
    last: int
    with_text: int
    texts: int

    @classmethod
    def of(cls, people: People) -> Content:
        """Everybody's, a block at a time."""
        import numpy as np
        import pyarrow.compute as pc

        from fedrec.device.event import Kind

        counts, with_text, ends = np.zeros(len(Kind), np.int64), 0, list[int]()
        for _, block in people.blocks():
            events = block.table
            counts += np.bincount(events.column("kind").to_numpy(), minlength=len(Kind))
            with_text += int(pc.sum(pc.not_equal(events.column("text"), "")).as_py() or 0)
            extent = pc.min_max(events.column("time"))
            ends += [extent[end].as_py() for end in ("min", "max") if len(events)]
        kinds = {kind.name.lower(): int(counts[kind]) for kind in Kind if counts[kind]}
        return cls(kinds, min(ends), max(ends), with_text, len(people.written()))


def _readable(report: Mapping[str, object]) -> str:
    lines = [f"{key}: {_shown(value)}" for key, value in report.items() if key != "notes"]
    notes = report.get("notes", ())
    for note in notes if isinstance(notes, list) else ():
        lines.append(f"\n{note['rows']:,} × {note['reason']}")
        lines += [f"    {at['file']} row {at['row']}, {at['column']}: {at['value']!r}" for at in note["examples"]]
        if note["examples"] and note["rows"] > len(note["examples"]):
            lines.append(f"    … and {note['rows'] - len(note['examples']):,} more")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value)
