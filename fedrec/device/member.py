"""A real device in a federation: one person, one seat, one ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.device.participation import Participation
from fedrec.device.policy import Policy
from fedrec.device.recall import history_of
from fedrec.device.rounds import DeviceRounds, Holding
from fedrec.device.store import Store
from fedrec.errors import RunError
from fedrec.model.adapter import Adapter, TowerInputs
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Terms
from fedrec.rounds.aggregate import Turn
from fedrec.task import Task

_HELD = 64 << 20  # bytes of encoded texts; their rows are small, or hidden states of many tokens


class Texts:
    """What the frozen tower makes of private texts: computed on the device, held in memory, never written to disk.

    Not for several threads at once.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._rows: dict[str, int] = {}
        self._inputs = adapter.prepare([])

    def __repr__(self) -> str:
        return "Texts(contents withheld)"

    def __call__(self, texts: Sequence[str]) -> TowerInputs:
        """The inputs of `texts`, in their order."""
        if self._inputs.values.nbytes > _HELD:
            self._rows, self._inputs = {}, self._adapter.prepare([])
        fresh = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if fresh:
            more = self._inputs.concat(self._adapter.prepare(fresh))
            self._rows |= {text: len(self._inputs) + place for place, text in enumerate(fresh)}
            self._inputs = more
        return self._inputs[torch.tensor([self._rows[text] for text in texts], dtype=torch.int64)]


@dataclass(frozen=True, eq=False)
class Work:
    """What all devices of one task in a process share. They train one at a time: torch swaps a model's parameters."""

    task: Task
    turns: Lock = field(default_factory=Lock, repr=False)

    @cached_property
    def rounds(self) -> DeviceRounds:
        """The work of a round."""
        return DeviceRounds(self.task)

    @cached_property
    def texts(self) -> Texts:
        """Their private texts, as the frozen tower sees them."""
        return Texts(self.task.model.adapter)


class Member:
    """One device in one seat of a task: what `fedrec.exchange.client` calls a `Device`. One thread at a time.

    It sends what the virtual device of the same number would that holds the same events.
    """

    def __init__(self, work: Work, seat: int, store: Store, *, policy: Policy, ledger: DeviceLedger | None) -> None:
        """Take the seat, if the owner's `policy` accepts the task.

        Refuses P10 what it does not accept, and then leaves nothing behind. A task with promises needs a `ledger`.
        """
        self.work, self.client, self.store, self.ledger = work, seat, store, ledger
        self.trouble: Exception | None = None
        self.terms = accepted(work.task, policy)
        if self.terms:
            self._spending(self.terms).ledger.enrol(str(seat), self.terms)

    def __repr__(self) -> str:
        return f"Member({self.client}, contents withheld)"

    @property
    def task(self) -> str:
        """Hash of the task."""
        return self.work.task.hash

    def take_part(self, turn: Turn, shared: NDArray[np.float32]) -> NDArray[Any]:
        """What the device sends in a round. Its embedding is kept; the ledger may refuse P10 or P11.

        With promises it also sends something if training fails, as if it held nothing: then `trouble` says why, to
        nobody but the owner.
        """
        with self.work.turns:
            self.trouble = None
            train = partial(self._trained, turn.number, shared)
            if self.terms is None:
                return train().astype(np.float32)
            out = self.work.rounds.out(self.client, turn, shared, self.work.texts)
            return self._spending(self.terms).take_part(turn.number, train, out)

    def revealed(self, number: int) -> None:
        """The masks over what was sent in round `number` may be lifted: it is not sent again, under other masks."""
        with self.work.turns:
            if self.terms:
                self._spending(self.terms).ledger.forget(self.terms.task, before=number + 1)

    def _trained(self, number: int, shared: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        try:
            return self._learnt(number, shared)
        except Exception as error:
            self.trouble = error
            raise

    def _learnt(self, number: int, shared: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        task, rounds, forgets = self.work.task, self.work.rounds, self.store.forgets
        kept = self.store.before(task.hash, number)
        embedding = np.zeros(task.plan.model.dim, np.float32) if kept is None else kept
        holding = Holding(history_of(self.store, task.catalogue.rows), task.plan.profile, self.work.texts)
        outcome = rounds.round(number, (shared, embedding), holding, rounds.coins(self.client, number))
        self.store.keep(task.hash, number, outcome.embedding, forgets=forgets)
        return outcome.delta

    def _spending(self, terms: Terms) -> Participation:
        if self.ledger is None:
            raise RunError("a device that is promised something keeps a ledger", remedy="Give it a DeviceLedger.")
        return Participation(ledger=self.ledger, device=str(self.client), task=terms.task)


def accepted(task: Task, policy: Policy) -> Terms | None:
    """The terms on which a device of `policy` takes part in `task`, None without promises. Refuses P10 any others."""
    if task.privacy is None:
        policy.accept_none()
        return None
    return policy.accept(task.privacy, task.hash)
