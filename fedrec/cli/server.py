"""`fedrec server`: a site that real devices take part in."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedrec.cli.data import Format, FormatOption
from fedrec.cli.simulate import (
    ConfigOption,
    DataOption,
    EpsilonOption,
    ModeOption,
    SeedOption,
    SetOption,
    Wish,
    plan_of,
)
from fedrec.errors import RunError, require
from fedrec.privacy.terms import Mode

if TYPE_CHECKING:
    from fedrec.deploy.site import Prepared, Site
    from fedrec.model.catalogue import Catalogue
    from fedrec.spec import Plan

SiteArgument = Annotated[Path, typer.Argument(help="The site's folder.")]
_PATIENCE = 90.0  # seconds for a server to stop

server = typer.Typer(
    name="server", help="Run a site: real devices take part over TLS, and keep their data.", no_args_is_help=True
)


@server.command()
def init(  # noqa: PLR0913  (one parameter a flag)
    folder: Annotated[Path, typer.Argument(help="A new folder for the site.")],
    host: Annotated[list[str], typer.Option(help="A name or address that devices reach it by; may be given twice.")],
    seats: Annotated[int, typer.Option(help="How many devices may enrol: the population of the plan.", min=3)],
    catalogue: Annotated[
        Path | None, typer.Option(help="The items, Parquet, CSV or JSON lines; instead of those of --data.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    mode: ModeOption = None,
    epsilon: EpsilonOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    port: Annotated[int, typer.Option(help="The port that devices reach it by.")] = 9443,
    operators: Annotated[str, typer.Option(help="Where health, metrics and the status page are.")] = "127.0.0.1:9444",
    superlink: Annotated[int, typer.Option(help="The SuperLink's port, on this machine only.")] = 9445,
    begin: Annotated[float, typer.Option(help="The share of seats that must be online before round 1.")] = 1.0,
    patience: Annotated[float, typer.Option(help="Seconds that each step of a round waits for answers.")] = 120.0,
    front: Annotated[str, typer.Option(help="door: fedrec's own; nginx: you run one, see docs/deploy.md.")] = "door",
) -> None:
    """Make a site: settings, keys, certificates, and the plan that devices will be shown.

    Unless a plan or --mode says otherwise, nothing leaves a device that is not clipped, noised and masked.
    """
    from fedrec.deploy.site import Site, SiteSpec
    from fedrec.settings import checked

    spec = checked(SiteSpec, {
        "hosts": host, "seats": seats, "port": port, "operators": operators, "superlink": superlink, "begin": begin,
        "phase_seconds": patience, "front": front,
    }, "deploy")  # fmt: skip
    wish = Wish(config, data, mode or (None if config else "layered"), epsilon)
    plan = _planned(plan_of(wish, seed, settings), seats, masked=config is None)
    site = Site.create(folder, spec, lambda run: _prepared(run, plan, _items(plan, catalogue)))
    typer.echo((site.task / "statement.txt").read_text(encoding="utf-8"))
    typer.echo(f"{folder} is ready for {seats} devices at {spec.url}.\n")
    typer.echo(f"  fedrec server start {folder}")
    typer.echo(f"  fedrec server invite {folder} --count {seats}")


@server.command()
def start(folder: SiteArgument) -> None:
    """Run the site until Ctrl-C or `fedrec server stop`: its door, its SuperLink, its trainer.

    What ends before its time is started again, and goes on where it was.
    """
    from fedrec.deploy.logs import start_logging
    from fedrec.deploy.supervisor import supervise

    site = _site(folder)
    start_logging("supervisor", site.logs)
    spec = site.spec
    at, number = spec.operators_at
    typer.echo(f"The site is at {spec.url}. Its status: http://{at}:{number}/")
    supervise(site)


@server.command()
def invite(
    folder: SiteArgument,
    count: Annotated[int, typer.Option(help="How many devices to invite.", min=1)] = 1,
    days: Annotated[float | None, typer.Option(help="How long each is good; else as server.toml says.")] = None,
) -> None:
    """Print invitations, one a line. Each is good for one device, once: hand it over on a way that you trust."""
    from fedrec.deploy.roster import Roster

    site = _site(folder)
    with Roster(site.roster, site.spec.seats) as roster:
        for secret in roster.issue(count, seconds=86_400 * (days or site.spec.invitation_days)):
            typer.echo(site.invite(secret).encode())


@server.command()
def status(folder: SiteArgument, form: FormatOption = Format.TEXT) -> None:
    """How the site stands. Exit code 5 if it does not do its work."""
    from fedrec.deploy import board
    from fedrec.deploy.health import judge
    from fedrec.deploy.supervisor import process_of
    from fedrec.deploy.view import SiteView, Standing

    site, spec = _site(folder), _site(folder).spec
    process = process_of(site)
    look = SiteView(site.path, lambda: Standing(seats=spec.seats, enrolled=_enrolled(site), online=0)).look()
    health = judge(look)
    told: dict[str, Any] = {"running": process is not None, "process": process, "at": spec.url} | health.public()
    told |= {"headline": board.headline(look), "enrolled": _enrolled(site), "seats": spec.seats}
    if form is Format.JSON:
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(f"{'running' if process else 'stopped'} at {spec.url}: {told['headline']}")
        typer.echo(f"{told['enrolled']} of {told['seats']} seats are taken")
        for concern in health.concerns:
            typer.echo(f"  {concern.state.word}: {concern.name}: {concern.seen}. {concern.remedy}")
    raise typer.Exit(0 if process else RunError.exit_code)


@server.command()
def stop(folder: SiteArgument) -> None:
    """Stop the site and wait until it has stopped. It goes on where it was when it is started again."""
    from fedrec.deploy.supervisor import process_of

    site = _site(folder)
    process = process_of(site)
    if process is None:
        typer.echo("it does not run")
        return
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while process_of(site) is not None:
        if time.monotonic() > deadline:
            raise RunError("a server stops in time", remedy="Look at its logs, or kill it.", process=process)
        time.sleep(0.1)


@server.command()
def publish(
    folder: SiteArgument,
    after: Annotated[int, typer.Option(help="The last version that devices have, if packs/ was lost.")] = 0,
) -> None:
    """Publish the model as it is now, signed, as the next version that devices are offered."""
    from fedrec.deploy.trainer import publish_model
    from fedrec.task import Task

    site = _site(folder)
    typer.echo(f"version {publish_model(site, Task.open(site.run), after=after)}")


@server.command()
def renew(folder: SiteArgument) -> None:
    """Make a new server certificate for the hosts in server.toml, under the same authority. Devices notice nothing.

    It is used from the next start on.
    """
    from fedrec.deploy.certificates import SERVER, expires, issue_server

    site = _site(folder)
    issue_server(site.keys, site.spec.hosts)
    typer.echo(f"valid until {expires(site.keys / SERVER):%Y-%m-%d}; restart the server to use it")


@server.command()
def revoke(
    folder: SiteArgument, seat: Annotated[int, typer.Argument(help="The seat's number, as its device shows it.", min=0)]
) -> None:
    """Shut a device out for good. Its seat is not given again, and its part in models that are published stays."""
    from fedrec.deploy.roster import Roster
    from fedrec.exchange.superlink import unregister

    site = _site(folder)
    with Roster(site.roster, site.spec.seats) as roster:
        node = roster.nodes().get(seat)
        roster.revoke(seat)
    if node is not None:
        unregister(f"127.0.0.1:{site.spec.superlink}", site.ca, node)
    typer.echo(f"seat {seat} is shut out")


@server.command()
def nginx(folder: SiteArgument) -> None:
    """Print what an nginx in front of the site is configured with."""
    from fedrec.deploy.nginx import config

    typer.echo(config(_site(folder)))


def _site(folder: Path) -> Site:
    from fedrec.deploy.site import Site

    return Site.open(folder.absolute())


def _enrolled(site: Site) -> int:
    from fedrec.deploy.roster import Roster

    with Roster(site.roster, site.spec.seats) as roster:
        return len(roster.nodes())


def _planned(plan: Plan, seats: int, *, masked: bool) -> Plan:
    """The plan of a population of `seats`; shares of noise go behind masks unless a plan file says otherwise."""
    cohort = min(plan.federation.cohort, seats)
    settings: dict[str, object] = {"clients": seats, "federation": {"cohort": cohort}}
    if masked and Mode(plan.privacy.mode).shares_noise:
        settings["shares"] = {"masked": True}
    return plan.override(settings)


def _items(plan: Plan, catalogue: Path | None) -> Catalogue:
    from fedrec.model.catalogue_files import read_catalogue
    from fedrec.population.world import dataset_of

    if catalogue is not None:
        return read_catalogue(catalogue)
    require(plan.data.source != "synthetic" or bool(plan.data.options), "a site has items of its own",
            remedy="Give --catalogue FILE, or --data NAME:PATH of a public data set.")  # fmt: skip
    return dataset_of(plan.data).catalogue


def _prepared(folder: Path, plan: Plan, catalogue: Catalogue) -> Prepared:
    """A run folder of the plan, made anew if an earlier try was cut off."""
    from fedrec.deploy.site import Prepared
    from fedrec.deploy.trainer import claims_of
    from fedrec.privacy.statement import written
    from fedrec.runs import Run
    from fedrec.task import PLAN, Task

    task = Task(plan, catalogue)
    task.check_widths()
    if not (folder / PLAN).exists():
        run = Run.create(folder, task, data="")
    else:
        run = Run.open(folder)
        run.check_plan(plan)
    claims = claims_of(task)
    run.write("statement.json", written(claims))
    return Prepared(task.hash, "\n\n".join(claim.text() for claim in claims) + "\n")
