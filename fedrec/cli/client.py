"""`fedrec client`: join a federation, run devices, and see what they gave."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.data import Format, FormatOption
from fedrec.errors import RunError, SpecError

if TYPE_CHECKING:
    from fedrec.deploy.folder import DeviceFolder

client = typer.Typer(name="client", help="Join a federation, and run devices.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="The device's folder.")]
FoldersArgument = Annotated[list[Path], typer.Argument(help="Folders of devices, or folders that hold such folders.")]

_FILES = 1 << 16
_PATIENCE = 60.0  # seconds: a reply under way is finished


@client.command()
def enroll(
    folder: FolderArgument,
    invitation: Annotated[str, typer.Argument(help="What the operator gave you, in quotes; or -.")],
    policy: Annotated[Path | None, typer.Option(help="Your terms, in TOML; see docs/devices.md.")] = None,
) -> None:
    """Take a seat, get the task, and check it against your terms. May be repeated after a failure.

    An invitation on a command line is seen by whoever lists this machine's processes; `-` reads it from standard input.
    Sends a public key, and nothing about you. A task that asks for more than your terms is refused with exit code 4.
    """
    from fedrec.deploy.enrol import enrol
    from fedrec.deploy.folder import POLICY, TASK, DeviceFolder
    from fedrec.device.member import accepted
    from fedrec.device.policy import Policy
    from fedrec.files import write_atomic
    from fedrec.task import Task

    terms = Policy.read(policy) if policy else None
    enrol(folder, sys.stdin.readline() if invitation == "-" else invitation)
    device = DeviceFolder(folder)
    if terms:
        write_atomic(folder / POLICY, terms.to_toml().encode())
    typer.echo(f"{folder}: seat {device.enrolment.seat} at {device.enrolment.server}\n")
    typer.echo((folder / TASK / "statement.txt").read_text(encoding="utf-8"))
    accepted(Task.open(folder / TASK), device.policy)
    typer.echo(f"Your terms admit this. Go on with: fedrec client start {folder}")


@client.command()
def start(folders: FoldersArgument) -> None:
    """Run devices in the foreground, until Ctrl-C or `fedrec client stop`. What is wrong with one stops no other."""
    from threading import Event

    from fedrec.deploy.folder import devices_of
    from fedrec.deploy.host import host

    _many_files()
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop.set())
    host(devices_of(folders), stop, lambda path, words: typer.echo(f"{path}: {words}", err=True))


@client.command()
def status(folders: FoldersArgument, form: FormatOption = Format.TEXT) -> None:
    """Show whether devices run, in which round they came last, and what they gave by their own ledgers."""
    from fedrec.deploy.folder import devices_of

    rows = [_row(device) for device in devices_of(folders)]
    if form is Format.JSON:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        typer.echo("\n".join(_lines(row)))


@client.command()
def stop(folders: FoldersArgument) -> None:
    """End the processes that run these devices, once the replies under way are sent. A process ends as a whole."""
    from fedrec.deploy.folder import devices_of
    from fedrec.deploy.lock import end

    devices = devices_of(folders)
    running = {device: process for device in devices if (process := device.process())}
    for process in set(running.values()):
        end(process)
    for device, process in running.items():
        if not device.ended(_PATIENCE):
            remedy = "Wait, or end the process yourself: nothing is lost."
            raise RunError("a device stops within a minute", remedy=remedy, path=str(device.path), process=process)
    typer.echo(f"stopped: {len(running)}, not running: {len(devices) - len(running)}")


@client.command()
def log(
    folder: FolderArgument,
    events: Annotated[Path, typer.Argument(help="What you did: .csv, .tsv, .jsonl or .parquet; see docs/devices.md.")],
    scale: Annotated[str, typer.Option(help="LOW:HIGH, the range of the ratings.")] = "1:5",
) -> None:
    """Store a person's events on the device: all of the file, or nothing if any of it cannot be used."""
    from fedrec.datasets.table import person
    from fedrec.deploy.folder import TASK, DeviceFolder
    from fedrec.device.act import acts_of
    from fedrec.model.catalogue_files import read_catalogue
    from fedrec.task import CATALOGUE

    with DeviceFolder(folder).events() as store:
        catalogue = read_catalogue(folder / TASK / CATALOGUE)
        acts = acts_of(person(events, catalogue, rating_scale=scale), catalogue.ids)
        store.append(acts)
        typer.echo(f"stored {len(acts):,} events; the device has {len(store):,}")


@client.command()
def forget(
    folder: FolderArgument,
    item: Annotated[str | None, typer.Option(help="Only events about this item.")] = None,
    before: Annotated[str | None, typer.Option(help="Only events from before this day, such as 2026-01-31.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All events.")] = False,  # noqa: FBT002
) -> None:
    """Erase events from the device's file, and all that it has learnt of them. What was spent stays spent."""
    from fedrec.deploy.folder import DeviceFolder

    if everything is (item is not None or before is not None):
        raise SpecError("what to forget is said", remedy="Give --item, --before or both, or --all.")
    with DeviceFolder(folder).events() as store:
        count = store.forget(item=item, before=_midnight(before) if before else None, everything=everything)
        typer.echo(f"forgot {count:,} events; the device has {len(store):,}")


def _many_files() -> None:
    """Open many files if the system lets us: each device has a handful."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _midnight(day: str) -> int:
    from datetime import UTC, datetime

    try:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise SpecError("a day is written YYYY-MM-DD", remedy="For example 2026-01-31.", before=day) from None


def _row(device: DeviceFolder) -> dict[str, Any]:
    """How a device fares; what it gave is read from the ledger itself, which may know more than the last status."""
    own, told = device.enrolment, device.status()
    process = device.process()
    row = {"folder": str(device.path), "seat": own.seat, "server": own.server, "process": process,
           "state": told.get("state", "new") if process else "not running"}  # fmt: skip
    return row | {name: told.get(name) for name in ("round", "error")} | device.given()


def _lines(row: dict[str, Any]) -> list[str]:
    came = f", last in round {row['round']}" if row["round"] else ""
    lines = [f"{row['folder']}: seat {row['seat']} at {row['server']}, {row['state']}{came}"]
    if "participations" in row:
        left = "" if row["left"] is None else f", {row['left']} left"
        lines += [f"  participations: {row['participations']}{left}"]
        lines += [f"  spent: {one['text']}" for one in row["spent"]]
    return [*lines, *([f"  {row['error']}"] if row["error"] else [])]
