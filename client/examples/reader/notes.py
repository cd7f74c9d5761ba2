"""What the app has to say after a change, kept on the server: nothing that a person wrote is put in an address."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Thing = TypeVar("Thing")

KEPT = 100  # a browser asks for the page that shows a note at once


@dataclass(frozen=True, repr=False)
class Note:
    """`changes` are what its Undo takes back. `wrong` says that nothing was changed."""

    text: str
    lines: tuple[str, ...] = ()
    changes: tuple[int, ...] = ()
    wrong: bool = False


@dataclass(frozen=True, repr=False)
class Search:
    """What was looked for, and the event that it left, 0 if none."""

    query: str
    change: int


class Recent(Generic[Thing]):
    """The last `KEPT` things, by names that cannot be guessed."""

    def __init__(self) -> None:
        self._things: OrderedDict[str, Thing] = OrderedDict()

    def put(self, thing: Thing) -> str:
        """Its name."""
        name = secrets.token_urlsafe(9)
        self._things[name] = thing
        while len(self._things) > KEPT:
            self._things.popitem(last=False)
        return name

    def get(self, name: str) -> Thing | None:
        """The thing, None if it is too long ago."""
        return self._things.get(name)

    def drop(self, which: Callable[[Thing], bool]) -> None:
        """Forget those that `which` is true of."""
        for name, thing in list(self._things.items()):
            if which(thing):
                self._things.pop(name, None)
