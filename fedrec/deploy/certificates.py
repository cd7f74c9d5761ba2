"""A site's own certificate authority, its server certificate, and what a failed handshake means."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrec.errors import FedrecError, RunError, SpecError, WireError
from fedrec.files import write_atomic

CA, CA_KEY, SERVER, SERVER_KEY = "ca.pem", "ca.key", "server.pem", "server.key"
_LOOPBACK = ("localhost", "127.0.0.1")  # the SuperLink has the server's certificate, and listens there only

_AUTHORITY_DAYS, _SERVER_DAYS = 3650, 397
_SLACK = timedelta(hours=1)  # a device whose clock is a little slow can join a site that was made a minute ago


def create_authority(keys: Path, *, at: datetime | None = None) -> None:
    """Make `ca.key` and `ca.pem` in the folder `keys`; an authority that is there is kept."""
    if (keys / CA).exists():
        return
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedrec site")])
    draft = _draft(key.public_key(), name, at, _AUTHORITY_DAYS).issuer_name(name)
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    draft = draft.add_extension(_usage(signs_certificates=True), critical=True)
    write_secret(keys / CA_KEY, _pem(key))
    write_atomic(keys / CA, draft.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM))


def issue_server(keys: Path, hosts: Sequence[str], *, at: datetime | None = None) -> None:
    """Make `server.pem` for `hosts` and this machine itself; one that is there is replaced and its key is kept."""
    authority = x509.load_pem_x509_certificate((keys / CA).read_bytes())
    signer = _private_key(keys / CA_KEY)
    if not (keys / SERVER_KEY).exists():
        write_secret(keys / SERVER_KEY, _pem(ec.generate_private_key(ec.SECP384R1())))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedrec server")])
    draft = _draft(_private_key(keys / SERVER_KEY).public_key(), name, at, _SERVER_DAYS)
    draft = draft.issuer_name(authority.subject)
    names = [_general_name(host) for host in dict.fromkeys((*hosts, *_LOOPBACK))]
    draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
    draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    draft = draft.add_extension(_usage(signs_certificates=False), critical=True)
    draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = draft.add_extension(issuer, critical=False).sign(signer, hashes.SHA384())
    write_atomic(keys / SERVER, certificate.public_bytes(serialization.Encoding.PEM))


def expires(path: Path) -> datetime:
    """When a certificate stops to be valid."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate's DER, in hex: the name of a site."""
    try:
        return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
    except ValueError:
        raise WireError("the site's certificate is a PEM certificate", remedy="Check the server's address.") from None


def trusting(ca: bytes) -> ssl.SSLContext:
    """TLS ≥ 1.2 that believes this authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return context


def serving(keys: Path) -> ssl.SSLContext:
    """TLS ≥ 1.2 with the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(keys / SERVER, keys / SERVER_KEY)
    return context


def write_secret(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, at no moment readable by anybody but its owner."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def check_private(keys: Path) -> None:
    """Refuse a folder of keys that others than its owner can read or change."""
    for path in (keys, *sorted(keys.iterdir())):
        if path.suffix == ".pem" and b"PRIVATE KEY" not in path.read_bytes():
            continue  # a certificate is for everyone
        if mode := path.stat().st_mode & 0o077:
            remedy = f"chmod {'700' if path.is_dir() else '600'} {path}; if others could log in, make new keys."
            raise SpecError("keys belong to their owner alone", remedy=remedy, path=str(path), others=oct(mode))


def explain(error: Exception, url: str) -> FedrecError:
    """What `error` means to whoever wanted to reach `url`, and what to do."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _unverified(cause, url)
    if any(isinstance(cause, ssl.SSLError) for cause in chain):
        remedy = "Check the port: the server speaks TLS 1.2 or newer on it, and nothing else."
        return WireError("the server speaks TLS", remedy=remedy, server=url)
    if any(isinstance(cause, (OSError, TimeoutError)) or _is_transport(cause) for cause in chain):
        remedy = "Check that the server runs (`fedrec server status`), its address, port and the firewall; then again."
        return RunError("the server is out of reach", remedy=remedy, server=url, reason=type(error).__name__)
    return WireError("the server's answer cannot be used", remedy="Upgrade fedrec.", server=url)


def _unverified(error: ssl.SSLCertVerificationError, url: str) -> WireError:
    # The numbers are OpenSSL's X509_V_ERR_…
    match error.verify_code:
        case 10:
            rule = "the server's certificate has expired"
            remedy = "Check this machine's clock; if it is right, the operator runs `fedrec server renew`."
        case 9:
            rule, remedy = "the server's certificate is not yet valid", "Check this machine's clock and the server's."
        case 62 | 64:
            rule = "the server's certificate is for another host"
            remedy = "Use an address that the site was made for; the operator adds one to `hosts` in server.toml."
        case 2 | 18 | 19 | 20 | 21:
            rule = "the server's certificate is not from the authority this device enrolled with"
            remedy = "Somebody else answers at this address, or the site was made anew: ask for a new invitation."
        case _:
            rule = "the server's certificate cannot be verified"
            remedy = "Ask the operator to run `fedrec doctor` on the site."
    return WireError(rule, remedy=remedy, server=url)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_transport(error: BaseException) -> bool:
    """Whether httpx could not speak to the server: named, so that nobody needs httpx to read a certificate."""
    return any(kind.__name__ == "TransportError" and kind.__module__ == "httpx" for kind in type(error).__mro__)


def _draft(
    public: ec.EllipticCurvePublicKey, name: x509.Name, at: datetime | None, days: int
) -> x509.CertificateBuilder:
    start = at or datetime.now(UTC)
    draft = x509.CertificateBuilder().subject_name(name).public_key(public).serial_number(x509.random_serial_number())
    draft = draft.not_valid_before(start - _SLACK).not_valid_after(start + timedelta(days=days))
    return draft.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
