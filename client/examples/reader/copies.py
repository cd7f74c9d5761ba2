"""All that is kept of the person as one file: taken away, and brought back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.requests import Request
from starlette.responses import Response

from client.examples.reader.changes import back
from client.examples.reader.guard import form, upload
from client.examples.reader.notes import Note
from client.examples.reader.room import Room
from fedrec import Recommender
from fedrec.device.store import Store
from fedrec.embed.person import EVENTS


def export(room: Room, request: Request) -> Response:
    """All of it in one file."""
    with TemporaryDirectory() as place:
        path = Path(place) / "reader.zip"
        room.rec.export(path)
        content = path.read_bytes()
    name = {"content-disposition": 'attachment; filename="my-reader-data.zip"'}
    return Response(content, media_type="application/zip", headers=name)


def restore(room: Room, request: Request) -> Response:
    """Bring back what `export` gave, where nothing is kept yet. The file is on disk, unencrypted, only meanwhile."""
    fields, content = form(request.scope), upload(request.scope)
    if not content:
        return back(room, fields, Note("Choose the file that “Download my data” gave you.", wrong=True))
    with TemporaryDirectory() as place:
        path = Path(place) / "copy.zip"
        path.write_bytes(content)
        Recommender.restore(path, room.folder, retention_days=room.days).close()
    room.forget()
    with Store(room.folder / EVENTS) as store:
        lines = (f"Things that you did: {len(store):,}", f"Things that you said: {len(store.preferences()):,}")
    return back(room, fields, Note(f"Your copy is back, but for what is older than {room.days} days.", lines))


COPIES: dict[str, Callable[[Room, Request], Response]] = {"/export": export, "/restore": restore}
