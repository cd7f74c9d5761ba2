"""Fetching the newest model: from the door of a site, from any https server that has its packs, or from a folder.

Whoever hands a pack over need not be believed: it is signed, and `Packs` verifies it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from fedrec.device.packs import Fetch, Packs
from fedrec.errors import DataError, FedrecError, RunError, SpecError, WireError
from fedrec.model.pack_format import PackInfo

Source = str | Path | Fetch

_DOOR = "/fedrec/v1/pack"
_PIECE = 1 << 20
_CONNECT, _SILENT = 10.0, 30.0  # seconds
_NAME = re.compile(r"latest|[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*){1,2}")


def sync(packs: Packs, source: Source, *, authority: bytes | None = None, older: bool = False) -> PackInfo | None:
    """Take the newest pack of `source` if it is not the current one; None if there is nothing new.

    An address begins with https://; without a path it is that of a site's door. `authority` (PEM) is then the only one
    that is believed, the system's are without it. Errors and `older` are as in `Packs.offer`: the current pack stays.
    """
    return packs.offer(opened(source, authority=authority), older=older)


def opened(source: Source, *, authority: bytes | None = None) -> Fetch:
    """What fetches from `source`; opens nothing yet."""
    if isinstance(source, Path):
        return lambda name: _from_folder(source, _checked(name))
    if isinstance(source, str):
        address = _address(source)
        return lambda name: _from_server(address, _checked(name), authority)
    return source


def _from_folder(folder: Path, name: str) -> Iterator[bytes]:
    try:
        with (folder / name).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        raise DataError("a folder of packs has what a site publishes", remedy="Give the folder that holds `latest`.",
                        file=name, reason=error.strerror) from None  # fmt: skip


def _from_server(address: str, name: str, authority: bytes | None) -> Iterator[bytes]:
    import httpx

    from fedrec.deploy.certificates import trusting

    patience = httpx.Timeout(_SILENT, connect=_CONNECT)
    with (
        _explained(address),
        httpx.Client(verify=True if authority is None else trusting(authority), timeout=patience) as client,
        client.stream("GET", f"{address}/{name}") as answer,
    ):
        if answer.status_code != 200:
            raise _refusal(answer.status_code, name)
        yield from answer.iter_bytes()


@contextmanager
def _explained(address: str) -> Iterator[None]:
    import httpx

    from fedrec.deploy.certificates import explain

    try:
        yield
    except httpx.HTTPError as error:
        raise explain(error, address) from None


def _refusal(status: int, name: str) -> FedrecError:
    if status == 404:
        remedy = "It may not be published yet: try again later."
        return RunError("the site has what a device asks for", remedy=remedy, asked=name, status=status)
    return WireError("the site hands out its packs", remedy="Try again later.", asked=name, status=status)


def _address(text: str) -> str:
    at = urlsplit(text)
    if at.scheme != "https" or not at.hostname or at.query or at.fragment:
        remedy = "Give https://HOST:PORT of a site, or a Path."
        raise SpecError("packs come over https, or from a folder", remedy=remedy, scheme=at.scheme)
    return text.rstrip("/") if at.path.strip("/") else f"https://{at.netloc}{_DOOR}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DataError("a pack's files have plain names", file=name)
    return name
