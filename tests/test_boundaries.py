"""The walls of the house (docs/architecture.md), each with a planted crack that it must find."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLIENT_MACHINE = {"fedrec.deploy.folder", "fedrec.deploy.host"}  # the rest of a deployment is the server's
PILLARS = {f"fedrec.privacy.{name}" for name in ("clipping", "noise", "sampling", "accounting")}
HEAVY = {"torch", "flwr", "ray", "pandas", "transformers", "peft", "opacus", "pyarrow", "scipy", "matplotlib"}
CORE = {"fedrec", "numpy", "cryptography", "pydantic", "safetensors", "httpx"}  # the packages that an app gets
BROUGHT = {  # what those bring along
    "_cffi_backend", "annotated_types", "anyio", "certifi", "cffi", "h11", "httpcore", "idna", "pycparser",
    "pydantic_core", "sniffio", "typing_extensions", "typing_inspection",
}  # fmt: skip
ONLINE = {f"fedrec.embed.{name}" for name in ("contribute", "stay", "sync")}  # when the owner of a device asks them
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
DRAWS_IN_PLACE = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_"}


@dataclass(frozen=True)
class Module:
    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def inside(self, *packages: str) -> bool:
        return any(within(self.name, package) for package in packages)

    def imports(self) -> set[str]:
        """Every module named by an import, at the top, inside a function, or for a type checker only."""
        return {name for node in ast.walk(self.tree) for name in _imported(node)}

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield "." * node.level + (node.module or "")
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from (given.value for given in node.args if isinstance(given, ast.Constant))


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def reaches(module: Module, *packages: str) -> list[str]:
    return sorted(name for name in module.imports() for package in packages if within(name, package))


def server_sees_no_person(module: Module) -> list[str]:
    blind = module.inside("server", "fedrec.rounds", "fedrec.exchange", "fedrec.task", "fedrec.deploy")
    return reaches(module, "fedrec.device") if blind and module.name not in CLIENT_MACHINE else []


def privacy_stands_alone(module: Module) -> list[str]:
    return reaches(module, "fedrec.device", "flwr", "torch") if module.inside("fedrec.privacy") else []


def pillars_stand_apart(module: Module) -> list[str]:
    return reaches(module, *(PILLARS - {module.name})) if module.name in PILLARS else []


def flower_stays_outside(module: Module) -> list[str]:
    ours = ("simulations.benchmarks", "simulations.deployments")
    allowed = ("fedrec.exchange", "fedrec.population", "server", "client", *ours)
    return [] if module.inside(*allowed) else reaches(module, "flwr")


def databases_are_history_and_ledgers(module: Module) -> list[str]:
    store = {f"fedrec.device.{name}" for name in ("contents", "database", "forgetting", "store")}
    allowed = module.name in store | {"fedrec.databases", "fedrec.deploy.roster"} or module.name.endswith("ledger")
    return [] if allowed else reaches(module, "sqlite3", "fedrec.databases")


def apps_are_offline(module: Module) -> list[str]:
    network = ("httpx", "httpcore", "http", "urllib.request", "socket", "ssl")
    outside = (*network, "fedrec.deploy.enrol", "fedrec.exchange.line")
    return reaches(module, *outside) if module.inside("fedrec.embed") and module.name not in ONLINE else []


def imports_are_absolute(module: Module) -> list[str]:
    return sorted(name for name in module.imports() if name.startswith("."))


def randomness_is_an_argument(module: Module) -> list[str]:
    """No global generator of numpy, torch or Python; `default_rng` in one place; noise may make its own bits.

    What a person is shown for a change is no experiment that somebody repeats: a ranker may ask the system for bits.
    """
    allowed = {"Generator"}
    allowed |= {"default_rng"} if module.name in ("fedrec.randomness", "fedrec.embed.ranker") else set()
    allowed |= {"PCG64", "SeedSequence"} if module.name == "fedrec.privacy.noise" else set()
    found = [f"import {name}" for name in reaches(module, "random", "torch.random")]
    found += [
        name for name in reaches(module, "numpy.random") if name.removeprefix("numpy.random").strip(".") not in
        {"", *allowed}
    ]  # fmt: skip
    for node in ast.walk(module.tree):
        path = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        owner, _, name = path.rpartition(".")
        if owner in ("np.random", "numpy.random") and name not in allowed:
            found.append(path)
    return found + [name for name, call in module.calls() if _draws_from_torch(name, call)]


def _draws_from_torch(name: str, call: ast.Call) -> bool:
    owner, _, function = name.rpartition(".")
    if owner == "torch.random":
        return function != "fork_rng"  # it keeps others away from the global generator
    if owner == "torch" and (function in ("manual_seed", "seed") or function.endswith(("rand_like", "randn_like"))):
        return True
    if owner.endswith("nn.init") or owner == "init":
        return True
    drawn = (owner == "torch" and function in DRAWS) or (owner and function in DRAWS_IN_PLACE)
    return bool(drawn) and not any(keyword.arg == "generator" for keyword in call.keywords)


def users_get_errors_not_assertions(module: Module) -> list[str]:
    if not module.inside("fedrec.cli", "server", "client"):
        return []
    return [f"line {node.lineno}: assert" for node in ast.walk(module.tree) if isinstance(node, ast.Assert)]


def public_names_are_documented(module: Module) -> list[str]:
    if module.name == "fedrec" or not module.inside("fedrec"):
        return []
    return [node.name for node in _public(module.tree.body) if not ast.get_docstring(node)]


def _public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def files_are_short(module: Module) -> list[str]:
    lines = len(module.source.splitlines())
    return [f"{lines} lines"] if lines > 300 else []


def parameters_have_names(module: Module) -> list[str]:
    """No `**kwargs`; `**got`, the values that an error message shows, is the one exception."""
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [f"{f.name}(**{f.args.kwarg.arg})" for f in functions if f.args.kwarg and f.args.kwarg.arg != "got"]


Wall = Callable[[Module], list[str]]

CRACKS: list[tuple[Wall, str, str]] = [
    (server_sees_no_person, "server.app", "from fedrec.device.history import History"),
    (server_sees_no_person, "fedrec.deploy.desk", "from fedrec.device.store import Store"),
    (server_sees_no_person, "fedrec.rounds.new", "def late():\n    from fedrec import device"),
    (server_sees_no_person, "fedrec.task", "if TYPE_CHECKING:\n    import fedrec.device.profile"),
    (server_sees_no_person, "fedrec.exchange.new", "import_module('fedrec.device')"),
    (privacy_stands_alone, "fedrec.privacy.new", "import torch.nn"),
    (privacy_stands_alone, "fedrec.privacy.new", "from flwr.app import Message"),
    (privacy_stands_alone, "fedrec.privacy.new", "from fedrec.device import history"),
    (pillars_stand_apart, "fedrec.privacy.noise", "from fedrec.privacy.clipping import radius"),
    (pillars_stand_apart, "fedrec.privacy.sampling", "from fedrec.privacy import accounting"),
    (flower_stays_outside, "fedrec.rounds.new", "import flwr"),
    (flower_stays_outside, "simulations.new", "import flwr"),
    (flower_stays_outside, "fedrec.cli.new", "def late():\n    from flwr.app import Message"),
    (databases_are_history_and_ledgers, "fedrec.population.new", "import sqlite3"),
    (databases_are_history_and_ledgers, "fedrec.embed.store", "import sqlite3"),
    (databases_are_history_and_ledgers, "fedrec.embed.new", "from fedrec.databases import connected"),
    (apps_are_offline, "fedrec.embed.new", "def late():\n    import httpx"),
    (apps_are_offline, "fedrec.embed.recommender", "from fedrec.deploy.enrol import fetch"),
    (apps_are_offline, "fedrec.embed.new", "from socket import create_connection"),
    (imports_are_absolute, "fedrec.device.new", "from .history import History"),
    (randomness_is_an_argument, "fedrec.new", "np.random.seed(0)"),
    (randomness_is_an_argument, "fedrec.new", "draw = np.random.normal"),
    (randomness_is_an_argument, "fedrec.new", "from numpy.random import default_rng"),
    (randomness_is_an_argument, "fedrec.new", "np.random.default_rng(1)"),
    (randomness_is_an_argument, "fedrec.privacy.noise", "np.random.default_rng(1)"),
    (randomness_is_an_argument, "fedrec.new", "import random"),
    (randomness_is_an_argument, "fedrec.new", "torch.manual_seed(0)"),
    (randomness_is_an_argument, "fedrec.new", "torch.randn(3)"),
    (randomness_is_an_argument, "fedrec.new", "weight.data.normal_()"),
    (randomness_is_an_argument, "fedrec.new", "nn.init.xavier_uniform_(weight)"),
    (users_get_errors_not_assertions, "fedrec.cli.new", "def run(rate):\n    assert rate > 0"),
    (public_names_are_documented, "fedrec.new", "def shown():\n    return 1"),
    (public_names_are_documented, "fedrec.new", "class Shown:\n    'Said.'\n    def shown(self):\n        return 1"),
    (files_are_short, "simulations.new", "x = 1\n" * 301),
    (parameters_have_names, "fedrec.new", "def shown(**kwargs):\n    'Said.'"),
]

SOUND: list[tuple[Wall, str, str]] = [
    (server_sees_no_person, "client.app", "from fedrec.device.history import History"),
    (server_sees_no_person, "fedrec.deploy.host", "from fedrec.device.member import Member"),
    (server_sees_no_person, "server.app", "import fedrec.devices"),
    (pillars_stand_apart, "fedrec.privacy.plan", "from fedrec.privacy.clipping import radius"),
    (pillars_stand_apart, "fedrec.privacy.accounting", "from fedrec.privacy.terms import Relation"),
    (flower_stays_outside, "server.app", "from flwr.app import Context"),
    (flower_stays_outside, "simulations.benchmarks.peer", "from flwr.clientapp import ClientApp"),
    (databases_are_history_and_ledgers, "fedrec.device.store", "import sqlite3"),
    (databases_are_history_and_ledgers, "fedrec.device.store", "import sqlite3"),
    (apps_are_offline, "fedrec.embed.sync", "import httpx"),
    (apps_are_offline, "fedrec.embed.recommender", "from fedrec.embed import sync"),
    (randomness_is_an_argument, "fedrec.new", "from numpy.random import Generator\nrng.normal()\nstream(0).choice(3)"),
    (randomness_is_an_argument, "fedrec.new", "def f(rng: np.random.Generator): return torch.randn(3, generator=g)"),
    (randomness_is_an_argument, "fedrec.new", "with torch.random.fork_rng(devices=[]):\n    pass"),
    (parameters_have_names, "fedrec.new", "def refuse(rule, /, **got):\n    'Said.'"),
]


@cache
def modules() -> list[Module]:
    folders = ("fedrec", "server", "client", "simulations")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Module(_dotted(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths]


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def loaded(code: str, path: Path = ROOT) -> set[str]:
    """What a fresh interpreter has loaded once it ran `code`, with `path` on its path."""
    script = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=path, check=True)
    return set(done.stdout.splitlines()[-1].split())


def importing(*packages: str) -> str:
    names = [module.name for module in modules() if module.inside(*packages)]
    assert names
    return "import " + ", ".join(names)


@pytest.mark.parametrize("wall", dict.fromkeys(wall for wall, _, _ in CRACKS), ids=lambda wall: wall.__name__)
def test_the_house_has_no_crack(wall):
    assert {module.name: found for module in modules() if (found := wall(module))} == {}


@pytest.mark.parametrize(("wall", "name", "source"), CRACKS)
def test_a_planted_crack_is_found(wall, name, source):
    assert wall(Module(name, source))


@pytest.mark.parametrize(("wall", "name", "source"), SOUND)
def test_what_is_allowed_is_no_crack(wall, name, source):
    assert wall(Module(name, source)) == []


def test_the_whole_house_is_looked_at():
    names = {module.name for module in modules()}
    assert {"fedrec", "fedrec.spec", "fedrec.privacy.noise", "server.app", "client.app"} <= names


def test_the_server_never_loads_what_sees_a_person():
    assert not _of("fedrec.device", loaded(importing("server", "fedrec.task", "fedrec.rounds", "fedrec.exchange")))
    processes = "\n".join(f"import fedrec.deploy.{name}" for name in ("supervisor", "trainer", "doorkeeper"))
    assert not _of("fedrec.device", loaded(processes))


def test_privacy_loads_no_network_no_model_and_no_person():
    found = loaded(importing("fedrec.privacy"))
    assert not _of("fedrec.device", found) | found & {"torch", "flwr"}


@pytest.mark.parametrize(
    "code",
    ["import fedrec", "import fedrec; fedrec.__version__, dir(fedrec)", *(
        f"from fedrec.cli import app; app({arguments}, standalone_mode=False)"
        for arguments in (["--help"], ["--version"], ["simulate", "--help"], ["data", "--help"])
    )],
)  # fmt: skip
def test_asking_what_fedrec_is_loads_nothing_heavy(code):
    assert not loaded(code) & HEAVY


def foreign(names: set[str]) -> set[str]:
    """What is neither Python's own nor among the packages that an app installs; some environments have finders."""
    tops = {name.partition(".")[0] for name in names}
    theirs = tops - set(sys.stdlib_module_names) - CORE - BROUGHT
    ours = ("__main__", "__editable__", "_distutils_hack", "_cython_", "_openssl", "_sysconfigdata", "_virtualenv")
    return {name for name in theirs if not name.startswith(ours) and name != "cython_runtime"}


def test_an_app_loads_no_more_than_it_installs():
    names = ("Recommender", "AsyncRecommender", "Kind", "Event", "Catalogue", "FedrecError")
    found = loaded(f"{importing('fedrec.embed')}\nfrom fedrec import {', '.join(names)}")
    assert (foreign(found), found & HEAVY) == (set(), set())


@pytest.mark.parametrize("name", ["pyarrow", "onnxruntime", "typer", "planted_elsewhere"])
def test_a_planted_package_is_found(tmp_path, name):
    (tmp_path / "planted_elsewhere.py").touch()
    (tmp_path / "planted.py").write_text(f"import {name}\n")
    assert foreign(loaded("import fedrec.embed.page, planted", tmp_path)) >= {name, "planted"}


def test_a_planted_detour_is_found(tmp_path):
    (tmp_path / "detour.py").write_text("def late():\n    import fedrec.device.history\nlate()\n")
    (tmp_path / "planted.py").write_text("import detour, sqlite3\n")
    found = loaded("import planted", tmp_path)
    assert _of("fedrec.device", found) and "sqlite3" in found
    assert not _of("fedrec.device", loaded("import json", tmp_path))


def _of(package: str, names: set[str]) -> set[str]:
    return {name for name in names if within(name, package)}
