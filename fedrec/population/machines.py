"""Whether the machines of a Ray cluster can work on one run: the same code, and the same mapped files."""

from __future__ import annotations

import secrets
from importlib.metadata import version
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedrec.errors import RunError

_PATIENCE = 300.0  # seconds in which a machine answers
_ALIKE = ("fedrec", "flwr", "torch", "numpy")


class Said(NamedTuple):
    """What a machine says of itself: versions of packages, and whether it sees the run folder."""

    versions: dict[str, str]
    sees: bool


def machines() -> list[dict[str, Any]]:
    """The machines of the cluster, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def check_machines(folder: Path) -> None:
    """Raise `RunError` unless every machine runs our versions and shares `folder`, mapped files included.

    Workers write what devices keep into mapped files, each its own rows. On storage where a machine does not see what
    another one writes there, such as NFS, rows would be lost.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [machine for machine in machines() if machine["NodeID"] != here]
    if not others:
        return
    token = folder / f".ray-{secrets.token_hex(8)}"
    token.write_bytes(bytes(len(others)))
    try:
        with token.open("r+b") as file, mmap(file.fileno(), 0) as page:
            _ = page[:]  # now it is in our memory, where what others write must show
            asked = [_ask(machine["NodeID"], token, place) for place, machine in enumerate(others)]
            for place, answer in enumerate(asked):
                name = others[place]["NodeManagerAddress"]
                said = _said(name, answer)
                if said:
                    _check(name, said, written=page[place] == 1)
    finally:
        token.unlink()


def _ask(node: str, token: Path, place: int) -> Any:  # noqa: ANN401  (a reference, whose type Ray does not keep)
    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(_about).options(num_cpus=0, scheduling_strategy=there).remote(token, place)


def _about(token: Path, place: int) -> Said:
    if not token.exists():
        return Said(_versions(), sees=False)
    with token.open("r+b") as file, mmap(file.fileno(), 0) as page:
        page[place] = 1
        page.flush()
    return Said(_versions(), sees=True)


def _said(machine: str, answer: Any) -> Said | None:  # noqa: ANN401
    """The answer of a machine; None if it has left the cluster."""
    try:
        said: Said = ray.get(answer, timeout=_PATIENCE)
    except TaskUnschedulableError:
        return None
    except RayError as error:
        remedy, reason = "Install it there, in the environment that `ray start` ran in.", type(error).__name__
        rule = "every machine of a Ray cluster has fedrec"
        raise RunError(rule, remedy=remedy, machine=machine, reason=reason) from None
    return said


def _check(machine: str, said: Said, *, written: bool) -> None:
    if said.versions != _versions():
        rule, remedy = "all machines of a Ray cluster have the same packages", "Install the same versions everywhere."
        raise RunError(rule, remedy=remedy, machine=machine, there=said.versions, here=_versions())
    if not said.sees:
        remedy = "Put the run folder on storage that all machines share, under one path."
        raise RunError("every machine of a Ray cluster sees the run folder", remedy=remedy, machine=machine)
    if not written:
        remedy = "Put it on a cluster file system, or use one machine."
        rule = "all machines of a Ray cluster see at once what one of them writes into the run folder"
        raise RunError(rule, remedy=remedy, machine=machine)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _ALIKE}
