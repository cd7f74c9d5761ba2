"""What the forms do. Each change is on disk when the next page is shown, and most can be undone there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from client.examples.reader.guard import form
from client.examples.reader.library import Book
from client.examples.reader.notes import Note, Search
from client.examples.reader.room import Room, wish
from fedrec.embed.recommender import Verdict
from fedrec.errors import DataError

_VERDICTS: dict[Verdict, str] = {
    "more_like_this": "More like “{}”.",
    "less_like_this": "Less like “{}”.",
    "hide": "“{}” is hidden.",
}
_DIGITS, _MOST = 20, 2**63
_NOT_ALLOWED = Note("Nothing was kept. You do not allow it, or have paused it: see “Your data”.", wrong=True)


def read(room: Room, request: Request) -> Response:
    """The person begins a book."""
    fields = form(request.scope)
    book, page = _book(room, fields), number(fields.get("page", ""))
    try:
        change = room.rec.log("click", book.item, page=page or None)
    except DataError:  # the page that showed it was forgotten in between
        change = room.rec.log("click", book.item)
    return back(room, fields, _kept(f"You are reading “{book.title}”.", change))


def feedback(room: Room, request: Request) -> Response:
    """A thumb, up or down, or a book that is not wanted."""
    fields = form(request.scope)
    if not room.rec.consent.state().personalize:
        return back(room, fields, _NOT_ALLOWED)
    verdict = next((name for name in _VERDICTS if name == fields.get("verdict")), None)
    if verdict is None:
        return back(room, fields, Note("Choose a thumb, or hide the book.", wrong=True))
    book = _book(room, fields)
    change = room.rec.feedback(book.item, verdict)
    return back(room, fields, Note(_VERDICTS[verdict].format(book.title), changes=(change,)))


def review(room: Room, request: Request) -> Response:
    """Stars, words, or both."""
    fields = form(request.scope)
    stars, text = number(fields.get("stars", "")), fields.get("text", "").strip()
    if not (stars or text):
        return back(room, fields, Note("Give stars, or write something.", wrong=True))
    book, rating = _book(room, fields), (min(stars, 5) - 1) / 4 if stars else None
    change = room.rec.log("review" if text else "rate", book.item, text=text, rating=rating)
    return back(room, fields, _kept(f"Your review of “{book.title}” is kept.", change))


def search(room: Room, request: Request) -> Response:
    """Looking for something says something: it counts in the next list."""
    fields = form(request.scope)
    query = fields.get("query", "").strip()
    if not query:
        return back(room, fields, Note("Write what you are looking for.", wrong=True))
    name = room.searches.put(Search(query, room.rec.log("search", text=query)))
    return RedirectResponse(f"/search/{name}", 303)


def tell(room: Room, request: Request) -> Response:
    """What the person likes or not, in a sentence; what was not understood is said."""
    fields = form(request.scope)
    sentence = fields.get("sentence", "").strip()
    if not sentence:
        return back(room, fields, Note("Write what you like, or do not like.", wrong=True))
    if not room.rec.consent.state().personalize:
        return back(room, fields, _NOT_ALLOWED)
    told = room.rec.tell(sentence, item=fields.get("item", ""))
    unclear = tuple(f"Not understood: {clause}" for clause in told.unclear)
    if not told.changes:
        return back(room, fields, Note("Nothing was taken from that.", unclear, wrong=True))
    lines = tuple(wish(room, preference) for preference in told.preferences)
    return back(room, fields, Note("From now on:", (*lines, *unclear), told.changes))


def undo(room: Room, request: Request) -> Response:
    """Take back what a note, a chip or a search names: several changes where one sentence made them."""
    fields = form(request.scope)
    changes = [number(change) for change in fields.get("changes", "").split()]
    undone = [change for change in changes if room.rec.undo(change)] if changes else room.rec.undo()
    room.forget(changes)
    note = Note("Undone, and erased.") if undone else Note("There was nothing to undo.", wrong=True)
    return back(room, fields, note)


def back(room: Room, fields: Mapping[str, str], note: Note) -> Response:
    """Go to the page that the form was on, which shows the note."""
    place = fields.get("back", "/")
    # "//elsewhere" and "/\elsewhere" are other hosts to a browser.
    ours = place.startswith("/") and not place.startswith(("//", "/\\"))
    place = place if ours else "/"
    return RedirectResponse(f"{place}{'&' if '?' in place else '?'}note={room.notes.put(note)}", 303)


def _kept(text: str, change: int) -> Note:
    """The note of an event; 0 is that of one that was not kept."""
    return Note(text, changes=(change,)) if change else _NOT_ALLOWED


def _book(room: Room, fields: Mapping[str, str]) -> Book:
    book = room.library.book(fields.get("item", ""))
    if book is None:
        raise HTTPException(404, "This book is not in the catalogue.")
    return book


def number(text: str) -> int:
    """What names a change or a page, 0 for anything else."""
    named = int(text) if text.isascii() and text.isdecimal() and len(text) < _DIGITS else 0
    return named if named < _MOST else 0


CHANGES: dict[str, Callable[[Room, Request], Response]] = {
    "/read": read, "/feedback": feedback, "/review": review, "/search": search, "/tell": tell, "/undo": undo,
}  # fmt: skip
