"""The door: the only thing of a site that the outside reaches. The fleet's calls, the desk, and nothing else.

Flower serves devices, operators and executors on one port and leaves the operators' part open (flwr 1.41). So the
SuperLink listens on the loopback, and what passes here is listed in `fedrec.deploy.paths`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrec.deploy.certificates import trusting
from fedrec.deploy.paths import DESK_HEADERS, ENROL_BYTES, FLEET_HEADERS, Place, place
from fedrec.deploy.site import Site

_LOG = logging.getLogger("fedrec.door")

# A device on a line of 1 KB/s gets through; one that sends a byte now and then does not.
_SILENCE = 90.0  # seconds without a byte taken or given
_SLOWEST = 512  # bytes a second, over a whole request
_GRACE = 60.0  # seconds on top of that
_ANSWER = 120.0  # seconds that the SuperLink may think
_KEPT = 4.0  # seconds that an idle connection to it is kept: it hangs up after 5

_Headers = list[tuple[bytes, bytes]]
_CLOSE = (b"connection", b"close")


class _Gone(Exception):
    """The other side went away."""


@dataclass(frozen=True, eq=False)
class Door:
    """ASGI: `superlink` answers the fleet's calls, `desk` its own paths; a request has at most `most` bytes."""

    superlink: httpx.AsyncClient
    desk: ASGIApp
    most: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers: _Headers = scope["headers"]
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        length = _length(scope["method"], headers)
        where = place(scope["method"], target)
        send = _patient(send)
        if where is None:
            await _say(send, 404)
        elif length is None:
            await _say(send, 400)
        elif length > (self.most if where is Place.FLEET else ENROL_BYTES):
            await _say(send, 413)
        elif where is Place.FLEET:
            await self._fleet(target.decode(), _only(headers, FLEET_HEADERS), _Body(receive, length), send)
        else:
            await self._desk({**scope, "headers": _only(headers, DESK_HEADERS)}, _Body(receive, length), send)

    async def _fleet(self, path: str, headers: _Headers, body: _Body, send: Send) -> None:
        request = self.superlink.build_request(
            "POST", path, content=body.stream(), headers=[*headers, (b"content-length", str(body.length).encode())]
        )
        try:
            answer = await self.superlink.send(request, stream=True)
        except httpx.TransportError as error:
            _LOG.warning("the SuperLink did not answer: %s", type(error))
            return await _say(send, 503)
        except (_Gone, TimeoutError):
            return await _say(send, 408)
        try:
            await _relay(answer, send, last=not body.whole)
        except (httpx.TransportError, TimeoutError) as error:
            _LOG.info("an answer of the SuperLink was cut off: %s", type(error))
        finally:
            await answer.aclose()

    async def _desk(self, scope: Scope, body: _Body, send: Send) -> None:
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.desk(scope, body.receive, tell)
        except (_Gone, TimeoutError):
            _LOG.info("a request to the desk was cut off")
        except Exception as error:  # noqa: BLE001  (what it says may be somebody's; its kind is not)
            _LOG.error("the desk failed: %s", type(error))
            if not started:
                await _say(send, 500)


class _Body:
    """A request's body: as long as it said, and in good time."""

    def __init__(self, receive: Receive, length: int) -> None:
        self._receive, self.length, self.whole = receive, length, length == 0
        self._until = asyncio.get_running_loop().time() + _GRACE + length / _SLOWEST

    async def receive(self) -> Message:
        silence = asyncio.get_running_loop().time() + _SILENCE
        async with asyncio.timeout_at(min(silence, self._until)):
            message = await self._receive()
        self.whole = not message.get("more_body", False)
        return message

    async def stream(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.receive()
            if message["type"] != "http.request":
                raise _Gone
            more = not self.whole
            yield message.get("body", b"")


@asynccontextmanager
async def superlink(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A pool of connections to the site's SuperLink."""
    spec = site.spec
    limits = httpx.Limits(max_connections=spec.connections, max_keepalive_connections=32, keepalive_expiry=_KEPT)
    async with httpx.AsyncClient(
        base_url=f"https://{spec.superlink_at}",
        verify=trusting(site.ca),
        timeout=httpx.Timeout(_ANSWER, connect=10.0),
        limits=limits,
        headers={"accept-encoding": "identity"},
        trust_env=False,
    ) as client:
        yield client


async def _relay(answer: httpx.Response, send: Send, *, last: bool) -> None:
    kept = (b"content-type", b"content-length")
    headers = [
        (name.lower(), value)
        for name, value in answer.headers.raw
        if name.lower() in kept or name.lower().startswith(b"flwr-")
    ]
    headers += [_CLOSE] if last else []
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    async for chunk in answer.aiter_raw():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _patient(send: Send) -> Send:
    """`send`, until the other side takes nothing for too long."""

    async def tell(message: Message) -> None:
        async with asyncio.timeout(_SILENCE):
            await send(message)

    return tell


async def _say(send: Send, status: int) -> None:
    # The connection ends here: what is left of a body that nobody wants is not waited for.
    headers = [(b"content-length", b"0"), _CLOSE]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _only(headers: _Headers, names: tuple[str, ...]) -> _Headers:
    return [(name, value) for name, value in headers if name.decode("latin-1") in names]


def _length(method: str, headers: _Headers) -> int | None:
    """The length of the body, which a POST says once and in one way, and nothing else has; None if that is not so."""
    said = [value for name, value in headers if name in (b"content-length", b"transfer-encoding")]
    if method != "POST":
        return 0 if said in ([], [b"0"]) else None
    return int(said[0]) if len(said) == 1 and said[0].isdigit() and len(said[0]) < 16 else None
