"""From an app's calls to what is kept: events, wishes, and the file that they are in."""

from __future__ import annotations

import math
from pathlib import Path

from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed import vault
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.errors import RunError, SpecError, require

HALF = 30.0  # seconds of attention that count 1


def folder_of(path: Path | str) -> Path:
    """A person's folder, made if it is not there: nobody else may look into it."""
    folder = Path(path).expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        remedy = "Name a folder that this process may make or use."
        raise RunError("a person has a folder", remedy=remedy, path=str(folder), reason=error.strerror) from None
    return folder


def opened(path: Path, secret: bytes | None) -> tuple[Store, list[str]]:
    """The store at `path` after reading all of it, and what is to be told; a damaged one is moved aside first."""
    store, aside = vault.opened(path, key=secret)
    if aside is None:
        return store, []
    return store, [
        f"What was known of the person could not be read. It lies untouched in {aside.name}; a new one begins."
    ]


def kind_of(kind: Kind | str) -> Kind:
    """A kind by its name, in any case. The error does not repeat what was given: it may be a person's text."""
    if isinstance(kind, Kind):
        return kind
    try:
        return Kind[kind.upper()]
    except KeyError:
        kinds = [one.name.lower() for one in Kind]
        raise SpecError("an event is of a known kind", remedy=f"Say one of: {', '.join(kinds)}.") from None


def scaled(weight: float, dwell_s: float | None) -> float:
    """The weight of an event with so many seconds of attention: saturating, as attention does."""
    if dwell_s is None:
        return weight
    require(0 <= dwell_s < math.inf, "attention is a number of seconds ≥ 0", dwell_s=dwell_s)
    return weight * 2 * dwell_s / (dwell_s + HALF)


def seconds(time: float) -> int:
    """Whole Unix seconds."""
    require(math.isfinite(time), "a time is in Unix seconds", time=time)
    return math.floor(time)


def wish_of(item: str, verdict: str, time: int) -> Preference:
    """What a button says."""
    match verdict:
        case "more_like_this":
            polarity = Polarity.MORE
        case "less_like_this":
            polarity = Polarity.LESS
        case "hide":
            polarity = Polarity.NEVER
        case _:
            verdicts = "more_like_this, less_like_this, hide"
            raise SpecError("a verdict is a known one", remedy=f"Say one of: {verdicts}.", verdict=verdict)
    return Preference(polarity=polarity, scope=Scope.ITEM, about=item, time=time)
