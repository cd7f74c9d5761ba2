"""`fedrec server`: a site that real devices take part in."""

from __future__ import annotations

import json
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
    begin: Annotated[
        float | None,
        typer.Option(help="The share of seats that must be online before round 1; else 0.8, or what the plan needs."),
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds that each step of a round waits for answers.")] = 120.0,
    front: Annotated[str, typer.Option(help="door: fedrec's own; nginx: you run one, see docs/deploy.md.")] = "door",
) -> None:
    """Make a site: settings, keys, certificates, and the plan that devices will be shown.

    Unless a plan or --mode says otherwise, nothing leaves a device that is not clipped, noised and masked.
    """
    from fedrec.deploy.site import Site, SiteSpec
    from fedrec.settings import checked

    wish = Wish(config, data, mode or (None if config else "layered"), epsilon)
    plan = _planned(plan_of(wish, seed, settings), seats, masked=config is None)
    spec = checked(SiteSpec, {
        "hosts": host, "seats": seats, "port": port, "operators": operators, "superlink": superlink,
        "begin": _begin(begin, plan), "phase_seconds": patience, "front": front,
    }, "deploy")  # fmt: skip
    site = Site.create(folder, spec, lambda run: _prepared(run, plan, _items(plan, catalogue)))
    typer.echo((site.task / "statement.txt").read_text(encoding="utf-8"))
    typer.echo(f"{folder} is ready for {seats} devices at {spec.url}.\n")
    typer.echo(f"  fedrec server invite {folder} --count {seats}")
    typer.echo(f"  fedrec server start {folder}")


@server.command()
def start(folder: SiteArgument) -> None:
    """Run the site in the foreground until Ctrl-C or `fedrec server stop`: its door, its SuperLink, its trainer.

    What ends before its time is started again, and goes on where it was.
    """
    from fedrec.deploy.logs import start_logging
    from fedrec.deploy.supervisor import supervise

    site = _site(folder)
    start_logging("supervisor", site.logs)
    supervise(site, typer.echo)


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
def withdraw(folder: SiteArgument) -> None:
    """Withdraw all invitations that nobody has used yet. Seats that were taken stay."""
    from fedrec.deploy.roster import Roster

    site = _site(folder)
    with Roster(site.roster, site.spec.seats) as roster:
        typer.echo(f"withdrawn: {roster.withdraw()}")


@server.command()
def status(folder: SiteArgument, form: FormatOption = Format.TEXT) -> None:
    """How the site stands. Exit code 5 if it does not run, or does not do its work."""
    from fedrec.deploy import board
    from fedrec.deploy.health import judge
    from fedrec.deploy.presence import standing
    from fedrec.deploy.supervisor import last_words, process_of
    from fedrec.deploy.view import SiteView, Standing

    site = _site(folder)
    spec, process = site.spec, process_of(site)
    stopped = Standing(seats=spec.seats, enrolled=_enrolled(site), online=0)
    look = SiteView(site.path, lambda: standing(site) if process is not None else stopped).look()
    health = judge(look)
    told: dict[str, Any] = {"running": process is not None, "process": process, "at": spec.url} | health.public()
    told |= {"headline": board.headline(look), "enrolled": stopped.enrolled, "seats": spec.seats}
    said = {child: last_words(site, child) for child, how in look.machine.children.items() if how.faulty}
    told |= {"restarts": look.machine.restarts, "processes": look.machine.children, "said": said}
    if form is Format.JSON:
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(f"{'running' if process else 'stopped'} at {spec.url}: {told['headline']}")
        typer.echo(f"{told['enrolled']} of {told['seats']} seats are taken")
        for name, count in sorted(look.machine.restarts.items()):
            typer.echo(f"  started again: {name}, {count} times; see {site.logs / name}.out")
        for concern in health.concerns:
            typer.echo(f"  {concern.state.word}: {concern.name}: {concern.seen}. {concern.remedy}")
        for child, words in sorted(said.items()):
            if words:
                typer.echo(f"  {child} said: {words}")
    raise typer.Exit(0 if process is not None and health.ready else RunError.exit_code)


@server.command()
def stop(folder: SiteArgument) -> None:
    """Stop the site and wait until it has stopped. It goes on where it was when it is started again."""
    from fedrec.deploy.lock import end
    from fedrec.deploy.supervisor import process_of

    site, asked = _site(folder), 0
    deadline = time.monotonic() + _PATIENCE
    if process_of(site) is None:
        typer.echo("it does not run")
    while (process := process_of(site)) is not None:
        if process != asked:
            end(process)
            asked = process
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
        unregister(site.spec.superlink_at, site.ca, node)
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


def _begin(wish: float | None, plan: Plan) -> float:
    """The share of seats before round 1: no less than have to answer for the noise to be whole."""
    from fedrec.deploy.site import BEGIN

    needed = plan.shares.survivors if Mode(plan.privacy.mode).shares_noise else 0.0
    if wish is None:
        # A cohort drawn in secret is never asked again (P03): one that is too small would end the run.
        return 1.0 if needed and plan.privacy.schedule in ("poisson", "fixed") else max(BEGIN, needed)
    require(wish >= needed, "training begins with as many devices as its shares of noise need",
            remedy="Raise --begin, or plan with fewer: shares.survivors.", begin=wish, survivors=needed)  # fmt: skip
    return wish


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
