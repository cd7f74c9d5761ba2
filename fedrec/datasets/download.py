"""`fedrec data get`: official files, resumed where the server can, checked before they take their name."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from fedrec.errors import DataError, SpecError, require
from fedrec.files import home

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
GROUPLENS = "https://files.grouplens.org/datasets/movielens/"


@dataclass(frozen=True, kw_only=True)
class Release:
    """A published file. `size` in bytes and `md5` are the publisher's; None where it publishes none."""

    url: str
    file: str
    size: int | None = None
    md5: str | None = None
    terms: str = ""


RESEARCH = "research use; no redistribution; cite Harper & Konstan 2015, doi:10.1145/2827872"

# The MD5 sums are those that GroupLens publishes beside each archive.
RELEASES = {
    "movielens-100k": Release(
        url=GROUPLENS + "ml-100k.zip",
        file="ml-100k.zip",
        size=4_924_029,
        md5="0e33842e24a9c977be4e0107933c0723",
        terms=RESEARCH,
    ),
    "movielens-1m": Release(
        url=GROUPLENS + "ml-1m.zip",
        file="ml-1m.zip",
        size=5_917_549,
        md5="c4d9eecfca2ab87c1945afe126590906",
        terms=RESEARCH,
    ),
    "movielens-25m": Release(
        url=GROUPLENS + "ml-25m.zip",
        file="ml-25m.zip",
        size=261_978_986,
        md5="6b51fb2759a8657d3bfcbfc42b592ada",
        terms=RESEARCH,
    ),
}

BY_HAND = {
    "amazon": "Get a review file (JSON lines) from the page of the Amazon review data, McAuley lab, UC San Diego; "
    "it asks you to accept its terms. Then give its path.",
    "mind": "Get MINDsmall_train.zip or MINDlarge_train.zip from the MIND page of Microsoft; it asks you to accept "
    "the Microsoft Research licence. Then give its path.",
    "table": "A table is your own file: give its path, and items=PATH.",
    "synthetic": "It is made on the spot and needs no file.",
    "shards": "A folder that `fedrec data shard` wrote from any of the others: give its path.",
}


class Fetched(NamedTuple):
    """A file that is on disk and intact. `fresh` is False when it already was."""

    path: Path
    size: int
    sha256: str
    fresh: bool


def folder_of(name: str) -> Path:
    """Where `get` puts the data set `name`."""
    return home() / "data" / name


def here(name: str) -> bool:
    """Whether fedrec's own folder holds the data set (for one got by hand: holds anything)."""
    if name in RELEASES:
        return (folder_of(name) / RELEASES[name].file).exists()
    return folder_of(name).is_dir() and any(folder_of(name).iterdir())


def get(name: str, folder: Path | None = None, url: str | None = None) -> Fetched:
    """Download the data set `name` into `folder`; `url` is a mirror, which must serve the same bytes.

    Errors: `SpecError` for a name without a download, `DataError` when the file cannot be had whole.
    """
    if name not in RELEASES:
        require(name in BY_HAND, f"a data set is one of {', '.join((*RELEASES, *BY_HAND))}", name=name)
        raise SpecError(f"{name} has no direct download", remedy=BY_HAND[name])
    release = RELEASES[name] if url is None else replace(RELEASES[name], url=url)
    return fetch(release, folder or folder_of(name))


def fetch(release: Release, folder: Path) -> Fetched:
    """`release` in `folder`, downloaded unless an intact copy is there.

    The SHA-256 is recorded beside the file (as `sha256sum` writes it). Where the publisher gives no sum, that record
    is what a later `fetch` checks against.
    """
    require(release.url.startswith(("https://", "http://")), "a download has an http(s) address", url=release.url)
    path = folder / release.file
    record = path.with_name(path.name + ".sha256")
    if path.exists():
        return _intact(path, record, release)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _download(release, part)
    _check(part, release)
    sha256 = _digest(part, "sha256")
    known = _recorded(record)
    if known and known != sha256:
        remedy = f"If the publisher replaced the file, delete {record.name} to accept the new one."
        raise DataError("a file keeps the bytes it had when first downloaded", remedy=remedy, file=str(path))
    record.write_text(f"{sha256}  {path.name}\n", "utf-8")
    part.replace(path)
    return Fetched(path, path.stat().st_size, sha256, fresh=True)


def _recorded(record: Path) -> str | None:
    return record.read_text("utf-8").split()[0] if record.exists() else None


def _intact(path: Path, record: Path, release: Release) -> Fetched:
    sha256, known = _digest(path, "sha256"), _recorded(record)
    wrong = (known and known != sha256) or (release.md5 and _digest(path, "md5") != release.md5)
    if wrong:
        raise DataError("the file here is not the one published", remedy="Delete it and run again.", file=str(path))
    record.write_text(f"{sha256}  {path.name}\n", "utf-8")
    return Fetched(path, path.stat().st_size, sha256, fresh=False)


def _download(release: Release, part: Path) -> None:
    """Bring `part` to its full length."""
    # Without a published sum, halves of two different files could not be told from one: start over.
    have = part.stat().st_size if release.md5 and part.exists() else 0
    try:
        with _asked(release.url, have) as reply:
            have = have if reply.status == http.HTTPStatus.PARTIAL_CONTENT else 0
            length = reply.headers.get("Content-Length")
            total = have + int(length) if length else release.size
            with part.open("ab" if have else "wb") as sink, _progress(release.file, have, total) as shown:
                while block := reply.read(BLOCK):
                    sink.write(block)
                    shown(len(block))
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing is missing: the checks decide
        remedy = "Has the file moved? Give another address with --url."
        raise DataError(
            "the server does not give the file", remedy=remedy, url=release.url, status=error.code
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        remedy = "Check the network and run again; what has arrived is kept and resumed where possible."
        raise DataError("the download broke off", remedy=remedy, url=release.url, reason=reason) from None
    if total is not None and part.stat().st_size < total:
        remedy = "Run again; what has arrived is kept and resumed where possible."
        got = part.stat().st_size
        raise DataError("the download ended early", remedy=remedy, url=release.url, expected=total, bytes=got)


@contextmanager
def _asked(url: str, start: int) -> Iterator[http.client.HTTPResponse]:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
        yield reply


@contextmanager
def _progress(title: str, done: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Call what this yields with the size of each block."""
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda size: progress.advance(task, size)


def _check(part: Path, release: Release) -> None:
    """Refuse, and remove, a file of the wrong size or sum."""
    size = part.stat().st_size
    md5 = _digest(part, "md5") if release.md5 else None
    if size == 0 or (release.size or size, release.md5) != (size, md5):
        part.unlink()
        raise DataError(
            "a download is the file that was published",
            remedy="Nothing was kept. Run again, or try another address with --url.",
            url=release.url,
            size=size,
            expected_size=release.size,
            md5=md5,
            expected_md5=release.md5,
        )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
