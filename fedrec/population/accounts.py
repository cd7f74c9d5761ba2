"""What virtual devices have spent where the server adds the noise: counts on disk, a few bytes for each device.

Nothing that leaves such a device is noisy by itself, and a repeated round makes the same bytes, so there are none to
keep. Where devices add noise, `fedrec.privacy.device_ledger` keeps what was sent, and seals it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import BudgetExceeded, PrivacyRefusal
from fedrec.files import write_atomic
from fedrec.population.mapped import Mapped
from fedrec.privacy.enrolment import Charge, Limits, Terms
from fedrec.privacy.entries import Seat, Standing, reserved

_LAST = (1 << 32) - 1  # the lower half of a word: the last round in a span; the upper half: how many there were

Clients = NDArray[np.int64]


class Accounts:
    """The seats of `clients` devices in one task, by the rules of `DeviceLedger`, which a whole cohort meets at once.

    `lifetime` is the most that each device gives. A device has one word for each span of the terms, and a round
    changes one of them in one store: a killed process leaves devices that are counted and devices that are not.
    """

    def __init__(self, folder: Path, clients: int, terms: Terms, lifetime: Limits) -> None:
        """Open the accounts in `folder`, or begin them; refuses P15 accounts of other terms."""
        self.terms, self.lifetime = terms, lifetime
        folder.mkdir(parents=True, exist_ok=True)
        _bind(folder / "terms.json", terms)
        self._words = Mapped(folder / "accounts.npy", (clients, len(terms.spans)), np.dtype(np.int64))

    def enter(self, clients: Clients, number: int) -> dict[int, BudgetExceeded]:
        """Spend one participation of each of `clients` that may come, before they train for round `number`.

        The last round again costs nothing. Who may not come is not counted: by position, each with the P10 that its
        ledger would raise. No refusal depends on data.
        """
        rows, places = self._distinct(clients, number)
        after, refusals = np.zeros(len(rows), np.int64), dict[int, BudgetExceeded]()
        for kind, row in enumerate(rows):
            try:
                after[kind] = self._after(row, number)
            except BudgetExceeded as refusal:
                refusals |= dict.fromkeys(np.flatnonzero(places == kind).tolist(), refusal)
        if len(refusals) < len(clients):
            staying = np.delete(np.arange(len(clients)), list(refusals))
            span = self.terms.spans.index(self.terms.span(number))
            self._words.array[clients[staying], span] = after[places[staying]]
        self._words.drop()
        return refusals

    def seat(self, client: int) -> Seat:
        """Where one device stands."""
        return self._seat(self._words.array[client].tolist())

    def _after(self, words: Sequence[int], number: int) -> int:
        """The word of round `number`'s span once the round is reserved; refuses P10."""
        seat = self._seat(words)
        if not seat.awaits(number):
            seat, task = reserved(seat, number), self.terms.task
            Standing(seats={task: seat}).check(task, self.lifetime)
        return seat.used[self.terms.spans.index(self.terms.span(number))] << 32 | number

    def _seat(self, words: Sequence[int]) -> Seat:
        used = tuple(word >> 32 for word in words)
        last = max((word & _LAST for word in words), default=0)
        costs = (span.charge.times(count) for span, count in zip(self.terms.spans, used, strict=True))
        return Seat(terms=self.terms, used=used, last=last, spent=sum(costs, Charge()))

    def _distinct(self, clients: Clients, number: int) -> tuple[list[list[int]], NDArray[np.intp]]:
        """The rows of words among `clients` that round `number` tells apart, and which of them each client has.

        They are few however many come: a last round too long ago to be in the way counts as none.
        """
        words = self._words.array[clients]
        free = number - (words & _LAST) >= max(span.separation for span in self.terms.spans)
        words = np.where(free, words >> 32 << 32, words)
        places = np.zeros(len(clients), np.intp)
        for column in words.T:  # faster than sorting whole rows
            _, codes = np.unique(column, return_inverse=True)
            _, places = np.unique(places * (codes.max(initial=0) + 1) + codes, return_inverse=True)
        _, firsts = np.unique(places, return_index=True)
        return words[firsts].tolist(), places


def _bind(path: Path, terms: Terms) -> None:
    """Note the terms where accounts begin, and refuse P15 others later."""
    written = json.dumps(terms.public(), sort_keys=True)
    if not path.exists():
        write_atomic(path, written.encode())
    elif path.read_text(encoding="utf-8") != written:
        remedy = "Enrol the devices in a new task: the terms of this one hold to its end."
        raise PrivacyRefusal("P15", "the terms of a task do not change", remedy=remedy, task=terms.task[:12])
