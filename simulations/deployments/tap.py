"""A tap on the line between devices and a site: what crosses it, in the clear, and a search for a person's words."""

from __future__ import annotations

import re
import threading
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedrec.deploy.certificates import serving, trusting
from fedrec.deploy.site import Site
from simulations.deployments.relay import Tls

_STREAMS = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")  # gzip and zlib begin like this


def tls_of(site: Site) -> Tls:
    """Poses as the site, with its own certificate and key, and believes its authority alone."""
    return Tls(serving(site.keys), trusting(site.ca))


@dataclass
class Tape:
    """What was heard, by direction. Pieces of different connections follow each other as they came."""

    heard: dict[str, bytearray] = field(default_factory=lambda: {"up": bytearray(), "down": bytearray()})
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, way: str, piece: bytes) -> None:
        """Record a piece."""
        with self._lock:
            self.heard[way] += piece

    def said(self, word: str) -> int:
        """How often devices sent a short word that stands for itself, as ids do: not a part of a hash."""
        alone = rb"(?<![0-9A-Za-z])" + re.escape(word.encode()) + rb"(?![0-9A-Za-z])"
        return len(re.findall(alone, self.heard["up"]))

    def places(self) -> Iterator[tuple[str, bytes]]:
        """Each direction, and what went there."""
        for way, content in self.heard.items():
            yield f"wire ({way})", bytes(content)


def files(folder: Path, *, without: Sequence[Path] = ()) -> Iterator[tuple[str, bytes]]:
    """Every file below `folder` but those in `without`, whatever it is."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(other) for other in without):
            with suppress(FileNotFoundError):  # a journal of a database that is at work
                yield str(path.relative_to(folder)), path.read_bytes()


def leaks(places: Iterator[tuple[str, bytes]], words: Sequence[str]) -> Counter[str]:
    """Where any of `words` is found: as text of UTF-8 or UTF-16, in hex, in base64, and in what can be unpacked."""
    marks = [mark for word in words for mark in _disguises(word)]
    found = Counter[str]()
    for name, content in places:
        searched = _unpacked(content)
        found[name] += sum(mark in searched for mark in marks)
    return +found


def _disguises(word: str) -> list[bytes]:
    plain = word.encode()
    shifted = [b64encode(b"\0" * shift + plain)[(4 if shift else 0) : -4] for shift in range(3)]
    return [plain, word.encode("utf-16-le"), plain.hex().encode(), plain.hex().upper().encode(), *shifted]


def _unpacked(content: bytes) -> bytes:
    found = [content]
    for begin in _STREAMS.finditer(content):
        with suppress(zlib.error):
            found.append(zlib.decompressobj(47).decompress(content[begin.start() :], 1 << 20))
    return b"\0".join(found)
