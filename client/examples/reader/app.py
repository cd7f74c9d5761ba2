"""The app: pages that only show, and forms that change something."""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from client.examples.reader.changes import CHANGES, number
from client.examples.reader.copies import COPIES
from client.examples.reader.guard import Guard
from client.examples.reader.privacy import DATA, privacy
from client.examples.reader.room import HERE, Room, show, told
from client.examples.reader.shelves import shelves
from client.examples.reader.site import SITE
from fedrec.errors import FedrecError

FOUND = 24  # books that a search shows at most
FORMS = CHANGES | DATA | COPIES | SITE


def application(room: Room) -> ASGIApp:
    """The app behind its guard."""
    pages = {"/": home, "/item": item, "/search/{name}": found, "/privacy": privacy}
    files = {"/style.css": "text/css", "/icon.svg": "image/svg+xml"}
    routes = [
        *(Route(path, partial(page, room)) for path, page in pages.items()),
        *(Route(path, partial(_file, path, kind)) for path, kind in files.items()),
        *(Route(path, partial(change, room), methods=["POST"]) for path, change in FORMS.items()),
    ]
    explained = partial(_explained, room)
    errors = {FedrecError: explained, OSError: explained, HTTPException: partial(_refused, room)}
    return Guard(Starlette(routes=routes, exception_handlers=errors), room.keys)


def home(room: Room, request: Request) -> Response:
    """The front page."""
    return show(room, request, "home.html", {"shelves": shelves(room.rec, room.library), "told": told(room)})


def item(room: Room, request: Request) -> Response:
    """One book, and why it is where it is. Looking at it records nothing."""
    book = room.library.book(request.query_params.get("id", ""))
    if book is None:
        raise HTTPException(404, "This book is not in the catalogue.")
    reason = room.rec.explain(book.item)
    values = [cause.value for cause in reason.causes]
    page = number(request.query_params.get("page", ""))
    shown = {"book": book, "reason": reason, "values": values, "page": page}
    return show(room, request, "item.html", shown)


def found(room: Room, request: Request) -> Response:
    """What a search has found."""
    search = room.searches.get(request.path_params["name"])
    if search is None:
        raise HTTPException(404, "What was searched is not remembered any more: search again.")
    books = [room.library.book(item) for item in room.library.search(search.query, FOUND)]
    return show(room, request, "search.html", {"search": search, "books": books})


def _explained(room: Room, request: Request, error: Exception) -> Response:
    """A mistake that can be explained, in its own words: the rule, and the way out; or what the system says."""
    text = f"The system says: {error.strerror}." if isinstance(error, OSError) else str(error)
    answer = show(room, request, "trouble.html", {"title": "That did not work", "text": text})
    answer.status_code = 422
    return answer


def _refused(room: Room, request: Request, error: HTTPException) -> Response:
    answer = show(room, request, "trouble.html", {"title": "Nothing here", "text": error.detail})
    answer.status_code = error.status_code
    return answer


def _file(path: str, kind: str, request: Request) -> Response:
    return FileResponse(HERE / "files" / path[1:], media_type=kind)
