"""People of MovieLens-100K on enrolled devices in five client processes, beside simulations of the same plan.

    python -m simulations.deployments.movielens FOLDER [--people 150] [--rounds 0] [--simulations 5]

Once with secure aggregation and real noise, once without noise. Writes `results/movielens.md`. With `--rounds N`
instead: a warm start and N rounds of training, all of them private and masked, into `results/movielens-rounds.md`. The
accuracy of a deployment can be measured here only because this machine made its devices' data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.device.store import Store
from fedrec.population.simulate import Simulation
from fedrec.population.world import ModelScorer
from fedrec.presets import private
from fedrec.spec import Plan
from fedrec.speed import Engine, Speed
from simulations.deployments.federation import Federation

RESULTS = Path(__file__).parent / "results"
HOSTS = 5
METRICS = ("hr@10", "ndcg@10")


def main() -> None:
    """Run both federations and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--simulations", type=int, default=5)
    given = parser.parse_args()
    base = Plan.of({
        "name": "movielens-100k", "clients": given.people, "data": {"source": "movielens-100k"},
        "evaluation": {"every": 0, "baselines": "none"},
    })  # fmt: skip
    asked = f"--people {given.people} --simulations {given.simulations}"
    asked += f" --rounds {given.rounds}" if given.rounds else ""
    page = [
        f"# MovieLens-100K, {given.people} devices\n",
        f"`python -m simulations.deployments.movielens FOLDER {asked}`\n",
        __doc__.split("\n\n")[0] + "\n", _machine(),
    ]  # fmt: skip
    if given.rounds:
        page += _several(given.folder / "several", base, given.rounds, given.simulations)
    else:
        page += _once(given.folder, base, given.simulations)
    path = RESULTS / ("movielens-rounds.md" if given.rounds else "movielens.md")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(page) + "\n")
    print(path.read_text())


def _once(folder: Path, base: Plan, simulations: int) -> list[str]:
    """What `fedrec server init` prepares, and a training without noise."""
    masked = private(base, "layered").override({"shares": {"masked": True}})
    plain = base.override({"warm": {"enabled": True}, "federation": {"rounds": 2, "cohort": 100}})
    return _masked(folder / "masked", masked, simulations) + _plain(folder / "plain", plain)


def _several(folder: Path, base: Plan, rounds: int, simulations: int) -> list[str]:
    """Rounds of everybody over a model of few numbers: the noise on more would leave so few people nothing."""
    small = {"adapter": "none", "projection": False, "residuals": False, "maps": "diagonal"}
    plan = private(base, "user-distributed").override({
        "shares": {"masked": True}, "model": small, "federation": {"rounds": rounds, "cohort": base.clients},
    })  # fmt: skip
    return _masked(folder, plan, simulations)


def _masked(folder: Path, plan: Plan, count: int) -> list[str]:
    """The training that is private, against simulations whose noise is as fresh."""
    federation, seconds = _deployed(folder, plan)
    simulated = [_simulated(folder / f"simulated-{seed}", plan.override({"seed": 0})) for seed in range(count)]
    first = simulated[0]
    found = _measured(first, federation)
    summaries = [_summary(each) for each in simulated]
    rows = [_row(name, found[name], [each[name] for each in summaries]) for name in METRICS]
    privacy = first.task.privacy
    assert privacy is not None and privacy.masking is not None
    (degree, threshold), *_ = privacy.masking.neighbours
    promised = "; ".join(str(promise.guarantee) for promise in privacy.promises)
    return [
        f"## With secure aggregation, ε = 8 (`{plan.privacy.mode}`)\n",
        f"Rounds of everybody: {privacy.rounds}; shared numbers: {federation.model.size:,}; masks modulo "
        f"2^{privacy.masking.bits}, {degree} neighbours each, of whom {threshold} lift a mask. Promises: {promised}.\n",
        f"Enrolment {seconds['enrol']:.0f} s, training {seconds['train']:.0f} s from the first device's start to the "
        f"published pack; refused: {_refused(federation)}.\n",
        f"| test items, all films | deployed | mean of {count} simulations | standard deviation of one | their range |",
        "|---|---:|---:|---:|---:|", *rows, "",
    ]  # fmt: skip


def _row(name: str, deployed: float, simulated: list[float]) -> str:
    spread, low, high = np.std(simulated, ddof=1), min(simulated), max(simulated)
    return f"| {name} | {deployed:.4f} | {np.mean(simulated):.4f} | {spread:.4f} | {low:.4f} to {high:.4f} |"


def _plain(folder: Path, plan: Plan) -> list[str]:
    """The training without noise: the same numbers on both ways."""
    federation, seconds = _deployed(folder, plan)
    simulated = _simulated(folder / "simulated", plan)
    ours, theirs = federation.model, simulated._trained()[1]
    devices = _embeddings(federation, simulated)
    virtual = ModelScorer(simulated.fleet, theirs, plan.rounds).embeddings
    return [
        "## Without noise (`none`)\n",
        f"A warm start of everybody and {plan.federation.rounds} rounds of {plan.federation.cohort}; training took "
        f"{seconds['train']:.0f} s.\n",
        "| | largest difference to the simulation |", "|---|---:|",
        f"| {ours.size:,} shared numbers | {np.abs(ours - theirs).max():.3g} |",
        f"| {devices.shape[0]} local embeddings of {devices.shape[1]} | {np.abs(devices - virtual).max():.3g} |", "",
    ]  # fmt: skip


def _deployed(folder: Path, plan: Plan) -> tuple[Federation, dict[str, float]]:
    shutil.rmtree(folder, ignore_errors=True)
    federation = Federation.make(folder, plan, patience=900.0)
    try:
        federation.serve()
        began = time.monotonic()
        _enrol(federation)
        enrolled = time.monotonic()
        federation.join()
        federation.finished(seconds=7200)
        return federation, {"enrol": enrolled - began, "train": time.monotonic() - enrolled}
    finally:
        federation.stop()


def _enrol(federation: Federation) -> None:
    """All devices, some at a time; who sits where is the server's matter, so a seat's person comes after it."""
    first = federation.folder / "host-0" / "00000"
    federation.fill(first, federation.admit(first))  # loads the data, and finds the server ready

    def join(number: int) -> None:
        device = federation.folder / f"host-{number % HOSTS}" / f"{number:05}"
        federation.fill(device, federation.admit(device))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(join, range(1, federation.plan.clients)))


def _simulated(folder: Path, plan: Plan) -> Simulation:
    shutil.rmtree(folder, ignore_errors=True)
    simulation = Simulation.start(plan, folder, speed=Speed(engine=Engine.LOOP))
    simulation.train(lambda row: None)
    return simulation


def _summary(simulation: Simulation) -> dict[str, float]:
    scorer, _ = simulation._trained()
    return simulation.test("fedrec", scorer).summary


def _measured(simulation: Simulation, federation: Federation) -> dict[str, float]:
    embeddings = _embeddings(federation, simulation)
    return simulation.test("deployed", ModelScorer(simulation.fleet, federation.model, embeddings)).summary


def _embeddings(federation: Federation, simulation: Simulation) -> NDArray[np.float32]:
    """(seat, dim) what the devices keep for themselves."""
    task, dim = simulation.task, simulation.task.plan.model.dim
    found = np.zeros((task.plan.clients, dim), np.float32)
    for device in federation.devices:
        with Store(device / "events.sqlite") as store:
            kept = store.before(task.hash, task.plan.rounds + 1)
        seat = json.loads((device / "device.json").read_text())["seat"]
        found[seat] = 0 if kept is None else kept
    return found


def _refused(federation: Federation) -> str:
    last = json.loads((federation.site.state / "last.json").read_text())
    return str(last.get("refused_so_far") or "nobody")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"One machine, {os.cpu_count()} cores ({model}): server, {HOSTS} client processes and all their traffic.\n"


if __name__ == "__main__":
    main()
