"""The `fedrec` command: one file a command, one place where mistakes become messages."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, NoReturn

import typer

from fedrec.cli.audit import audit
from fedrec.cli.client import client
from fedrec.cli.data import data
from fedrec.cli.doctor import doctor
from fedrec.cli.export import export
from fedrec.cli.ledger import ledger
from fedrec.cli.plan import plan
from fedrec.cli.runs import runs
from fedrec.cli.server import server
from fedrec.cli.simulate import init, simulate
from fedrec.cli.sweep import ManyValues, report, sweep
from fedrec.errors import FedrecError, RunError

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    name="fedrec",
    help="Privacy-preserving federated recommendation: behaviour text stays on its device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(simulate)
app.command()(init)
app.command(cls=ManyValues)(sweep)
app.command()(report)
app.command()(plan)
app.command()(doctor)
app.command()(audit)
app.command()(export)
app.add_typer(data)
app.add_typer(runs)
app.add_typer(ledger)
app.add_typer(server)
app.add_typer(client)


def _version(wanted: bool) -> None:  # noqa: FBT001  (typer's signature)
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fedrec {version('fedrec')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,  # noqa: FBT002
) -> None:
    """Options of every command."""


def main() -> None:
    """Run a command. A `FedrecError` is one line and its exit code; Ctrl-C is 130; a bug is a traceback."""
    try:
        app()
    except FedrecError as error:
        _refuse(error)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        remedy = "Make room or get the right to write; a run goes on with --resume."
        _refuse(RunError("the disk takes what is written", remedy=remedy, path=error.filename, reason=error.strerror))
    except KeyboardInterrupt:
        sys.exit(130)


def _refuse(error: FedrecError) -> NoReturn:
    from rich.console import Console

    line = " ".join(f"fedrec: {error}".split())
    Console(stderr=True).print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(error.exit_code)
