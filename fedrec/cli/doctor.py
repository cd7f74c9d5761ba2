"""`fedrec doctor`: whether this installation may call itself private, or a deployment may go on the network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrec.cli.data import Format, FormatOption

if TYPE_CHECKING:
    from fedrec.doctor.finding import Finding

Deployment = Annotated[Path | None, typer.Argument(help="A site, or a device's folder; without it, the installation.")]


def doctor(folder: Deployment = None, form: FormatOption = Format.TEXT) -> None:
    """Check what must be right before a run may call itself private. Exit code 4 if privacy depends on what is not.

    Without a folder: packages, network switches, devices, clock, disk, ledgers, keys, noise, coins, the accountant and
    per-example gradients, in fedrec's own folder and in the current one. Of a site: certificates, keys, ledger,
    promises, and what its ports really answer. Of a device's folder: seat, keys, ledger, events, policy and server.
    Trains nothing, and leaves no file behind.
    """
    from fedrec.doctor import examine, require_sound
    from fedrec.files import home

    if folder is not None:
        from fedrec.doctor.deployment import examine_deployment, require_ready

        require_ready(_told(examine_deployment(folder), form))
        return
    require_sound(_told(examine(tuple(dict.fromkeys((home().absolute(), Path.cwd())))), form))


def _told(findings: Iterable[Finding], form: Format) -> tuple[Finding, ...]:
    """All of them, each as soon as it is known."""
    found = []
    for finding in findings:
        found.append(finding)
        if form is Format.TEXT:
            typer.echo(f"{'OK  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.seen}")
            if not finding.ok:
                typer.echo(f"      {finding.remedy}")
    if form is Format.JSON:
        typer.echo(json.dumps([finding.public() for finding in found], indent=2))
    return tuple(found)
