"""What a person allows: kept with their events, asked again before every piece of a message that leaves the device.

At first the app may personalise, because nothing leaves the device for it, and may not contribute.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fedrec.errors import PrivacyRefusal, RunError, SpecError

SETTING = "consent"
_LOCK, _TURN = "consent.lock", "consent.turn"
_KINDS = {
    "personalize": bool, "contribute": bool, "max_epsilon": float | int | None, "paused": bool,
    "until": float | int | None, "withdrawals": int,
}  # fmt: skip


class Use(StrEnum):
    """What consent is given for."""

    PERSONALIZE = "personalize"  # events are kept, and lists follow them
    CONTRIBUTE = "contribute"  # updates with noise go to a server


@dataclass(frozen=True, kw_only=True)
class ConsentState:
    """What is allowed now. `max_epsilon` caps all contributions together, about each unit apart; None: only the policy.

    `until` is when a pause ends by itself (Unix seconds), None for one that `resume` ends. `withdrawals` counts how
    often "contribute" was withdrawn.
    """

    personalize: bool = True
    contribute: bool = False
    max_epsilon: float | None = None
    paused: bool = False
    until: float | None = None
    withdrawals: int = 0

    @property
    def personalizes(self) -> bool:
        """Whether lists may follow what the person did and said. A pause changes nothing here."""
        return self.personalize

    @property
    def records(self) -> bool:
        """Whether new events may be kept."""
        return self.personalize and not self.paused

    @property
    def contributes(self) -> bool:
        """Whether anything may be sent."""
        return self.contribute and not self.paused


class Settings(Protocol):
    """The part of a `Store` that consent is kept in."""

    @property
    def path(self) -> Path:
        """The store's file."""

    def setting(self, name: str) -> str | None:
        """A small text, None if there is none."""

    def set(self, name: str, value: str | None) -> None:
        """Keep a small text."""


class Consent:
    """One person's consent. Any number of threads and processes: each sees at once what another has changed."""

    def __init__(self, store: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._shut = False  # a withdrawal holds in this process before the disk has taken it, and if it never does

    def grant(self, what: str, *, max_epsilon: float | None = None) -> None:
        """Allow "personalize" or "contribute". A grant says all of its terms: without a cap an earlier one is gone."""
        use = _use(what)
        if max_epsilon is not None and (use is not Use.CONTRIBUTE or not 0 < max_epsilon < math.inf):
            remedy = 'Give a number above 0, and only with "contribute".'
            raise SpecError("a cap on epsilon is positive", remedy=remedy, use=str(use), max_epsilon=max_epsilon)
        with self._changing() as state:
            if use is Use.PERSONALIZE:
                self._keep(replace(state, personalize=True))
            else:
                self._keep(replace(state, contribute=True, max_epsilon=max_epsilon))
                self._shut = False

    def withdraw(self, what: str) -> None:
        """Take back a consent. After "contribute" nothing is sent once this returns, not even the rest of a message.

        What is on its way is waited for, about a second at most. What was spent stays spent. Raises where the disk does
        not take it; for this process it holds all the same.
        """
        use = _use(what)
        self._shut = self._shut or use is Use.CONTRIBUTE
        with self._changing() as state:
            if use is Use.PERSONALIZE:
                self._keep(replace(state, personalize=False))
            else:
                count = state.withdrawals + 1
                self._keep(replace(state, contribute=False, max_epsilon=None, withdrawals=count))
                self._shut = False

    def pause(self, until: float | None = None) -> None:
        """Keep no events and send nothing until a time (Unix seconds), or until `resume`. Holds as `withdraw` does."""
        if until is not None and not math.isfinite(until):
            raise SpecError("a pause ends at a time in Unix seconds", remedy="Leave it out to end it yourself.")
        with self._changing() as state:
            self._keep(replace(state, paused=True, until=until))

    def resume(self) -> None:
        """End a pause."""
        with self._changing() as state:
            self._keep(replace(state, paused=False, until=None))

    def state(self) -> ConsentState:
        """What is allowed at this moment."""
        state = _read(self._store.setting(SETTING))
        state = replace(state, contribute=False, max_epsilon=None) if self._shut else state
        if state.paused and state.until is not None and self._clock() >= state.until:
            return replace(state, paused=False, until=None)
        return state

    def ticket(self) -> Ticket:
        """What may be done under the consent of this moment; no later grant brings it back once that is withdrawn."""
        return Ticket(self, self.state().withdrawals)

    @contextmanager
    def held(self) -> Iterator[ConsentState]:
        """What is allowed, and stays allowed until this ends: whoever withdraws waits for it."""
        with self._held(fcntl.LOCK_SH):
            yield self.state()

    @contextmanager
    def _changing(self) -> Iterator[ConsentState]:
        with self._held(fcntl.LOCK_EX):
            yield self.state()

    def _keep(self, state: ConsentState) -> None:
        self._store.set(SETTING, json.dumps(asdict(state)))

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        with ExitStack() as stack:
            with self._file(_TURN) as turn:  # who waits here comes before whoever sends one piece after the other
                fcntl.flock(turn, fcntl.LOCK_EX)
                lock = stack.enter_context(self._file(_LOCK))
                fcntl.flock(lock, how)
            yield

    @contextmanager
    def _file(self, name: str) -> Iterator[int]:
        """A file of one's own: a lock that threads shared would be let go by the first of them."""
        try:
            file = os.open(self._store.path.with_name(name), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            remedy = "Let this process write the folder. Nothing was sent."
            raise RunError("a consent can be asked for", remedy=remedy, file=name, reason=error.strerror) from None
        try:
            yield file
        finally:
            os.close(file)


@dataclass(frozen=True)
class Ticket:
    """A consent to contribute as it was given: the `withdrawals` before it."""

    consent: Consent
    withdrawals: int

    def check(self) -> None:
        """Refuse P10 where nothing may be sent."""
        self._check(self.consent.state())

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Send one piece of a message inside of this. Refuses P10."""
        with self.consent.held() as state:
            self._check(state)
            yield

    def _check(self, state: ConsentState) -> None:
        if not state.contributes or self.withdrawn(state):
            remedy = "Nothing was sent. Whoever owns the device grants it, or ends the pause."
            raise PrivacyRefusal("P10", "nothing leaves a device without its owner's consent", remedy=remedy)

    def withdrawn(self, state: ConsentState) -> bool:
        """Whether the consent was taken back since, whatever was granted afterwards."""
        return not state.contribute or state.withdrawals != self.withdrawals


def _use(what: str) -> Use:
    try:
        return Use(what)
    except ValueError:
        remedy = f"Say one of: {', '.join(Use)}."
        raise SpecError("consent is for a known use", remedy=remedy, got=what) from None


def _read(text: str | None) -> ConsentState:
    """What is on file; what cannot be read allows nothing."""
    if text is None:
        return ConsentState()
    try:
        content = json.loads(text)
        state = ConsentState(**content)
        if all(isinstance(content[name], kind) for name, kind in _KINDS.items()):
            return state
    except (ValueError, TypeError, KeyError):
        pass
    return ConsentState(personalize=False)
