"""Federated training as a Flower `Strategy`: the same over a simulation's Grid and over a SuperLink."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal, RunError
from fedrec.exchange import wire
from fedrec.exchange.crew import Crew, Devices, Round
from fedrec.privacy.terms import Guarantee
from fedrec.rounds.aggregate import Rounds, Turn
from fedrec.rounds.checkpoint import CHECKPOINT, Checkpoint
from fedrec.rounds.filter import Filter, Tally
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import Optimum
from fedrec.spec import FederationSpec


@dataclass(frozen=True, eq=False)
class Progress:
    """What may be told of a finished round.

    `tally` and `seconds` are None where the cohort is a secret: a round takes longer the more clients came.
    `seconds` is also None when a round is told of again after a restart. `spent` is what it cost so far. `judged` is
    for the operator's eyes, who sees every client of a public cohort anyway.
    """

    round: int
    shared: NDArray[np.float32]
    seconds: float | None
    bytes_down: int
    bytes_up: int
    tally: Tally | None
    spent: Guarantee | None
    judged: Tally | None = None

    def public(self) -> dict[str, Any]:
        """What anybody may know of the round, as plain values."""
        row: dict[str, Any] = {"round": self.round, "bytes_down": self.bytes_down, "bytes_up": self.bytes_up}
        if self.seconds is not None:
            row["seconds"] = round(self.seconds, 3)
        if self.tally is not None:
            row |= {"clients": self.tally.accepted, "refused": dict(sorted(self.tally.refused.items()))}
        if self.spent is not None:
            row["spent"] = asdict(self.spent)  # an ε never goes without its unit, relation and adversary
        return row


Observer = Callable[[Progress], None]

_ATTEMPTS = 3  # at a round whose shares of noise did not arrive, and rounds in a row that may be given up
_UNRELEASED = ("P06", "P08")  # too few shares of noise, or a sum that a lie behind masks has spoiled
_LOG = logging.getLogger(__name__)


class FederatedTraining(Strategy):
    """FedSGD and FedAvg with a server optimiser, checkpointed after every round.

    `task` is the hash that every device must have been set up with; `crew` says who answers for whom, by default every
    device for itself. `start` goes on from the
    checkpoint in `folder` if there is one, and then ends where an uninterrupted run would.
    Sources: McMahan et al. 2017 (FedAvg); Reddi et al. 2021 (server optimisers).
    """

    def __init__(  # noqa: PLR0913  (three parts, and where it stands)
        self, spec: FederationSpec, rounds: Rounds, learner: Learner, *,
        task: str, folder: Path, crew: Crew | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.rounds, self.learner, self.crew = spec, rounds, learner, crew or Devices()
        self.task, self.path = task, folder / CHECKPOINT
        self.observers: list[Observer] = []
        self._clients = 0
        self._filter = Filter(0, np.dtype(np.float32), lambda vector: True)
        self._at = Checkpoint(0, task, "", Optimum.start(np.zeros(0, np.float32)))
        self._tally = Tally()
        self._header = wire.Header(task)
        self._after = 0

    def start(  # noqa: PLR0913  (Flower's signature)
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 0,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Train until round `num_rounds` (0: what the plan says), from the checkpoint if there is one.

        The checkpoint's round is told of once more: a crash may have come before observers heard of it.
        """
        self._open(initial_arrays)
        if self._at.round:
            self._tell(None)
        result, config, lost = Result(), train_config or ConfigRecord(), 0
        result.arrays = wire.arrays(self._at.optimum.shared)
        last = num_rounds or self.learner.rounds
        for number in range(self._after + 1, last + 1):
            if not self.rounds.affords(number):  # a crash cost its charge
                if self._may_lose(number):
                    continue
                break  # the run ends early rather than over budget
            began = time.monotonic()
            try:
                result.arrays = self._round(number, result.arrays, config, grid, timeout)
            except PrivacyRefusal as refusal:
                lost += 1
                vain = number == last and not self._at.round  # nothing would have been learnt at all
                if refusal.code not in _UNRELEASED or lost == _ATTEMPTS or vain or not self._may_lose(number):
                    raise
                _LOG.warning("round %d is given up, nothing of it was released: %s", number, refusal)
                continue
            lost = 0
            self._tell(time.monotonic() - began)
            metrics = evaluate_fn(number, result.arrays) if evaluate_fn else None
            if metrics is not None:
                result.evaluate_metrics_serverapp[number] = metrics
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests that reach each client of the round's cohort once."""
        cohort = self.rounds.cohort(server_round, self._clients)
        turn = Turn(server_round, self._at.clip)
        self._filter = self.rounds.filter(turn, self.learner.width(server_round))
        model = wire.digest(self._at.optimum.shared)
        self._header = wire.Header(
            self.task, server_round, clip=turn.clip or 0.0, nonce=secrets.token_hex(8), model=model
        )  # fmt: skip
        return self.crew.requests(grid, cohort, self._header, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Filter, sum, release, step, checkpoint: in this order, so that a crash never releases twice."""
        turn, width = Turn(server_round, self._at.clip), self.learner.width(server_round)
        ended = Round(turn, self._header.echo, self._filter, self.rounds, width)
        summed, self._tally = self.crew.total(replies, ended)
        self._check_quorum(server_round)
        release = self.rounds.release(turn, summed, width)
        optimum = self.learner.step(self._at.optimum, release, server_round)
        tally = None if self.rounds.private else self._tally
        self._at = Checkpoint(server_round, self.task, release.digest, optimum, tally, release.clip)
        self._at.save(self.path)
        self.rounds.published(server_round, release.digest)
        self.crew.settled()
        return wire.arrays(optimum.shared), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: no metric leaves a device."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing: no metric leaves a device."""
        return None

    def summary(self) -> None:
        """Say nothing: the plan is in the run folder."""

    def join(self, grid: Grid, clients: int, *, patience: float = 60.0) -> None:
        """Wait for nodes that answer for `clients` clients. Raises `WireError` if too few come within `patience`."""
        # Nodes may take as long to answer as in a round: an engine may start a process for each.
        self.crew.join(grid, clients, task=self.task, patience=patience, timeout=self.spec.timeout)
        self._clients = clients

    def _round(self, number: int, shared: ArrayRecord, config: ConfigRecord, grid: Grid, timeout: float) -> ArrayRecord:
        """The shared vector after a round. One with too few shares of noise is asked again where that tells nothing."""
        for attempt in range(1, _ATTEMPTS + 1):
            messages = self.configure_train(number, shared, config, grid)
            try:
                record, _ = self.aggregate_train(number, grid.send_and_receive(messages, timeout=timeout))
                return record or shared
            except PrivacyRefusal as refusal:
                if refusal.code not in _UNRELEASED or attempt == _ATTEMPTS or not self.rounds.repeats(number):
                    raise
                _LOG.warning("round %d is asked again: %s", number, refusal)
        raise AssertionError("the last attempt returns or raises")

    def _public(self) -> bool:
        """Whether anybody may know who was in the last round."""
        return not self.rounds.private or self.rounds.repeats(self._at.round)

    def _may_lose(self, number: int) -> bool:
        """Whether the run can go on without a round: not without its start."""
        return self.rounds.skips(number) and not (self.learner.warm and number == 1)

    def _open(self, initial: ArrayRecord) -> None:
        saved = Checkpoint.load(self.path, self.task)
        first = np.asarray(wire.vector(initial), np.float32)
        self._at = saved or Checkpoint(0, self.task, "", Optimum.start(first))
        last = max(1, self._at.round)
        self._filter = self.rounds.filter(Turn(last), self.learner.width(last))
        self._after = self.rounds.resume(self._at.round, self._at.digest)

    def _check_quorum(self, number: int) -> None:
        # A private round goes on with whatever arrived: to stop for few replies would tell who replied.
        if self.rounds.private or self.crew.suffices(self._tally, self.spec.quorum):
            return
        remedy = "Look at the clients' log; the model is unchanged and the run can be resumed."
        refused = dict(self._tally.refused)
        raise RunError(
            "a round needs a quorum of acceptable updates", remedy=remedy, round=number,
            accepted=self._tally.accepted, asked=self._tally.asked, refused=refused,
        )  # fmt: skip

    def _tell(self, seconds: float | None) -> None:
        shared = self._at.optimum.shared
        progress = Progress(
            self._at.round, shared, None if self.rounds.private else seconds,
            bytes_down=shared.nbytes, bytes_up=self._filter.size * self._filter.dtype.itemsize,
            tally=self._at.tally, spent=self.rounds.spent(),
            judged=self._tally if seconds is not None and self._public() else None,
        )  # fmt: skip
        for observer in self.observers:
            observer(progress)
