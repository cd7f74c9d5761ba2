"""What users see: names in Python, commands, settings. `python tests/test_surface.py` rewrites their pages."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from pydantic.fields import FieldInfo

import fedrec
from fedrec.cli import app
from fedrec.settings import Section
from fedrec.spec import Plan

ROOT = Path(__file__).parents[1]
CLI = ROOT / "docs" / "cli.md"
PLAN = ROOT / "docs" / "plan.md"
ROW = re.compile(r"^\| `(?P<name>[a-z_.]+)` \| `(?P<default>.*?)` \| (?P<meaning>.+) \|$", re.MULTILINE)

HEAD = """# The command line

Written by `python tests/test_surface.py` from the commands' own help. Exit codes are in [simulate.md](simulate.md).
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups before what is in them."""
    todo: list[tuple[str, click.Command]] = [("fedrec", typer.main.get_command(app))]
    while todo:
        name, command = todo.pop(0)
        yield name, command
        inner = getattr(command, "commands", {})
        todo[:0] = [(f"{name} {own}", child) for own, child in inner.items()]


def cli_page() -> str:
    """docs/cli.md as it must be."""
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands())])


def _section(name: str, command: click.Command) -> str:
    usage = " ".join([name, *command.collect_usage_pieces(click.Context(command))])
    shown = [param for param in command.params if param.name not in ("install_completion", "show_completion")]
    rows = [f"| {_spelt(param)} | {getattr(param, 'help', None) or ''} |" for param in shown]
    table = ["", "| | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## {name}", "", "```", usage, "```", "", command.help or "", *table, ""])


def _spelt(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return f"`{param.make_metavar(click.Context(click.Command('')))}`"
    flag = getattr(param, "is_flag", False)
    kind = "" if flag else " " + param.make_metavar(click.Context(click.Command("")))
    return ", ".join(f"`{option}{kind}`" for option in param.opts).replace("|", "\\|")


def settings(section: type[Section] = Plan, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting, spelt as `--set` takes it."""
    found: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= settings(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def plan_page(page: str) -> str:
    """docs/plan.md with the defaults that fedrec/spec.py gives, as JSON."""

    def current(row: re.Match[str]) -> str:
        field = settings().get(row["name"])
        default = "no such setting" if field is None else json.dumps(field.get_default(call_default_factory=True))
        return f"| `{row['name']}` | `{default}` | {row['meaning']} |"

    return ROW.sub(current, page)


@pytest.mark.parametrize("name", fedrec.__all__)
def test_every_exported_name_exists(name):
    assert getattr(fedrec, name) is not None


def test_exports_are_few_sorted_and_shown():
    assert fedrec.__all__ == sorted(set(fedrec.__all__)) and len(fedrec.__all__) <= 13
    assert set(fedrec.__all__) <= set(dir(fedrec))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        getattr(fedrec, "Recomender")  # noqa: B009


def test_lazy_names_are_the_real_things():
    from fedrec.datasets import load
    from fedrec.model.catalogue import Catalogue

    assert fedrec.load is load and fedrec.Catalogue is Catalogue and fedrec.Plan is Plan


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_has_help(name, command):
    assert command.help, name
    assert [param.name for param in command.params if not getattr(param, "help", None)] == []


def test_the_command_page_is_current():
    assert CLI.read_text(encoding="utf-8") == cli_page(), "run python tests/test_surface.py"


def test_every_command_is_on_the_page():
    assert [name for name, _ in commands() if f"\n## {name}\n" not in cli_page()] == []


def test_the_plan_page_lists_every_setting_once():
    assert [row["name"] for row in ROW.finditer(PLAN.read_text(encoding="utf-8"))] == list(settings())


def test_the_plan_page_shows_the_defaults():
    page = PLAN.read_text(encoding="utf-8")
    assert page == plan_page(page), "run python tests/test_surface.py"


def test_a_wrong_default_would_be_seen():
    assert plan_page("| `federation.rounds` | `39` | x |") != "| `federation.rounds` | `39` | x |"
    assert "no such setting" in plan_page("| `federation.sounds` | `39` | x |")


def test_the_plan_page_names_every_choice():
    meanings = {row["name"]: row["meaning"] for row in ROW.finditer(PLAN.read_text(encoding="utf-8"))}
    for name, field in settings().items():
        for choice in (
            typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
        ):
            assert f"`{choice}`" in meanings[name], (name, choice)


if __name__ == "__main__":
    CLI.write_text(cli_page(), encoding="utf-8")
    PLAN.write_text(plan_page(PLAN.read_text(encoding="utf-8")), encoding="utf-8")
