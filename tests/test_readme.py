"""What README.md and docs/ say is done: blocks run, commands parse, files exist.

A block may have a note for this test in an HTML comment above it:
`test: add …` appends settings to its `fedrec simulate` and `fedrec init` lines, so that they end in seconds;
`test: file NAME` writes the block to a file; `test: policy` is a device's policy and `test: study` a study, not a plan;
`test: skip, …` says why it is not run here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer

from fedrec.cli import app
from fedrec.device.policy import Policy
from fedrec.spec import Plan
from fedrec.study.design import Study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
READERS = {"policy": Policy, "study": Study}  # of TOML that is no plan
FRAGMENTS = {"data.md", "evaluation.md", "words.md"}  # their examples need data that is not there
BLOCK = re.compile(r"(?:<!-- test: (?P<note>.*?) -->\n)?```(?P<kind>\w+)\n(?P<body>.*?)```", re.DOTALL)
OURS = re.compile(r"\b(?:fedrec|server|client|simulations|tests)/[\w/-]+\.(?:py|toml)\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@dataclass(frozen=True)
class Block:
    kind: str
    body: str
    note: str

    def commands(self) -> list[str]:
        """The lines after a `$`, with `make` replaced by what it runs once everything is installed."""
        lines = [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]
        # Not `make test`: that is what runs this test.
        real = [recipe("run")[-1] if line == "make run" else line for line in lines if line != "make test"]
        extra = self.note.removeprefix("add") if self.note.startswith("add") else ""
        return [line + extra if re.match(r"fedrec (simulate|init)\b", line) else line for line in real]


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(block["kind"], block["body"], block["note"] or "") for block in found]


def recipe(target: str) -> list[str]:
    """What `make target` would run, without the path of the environment."""
    # This may itself run under `make test`, whose flags must not reach the inner make.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "--no-print-directory", "VENV=venv", target]
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    return [line.removeprefix("venv/bin/") for line in done.stdout.splitlines()]


def mentioned(page: Path) -> Iterator[str]:
    """Every `fedrec …` in backticks or after a prompt."""
    text = page.read_text(encoding="utf-8")
    yield from (line for block in blocks(page) for line in block.commands() if line.startswith("fedrec "))
    yield from re.findall(r"(?<!`)`(fedrec [^`\n]+)`(?!`)", BLOCK.sub("", text))


def parse(line: str) -> None:
    """Raise `click.UsageError` unless fedrec would take the command line; a group may be named by itself."""
    command: click.Command = typer.main.get_command(app)
    name, *given = shlex.split(line)
    while isinstance(command, click.Group) and given and not given[0].startswith("-"):
        name, found, given = command.resolve_command(click.Context(command), given)
        assert name and found
        command = found
    flags = {name for param in command.params if getattr(param, "is_flag", False) for name in param.opts}
    if given and given[-1].startswith("-") and given[-1] not in {"-", *flags}:
        given.append("1")  # an option is mentioned without its value
    try:
        if given:
            command.make_context(name, given)
    except click.exceptions.Exit:  # --help and --version end at once
        return


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder in which a reader of the README works."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize("block", blocks(ROOT / "README.md"), ids=lambda block: " ".join(block.body.split()[:3]))
def test_the_readme_runs(block, place, monkeypatch):
    if block.note.startswith("skip"):
        pytest.skip(block.note)
    elif block.note.startswith("file "):
        (place / block.note.removeprefix("file ")).write_text(block.body, encoding="utf-8")
    elif block.kind == "python":
        monkeypatch.chdir(place)
        exec(compile(block.body, "README.md", "exec"), {})
    else:
        assert block.kind == "console", "a block of another kind is not tested"
        shell("\n".join(block.commands()), place)


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_examples_in_the_docs_run(page, place, monkeypatch):
    monkeypatch.chdir(place)
    for block in blocks(page):
        if block.kind == "toml":
            READERS.get(block.note, Plan).from_toml(block.body)
        elif block.kind == "python" and page.name not in FRAGMENTS:
            exec(compile(block.body, page.name, "exec"), {})


def shell(script: str, place: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=place, env=os.environ | {"PATH": path},
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_a_command_that_fails_is_seen(place):
    with pytest.raises(AssertionError, match="rounds"):
        shell("fedrec simulate -s federation.rounds=0\ntrue", place)


def test_the_two_commands_do_what_the_readme_says():
    assert recipe("run")[-1] == "fedrec simulate"
    tools = [line.split()[0] for line in recipe("test")]
    assert tools[-4:] == ["ruff", "ruff", "mypy", "pytest"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_docs_parses(page):
    for line in mentioned(page):
        parse(line)


@pytest.mark.parametrize(
    "line", ["fedrec simulat", "fedrec simulate --rounds 3", "fedrec data git x", "fedrec simulate --epsilon much"]
)
def test_a_command_that_does_not_exist_is_seen(line):
    with pytest.raises(click.UsageError):
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_in_the_docs_exists(page):
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / link for link in LINK.findall(text)]
    named = [ROOT / name for name in OURS.findall(text)]
    assert [str(path) for path in linked + named if not path.exists()] == []


def test_commands_and_files_are_found_at_all():
    assert {"fedrec data check log.csv -o items=items.csv", "fedrec data check"} <= set(mentioned(ROOT / "README.md"))
    assert OURS.findall("see `fedrec/spec.py`, tests/unit/test_spec.py") == [
        "fedrec/spec.py",
        "tests/unit/test_spec.py",
    ]
    assert LINK.findall("[a](docs/a.md) [b](https://b.c) [c](d.md#e)") == ["docs/a.md", "d.md"]
