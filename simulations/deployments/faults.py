"""The faults of the campaign: each runs a federation in a folder, does its worst, and tells what came of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedrec.deploy.folder import DeviceFolder
from fedrec.spec import Plan
from simulations.deployments.disks import full_device, full_server
from simulations.deployments.federation import await_
from simulations.deployments.hostile import hostile, hostile_masks
from simulations.deployments.leak import leak
from simulations.deployments.relay import FAIR, Relay, Weather
from simulations.deployments.trial import DEVICES, MANY, MASKED, STEPS, TEN, Outcome, Trial, trial

Fault = Callable[[Path], Outcome]

SABOTAGE = Path(__file__).parent / "sabotage"
_ROUNDS = MASKED.override({"federation": {"rounds": 5}})

# Where the trainer is killed in its round, in the order in which it comes by.
_BEFORE_RELEASE = (
    "fedrec.exchange.masked Journal.keep before",
    "fedrec.exchange.masked Journal.keep after",
    "fedrec.rounds.aggregate PrivateRounds.release before",
)
_CHARGED = ("fedrec.privacy.ledger Ledger.charge after",)
_AFTER = (
    "fedrec.rounds.checkpoint Checkpoint.save after",
    "fedrec.rounds.aggregate PrivateRounds.published after",
    "fedrec.exchange.masked Masked.settled after",
    "fedrec.runs Run.tell before",
)
_LAST = 3 * ("fedrec.rounds.checkpoint Checkpoint.save after",)
_PUBLISHING = ("fedrec.model.publish publish before", "fedrec.model.publish publish after")


def nothing(folder: Path) -> Outcome:
    """No fault."""
    with trial(folder) as run:
        return run.end()


def clients_killed(step: str, folder: Path) -> Outcome:
    """Three of ten devices are killed in a step of round 1, as many as the plan can do without; and started again."""
    with trial(folder, TEN, devices=MANY) as run:
        run.at(1, step)
        run.federation.kill("host-1")
        run.federation.join([run.folder / "host-1"])
        return run.end()


def child_killed(name: str, folder: Path) -> Outcome:
    """One of the server's processes is killed once in each step, in five rounds."""
    with trial(folder, _ROUNDS) as run:
        for number, step in enumerate(STEPS, 1):
            run.at(number, step)
            _kill(run, name)
        return run.end(400)


def server_killed(folder: Path) -> Outcome:
    """The supervisor is killed, its processes die with it, and `server start` is said again."""
    with trial(folder) as run:
        run.at(2, "updates")
        children = [run.federation.child(name) for name in ("superlink", "door", "trainer")]
        run.federation.kill("server")
        await_(lambda: not any(_lives(child) for child in children if child), "the children end", seconds=60)
        run.federation.serve()
        return run.end(400)


def trainer_sabotaged(points: tuple[str, ...], folder: Path, *, plan: Plan = MASKED, lost: int = 0) -> Outcome:
    """The trainer kills itself at exact points of its code, one after the other."""
    orders = folder / "orders"
    orders.write_text("\n".join(f"fedrec.deploy.trainer {point}" for point in points))
    own = {"SABOTAGE": str(orders), "PYTHONPATH": _path()}
    with trial(folder, plan, environment={"server": own}) as run:
        run.lost = lost
        outcome = run.end(400)
    assert not orders.read_text(), "every point was come by"
    return outcome


def weather(bad: Weather, folder: Path) -> Outcome:
    """One of three hosts is behind a bad line."""
    with trial(folder, line=lambda site: Relay(site.spec.port), join=False) as run:
        run.line.weather = bad
        run.federation.join()
        outcome = run.end(400)
        return _noted(outcome, f"{sum(run.line.bytes.values()):,} bytes over the line, {run.line.resets} resets")


def cut_off(seconds: float, folder: Path) -> Outcome:
    """The line of one of three hosts is dead for a while, in the middle of a round, and nobody says so."""
    with trial(folder, TEN, line=lambda site: Relay(site.spec.port), patience=15.0, devices=MANY) as run:
        run.at(1, "shares")
        run.line.weather = Weather(dead=True)
        time.sleep(seconds)
        run.line.weather = FAIR
        return run.end(400)


def clock_off(folder: Path) -> Outcome:
    """The clock of one of three hosts is ten minutes slow: its devices sign by the server's clock."""
    orders = folder / "orders"
    orders.write_text("clock -600")
    with trial(folder, environment={"host-1": {"SABOTAGE": str(orders), "PYTHONPATH": _path()}}) as run:
        return run.end()


def clock_jumps(seconds: int, folder: Path) -> Outcome:
    """The server's clock jumps in the middle of a round, and stays there. Needs a C compiler."""
    off, library = folder / "off", folder / "clock.so"
    off.write_text("0")
    source = Path(__file__).parent / "sabotage" / "clock.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    with trial(folder, environment={"server": {"LD_PRELOAD": str(library), "CLOCK_OFF": str(off)}}) as run:
        run.at(2, "updates")
        off.write_text(str(seconds))
        return run.end(400)


def device_reset(folder: Path) -> Outcome:
    """A device's folder is lost after round 1, and somebody takes another seat for it."""
    plan = MASKED.override(
        {"clients": DEVICES + 1, "federation": {"rounds": 4, "cohort": DEVICES + 1}, "shares": {"survivors": 0.75}}
    )
    with trial(folder, plan, begin=0.8) as run:
        run.at(2, "keys")
        run.federation.kill("host-1")
        lost = run.federation.hosts[1] / "00001"
        shutil.rmtree(lost)
        seat = run.federation.admit(lost)
        run.federation.fill(lost, seat)
        run.federation.join([run.folder / "host-1"])
        outcome = run.end(400)
        given = DeviceFolder(lost).given().get("participations", 0)
    return _noted(outcome, f"the old seat is silent; the new one, {seat}, counts from nothing: {given}")


def _kill(run: Trial, name: str) -> None:
    """SIGKILL one of the server's processes, once it is there."""
    await_(lambda: run.federation.child(name), f"the {name} is there", seconds=60, look=0.01)
    os.kill(run.federation.child(name) or 0, signal.SIGKILL)


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _noted(outcome: Outcome, note: str) -> Outcome:
    return replace(outcome, notes="; ".join(filter(None, [outcome.notes, note])))


def _path() -> str:
    return os.pathsep.join(filter(None, [str(SABOTAGE), os.environ.get("PYTHONPATH")]))


FAULTS: dict[str, Fault] = {
    "none": nothing,
    **{f"30 % of the devices killed ({step})": partial(clients_killed, step) for step in STEPS},
    "SuperLink killed in every step": partial(child_killed, "superlink"),
    "trainer killed in every step": partial(child_killed, "trainer"),
    "door killed in every step": partial(child_killed, "door"),
    "supervisor killed": server_killed,
    "trainer killed around its journal and before the charge": partial(trainer_sabotaged, _BEFORE_RELEASE),
    "trainer killed between charge and checkpoint": partial(trainer_sabotaged, _CHARGED, lost=1),
    "trainer killed between checkpoint and the next round": partial(trainer_sabotaged, _AFTER, plan=_ROUNDS),
    "trainer killed after every checkpoint, the last one too": partial(trainer_sabotaged, _LAST),
    "trainer killed around publishing": partial(trainer_sabotaged, _PUBLISHING),
    "a line of 1 KB/s": partial(weather, Weather(rate=1024)),
    "connections reset after 20 KB": partial(weather, Weather(reset=20_000)),
    "connections half closed after 20 KB": partial(weather, Weather(half=20_000)),
    "a line dead for 30 s": partial(cut_off, 30.0),
    "a device's clock 10 minutes slow": clock_off,
    "the server's clock jumps 4 minutes ahead": partial(clock_jumps, 240),
    "the server's clock jumps 4 minutes back": partial(clock_jumps, -240),
    "the server's disk full for 15 s": full_server,
    "a device's disk full": full_device,
    "a device lost and enrolled again": device_reset,
    "hostile updates (mode none)": hostile,
    "hostile answers in each step": hostile_masks,
    "canaries in texts and choices": leak,
}
QUICK = ["none", "30 % of the devices killed (consent)", "trainer killed around its journal and before the charge",
         "hostile updates (mode none)"]  # fmt: skip
