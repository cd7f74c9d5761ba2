"""Flower's SuperLink as fedrec runs it: started with every door shut, its tasks executed by us and nobody else.

A SuperLink is told what to run by a bundle of code. Ours names none: `executing` takes the task of a run and hands its
grid to the caller, who is the only code that runs, whatever a bundle says.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SUPERLINK_NODE_ID, Status, SubStatus
from flwr.common.serde import run_from_proto
from flwr.proto import control_pb2, fab_pb2, runtime_pb2
from flwr.supercore.auth import create_superexec_auth_metadata, derive_auth_secret
from flwr.supercore.constant import TASK_TOKEN_HEADER, NodeStatus, TaskType
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedrec.errors import FedrecError, RunError, WireError
from fedrec.exchange.flower import SWITCHES
from fedrec.exchange.line import USUAL, A, Limits, Line, Readable, versions
from fedrec.exchange.link import LinkGrid, Pace
from fedrec.threads import every

_BEAT = 10.0  # seconds; Flower gives a task up after sixty without
_RUNS = 1000  # of the latest, looked through for unfinished ones
_KEPT = 1 << 18  # bytes: headers that all replies share, not updates
_PROMPT = Limits(5.0, prompt=True)
_NOBODY = "nobody.here:nothing"
_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SuperLink:
    """Files and port of a SuperLink that listens on this machine alone."""

    port: int
    authority: Path
    certificate: Path
    key: Path
    database: Path
    secret: Path
    home: Path

    def command(self) -> list[str]:
        """The command line: TLS, enrolled nodes only, a database, and tasks for who knows the secret."""
        given = {
            "--host": "127.0.0.1", "--port": self.port, "--ssl-ca-certfile": self.authority,
            "--ssl-certfile": self.certificate, "--ssl-keyfile": self.key, "--database": self.database,
            "--isolation": "process", "--superexec-auth-secret-file": self.secret,
        }  # fmt: skip
        program = Path(sysconfig.get_path("scripts"), "flower-superlink")
        switches = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        return [str(program), *(str(word) for pair in given.items() for word in pair), *switches]

    def environment(self) -> dict[str, str]:
        """Its environment: nothing phones home, and the log does not tell which node was asked."""
        return {**os.environ, **SWITCHES, "FLWR_HOME": str(self.home), "FLWR_LOG_LEVEL": "WARNING"}


def register(address: str, authority: bytes, public_key: ec.EllipticCurvePublicKey) -> int:
    """Let the device with this key in; its node's number, the same each time."""
    content = public_key_to_bytes(public_key)
    with closing(_Control(address, authority)) as control:
        try:
            request = control_pb2.RegisterNodeRequest(public_key=content)
            return int(control.ask("register-node", request, control_pb2.RegisterNodeResponse).node_id)
        except WireError as error:
            if error.got.get("code") != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise
        nodes = control.ask("list-nodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse).nodes_info
    for node in nodes:
        if node.public_key == content and node.status != NodeStatus.UNREGISTERED:
            return int(node.node_id)
    raise WireError("a key that was taken off the register does not come back", remedy="Enrol with a new key.")


def readmit(address: str, authority: bytes, keys: Mapping[int, ec.EllipticCurvePublicKey]) -> dict[int, int]:
    """The nodes of devices, by whatever their keys are listed by; whom a SuperLink lost with its database is let in."""
    with closing(_Control(address, authority)) as control:
        nodes = control.ask("list-nodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse).nodes_info
    known = {node.public_key: int(node.node_id) for node in nodes if node.status != NodeStatus.UNREGISTERED}
    return {
        name: known.get(public_key_to_bytes(key)) or register(address, authority, key) for name, key in keys.items()
    }


def online(address: str, authority: bytes) -> int:
    """How many nodes are on duty."""
    with closing(_Control(address, authority)) as control:
        nodes = control.ask("list-nodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse).nodes_info
    return sum(node.status == NodeStatus.ONLINE for node in nodes)


def unregister(address: str, authority: bytes, node: int) -> None:
    """Shut a node out, for good."""
    with closing(_Control(address, authority)) as control:
        try:
            request = control_pb2.UnregisterNodeRequest(node_id=node)
            control.ask("unregister-node", request, control_pb2.UnregisterNodeResponse)
        except WireError as error:
            if error.got.get("code") != ApiErrorCode.NODE_NOT_FOUND:
                raise


@contextmanager
def executing(  # noqa: PLR0913  (where, as whom, and how to go about it)
    address: str, authority: bytes, secret: bytes, run_config: Mapping[str, str | int | float | bool], *,
    ring: Callable[[], None] = lambda: None, pace: Pace = Pace(),  # noqa: B008  (frozen)
) -> Iterator[LinkGrid]:  # fmt: skip
    """Be the executor of a new run, and speak for it: messages of this process are the run's.

    Runs that others left unfinished are stopped first, whatever they are. `run_config` is for whoever lists the runs.
    A SuperLink that is not up yet is waited for; one that restarts within a minute finds the same task at work.
    """
    with closing(_Control(address, authority)) as control:
        _insist(lambda: _stop_all(control), pace.patience)
        bundle = fab_pb2.Fab(content=_bundle(run_config))
        started = control.ask("start-run", control_pb2.StartRunRequest(fab=bundle), control_pb2.StartRunResponse)
        task = _Task.acquire(control.line, secret, started.run_id, pace.patience)
        with every(_BEAT, task.beat), task.ended():
            yield LinkGrid(control.line, task.start(), task.headers, ring=ring, pace=pace)
        with suppress(FedrecError):
            _stop_all(control)  # listing the runs also sweeps up after the finished ones


class _Control:
    """Flower's Control API, which knows no password: it must not be reached from outside."""

    def __init__(self, address: str, authority: bytes) -> None:
        self.line = Line(address, authority, keep=_KEPT)
        self.close = self.line.close

    def ask(self, what: str, request: Readable, answer: type[A]) -> A:
        return self.line.ask(f"/v1/control/{what}", request, answer, versions("flwr CLI"))


@dataclass(frozen=True, eq=False)
class _Task:
    """A task that was acquired, until it is ended."""

    line: Line
    headers: dict[str, str]

    @classmethod
    def acquire(cls, line: Line, secret: bytes, run: int, patience: float) -> _Task:
        """The task of a run. Tasks of other runs that come first are refused: they name code that nobody here runs."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            said = _acquire(line, secret)
            if said.token:
                task = cls(line, {TASK_TOKEN_HEADER: said.token, **versions("flwr-serverapp")})
                if said.task.run_id == run:
                    return task
                task.end(SubStatus.FAILED, "this site runs nothing but its own trainer")
            time.sleep(0.1)
        raise RunError("a run's task can be acquired", remedy="Look at the SuperLink's log.", seconds=patience)

    def start(self) -> Run:
        """Take the task up; from now on messages of this process are messages of its run."""
        said = self._ask("pull-task-input", runtime_pb2.PullTaskInputRequest(), runtime_pb2.PullTaskInputResponse)
        TaskIdentity.task_id, TaskIdentity.run_id = said.task_id, said.run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        return run_from_proto(said.run)

    def end(self, status: str, details: str) -> None:
        """Tell how it ended. A SuperLink that cannot be told finds out by itself."""
        request = runtime_pb2.PushTaskOutputRequest(sub_status=status, details=details)
        try:
            self._ask("push-task-output", request, runtime_pb2.PushTaskOutputResponse)
        except FedrecError as error:
            _LOG.warning("the SuperLink was not told how the run ended: %s", error)

    @contextmanager
    def ended(self) -> Iterator[None]:
        """End the task with the block, as it ends."""
        try:
            yield
        except BaseException as error:
            self.end(SubStatus.FAILED, type(error).__name__)
            raise
        self.end(SubStatus.COMPLETED, "")

    def beat(self) -> None:
        """Send a heartbeat."""
        request = runtime_pb2.SendTaskHeartbeatRequest()
        try:
            self._ask("send-task-heartbeat", request, runtime_pb2.SendTaskHeartbeatResponse, _PROMPT)
        except FedrecError as error:
            _LOG.warning("a heartbeat was not heard: %s", error)

    def _ask(self, what: str, request: Readable, answer: type[A], limits: Limits = USUAL) -> A:
        return self.line.ask(f"/v1/runtime/{what}", request, answer, self.headers, limits)


def _acquire(line: Line, secret: bytes) -> runtime_pb2.AcquireTaskResponse:
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    signed = create_superexec_auth_metadata(
        auth_secret=derive_auth_secret(secret), method="/flwr.proto.Runtime/AcquireTask", request=request
    )
    headers = {**signed, **versions("SuperExec")}
    return line.ask("/v1/runtime/acquire-task", request, runtime_pb2.AcquireTaskResponse, headers)


def _stop_all(control: _Control) -> None:
    runs = control.ask("list-runs", control_pb2.ListRunsRequest(limit=_RUNS), control_pb2.ListRunsResponse).run_dict
    for run, described in runs.items():
        if described.status.status == Status.FINISHED:
            continue
        try:
            control.ask("stop-run", control_pb2.StopRunRequest(run_id=run), control_pb2.StopRunResponse)
        except WireError as error:
            if error.got.get("code") != ApiErrorCode.RUN_ALREADY_FINISHED:
                raise


def _insist(step: Callable[[], T], patience: float) -> T:
    until = time.monotonic() + patience
    while True:
        try:
            return step()
        except RunError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def _bundle(run_config: Mapping[str, str | int | float | bool]) -> bytes:
    """What Flower asks of a bundle, and no code in it."""
    said = "\n".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in run_config.items())
    project = f"""
        [project]
        name = "fedrec"
        version = "1.0.0"
        description = ""
        license = "Apache-2.0"
        [tool.flwr.app]
        publisher = "fedrec"
        [tool.flwr.app.components]
        serverapp = "{_NOBODY}"
        clientapp = "{_NOBODY}"
        [tool.flwr.app.config]
        """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        bundle.writestr(zipfile.ZipInfo("pyproject.toml"), project + said)
    return packed.getvalue()
