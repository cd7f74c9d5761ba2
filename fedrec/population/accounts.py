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

    def reserve(self, clients: Clients, number: int) -> None:
        """Spend one participation of each of `clients`, before they train for round `number`.

        The last round again costs nothing. Refuses P10 beyond what was agreed, for the first of them that may not
        come, before anything is counted. No refusal depends on data.
        """
        if refusals := self.refusals(clients, number):
            raise refusals[min(refusals)]
        if not len(clients):
            return
        words, places = self._distinct(clients)
        span = self.terms.spans.index(self.terms.span(number))
        after = [self._after(row, number).used[span] << 32 | number for row in words]
        self._words.array[clients, span] = np.array(after, np.int64)[places]
        self._words.drop()

    def refusals(self, clients: Clients, number: int) -> dict[int, BudgetExceeded]:
        """Which of `clients`, by position, may not come in round `number`, each with what `reserve` would raise.

        Counts nothing.
        """
        words, places = self._distinct(clients)
        found: dict[int, BudgetExceeded] = {}
        for place, row in enumerate(words):
            try:
                self._after(row, number)
            except BudgetExceeded as refusal:
                found |= dict.fromkeys(np.flatnonzero(places == place).tolist(), refusal)
        return found

    def seat(self, client: int) -> Seat:
        """Where one device stands."""
        return self._seat(self._words.array[client].tolist())

    def _after(self, words: Sequence[int], number: int) -> Seat:
        """The seat after round `number` is reserved; refuses P10."""
        seat = self._seat(words)
        if seat.awaits(number):
            return seat
        after, task = reserved(seat, number), self.terms.task
        Standing(seats={task: after}).check(task, self.lifetime)
        return after

    def _seat(self, words: Sequence[int]) -> Seat:
        used = tuple(word >> 32 for word in words)
        last = max((word & _LAST for word in words), default=0)
        costs = (span.charge.times(count) for span, count in zip(self.terms.spans, used, strict=True))
        return Seat(terms=self.terms, used=used, last=last, spent=sum(costs, Charge()))

    def _distinct(self, clients: Clients) -> tuple[list[list[int]], NDArray[np.intp]]:
        """The distinct rows of words among `clients`, few however many come, and which of them each client has."""
        words = self._words.array[clients]
        self._words.drop()
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
