"""`fedrec simulate` and `fedrec init`: a federation of virtual clients on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fedrec.cli.data import Format, FormatOption
from fedrec.errors import SpecError, require
from fedrec.settings import merge
from fedrec.spec import Plan
from fedrec.speed import Engine, Speed
from fedrec.tracking.services import Service, check

if TYPE_CHECKING:
    from fedrec.population.simulate import Results, Simulation

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="A plan in TOML; flags go on top of it.")]
DataOption = Annotated[str | None, typer.Option("--data", help="NAME or NAME:PATH, see `fedrec data list`.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="One setting of the plan, such as federation.rounds=20.")
]
ModeOption = Annotated[
    str | None,
    typer.Option(help="none, user-central, user-distributed, user-local, interaction-local or layered."),
]
EpsilonOption = Annotated[
    float | None, typer.Option(help="The budget of the whole run; without --mode it turns user-central on.")
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of data order, cohorts and models; never of noise.")]


def simulate(  # noqa: PLR0913  (one parameter a flag)
    config: ConfigOption = None,
    data: DataOption = None,
    mode: ModeOption = None,
    epsilon: EpsilonOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder, instead of a new one below runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; it ends as if never interrupted.")] = None,
    engine: Annotated[Engine, typer.Option(help="Who runs a cohort; no result depends on it.")] = Engine.STACKED,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    memory: Annotated[int, typer.Option(help="MiB that a chunk of a stacked cohort may take.")] = 32,
    threads: Annotated[int, typer.Option(help="Chunks side by side; 0 stands for as many as there are cores.")] = 0,
    processes: Annotated[int, typer.Option(help="Shards in processes of their own, instead of threads.")] = 1,
    nodes: Annotated[int, typer.Option(help="Shards on Ray; 0 stands for as many as there is room for.")] = 0,
    address: Annotated[str, typer.Option(help="A Ray cluster, HOST:PORT or auto, instead of this machine.")] = "",
    track: Annotated[
        list[Service] | None, typer.Option(help="Tell MLflow or W&B too, see docs/simulate.md; may be given twice.")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Train and evaluate a federated recommender on this machine.

    Without flags: a synthetic library of books, no download, no promise of privacy.
    """
    flags = [config, data, mode, epsilon, seed, settings, out]
    require(resume is None or not any(flag is not None for flag in flags), "--resume takes the plan of its run",
            remedy="Give --resume alone.")  # fmt: skip
    services = track or ()
    check(services)
    from fedrec.cli.screen import Screen

    screen = Screen(quiet=form is Format.JSON)
    wish = Wish(config, data, mode, epsilon)
    speed = Speed(
        engine=engine, device=device, memory=memory, threads=threads, processes=processes, nodes=nodes, address=address
    )  # fmt: skip
    simulation = _resumed(resume, speed) if resume else _started(plan_of(wish, seed, settings), out, speed, screen)
    screen.heading(simulation)
    with screen.training(simulation) as told:
        simulation.train(told, services)
    with screen.measuring() as measured:
        results = simulation.finish(measured)
    if form is Format.JSON:
        typer.echo(json.dumps(_document(results), indent=2))
    else:
        screen.results(results)


def init(  # noqa: PLR0913
    folder: Annotated[Path, typer.Argument(help="A new folder for the run.")],
    config: ConfigOption = None,
    data: DataOption = None,
    mode: ModeOption = None,
    epsilon: EpsilonOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
) -> None:
    """Prepare a run without training it, for `flwr run` or for `fedrec simulate --resume`.

    What Flower runs may cross a network, so the mode is `layered` unless a plan or --mode says otherwise.
    """
    from fedrec.population.simulate import Simulation

    wish = Wish(config, data, mode or (None if config else "layered"), epsilon)
    simulation = Simulation.start(plan_of(wish, seed, settings), folder)
    clients, path = simulation.task.plan.clients, simulation.run.path.resolve()
    typer.echo(f"{path} is ready: {clients} clients. Train it with one of\n")
    typer.echo(f"  fedrec simulate --resume {path}")
    typer.echo(f"""  flwr run . --run-config 'run="{path}"' --federation-config 'num-supernodes={clients}' --stream""")


class Wish(NamedTuple):
    """What the flags ask for before seed and settings: a plan file, data, a mode, its ε."""

    config: Path | None = None
    data: str | None = None
    mode: str | None = None
    epsilon: float | None = None


def plan_of(wish: Wish, seed: int | None, settings: Sequence[str] | None) -> Plan:
    """The plan that the flags ask for: a file (or the defaults, or a mode's defaults), then each flag."""
    plan = Plan.read(wish.config) if wish.config else Plan()
    mode = wish.mode or ("user-central" if wish.epsilon is not None and plan.privacy.mode == "none" else None)
    if mode not in (None, "none") and wish.config is None:
        from fedrec.presets import private

        plan = private(plan, mode)
    elif mode is not None:
        plan = plan.override({"privacy": {"mode": mode}})
    if wish.epsilon is not None:
        plan = plan.override({"privacy": {"epsilon": wish.epsilon}, "interaction": {"epsilon": wish.epsilon}})
    if wish.data is not None:
        name, _, path = wish.data.partition(":")
        plan = plan.override({"name": name, "data": {"source": name, "path": path}})
    if seed is not None:
        plan = plan.override({"seed": seed})
    return plan.override(nested(settings or ()))


def nested(settings: Sequence[str]) -> dict[str, object]:
    """SECTION.NAME=VALUE, each of them, as nested settings: together they may be what one alone is not."""
    found: dict[str, object] = {}
    for setting in settings:
        found = merge(found, _nested(setting))
    return found


def _nested(setting: str) -> dict[str, Any]:
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise SpecError("--set takes SECTION.NAME=VALUE", remedy="Try --set federation.rounds=20.", setting=setting)
    value: Any = text
    with suppress(ValueError):  # a bare word is a string
        value = json.loads(text)
    for name in reversed(path.split(".")):
        value = {name: value}
    nested: dict[str, Any] = value
    return nested


def _started(plan: Plan, out: Path | None, speed: Speed, screen: Any) -> Simulation:  # noqa: ANN401  a Screen
    from fedrec.population.simulate import Simulation
    from fedrec.runs import fresh

    with screen.busy("Reading data, encoding text, calibrating noise"):
        return Simulation.start(plan, out or fresh(Path("runs"), plan.name), speed=speed)


def _resumed(path: Path, speed: Speed) -> Simulation:
    from fedrec.population.simulate import Simulation

    return Simulation.resume(path, speed=speed)


def _document(results: Results) -> dict[str, Any]:
    document = dict(results.run.results or {})
    document["run"] = str(results.run.path)
    document["statements"] = [json.loads(claim.json()) for claim in results.statements]
    return document
