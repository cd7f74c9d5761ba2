"""Ways to call the `fedrec` command as a person does, on data of a size that trains in a moment."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest
from visitors import entered, example_pack, opened

import fedrec.cli

TINY = {
    "data.options.users": 40,
    "data.options.items": 64,
    "model.encoder": "hash",
    "model.dim": 16,
    "federation.rounds": 3,
    "federation.cohort": 10,
    "evaluation.every": 1,
    "evaluation.baselines": "none",
}


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def flags(settings):
    """Settings as `--set` flags."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="session")
def tiny():
    """Flags of a run that takes a second; more settings go on top."""
    return lambda **over: flags(TINY | {name.replace("__", "."): value for name, value in over.items()})


@pytest.fixture(scope="session")
def shell():
    """The command in a process of its own."""

    def run(*words, cwd=None):
        command = [sys.executable, "-m", "fedrec", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def cli():
    """The command in this process, with what `main` makes of errors."""

    def run(*words):
        out, err, argv = io.StringIO(), io.StringIO(), sys.argv
        sys.argv = ["fedrec", *map(str, words)]
        try:
            with redirect_stdout(out), redirect_stderr(err):
                fedrec.cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.argv = argv
        return Answer(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def reader_pack(tmp_path_factory, cli, tiny):
    """The pack of the example apps."""
    return example_pack(tmp_path_factory.mktemp("example") / "run", cli, tiny)


@pytest.fixture
def room(reader_pack, tmp_path):
    """The reader app of somebody new."""
    with opened(reader_pack, tmp_path / "me") as made:
        yield made


@pytest.fixture
def visitor(room):
    """Its user, who was let in."""
    return entered(room)
