"""Devices whose updates the server sees as a sum alone: the server's steps of a secure aggregation, over a grid."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec.errors import RunError, WireError
from fedrec.exchange import wire
from fedrec.exchange.crew import Devices, Round, Seats
from fedrec.exchange.masks import CONSENT, KEYS, REVEAL, SHARES, form, terms_of
from fedrec.exchange.secagg import Advert, Aggregation, Consent, Revealed, Shares, Witness
from fedrec.files import write_atomic
from fedrec.privacy.crossing import Summed
from fedrec.rounds.filter import Tally
from fedrec.task import Task

Spoken = TypeVar("Spoken", Advert, Shares, Consent, Revealed)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Journal:
    """Where a sum stands once its survivors are fixed: a restarted server asks these again, and nobody else.

    Devices lift their masks for one set of survivors and for no other. The file holds a masked sum, which says nothing,
    and what everybody was told.
    """

    path: Path

    def keep(self, aggregation: Aggregation) -> None:
        """On disk when this returns."""
        write_atomic(self.path, aggregation.journal())

    def read(self, task: str, number: int, witness: Witness) -> Aggregation | None:
        """The sum of round `number` that was under way; None if there was none, or of another round.

        A torn file, which only a disk that lies leaves, counts as none: the round is tried anew, and whoever lifted
        masks in it stays out.
        """
        if not self.path.exists():
            return None
        try:
            found = Aggregation.of_journal(self.path.read_bytes(), witness)
        except RunError as error:
            _LOG.warning("round %d is tried anew: %s", number, error)
            return None
        return found if (found.terms.task, found.terms.round) == (task, number) else None

    def drop(self) -> None:
        """Forget it: the sum is in a checkpoint, or will never be known."""
        self.path.unlink(missing_ok=True)


@dataclass
class _Attempt:
    """One attempt at one round; `resumed` if its survivors were fixed in an earlier one.

    `binding` once devices may have lifted their masks: none of these sends for this round again.
    """

    grid: Grid
    header: wire.Header
    aggregation: Aggregation
    resumed: bool = False
    binding: bool = False
    tally: Tally = field(default_factory=Tally)


class Masked(Devices):
    """Devices of a task whose plan has masks. Each step waits for `patience` seconds at most.

    Who falls silent in a step, or says what no honest device says, is left out of the rest; below the plan's number of
    survivors nothing is unmasked. `journal` is where a sum stands when the server is killed, `witness` knows who is
    enrolled.
    """

    sums: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913  (what devices have, and what masks add)
        self, task: Task, journal: Path, witness: Witness, seats: Seats | None = None, *,
        begin: float = 1.0, patience: float = 60.0,
    ) -> None:  # fmt: skip
        super().__init__(seats, begin=begin)
        self._of, self._journal, self._witness, self._patience = task, Journal(journal), witness, patience
        self._attempt: _Attempt | None = None

    def requests(
        self, grid: Grid, cohort: NDArray[np.int64], header: wire.Header, shared: ArrayRecord
    ) -> list[Message]:
        """After keys and shares: one message for each client that may still be in the sum."""
        under_way = self._journal.read(self._of.hash, header.round, self._witness)
        if under_way is not None:
            self.placed(np.array(sorted(under_way.alive)))
            first = replace(header, nonce=under_way.terms.nonce)
            self._attempt = _Attempt(grid, first, under_way, resumed=True)
            return []
        self._journal.drop()
        placed = self.placed(cohort)
        aggregation = Aggregation(terms_of(self._of, header), sorted(placed.values()), self._witness)
        self._attempt = at = _Attempt(grid, header, aggregation)
        nodes = {client: node for node, client in placed.items()}
        try:
            rosters = aggregation.roster(self._heard(at, KEYS, dict.fromkeys(nodes), Advert))
            deliveries = aggregation.deliveries(self._heard(at, SHARES, rosters, Shares))
        except WireError as error:  # too few are left: the round has no sum
            _LOG.warning("round %d has no sum: %s", header.round, error)
            return []
        return [wire.train(nodes[client], header, shared, said=said) for client, said in deliveries.items()]

    def total(self, replies: Iterable[Message], ended: Round) -> tuple[Summed, Tally]:
        """The sum of those who were heard to the end; of nobody, if too few were."""
        at = self._attempt
        assert at is not None  # requests come first
        if not at.resumed:
            self._add(at, replies, ended)
        try:
            summed = Summed(self._unmasked(at), len(at.aggregation.alive))
        except WireError as error:
            _LOG.warning("round %d has no sum: %s", at.header.round, error)
            summed = Summed(np.zeros(ended.filter.size, np.int64), 0)
            if not at.binding:
                self._journal.drop()
        tally = Tally(self._cohort, summed.count, at.tally.refused + Counter(at.aggregation.refused.values()))
        return ended.rounds.join(ended.turn, [summed], ended.width), tally

    def settled(self) -> None:
        """Forget the sum that was under way."""
        self._journal.drop()

    def _add(self, at: _Attempt, replies: Iterable[Message], ended: Round) -> None:
        shape = form(at.aggregation.terms)
        masked, tally = self.judged(replies, Round(ended.turn, at.header.echo, shape, ended.rounds, ended.width))
        at.tally.refused.update(tally.refused)
        for client in sorted(masked):
            at.aggregation.add(client, masked[client])

    def _unmasked(self, at: _Attempt) -> NDArray[np.int64]:
        """Survivors agree that they are, and lift their masks."""
        survivors = at.aggregation.survivors()
        if not at.resumed:
            self._journal.keep(at.aggregation)
        consents = at.aggregation.consents(self._heard(at, CONSENT, survivors, Consent))
        at.binding = bool(consents)
        return at.aggregation.total(self._heard(at, REVEAL, consents, Revealed))

    def _heard(
        self, at: _Attempt, step: str, asked: Mapping[int, wire.Said | None], kind: type[Spoken]
    ) -> dict[int, Spoken]:
        """What clients answer in a step; whoever says anything of another form is counted and left out."""
        nodes = {client: node for node, client in self._asked.items()}
        messages = [wire.ask(nodes[client], step, at.header, said) for client, said in asked.items() if client in nodes]
        found: dict[int, Spoken] = {}
        for reply in at.grid.send_and_receive(messages, timeout=self._patience):
            client = self._asked.get(reply.metadata.src_node_id)
            try:
                wire.read_reply(reply, at.header.echo)
                said = wire.heard(reply, kind)
                if client is None or client in found:
                    raise WireError("a device speaks for itself, once")
                found[client] = said
            except WireError as error:
                at.tally.refused[error.rule] += 1
        return found
