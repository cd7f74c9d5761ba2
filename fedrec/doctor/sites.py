"""The checks of a site: keys and certificates, who can reach what, and whether its promises stand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedrec.deploy.certificates import CA, SERVER, SERVER_KEY, check_private
from fedrec.deploy.manifest import MANIFEST, SIGNATURE, STATEMENT, Manifest, listed
from fedrec.deploy.site import Site
from fedrec.doctor.asking import Server, is_loopback, listeners
from fedrec.doctor.finding import Finding
from fedrec.doctor.machine import clock, disk
from fedrec.errors import FedrecError, PrivacyRefusal, SpecError

_SOON = 21 * 86_400.0  # seconds: time enough to renew without haste
_RENEW = "Renew the server's certificate: `fedrec server renew SITE`; the authority, and so every device, stays."
_INNER = (  # what belongs to operators, and ways around a careless filter
    "/v1/control/start-run", "/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/pull-task",
    "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs", "/v1//control/list-runs",
    "//v1/control/list-runs", "/v1/fleet/get-fab", "/metrics",
)  # fmt: skip

Check = tuple[str, str, Callable[[], Iterator[Finding]]]


def checks(folder: Path) -> tuple[Check, ...]:
    """Name, code and check, in the order in which they are worth repairing."""
    site = Site.open(folder)
    return (
        ("settings", "", lambda: _settings(site)),
        ("certificate", "", lambda: _certificate(site)),
        ("keys", "P07", lambda: _keys(site)),
        ("disk", "P11", lambda: disk((folder,))),
        ("clock", "P11", clock),
        ("task", "P15", lambda: _task(site)),
        ("ledger", "P11", lambda: _ledger(site)),
        ("promises", "P17", lambda: _promises(site)),
        ("policy", "", lambda: _policy(site)),
        ("listeners", "", lambda: _answers(site)),
        ("loopback", "P09", lambda: _loopback(site)),
        ("front door", "P09", lambda: _front_door(site)),
    )


def _settings(site: Site) -> Iterator[Finding]:
    spec = site.spec
    yield Finding(name="settings", code="", ok=True, seen=f"{spec.url}, {spec.seats} seats", remedy="")


def _certificate(site: Site) -> Iterator[Finding]:
    """Dates, hosts, authority and key: what each device checks whenever it connects."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    server = x509.load_pem_x509_certificate((site.keys / SERVER).read_bytes())
    authority = x509.load_pem_x509_certificate(site.ca)
    yield _dates("certificate of the server", server, _RENEW)
    yield _dates("certificate of the authority", authority, "Plan a new site: every device has to be invited again.")
    missing = sorted(set(site.spec.hosts) - _hosts(server))
    yield Finding(
        name="hosts", code="", ok=not missing, remedy=_RENEW,
        seen=f"not in the certificate: {', '.join(missing)}" if missing else ", ".join(site.spec.hosts),
    )  # fmt: skip
    try:
        server.verify_directly_issued_by(authority)
        signed = True
    except (InvalidSignature, ValueError, TypeError):
        signed = False
    yield Finding(
        name="authority", code="", ok=signed, remedy=_RENEW,
        seen="it signed the server's certificate" if signed else "it did not sign the server's certificate",
    )  # fmt: skip
    fits = _public(site.keys / SERVER_KEY) == server.public_key()
    seen = "it is the certificate's" if fits else "it is not the certificate's"
    yield Finding(name="key of the server", code="", ok=fits, seen=seen, remedy=_RENEW)


def _dates(name: str, certificate: Any, remedy: str) -> Finding:  # noqa: ANN401  (an x509.Certificate)
    begins, ends = (at.timestamp() for at in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    now = time.time()
    seen = f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < begins:
        seen, remedy = f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC", "Set the clock."
    return Finding(name=name, code="", ok=begins <= now < ends - _SOON, seen=seen, remedy=remedy)


def _hosts(certificate: Any) -> set[str]:  # noqa: ANN401  (an x509.Certificate)
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _public(path: Path) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(path.read_bytes(), password=None).public_key()


def _keys(site: Site) -> Iterator[Finding]:
    missing = [path.name for path in (site.signing_file, site.executor_secret, site.keys / CA) if not path.exists()]
    try:
        check_private(site.keys)
        seen, remedy = f"missing: {', '.join(missing)}" if missing else "nobody else reads them", ""
    except SpecError as error:
        missing, seen, remedy = [*missing, ""], error.rule, error.remedy
    remedy = remedy or "Bring back keys/ from a copy: new keys are a new site."
    yield Finding(name="keys", code="P07", ok=not missing, seen=seen, remedy=remedy)


def _task(site: Site) -> Iterator[Finding]:
    """Whether plan, items and statement are those that devices were promised."""
    content, signature = (site.task / MANIFEST).read_bytes(), (site.task / SIGNATURE).read_bytes()
    signed = Manifest.read(content, signature, site.roster_key).files
    places = {STATEMENT: site.task}
    changed = sorted(name for name, entry in signed.items() if listed(places.get(name, site.run) / name) != entry)
    yield Finding(
        name="task", code="P15", ok=not changed, remedy="Put it back as it was: another plan is another site.",
        seen=f"not as it was signed: {', '.join(changed)}" if changed else "it is the one that the site signed",
    )  # fmt: skip


def _ledger(site: Site) -> Iterator[Finding]:
    from fedrec.privacy.chain import Book

    path, remedy = site.run / "ledger.jsonl", "Bring back run/ as a whole from the last copy; never edit a ledger."
    if not path.exists():
        begun = (site.run / "checkpoint.safetensors").exists() and _manifest(site).get("privacy")
        seen = "missing, and rounds have been trained" if begun else "none yet: no round has begun"
        yield Finding(name="ledger", code="P11", ok=not begun, seen=seen, remedy=remedy)
        return
    book = Book.read(path)
    seen = f"{len(book.records)} records, verified; head {book.head[:12]}"
    yield Finding(name="ledger", code="P11", ok=True, seen=seen, remedy=remedy)


def _promises(site: Site) -> Iterator[Finding]:
    """That what is written down is what the plan costs, promise by promise."""
    from fedrec.privacy.plan import PrivacyPlan

    manifest = _manifest(site)
    if not manifest.get("privacy"):
        yield Finding(name="promises", code="P17", ok=True, seen="non-private: nothing is promised", remedy="")
        return
    plan = PrivacyPlan.of_public(manifest["privacy"])
    promises = [str(promise.guarantee) for promise in plan.promises] if plan.private else []
    stands = manifest.get("promises") == promises
    yield Finding(
        name="promises", code="P17", ok=stands, seen="; ".join(promises) or "non-private: its noise can be replayed",
        remedy="run/run.json says something else than its plan costs: bring it back from a copy.",
    )  # fmt: skip


def _policy(site: Site) -> Iterator[Finding]:
    """Whether devices come by themselves, or only where their owners allow more than usual."""
    from fedrec.device.policy import Policy
    from fedrec.privacy.plan import PrivacyPlan

    manifest = _manifest(site)
    try:
        if manifest.get("privacy"):
            Policy().accept(PrivacyPlan.of_public(manifest["privacy"]), str(manifest.get("task")))
        else:
            Policy().accept_none()
        seen = "a device with the default policy takes part"
    except PrivacyRefusal as refusal:
        seen = f"a device takes part only if its owner's policy allows it: by default {refusal.rule}"
    yield Finding(name="policy", code="", ok=True, seen=seen, remedy="")


def _answers(site: Site) -> Iterator[Finding]:
    """Whether each port is free, or answered by this very site."""
    spec = site.spec
    host, port = spec.operators_at
    door, operators = _door(site), Server((_near(host), port), "127.0.0.1")
    fleet = Server(("127.0.0.1", spec.superlink), "localhost", site.ca)
    yield _answered("door", door, lambda: door.ask("/fedrec/v1/ca").body.strip() == site.ca.strip())
    yield _answered("operators' port", operators, lambda: operators.ask("/livez").body.strip() == b"alive")
    yield _answered("SuperLink's port", fleet, lambda: fleet.ask("/").status > 0)


def _answered(name: str, server: Server, ours: Callable[[], bool]) -> Finding:
    remedy = "Somebody else has the port: stop them, or change the port in server.toml."
    if not server.listens:
        return Finding(name=name, code="", ok=True, seen="nobody listens: the site is stopped", remedy=remedy)
    try:
        ok, seen = ours(), "answered by somebody else"
    except FedrecError as error:
        ok, seen = False, error.rule
    return Finding(name=name, code="", ok=ok, seen="answered by this site" if ok else seen, remedy=remedy)


def _loopback(site: Site) -> Iterator[Finding]:
    """Whether the SuperLink, which believes whoever reaches it, can be reached from this machine alone."""
    spec = site.spec
    inner = (spec.superlink,) if spec.front == "door" else (spec.superlink, spec.desk)
    open_to = sorted({address for port in inner for address in listeners(port) if not is_loopback(address)})
    yield Finding(
        name="loopback only", code="P09", ok=not open_to,
        seen=f"listens on {', '.join(open_to)}" if open_to else "no inner port listens to the outside",
        remedy="Let `fedrec server start` start the SuperLink; its control path has no password.",
    )  # fmt: skip


def _front_door(site: Site) -> Iterator[Finding]:
    """Really asks the public port for what it must not have."""
    door = _door(site)
    if not door.listens:
        yield Finding(name="front door", code="P09", ok=True, seen="not asked: nobody listens", remedy="")
        return
    let_in = [path for path in _INNER for method in ("GET", "POST") if door.ask(path, method=method).status != 404]
    yield Finding(
        name="front door", code="P09", ok=not let_in,
        seen=f"lets in {', '.join(dict.fromkeys(let_in))}" if let_in else f"{len(_INNER)} inner paths are closed",
        remedy="Stop the server now. Only /v1/fleet/ and /fedrec/v1/ may be reached: compare the proxy with docs.",
    )  # fmt: skip


def _door(site: Site) -> Server:
    spec = site.spec
    return Server((_near(spec.bind), spec.port), spec.hosts[0], site.ca)


def _near(address: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def _manifest(site: Site) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((site.run / "run.json").read_text(encoding="utf-8"))
    return content
