"""A device's side of enrolment, and its downloads: nothing is believed that the site's authority did not vouch for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from fedrec.deploy import manifest
from fedrec.deploy.application import Application, Card
from fedrec.deploy.certificates import explain, fingerprint, trusting
from fedrec.deploy.identity import CARD, KEY, Identity, Witness, make_key
from fedrec.deploy.invitation import Invitation
from fedrec.deploy.manifest import Listed, Manifest
from fedrec.errors import DataError, RunError, WireError
from fedrec.files import write_atomic

CA, TASK = "ca.pem", "task"

_SMALL = 64 * 1024  # bytes: certificates, cards, manifests
_PATIENCE = httpx.Timeout(60.0, connect=10.0)


def enrol(folder: Path, invitation: str) -> None:
    """Make `folder` a device of the site that `invitation` is for.

    It may be interrupted anywhere and called again: the key that was made is kept, and buys the same seat again. A
    folder that is enrolled at this site is left as it is; one of another site is refused.
    """
    offer = Invitation.decode(invitation)
    if (folder / CARD).exists():
        return _check_same(folder, _card(folder)["site"], offer)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca = _authority(folder, offer)
        key = make_key(folder / KEY)
        with _client(ca, offer.server) as client:
            card = _apply(client, offer, Application.of(key, offer.site, offer.secret))
            identity = Identity(card.seat, key, bytes.fromhex(card.certificate))
            _check_card(identity, card, offer)
            task = _download(client, folder, bytes.fromhex(card.roster_key))
    except OSError as error:
        remedy = "Choose another folder, make room, or get the right to write there."
        raise RunError("the folder can be written", remedy=remedy, path=str(folder), reason=error.strerror) from None
    # The card comes last: a folder that has one is complete.
    content = {"server": offer.server, "site": offer.site, **card.model_dump(), "task": task}
    write_atomic(folder / CARD, json.dumps(content, indent=2).encode())


def fetch(folder: Path, name: str) -> Iterator[bytes]:
    """The bytes of `/fedrec/v1/<name>`, as they come from the site that `folder` is enrolled at.

    Nothing but the connection is verified: whoever reads them checks signature and length.
    """
    card = _card(folder)
    with _client((folder / CA).read_bytes(), card["server"]) as client:
        yield from _chunks(client, name)


def _authority(folder: Path, offer: Invitation) -> bytes:
    """The certificate that the invitation names by its hash. Who hands it over does not matter."""
    path = folder / CA
    if path.exists():
        ca = path.read_bytes()
        _check_same(folder, fingerprint(ca), offer)
        return ca
    with httpx.Client(base_url=offer.server, verify=False, timeout=_PATIENCE, trust_env=False) as client:
        ca = _read(client, "ca")
    if fingerprint(ca) != offer.site:
        remedy = "Somebody else answers at this address, or the site was made anew: ask for a new invitation."
        raise WireError("the server has the certificate that the invitation names", remedy=remedy, server=offer.server)
    write_atomic(path, ca)
    return ca


def _apply(client: httpx.Client, offer: Invitation, application: Application) -> Card:
    with _speaking(offer.server):
        body = application.model_dump_json()
        answer = client.post("/fedrec/v1/enrol", content=body, headers={"content-type": "application/json"})
        _check_answer(answer, "enrol")
    try:
        return Card.model_validate_json(answer.content)
    except ValidationError:
        raise WireError("the server's answer is a card", remedy="Upgrade fedrec.", server=offer.server) from None


def _check_card(identity: Identity, card: Card, offer: Invitation) -> None:
    """Whether other devices will believe ours."""
    words = b"fedrec card"
    witness = Witness(bytes.fromhex(card.roster_key))
    if not witness.check(identity.client, identity.certificate, words, identity.sign(words)):
        remedy = "Ask the operator to run `fedrec doctor` on the site."
        raise WireError("a seat's certificate fits the device's key", remedy=remedy, server=offer.server)


def _download(client: httpx.Client, folder: Path, roster_key: bytes) -> str:
    """Fetch what the task's signed manifest lists; the task's hash."""
    content = _read(client, f"task/{manifest.MANIFEST}")
    listed = Manifest.read(content, _read(client, f"task/{manifest.SIGNATURE}"), roster_key)
    fresh = folder / f".{TASK}"
    fresh.mkdir(exist_ok=True)
    for name, entry in listed.files.items():
        _save(client, name, entry, fresh / name)
    shutil.rmtree(folder / TASK, ignore_errors=True)
    fresh.rename(folder / TASK)
    return listed.task


def _save(client: httpx.Client, name: str, entry: Listed, path: Path) -> None:
    """Download a file of the task, on disk when this returns."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in _bounded(_chunks(client, f"task/{name}"), entry.bytes):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != entry.sha256:
        remedy = "Try again; if it stays, ask the operator to run `fedrec doctor` on the site."
        raise WireError("a file is the one in the signed manifest", remedy=remedy, file=name)


def _read(client: httpx.Client, name: str) -> bytes:
    return b"".join(_bounded(_chunks(client, name), _SMALL))


def _bounded(chunks: Iterator[bytes], most: int) -> Iterator[bytes]:
    for chunk in chunks:
        most -= len(chunk)
        if most < 0:
            raise WireError("a file is as long as it was said to be", remedy="Try again; else ask the operator.")
        yield chunk


def _chunks(client: httpx.Client, name: str) -> Iterator[bytes]:
    with _speaking(str(client.base_url)), client.stream("GET", f"/fedrec/v1/{name}") as answer:
        _check_answer(answer, name)
        yield from answer.iter_bytes()


def _client(ca: bytes, server: str) -> httpx.Client:
    # No proxy of the environment's: rounds go without one, and a device shall not enrol where it cannot take part.
    return httpx.Client(base_url=server, verify=trusting(ca), timeout=_PATIENCE, trust_env=False)


@contextmanager
def _speaking(server: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise explain(error, server) from None


def _check_answer(answer: httpx.Response, name: str) -> None:
    match answer.status_code:
        case 200:
            return
        case 403:
            rule, remedy = (
                "this invitation cannot be used",
                "It was used, is too old, or was withdrawn: ask for another.",
            )
        case 404:
            rule, remedy = "the server has what a device asks for", "It may not be published yet; or upgrade fedrec."
        case 429 | 503:
            rule, remedy = "the server has time", "Try again in a minute."
        case _:
            rule, remedy = (
                "the server understands a device",
                "Upgrade fedrec, or ask the operator for the server's log.",
            )
    raise WireError(rule, remedy=remedy, asked=name, status=answer.status_code)


def _check_same(folder: Path, site: str, offer: Invitation) -> None:
    if site != offer.site:
        remedy = "Use a new folder: one folder is one device of one site."
        raise RunError("a folder is enrolled once", remedy=remedy, path=str(folder), site=site[:12])


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return {name: str(card[name]) for name in ("server", "site")}
    except (OSError, ValueError, KeyError, TypeError):
        remedy = "Enrol the folder, or bring device.json back from a copy."
        raise DataError("a device's folder has a device.json", remedy=remedy, path=str(folder)) from None
