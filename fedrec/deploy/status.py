"""What operators see over HTTP: the status page, /healthz, /livez and /metrics. Reads only; answers nobody else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrec.deploy import board
from fedrec.deploy.health import Health, judge
from fedrec.deploy.metrics import CONTENT_TYPE, exposition
from fedrec.deploy.view import Look, SiteView

if TYPE_CHECKING:
    from jinja2 import Template

LOCAL = ("localhost", "127.0.0.1", "[::1]")
PACES = (30, 300)  # seconds between two looks, for whoever asks for them

_QUIET = (
    (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"), (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


def operators(view: SiteView, *, hosts: Sequence[str] = LOCAL) -> ASGIApp:
    """The operators' application. `hosts` are the names that it answers to.

    A page of somebody else's, open in an operator's browser, reaches a loopback port under a name of its own: it is
    refused (421). There is no password: whoever reaches the port may read everything there, which is all public
    but for the counts of seats.
    """
    routes = [
        Route("/", lambda request: _page(view, request)),
        Route("/healthz", lambda request: _healthz(view)),
        Route("/livez", lambda request: PlainTextResponse("alive\n")),
        Route("/metrics", lambda request: _metrics(view)),
    ]
    return _Guarded(Starlette(routes=routes), tuple(hosts))


def page(look: Look, health: Health, *, every: int = 0) -> str:
    """The status page as one HTML document without a script. It is loaded again only if `every` seconds were asked."""
    return _template().render(look=look, health=health, board=board, every=every, paces=PACES, style=_style())


class _Guarded:
    """Checks the name that is asked for, and says what a browser may do with the answer: nothing but show it."""

    def __init__(self, inner: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._inner, self._hosts = inner, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_QUIET, (b"content-security-policy", _policy())]
            await send(message)

        known = scope["type"] != "http" or _host(scope) in self._hosts
        stranger = PlainTextResponse("this server is known by another name: see operators' hosts\n", status_code=421)
        await (self._inner if known else stranger)(scope, receive, guarded)


def _host(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    return str(given.rpartition(":")[0] if given.rpartition(":")[2].isdigit() else given)


def _page(view: SiteView, request: Request) -> Response:
    look = view.look()
    asked = request.query_params.get("every", "")
    every = next((pace for pace in PACES if asked == str(pace)), 0)
    return HTMLResponse(page(look, judge(look), every=every))


def _healthz(view: SiteView) -> Response:
    """503 while the site does not do its work: for probes that wait, or take it out of service."""
    health = judge(view.look())
    return JSONResponse(health.public(), status_code=200 if health.ready else 503)


def _metrics(view: SiteView) -> Response:
    look = view.look()
    return Response(exposition(look, judge(look)), media_type=CONTENT_TYPE)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    house = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    house.filters["coded"] = _coded
    return house.from_string(_beside("status.html.j2"))


def _coded(text: str) -> str:
    """Text with `names` set as code, everything else escaped."""
    from markupsafe import Markup, escape

    parts = (f"<code>{escape(part)}</code>" if at % 2 else str(escape(part)) for at, part in enumerate(text.split("`")))
    return Markup("".join(parts))


@cache
def _style() -> str:
    return _beside("status.css")


@cache
def _policy() -> bytes:
    """Nothing from anywhere but this one style sheet."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    rules = ("default-src 'none'", f"style-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'",
             "frame-ancestors 'none'")  # fmt: skip
    return "; ".join(rules).encode()


def _beside(name: str) -> str:
    return files(__package__).joinpath("pages", name).read_text("utf-8")
