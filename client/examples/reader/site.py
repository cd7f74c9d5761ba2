"""The site that this device may join: its invitation, its models, and learning together. Only these go online."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from client.examples.reader.changes import back
from client.examples.reader.guard import form
from client.examples.reader.notes import Note
from client.examples.reader.room import Room
from fedrec.deploy.enrol import enrol
from fedrec.embed.seat import Seat
from fedrec.embed.stay import Occasion
from fedrec.errors import FedrecError
from fedrec.model.pack_format import PackInfo

_STAY = 30.0  # seconds
_NOBODY = Note("There is nobody to ask: join a site first.", wrong=True)


def site_of(room: Room) -> str:
    """The address of the site that the device has joined, "" if there is none."""
    try:
        return Seat.of(room.folder).server
    except FedrecError:
        return ""


def described(pack: PackInfo | None) -> str:
    """A model in a few words."""
    if pack is None:
        return "none"
    published = f"version {pack.version}, published {pack.published[:10]}" if pack.version else "brought by the app"
    return f"{published}, {pack.catalogue.items:,} books"


def join(room: Room, request: Request) -> Response:
    """Take a seat at the site of an invitation. It says nothing of the person, and allows nothing."""
    fields = form(request.scope)
    invitation = "".join(fields.get("invitation", "").split())
    if not invitation:
        return back(room, fields, Note("Paste the invitation that you were given.", wrong=True))
    if room.rec.consent.state().paused:
        return back(room, fields, Note("You have paused everything: end the pause first.", wrong=True))
    enrol(room.folder, invitation)
    lines = ("Nothing was said of you. Below is what taking part would send.",)
    return back(room, fields, Note(f"This device has joined {site_of(room)}.", lines))


def sync(room: Room, request: Request) -> Response:
    """Ask the site for a newer model, now. The page waits for it."""
    fields = form(request.scope)
    if not site_of(room):
        return back(room, fields, _NOBODY)
    pack = room.rec.sync()
    if pack is None:
        return back(room, fields, Note("There is no newer model: the site’s newest is in use."))
    return back(room, fields, Note("A newer model has come.", (f"It is {described(pack)}.", "The shelves follow it.")))


def contribute(room: Room, request: Request) -> Response:
    """Take part in learning for a while. The page waits for it."""
    fields = form(request.scope)
    outcome = room.rec.contribute(Occasion(seconds=_STAY))
    lines = (f"Rounds taken part in: {len(outcome.rounds)}", f"Bytes sent: {outcome.bytes_sent:,}")
    return back(room, fields, Note(f"Taking part ended: {outcome.ending}.", lines, wrong=not outcome.rounds))


SITE: dict[str, Callable[[Room, Request], Response]] = {"/join": join, "/sync": sync, "/contribute": contribute}
