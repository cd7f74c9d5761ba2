"""`fedrec data`: list, get and check data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.errors import SpecError

if TYPE_CHECKING:
    from fedrec.datasets.dataset import Dataset
    from fedrec.model.catalogue import Catalogue

data = typer.Typer(name="data", help="List, get and check data sets.", no_args_is_help=True)


class Format(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="Print for people or for programs.")]


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
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE, such as items=items.csv.")
    ] = None,
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
        report = _report(datasets.load(name, path, _options(option or [])))
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if form is Format.JSON else _readable(report))


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
    import pyarrow.compute as pc

    from fedrec.device.history import Kind

    events = loaded.population.table
    counts = np.bincount(events.column("kind").to_numpy(), minlength=len(Kind))
    first, last = (int(pc.min_max(events.column("time"))[end].as_py()) for end in ("min", "max"))
    sizes = np.diff(loaded.population.offsets)
    return {
        "format": loaded.name,
        **_items(loaded.catalogue),
        "users": len(loaded.population),
        "events": events.num_rows,
        "events per user": {"least": int(sizes.min()), "median": float(np.median(sizes)), "most": int(sizes.max())},
        "kinds": {kind.name.lower(): int(counts[kind]) for kind in Kind if counts[kind]},
        "from": datetime.fromtimestamp(first, UTC).isoformat(),
        "to": datetime.fromtimestamp(last, UTC).isoformat(),
        "share of events with text": round(float(pc.mean(pc.not_equal(events.column("text"), "")).as_py()), 4),
        "hash": loaded.hash,
        "notes": [
            {"reason": note.reason, "rows": note.rows, "examples": [place._asdict() for place in note.examples]}
            for note in loaded.notes.entries
        ],
    }


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
