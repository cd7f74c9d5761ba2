"""Who may talk to the app: the browser that was given its address, and only from the app's own pages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.examples.reader.fields import fields_of, upload_in

LOCAL = ("localhost", "127.0.0.1", "[::1]")
MOST, LARGEST = 1 << 16, 1 << 26  # bytes of a form, and of one with a file
UPLOADS = ("/restore",)  # where files are taken

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_QUIET = {
    "content-security-policy": _POLICY, "cache-control": "no-store", "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin", "x-frame-options": "DENY",
}  # fmt: skip


def _secret() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, repr=False)
class Keys:
    """Secrets of one start: `door` is in the address that is printed, `session` in the cookie, `form` in every form."""

    door: str = field(default_factory=_secret)
    session: str = field(default_factory=_secret)
    form: str = field(default_factory=_secret)


class Guard:
    """Lets in requests to a name of ours that bear the session's cookie; a change must come from one of our forms.

    Whoever else uses this machine reaches the port, and so does any page that is open in the browser: neither has
    the cookie or, if a browser adds it, the secret of the forms. `form` and `upload` give what a checked form holds.
    """

    def __init__(self, inner: ASGIApp, keys: Keys) -> None:
        self._inner, self._keys = inner, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((name.encode(), _QUIET[name].encode()) for name in _QUIET)]
            await send(message)

        if scope["type"] == "http":
            answer = await self._checked(scope, receive) or self._inner
            await answer(scope, receive, guarded)

    async def _checked(self, scope: Scope, receive: Receive) -> Response | None:
        """What a request is told instead, None if it may pass."""
        headers = Headers(scope=scope)
        if _name(headers.get("host", "")) not in LOCAL:
            return _refusal("this app is known by another name", 421)
        if _same(scope["path"], f"/enter/{self._keys.door}"):
            return self._entered(headers)
        if not _same(_cookie(headers), self._keys.session):
            return _refusal("open the address that the app printed when it started", 401)
        if scope["method"] in ("GET", "HEAD"):
            return None
        return await self._form(scope, receive, headers)

    def _entered(self, headers: Headers) -> Response:
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_cookie_name(headers), self._keys.session, httponly=True, samesite="strict")
        return answer

    async def _form(self, scope: Scope, receive: Receive, headers: Headers) -> Response | None:
        if headers.get("origin", f"http://{headers['host']}") != f"http://{headers['host']}":
            return _refusal("a change is asked for from the app's own pages", 403)
        kind = headers.get("content-type", "")
        body = await _body(receive, LARGEST if scope["path"] in UPLOADS else MOST)
        if body is None:
            return _refusal("a form is short, a file is no larger than 64 MB, and either arrives whole", 413)
        form = fields_of(kind, body)
        if not _same(form.pop("token", ""), self._keys.form):
            return _refusal("the page is from before the app was started again: load it once more", 403)
        scope.setdefault("state", {}).update(form=form, upload=upload_in(kind, body))
        return None


def form(scope: Scope) -> Mapping[str, str]:
    """The fields of a checked form."""
    fields: dict[str, str] = scope["state"]["form"]
    return fields


def upload(scope: Scope) -> bytes:
    """The file that came with a checked form, b"" if none did."""
    content: bytes = scope["state"]["upload"]
    return content


async def _body(receive: Receive, most: int) -> bytes | None:
    """All of it; None if it is too long or its sender has gone."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most or message["type"] != "http.request":
            return None
        if not message.get("more_body"):
            return bytes(body)


def _name(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    return name if port.isdigit() else host.lower()


def _cookie_name(headers: Headers) -> str:
    """One for each port: a browser keeps the cookies of all of them together."""
    return f"reader-{headers['host'].rpartition(':')[2]}"


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(headers))
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _refusal(reason: str, status: int) -> Response:
    return PlainTextResponse(reason + "\n", status)
