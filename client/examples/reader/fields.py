"""What a form holds, in either of the ways in which browsers send one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl

_BOUNDARY = re.compile(r'(?i)multipart/form-data\s*;.*?\bboundary=(?:"([^"]+)"|([^\s;"]+))')
_NAME = re.compile(rb'(?i)[;\s]name="([^"]*)"')
_FILE = re.compile(rb'(?i)[;\s]filename="')


def fields_of(kind: str, body: bytes) -> dict[str, str]:
    """The texts of a form whose content type is `kind`, by their names."""
    if _BOUNDARY.match(kind) is None:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    texts = [(head, content) for head, content in _parts(kind, body) if not _FILE.search(head)]
    names = ((_NAME.search(head), content) for head, content in texts)
    return {name[1].decode("utf-8", "replace"): content.decode("utf-8", "replace") for name, content in names if name}


def upload_in(kind: str, body: bytes) -> bytes:
    """The first file of a form, b"" if it has none."""
    return next((content for head, content in _parts(kind, body) if _FILE.search(head)), b"")


def _parts(kind: str, body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Head and content of each part of a multipart form (RFC 7578); nothing of what is none, or is cut short."""
    found = _BOUNDARY.match(kind)
    line = b"\r\n--" + (found[1] or found[2]).encode("latin-1") if found else b"\r\n"
    pieces = (b"\r\n" + body).split(line) if found else []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        yield head, content
