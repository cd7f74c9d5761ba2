"""The order of a device's round: what was sent before, the reservation, the work, the crossing, the seal."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.device_ledger import DeviceLedger

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One round's way out of a device. `cross` clips an update (size,), adds noise and makes what is sent.

    `sent` is the public length and type of the latter. `idle` makes the update of a device that holds nothing; where
    noise is added inside training it must be given, for zeros would then say that training failed.
    """

    cross: Callable[[NDArray[np.float64]], NDArray[Any]]
    size: int
    sent: tuple[int, np.dtype[Any]]
    idle: Callable[[], NDArray[np.floating[Any]]] | None = None


@dataclass(frozen=True, kw_only=True)
class Participation:
    """One device's part in one task that it is enrolled in.

    Training that takes longer than `deadline` seconds counts as failed; it is not interrupted.
    """

    ledger: DeviceLedger
    device: str
    task: str
    deadline: float = math.inf

    def take_part(
        self, number: int, train: Callable[[], NDArray[np.floating[Any]]], out: Exit, *, echoed: int = 0
    ) -> NDArray[Any]:
        """What the device sends in round `number`: whatever it sent before for that round, else what `train` makes.

        Training that raises or takes too long fails, and no failure leaves the device: see `leave`.
        """
        kept = self.enter(number, out, echoed=echoed)
        return self.leave(number, self._trained(number, train), out) if kept is None else kept

    def enter(self, number: int, out: Exit, *, echoed: int = 0) -> NDArray[Any] | None:
        """What the device sent before for round `number`; None once it has spent a participation and may train.

        The ledger may refuse (P10, P11); then nothing is spent.
        """
        kept = self.ledger.sent(self.device, self.task, number)
        if kept is not None:
            return _of_form(np.frombuffer(kept, out.sent[1]), out)
        self.ledger.reserve(self.device, self.task, number, echoed=echoed)
        return None

    def leave(self, number: int, update: NDArray[np.floating[Any]] | None, out: Exit) -> NDArray[Any]:
        """What is sent for the `update` (size,) that a device made after it entered.

        Without one, or with numbers that are not finite, it sends what a device without data sends. An error of
        `cross` or `idle` does leave, since they know public numbers only; the participation is then spent.
        """
        made = _of_form(out.cross(self._usable(number, update, out)), out)
        kept = self.ledger.seal(self.device, self.task, number, made.tobytes())
        return _of_form(np.frombuffer(kept, out.sent[1]), out)

    def _trained(self, number: int, train: Callable[[], NDArray[np.floating[Any]]]) -> NDArray[np.float64] | None:
        began = time.monotonic()
        try:
            update = np.asarray(train(), np.float64)
        except Exception as error:
            _tell(number, type(error).__name__)  # its text may quote a person's
            return None
        if time.monotonic() - began > self.deadline:
            _tell(number, "too slow")
            return None
        return update

    def _usable(self, number: int, update: NDArray[np.floating[Any]] | None, out: Exit) -> NDArray[np.float64]:
        if update is not None:
            if update.shape == (out.size,) and np.isfinite(update).all():
                return np.asarray(update, np.float64)
            _tell(number, "numbers that are not finite")
        return np.zeros(out.size) if out.idle is None else np.asarray(out.idle(), np.float64)


def _tell(number: int, reason: str) -> None:
    _LOG.warning("round %d failed on this device (%s); it sends what one without data sends", number, reason)


def _of_form(vector: NDArray[Any], out: Exit) -> NDArray[Any]:
    size, dtype = out.sent
    if vector.shape != (size,) or vector.dtype != dtype:
        remedy = "Make vectors of the plan's length and type."
        raise PrivacyRefusal("P09", "what leaves a device has the same form for everyone", remedy=remedy,
                             shape=vector.shape, dtype=str(vector.dtype), planned=(size, str(dtype)))  # fmt: skip
    return vector
