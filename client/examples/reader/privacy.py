"""The page on which people see what is kept and given away, and change it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from client.examples.reader.changes import back
from client.examples.reader.guard import form
from client.examples.reader.notes import Note
from client.examples.reader.room import Room, show, told
from client.examples.reader.site import described, site_of
from fedrec.errors import FedrecError

_DAY = 86_400


def privacy(room: Room, request: Request) -> Response:
    """Everything that is kept, allowed and given away."""
    return show(room, request, "privacy.html", _given(room) | {
        "told": told(room), "consent": room.rec.consent.state(), "folder": room.folder, "days": room.days,
        "model": described(room.rec.pack), "notices": room.rec.notices, "site": site_of(room),
    })  # fmt: skip


def consent(room: Room, request: Request) -> Response:
    """Allow, take back, pause or go on."""
    fields, own = form(request.scope), room.rec.consent
    ways: Mapping[str, tuple[Callable[[], None], str]] = {
        "personalize": (lambda: own.grant("personalize"), "Your shelves follow what you do."),
        "stop-personalize": (lambda: own.withdraw("personalize"), "Nothing more is kept of what you do."),
        "contribute": (lambda: own.grant("contribute", max_epsilon=_cap(fields)), "This device may take part."),
        "stop-contribute": (lambda: own.withdraw("contribute"), "From now on nothing is sent."),
        "pause": (lambda: own.pause(time.time() + _DAY), "Nothing is kept or sent for a day."),
        "resume": (own.resume, "The pause is over."),
    }  # fmt: skip
    if fields.get("do") not in ways:
        return back(room, fields, Note("Choose what to allow.", wrong=True))
    change, said = ways[fields["do"]]
    change()
    return back(room, fields, Note(said))


def forget(room: Room, request: Request) -> Response:
    """Erase what was done and said about a book or a topic, from before a day, or everything."""
    fields = form(request.scope)
    item, topic = fields.get("item") or None, fields.get("topic", "").strip() or None
    before, everything = _midnight(fields.get("before", "")), fields.get("everything") == "yes"
    if not (item or topic or before is not None or everything):
        return back(room, fields, Note("Say what to forget.", wrong=True))
    count = room.rec.forget(item=item, topic=topic, before=before, everything=everything)
    room.forget()
    what = "1 thing that you did or said is" if count == 1 else f"{count:,} things that you did or said are"
    return back(room, fields, Note(f"{what} erased." if count else "There was nothing of that."))


def _given(room: Room) -> dict[str, object]:
    """What was given away and what comes next. Neither may keep people from erasing what is theirs."""
    given: dict[str, object] = {"summary": None, "entries": (), "next": "", "trouble": ""}
    try:
        given |= {"summary": room.rec.ledger.summary(), "entries": room.rec.ledger.entries()}
        given |= {"next": room.rec.ledger.preview().text()} if site_of(room) else {}
    except FedrecError as error:
        given["trouble"] = str(error)
    return given


def _midnight(day: str) -> float | None:
    """When a day begins on this machine's clock, None for what is no day."""
    try:
        return datetime.fromisoformat(day).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _cap(fields: Mapping[str, str]) -> float | None:
    """The most ε that was written, None for none; what is no number is refused as one."""
    text = fields.get("cap", "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        return math.nan


DATA: dict[str, Callable[[Room, Request], Response]] = {"/consent": consent, "/forget": forget}
