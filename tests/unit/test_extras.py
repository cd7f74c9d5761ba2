"""What is installed with what, and what is said where something is not."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedrec.__main__ as command

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(requirements):
    return {re.match(r"[\w.-]+(\[.*\])?", line)[0] for line in requirements}


def without(package, code):
    """A fresh interpreter that has no `package`."""
    script = f"import sys; sys.modules[{package!r}] = None\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_an_app_installs_five_packages():
    core = {"cryptography", "httpx", "numpy", "pydantic", "safetensors"}
    assert names(PROJECT["dependencies"]) == core
    assert not core & names(EXTRAS["train"])
    assert {"torch", "flwr", "pyarrow", "pandas", "opacus", "transformers", "typer"} <= names(EXTRAS["train"])
    assert names(EXTRAS["text"]) == {"onnxruntime"}


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"text", "train"}))
def test_whatever_needs_training_brings_it(extra):
    assert "train" in included(extra)


def test_who_develops_has_everything():
    assert included("dev") | {"bench"} == set(EXTRAS)


def included(extra):
    ours = [line for line in EXTRAS[extra] if line.startswith("fedrec[")]
    inner = {name for line in ours for name in line.removeprefix("fedrec[").removesuffix("]").split(",")}
    return {extra}.union(*map(included, inner))


def test_every_package_that_is_named_has_a_version_that_is_tested():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {line.partition("==")[0] for line in lines if not line.startswith("#")}
    wanted = names([*PROJECT["dependencies"], *(line for extra in included("dev") for line in EXTRAS[extra])])
    assert {name.partition("[")[0] for name in wanted} - {"fedrec"} <= tested
    assert lines[1:] == sorted(lines[1:], key=lambda line: line.partition("==")[0])


@pytest.mark.parametrize(("package", "wanted"), [("typer", []), ("typer", ["--help"]), ("torch", ["simulate"])])
def test_a_command_without_its_packages_says_what_to_install(package, wanted):
    code = f"import runpy; sys.argv = ['fedrec', *{wanted}]; runpy.run_module('fedrec', run_name='__main__')"
    done = without(package, code)
    assert done.returncode == 2
    assert done.stderr == 'fedrec: commands need more than an app does. Run: pip install "fedrec[train]"\n'


def test_a_bug_is_no_missing_package(monkeypatch):
    def run():
        raise ModuleNotFoundError("No module named 'fedrec.misspelt'", name="fedrec.misspelt")

    monkeypatch.setattr("fedrec.cli.main", run)
    with pytest.raises(ModuleNotFoundError, match="misspelt"):
        command.main()


@pytest.mark.parametrize(("package", "name"), [("pyarrow", "History"), ("pandas", "Simulation"), ("tomli_w", "Plan")])
def test_a_name_without_its_packages_says_what_to_install(package, name):
    code = f"import fedrec\ntry:\n    fedrec.{name}\nexcept fedrec.FedrecError as error:\n    print(error)"
    said = f"fedrec.{name} has what it needs; got missing='{package}'. Run: pip install \"fedrec[train]\"\n"
    assert without(package, code).stdout == said
