"""Who answers a server's request: devices that stand for themselves, or shards that stand for many virtual clients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec.errors import WireError
from fedrec.exchange import wire
from fedrec.privacy.crossing import Summed
from fedrec.rounds.aggregate import Rounds, Turn
from fedrec.rounds.filter import Filter, Tally, Vector


@dataclass(frozen=True, eq=False)
class Round:
    """One round as its replies are judged: what each must say of itself, its form, and how they add up."""

    turn: Turn
    header: wire.Header
    filter: Filter
    rounds: Rounds
    width: int


Seats = Callable[[], Mapping[int, int]]  # the nodes of all enrolled clients


class Crew(Protocol):
    """The nodes of a grid, by the clients that they answer for."""

    sums: ClassVar[bool]  # whether all that it shows of honest clients is their sum

    def join(self, grid: Grid, clients: int, *, task: str, patience: float, timeout: float) -> None:
        """Wait for nodes that answer for `clients` clients, each for its own; `WireError` if they do not come."""

    def requests(
        self, grid: Grid, cohort: NDArray[np.int64], header: wire.Header, shared: ArrayRecord
    ) -> list[Message]:
        """What to ask of whom for updates, so that every client of the cohort is asked once.

        What has to be agreed with clients before they can answer is agreed over `grid`.
        """

    def total(self, replies: Iterable[Message], ended: Round) -> tuple[Summed, Tally]:
        """The sum of what may be added, and what became of everyone who was asked."""

    def suffices(self, tally: Tally, quorum: float) -> bool:
        """Whether a round without promises may go on with what arrived."""

    def settled(self) -> None:
        """What came of the round is on disk: nothing is kept of it for a restart."""


class Devices:
    """A node for each client. Every update is judged here, by the server.

    `seats` names the nodes of the clients that are enrolled by now, as a deployment knows them; without it every node
    is asked once which client it is. Training begins when `begin` of all clients are there, or all.
    """

    sums: ClassVar[bool] = False

    def __init__(self, seats: Seats | None = None, *, begin: float = 1.0) -> None:
        self.seats, self.begin = seats, begin
        self._roster: Mapping[int, int] = {}
        self._asked: dict[int, int] = {}
        self._cohort = self._planned = 0

    def join(self, grid: Grid, clients: int, *, task: str, patience: float, timeout: float) -> None:
        """Wait for `clients` nodes and learn which client each one is.

        Cohorts are drawn over client numbers, not over Flower's random node ids: that is what makes
        one seed mean one run on every engine.
        """
        if self.seats:
            _gather(grid, self.seats, math.ceil(self.begin * clients), patience)
            return
        seats = _seats(grid, clients, task=task, patience=patience, timeout=timeout)
        if any(header.hosts != 1 for header in seats.values()):
            raise WireError("a device answers for itself alone", remedy="Start the clients as devices, not as shards.")
        placed = {header.client: node for node, header in seats.items()}
        missing = sorted(set(range(clients)) - set(placed))
        if missing or len(placed) < len(seats):
            raise WireError("every client of the plan is on one node", missing=missing[:5], nodes=len(seats))
        self._roster = {client: placed[client] for client in range(clients)}

    def requests(
        self, grid: Grid, cohort: NDArray[np.int64], header: wire.Header, shared: ArrayRecord
    ) -> list[Message]:
        """One message for each client that has a node by now."""
        return [wire.train(node, header, shared) for node in self.placed(cohort)]

    def placed(self, cohort: NDArray[np.int64]) -> dict[int, int]:
        """The clients of a cohort by their nodes: whoever answers for them now."""
        roster = self.seats() if self.seats else self._roster
        self._cohort = len(cohort)
        self._asked = {roster[client]: client for client in cohort.tolist() if client in roster}
        return self._asked

    def total(self, replies: Iterable[Message], ended: Round) -> tuple[Summed, Tally]:
        """Acceptable updates, added in the order of client numbers: floating-point sums depend on it."""
        accepted, tally = self.judged(replies, ended)
        updates = (accepted[client] for client in sorted(accepted))
        return ended.rounds.sum(ended.turn, updates, ended.width), tally

    def judged(self, replies: Iterable[Message], ended: Round) -> tuple[dict[int, Vector], Tally]:
        """What may be added, by client, and what became of everyone who was asked.

        Where more were asked than are needed, the first so many close the round; the others are late.
        """
        tally, accepted, heard = Tally(asked=self._cohort), dict[int, Vector](), set[int]()
        enough = ended.rounds.enough(ended.turn.number)
        self._planned = enough or self._cohort
        for reply in replies:
            node = reply.metadata.src_node_id
            update, reason = self._read(reply, accepted, ended)
            heard.add(node)
            if reason or update is None:
                tally.refused[reason] += 1
            else:
                accepted[self._asked[node]] = update
            if len(accepted) == enough:
                tally.refused["late"] += len(self._asked.keys() - heard)
                break
        tally.refused, tally.accepted = +tally.refused, len(accepted)
        if nowhere := self._cohort - len(self._asked):
            tally.refused[wire.NO_REPLY] += nowhere
        return accepted, tally

    def suffices(self, tally: Tally, quorum: float) -> bool:
        """So many of the planned cohort, at least, were accepted."""
        return tally.accepted >= quorum * min(self._planned, tally.asked)

    def settled(self) -> None:
        """Nothing was kept."""

    def _read(self, reply: Message, accepted: Mapping[int, Vector], ended: Round) -> tuple[Vector | None, str]:
        """An acceptable update and "", or why a reply is refused."""
        client = self._asked.get(reply.metadata.src_node_id)
        if client is None or client in accepted:
            return None, "not asked" if client is None else "duplicate"
        try:
            update = wire.read_update(reply, ended.header, most=ended.filter.nbytes)
        except WireError as error:
            return None, error.rule
        return update, ended.filter.reason(update) or ""


class Shards:
    """`nodes` nodes of a simulation, each with a slice of the clients. Updates are clipped, judged and added there.

    A server learns of a shard's clients by their sum and their number, which is what masks would leave of them. Nothing
    proves that a node added up only what honest clients send, so real devices are never asked this way.
    """

    sums: ClassVar[bool] = True

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self._firsts: NDArray[np.int64] = np.zeros(0, np.int64)
        self._roster: tuple[int, ...] = ()
        self._asked: dict[int, int] = {}
        self._heard = 0

    def join(self, grid: Grid, clients: int, *, task: str, patience: float, timeout: float) -> None:
        """Wait for the nodes and learn which clients each one hosts; together they host each client once."""
        seats = _seats(grid, self.nodes, task=task, patience=patience, timeout=timeout)
        placed = sorted((header.client, header.hosts, node) for node, header in seats.items())
        ends = np.cumsum([0, *(hosts for _, hosts, _ in placed)])
        if [first for first, _, _ in placed] != ends[:-1].tolist() or ends[-1] != clients:
            raise WireError("shards cut the clients of the plan into slices", nodes=len(placed), clients=clients)
        self._firsts, self._roster = ends[:-1], tuple(node for _, _, node in placed)

    def requests(
        self, grid: Grid, cohort: NDArray[np.int64], header: wire.Header, shared: ArrayRecord
    ) -> list[Message]:
        """One message for each shard with a client in the cohort."""
        shards = np.searchsorted(self._firsts, cohort, side="right") - 1
        asked = {self._roster[shard]: cohort[shards == shard] for shard in np.unique(shards)}
        self._asked = {node: len(clients) for node, clients in asked.items()}
        return [wire.train(node, header, shared, clients) for node, clients in asked.items()]

    def total(self, replies: Iterable[Message], ended: Round) -> tuple[Summed, Tally]:
        """Partial sums, added in the order of the slices. A shard without an acceptable one counts as refused whole."""
        tally, accepted = Tally(asked=sum(self._asked.values())), dict[int, wire.Partial]()
        for reply in replies:
            node = reply.metadata.src_node_id
            asked = 0 if node in accepted else self._asked.get(node, 0)
            try:
                partial = wire.read_partial(reply, ended.header)
                if not asked or partial.summed.count + partial.refused.total() != asked:
                    raise WireError("a shard answers once for whom it was asked")
                accepted[node] = partial
            except WireError as error:
                tally.refused[error.rule] += asked or 1
        self._heard = sum(self._asked[node] for node in accepted)
        for partial in accepted.values():
            tally.refused.update(partial.refused)
        tally.accepted = sum(partial.summed.count for partial in accepted.values())
        parts = (accepted[node].summed for node in self._roster if node in accepted)
        return ended.rounds.join(ended.turn, parts, ended.width), tally

    def suffices(self, tally: Tally, quorum: float) -> bool:
        """So many of the clients of those shards that answered: one that is lost does not cost everyone the run."""
        return self._heard > 0 and tally.accepted >= quorum * self._heard

    def settled(self) -> None:
        """Nothing was kept."""


def _seats(grid: Grid, count: int, *, task: str, patience: float, timeout: float) -> dict[int, wire.Header]:
    """What `count` nodes or more say of themselves. Raises `WireError` if too few come within `patience` seconds."""
    nodes = _wait(grid, count, patience)
    # Nodes are there before their clients can answer: an engine may start a process for each.
    replies = grid.send_and_receive([wire.hello(node) for node in nodes], timeout=timeout)
    headers = {reply.metadata.src_node_id: wire.read_header(reply) for reply in replies}
    if any(header.task != task for header in headers.values()):
        remedy = "Start server and devices from one run folder."
        raise WireError("server and devices were set up for one task", remedy=remedy)
    return headers


def _gather(grid: Grid, seats: Seats, count: int, patience: float) -> None:
    """Wait until `count` enrolled clients are online. Raises `WireError` after `patience` seconds."""
    deadline = time.monotonic() + patience
    while (online := len(set(seats().values()) & set(grid.get_node_ids()))) < count:
        if time.monotonic() > deadline:
            remedy = "Enrol more devices, start those that are enrolled, or lower `begin` in server.toml."
            raise WireError("training begins when enough devices are online", remedy=remedy, online=online, of=count)
        time.sleep(0.5)


def _wait(grid: Grid, count: int, patience: float) -> Sequence[int]:
    deadline = time.monotonic() + patience
    while len(nodes := list(grid.get_node_ids())) < count:
        if time.monotonic() > deadline:
            remedy = f"With Flower's engine, start it with --federation-config 'num-supernodes={count}'."
            raise WireError("a federation has a node for each client", remedy=remedy, nodes=len(nodes), clients=count)
        time.sleep(0.1)
    return nodes
