"""The desk: the few paths of our own, where a device enrols, downloads what is public, and waits for the bell."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from fedrec.deploy.application import Application, Card
from fedrec.deploy.bell import Bell
from fedrec.deploy.identity import issue, point_of
from fedrec.deploy.invitation import digest
from fedrec.deploy.limits import Misses
from fedrec.deploy.manifest import CATALOGUE, MANIFEST, PLAN, SIGNATURE, STATEMENT
from fedrec.deploy.paths import ENROL_BYTES
from fedrec.deploy.roster import Refused, Roster
from fedrec.deploy.site import Site
from fedrec.errors import FedrecError
from fedrec.model.publish import published_file

_LOG = logging.getLogger("fedrec.desk")

Register = Callable[[ec.EllipticCurvePublicKey], int]


@dataclass(frozen=True, eq=False)
class Desk:
    """Answers `/fedrec/v1/…`. `register` makes a key known to the SuperLink and returns its node id."""

    site: Site
    roster: Roster
    register: Register
    bell: Bell
    misses: Misses = field(default_factory=Misses)

    @cached_property
    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/fedrec/v1/ca", self._authority),
            Route("/fedrec/v1/enrol", self._enrol, methods=["POST"]),
            Route("/fedrec/v1/task/{name}", self._task),
            Route("/fedrec/v1/pack/{name:path}", self._pack),
            Route("/fedrec/v1/bell", self._ring),
        ]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        return app

    @cached_property
    def _signing(self) -> Ed25519PrivateKey:
        return self.site.signing

    @cached_property
    def _id(self) -> str:
        return self.site.id

    async def _authority(self, request: Request) -> Response:
        return Response(self.site.ca, media_type="application/x-pem-file")

    async def _enrol(self, request: Request) -> Response:
        address = _address(request)
        if self.misses.blocked(address):
            return _refusal(429, "too many wrong tries from this address; wait a minute", again=60)
        content = await _bounded(request, ENROL_BYTES)
        if content is None:
            return _refusal(413, "an application is shorter")
        try:
            application = Application.model_validate_json(content, strict=True)
        except ValidationError:
            self.misses.note(address)
            return _refusal(400, "an application has secret, key and signature, in hex")
        answer = await run_in_threadpool(self._seat, application)
        if answer.status_code == _CANNOT:
            self.misses.note(address)
        return answer

    def _seat(self, application: Application) -> Response:
        """The seat that was bought. A crash at any point is made good when the device asks again."""
        public = application.proven(self._id)
        if public is None:
            _LOG.info("an application was not signed by its key")
            return _cannot()
        try:
            seat = self.roster.redeem(digest(application.secret), point_of(public))
        except Refused as refused:
            _LOG.info("an invitation was refused: %s", refused.reason)
            return _cannot()
        try:
            self.roster.bind(seat, self.register(public))
        except FedrecError as error:
            _LOG.warning("a key was not registered with the SuperLink (%s)", type(error))
            return _refusal(503, "the server is not ready; try again in a moment", again=5)
        card = Card(
            seat=seat,
            certificate=issue(self._signing, seat, public).hex(),
            roster_key=self._signing.public_key().public_bytes_raw().hex(),
        )
        return JSONResponse(card.model_dump())

    async def _task(self, request: Request) -> Response:
        places = {PLAN: self.site.run, CATALOGUE: self.site.run}
        places |= dict.fromkeys((STATEMENT, MANIFEST, SIGNATURE), self.site.task)
        name = request.path_params["name"]
        return _file(places[name] / name) if name in places else _refusal(404, "a task has no such file")

    async def _pack(self, request: Request) -> Response:
        # The door lets no `..` through; what a pack has is decided where packs are published all the same.
        found = published_file(self.site.packs, request.path_params["name"])
        return _file(found) if found else _refusal(404, "there is no such pack")

    async def _ring(self, request: Request) -> Response:
        after = request.query_params.get("after", "-1")
        if not after.removeprefix("-").isdecimal() or len(after) > 15:
            return _refusal(400, "`after` is a count of rings")
        address = _address(request)
        if self.bell.crowded(address):
            return _refusal(429, "too many from this address wait for the bell; ask without waiting", again=10)
        if self.bell.full:
            return _refusal(503, "too many wait for the bell; come again later", again=10)
        return JSONResponse({"bell": await self.bell.wait(int(after), address)})


_CANNOT = 403


def _address(request: Request) -> str:
    """Where it comes from. Behind nginx that is what nginx says; the desk then has a port on the loopback only."""
    return request.client.host if request.client else ""


def _cannot() -> Response:
    """One answer for every reason, so that nobody learns what exists by trying."""
    return _refusal(_CANNOT, "this invitation cannot be used; ask the operator for a new one")


def _refusal(status: int, rule: str, *, again: int = 0) -> Response:
    headers = {"Connection": "close"} | ({"Retry-After": str(again)} if again else {})
    return JSONResponse({"error": rule}, status, headers)


async def _bounded(request: Request, most: int) -> bytes | None:
    """The body, None if it is longer than `most` bytes."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            return None
    return content


def _file(path: Path) -> Response:
    """A plain file; a link or a folder is not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return _refusal(404, "there is no such file yet")
    if not stat.S_ISREG(found.st_mode):
        return _refusal(404, "there is no such file")
    return FileResponse(path, media_type="application/octet-stream", stat_result=found)
