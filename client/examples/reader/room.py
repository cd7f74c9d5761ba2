"""What every page needs, and how a page is made."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from client.examples.reader.guard import Keys
from client.examples.reader.library import Library
from client.examples.reader.notes import Note, Recent, Search
from fedrec import Catalogue, Recommender
from fedrec.embed.preference import Polarity, Preference, Scope

HERE = Path(__file__).parent

_SOURCES = {
    "event": "something you did", "preference": "something you said", "popularity": "what many like",
    "embedding": "what this device has learnt", "rank": "variety on the page",
}  # fmt: skip
_SHORT = 3  # letters of a word that says little by itself
_WAYS = {Polarity.NEVER: "never", Polarity.LESS: "less", Polarity.MORE: "more"}


@dataclass(frozen=True, repr=False)
class Room:
    """The person's recommender and its folder, and what is remembered while the app runs."""

    rec: Recommender
    folder: Path
    days: int
    keys: Keys = field(default_factory=Keys)
    notes: Recent[Note] = field(default_factory=Recent)
    searches: Recent[Search] = field(default_factory=Recent)

    @property
    def library(self) -> Library:
        """The books of the model in use: other ones may come with another model."""
        return _library(self.rec.catalogue or Catalogue((), ()))

    def forget(self, changes: Collection[int] = ()) -> None:
        """Remember nothing of these changes, or nothing at all."""
        self.notes.drop(lambda note: not changes or any(change in changes for change in note.changes))
        self.searches.drop(lambda search: not changes or search.change in changes)


def show(room: Room, request: Request, template: str, values: Mapping[str, object]) -> HTMLResponse:
    """A page, with the note that its address asks for."""
    note = room.notes.get(request.query_params.get("note", ""))
    here = address(request.query_params["id"]) if "id" in request.query_params else quote(request.scope["path"])
    always = {"here": here, "note": note, "token": room.keys.form, "library": room.library}
    return HTMLResponse(_house().get_template(template).render(always | dict(values)))


def address(item: str, page: int = 0) -> str:
    """Of a book's page; `page` is the one of the log on which the book was shown."""
    return "/item?" + urlencode({"id": item} | ({"page": page} if page else {}))


def told(room: Room) -> list[tuple[int, str]]:
    """What the person has said that they like or not, each with the number that undoes it, the newest first."""
    return [(change, wish(room, preference)) for change, preference in reversed(room.rec.preferences)]


def wish(room: Room, preference: Preference) -> str:
    """A preference in a few words."""
    about = preference.about
    if preference.scope is Scope.ITEM:
        book = room.library.book(about)
        title = f"“{book.title if book else about}”"
        about = title if preference.polarity is Polarity.NEVER else f"like {title}"
    return f"{_WAYS[preference.polarity]} {about}"


def moment(time: float) -> str:
    """Unix seconds as people write them."""
    return datetime.fromtimestamp(time, UTC).strftime("%-d %B %Y, %H:%M UTC")


def _marked(text: str, words: Sequence[str]) -> Markup:
    """Text with these words marked, but for short ones; everything escaped."""
    long = [re.escape(word) for word in words if len(word) > _SHORT]
    if not long:
        return escape(text)
    parts = re.split(rf"(?i)\b({'|'.join(long)})\b", text)
    return Markup("").join(Markup("<mark>{}</mark>").format(part) if at % 2 else part for at, part in enumerate(parts))


@lru_cache(maxsize=2)
def _library(catalogue: Catalogue) -> Library:
    return Library(catalogue)


@cache
def _house() -> Environment:
    house = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    house.filters |= {"marked": _marked, "moment": moment}
    house.globals |= {"sources": _SOURCES, "address": address}
    return house
