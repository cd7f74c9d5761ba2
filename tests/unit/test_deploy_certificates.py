import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedrec.deploy.certificates import (
    check_private,
    create_authority,
    expires,
    explain,
    fingerprint,
    issue_server,
    serving,
    trusting,
    write_secret,
)
from fedrec.errors import RunError, SpecError, WireError

NOW = datetime.now(UTC)
URL = "https://films.example:9443"


@pytest.fixture
def keys(tmp_path):
    return made(tmp_path / "keys", "films.example", "10.0.0.7")


def made(folder, *hosts, at=None):
    folder.mkdir(mode=0o700)
    create_authority(folder)
    issue_server(folder, hosts, at=at)
    return folder


def meet(server, client, host="films.example"):
    """A handshake in memory: nothing, or what the client says against the server."""
    ends = [ssl.MemoryBIO() for _ in range(2)]
    one = client.wrap_bio(ends[0], ends[1], server_hostname=host)
    other = server.wrap_bio(ends[1], ends[0], server_side=True)
    for _ in range(4):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                if side is one:
                    return error
    return None


@pytest.mark.parametrize("host", ["films.example", "10.0.0.7", "localhost", "127.0.0.1"])
def test_whoever_trusts_the_authority_believes_the_server(keys, host):
    assert meet(serving(keys), trusting((keys / "ca.pem").read_bytes()), host) is None


@pytest.mark.parametrize(
    ("at", "host", "said", "remedy"),
    [
        (NOW - timedelta(days=500), "films.example", "has expired", "clock"),
        (NOW + timedelta(days=2), "films.example", "not yet valid", "clock"),
        (None, "other.example", "for another host", "hosts"),
        (None, "10.0.0.8", "for another host", "hosts"),
    ],
)
def test_a_server_that_is_not_believed_is_told_apart(tmp_path, at, host, said, remedy):
    keys = made(tmp_path / "keys", "films.example", at=at)
    error = explain(meet(serving(keys), trusting((keys / "ca.pem").read_bytes()), host), URL)
    assert isinstance(error, WireError) and said in error.rule and remedy in error.remedy and error.got["server"] == URL


def test_another_authority_is_told_apart(keys, tmp_path):
    stranger = made(tmp_path / "other", "films.example")
    error = explain(meet(serving(stranger), trusting((keys / "ca.pem").read_bytes())), URL)
    assert "not from the authority" in error.rule and "invitation" in error.remedy


def test_a_chain_of_causes_is_followed(keys):
    cause = meet(serving(keys), trusting((keys / "ca.pem").read_bytes()), "other.example")
    outer = httpx.ConnectError("wrapped")
    outer.__cause__ = cause
    assert "another host" in explain(outer, URL).rule


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ConnectionRefusedError(111, "refused"), RunError, "out of reach"),
        (TimeoutError(), RunError, "out of reach"),
        (httpx.ConnectTimeout("late"), RunError, "out of reach"),
        (httpx.RemoteProtocolError("gone"), RunError, "out of reach"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), WireError, "speaks TLS"),
        (httpx.DecodingError("odd"), WireError, "cannot be used"),
    ],
)
def test_other_failures_have_their_own_words(error, kind, said):
    told = explain(error, URL)
    assert type(told) is kind and said in told.rule and told.remedy


def test_a_renewed_certificate_has_the_old_authority_and_key_and_new_hosts(keys):
    old = x509.load_pem_x509_certificate((keys / "server.pem").read_bytes())
    ca = (keys / "ca.pem").read_bytes()
    create_authority(keys)
    issue_server(keys, ["new.example"])
    new = x509.load_pem_x509_certificate((keys / "server.pem").read_bytes())
    assert (keys / "ca.pem").read_bytes() == ca and new.public_key() == old.public_key()
    assert new.serial_number != old.serial_number
    assert meet(serving(keys), trusting(ca), "new.example") is None


def test_lifetimes_and_uses(keys):
    now = datetime.now(UTC)
    server = x509.load_pem_x509_certificate((keys / "server.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((keys / "ca.pem").read_bytes())
    assert timedelta(days=396) < expires(keys / "server.pem") - now <= timedelta(days=397, seconds=60)
    assert timedelta(days=3649) < expires(keys / "ca.pem") - now <= timedelta(days=3650, seconds=60)
    assert now - timedelta(hours=2) < server.not_valid_before_utc < now
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_tls_is_at_least_one_point_two(keys):
    assert serving(keys).minimum_version == trusting((keys / "ca.pem").read_bytes()).minimum_version == 0x0303


def test_a_fingerprint_is_of_the_certificate_not_of_its_text(keys):
    pem = (keys / "ca.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    assert fingerprint(pem) == fingerprint(b"a remark\n" + pem) == hashlib.sha256(der).hexdigest()
    with pytest.raises(WireError):
        fingerprint(b"no certificate")


def test_keys_are_private_from_the_start(keys, tmp_path):
    check_private(keys)
    assert {(keys / name).stat().st_mode & 0o777 for name in ("ca.key", "server.key")} == {0o600}
    (tmp_path / ".secret.1").write_text("left by a crash")
    write_secret(tmp_path / "secret", b"new")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("name", "mode"), [("ca.key", 0o640), ("server.key", 0o604), (".", 0o750)])
def test_keys_that_others_can_read_are_refused(keys, name, mode):
    (keys / name).chmod(mode)
    with pytest.raises(SpecError, match="chmod"):
        check_private(keys)


def test_certificates_may_be_read_by_everyone(keys):
    (keys / "ca.pem").chmod(0o644)
    check_private(keys)
