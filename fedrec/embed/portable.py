"""A person's copy of all that their store holds: one zip file of JSON, for them to read, and to bring back.

It is legible to whoever has it. What was spent of a privacy budget is not in it: that is the ledger's, and bringing
a copy back gives none of it back.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedrec.device.act import Act
from fedrec.device.contents import Columns, Contents, Learnt, Shown
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.errors import DataError, FedrecError, RunError
from fedrec.files import sync

VERSION = 1
_ABOUT, _EVENTS, _WISHES, _PAGES = "about.json", "events.jsonl", "preferences.jsonl", "pages.jsonl"
_LEARNT, _SETTINGS = "learnt.jsonl", "settings.jsonl"
_NAMES = (_ABOUT, _EVENTS, _WISHES, _PAGES, _LEARNT, _SETTINGS)
_LARGEST = 1 << 31  # bytes of a file inside
_Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Single = Annotated[float, Field(ge=-(2.0**127), le=2.0**127)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _About(_Row):
    what: str
    version: _Integer
    last: _Integer
    forgets: _Integer


class _Event(_Row):
    id: _Integer
    time: _Integer
    kind: str
    item: str = ""
    text: str = ""
    weight: _Single = 1.0
    rating: _Single | None = None


class _Wish(_Row):
    id: _Integer
    time: _Integer
    polarity: str
    scope: str
    about: str
    said: str = ""


class _Page(_Row):
    id: _Integer
    time: _Integer
    items: list[str]


class _Learnt(_Row):
    task: str
    round: _Integer
    embedding: list[_Single]


class _Setting(_Row):
    name: str
    value: str


_R = TypeVar("_R", bound=_Row)
_T = TypeVar("_T")


def write(store: Store, path: Path) -> None:
    """Write all that `store` holds to `path`, for its owner alone to read; the whole file or, if it fails, none.

    The same contents make the same bytes.
    """
    held = store.contents()
    rows: dict[str, Iterable[_Row]] = {
        _ABOUT: [_About(what="fedrec person", version=VERSION, last=held.last, forgets=held.forgets)],
        _EVENTS: (_event(number, act) for number, act in held.events.acts()),
        _WISHES: (_wish(number, preference) for number, preference in held.preferences),
        _PAGES: (_Page(id=page.id, time=page.time, items=list(page.items)) for page in held.pages),
        _LEARNT: (_learnt(learnt) for learnt in held.embeddings),
        _SETTINGS: (_Setting(name=name, value=value) for name, value in held.settings.items()),
    }
    with _whole(path) as fresh, zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in _NAMES:
            with copy.open(zipfile.ZipInfo(name), "w") as lines:
                for row in rows[name]:
                    lines.write(row.model_dump_json(exclude_defaults=True).encode() + b"\n")


def read(store: Store, path: Path) -> None:
    """Bring back the copy at `path` into an empty `store`: the same contents under the same ids, or nothing at all.

    Raises `DataError` where the file is no such copy, and `RunError` where it is a newer one, cannot be read, or the
    store holds something. Settings that the store has already stay.
    """
    store.fill(_contents(path))


def _contents(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as copy:
            _check(copy, path)
            return _parsed(copy)
    except FedrecError:
        raise
    except OSError as error:
        remedy = "Nothing was changed. Let this process read the file."
        raise RunError("a copy can be read", remedy=remedy, path=str(path), reason=error.strerror) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise _no_copy(path.name) from None


def _check(copy: zipfile.ZipFile, path: Path) -> None:
    """Refuse what is not a copy, and then what a newer program wrote."""
    if _ABOUT not in copy.namelist() or any(info.file_size > _LARGEST for info in copy.infolist()):
        raise _no_copy(path.name)
    with copy.open(_ABOUT) as file:
        about = json.loads(file.read())
    if not isinstance(about, dict) or about.get("what") != "fedrec person" or not isinstance(about.get("version"), int):
        raise _no_copy(path.name)
    if about["version"] > VERSION:
        raise RunError("a copy is not newer than the program that reads it", remedy="Upgrade fedrec.",
                       version=about["version"], known=VERSION)  # fmt: skip
    if sorted(copy.namelist()) != sorted(_NAMES):
        raise _no_copy(path.name)


def _parsed(copy: zipfile.ZipFile) -> Contents:
    abouts = [*_rows(copy, _ABOUT, _About, lambda row: row)]
    held = Contents(
        events=Columns.of(_rows(copy, _EVENTS, _Event, _act)),
        preferences=tuple(_rows(copy, _WISHES, _Wish, _preference)),
        pages=tuple(_rows(copy, _PAGES, _Page, lambda row: Shown(row.id, row.time, tuple(row.items)))),
        embeddings=tuple(_rows(copy, _LEARNT, _Learnt, _embedding)),
        settings=dict(_rows(copy, _SETTINGS, _Setting, lambda row: (row.name, row.value))),
        last=abouts[0].last,
        forgets=abouts[0].forgets,
    )
    changes = [*held.events.ids.tolist(), *(number for number, _ in held.preferences)]
    learnt = [(one.task, one.round) for one in held.embeddings]
    numbered = all(0 < number <= held.last for number in changes)
    if not numbered or any(map(_repeats, (changes, learnt, [page.id for page in held.pages]))):
        raise _no_copy(_ABOUT)
    return held


def _repeats(names: Sequence[object]) -> bool:
    return len({*names}) < len(names)


def _rows(copy: zipfile.ZipFile, name: str, kind: type[_R], made: Callable[[_R], _T]) -> Iterator[_T]:
    """What the lines of a file inside stand for; a wrong one is told by its number, and not by what it says."""
    with copy.open(name) as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield made(kind.model_validate_json(line))
            except (ValidationError, DataError, ValueError, KeyError, OverflowError):
                raise _no_copy(name, line=number) from None


def _event(number: int, act: Act) -> _Event:
    rating = None if math.isnan(act.rating) else _short(act.rating)
    return _Event(
        id=number, time=act.time, kind=act.kind.name.lower(), item=act.item, text=act.text, weight=_short(act.weight),
        rating=rating,
    )  # fmt: skip


def _act(row: _Event) -> tuple[int, Act]:
    rating = math.nan if row.rating is None else row.rating
    kind = Kind[row.kind.upper()]
    return row.id, Act(kind=kind, item=row.item, text=row.text, weight=row.weight, rating=rating, time=row.time)


def _wish(number: int, said: Preference) -> _Wish:
    return _Wish(
        id=number, time=said.time, polarity=said.polarity.name.lower(), scope=str(said.scope), about=said.about,
        said=said.said,
    )  # fmt: skip


def _preference(row: _Wish) -> tuple[int, Preference]:
    polarity, scope = Polarity[row.polarity.upper()], Scope(row.scope)
    return row.id, Preference(polarity=polarity, scope=scope, about=row.about, said=row.said, time=row.time)


def _learnt(learnt: Learnt) -> _Learnt:
    values = np.frombuffer(learnt.value, "<f4").tolist()
    return _Learnt(task=learnt.task, round=learnt.round, embedding=values)


def _embedding(row: _Learnt) -> Learnt:
    return Learnt(row.task, row.round, np.array(row.embedding, "<f4").tobytes())


def _short(value: float) -> float:
    """The number with the fewest digits that is the same one in single precision."""
    return float(str(np.float32(value)))


def _no_copy(name: str, **got: object) -> DataError:
    return DataError("a copy is a file that was written by export", remedy="Nothing was changed. Take another copy.",
                     file=name, **got)  # fmt: skip


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file that takes the place of `path` when this ends well, and that nobody else may read."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        fresh = Path(name)
        try:
            yield fresh
            sync(fresh)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        remedy = "What was there before is still there. Make room, or write to another folder."
        raise RunError("a copy can be written", remedy=remedy, path=str(path), reason=error.strerror) from None
