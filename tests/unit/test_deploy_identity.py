import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.deploy.application import Application
from fedrec.deploy.identity import Identity, Witness, issue, make_key, parse_point, point_of, read_key
from fedrec.errors import DataError

SIGNING = Ed25519PrivateKey.generate()
KEY = ec.generate_private_key(ec.SECP384R1())
OTHER = ec.generate_private_key(ec.SECP384R1())
CERTIFICATE = issue(SIGNING, 5, KEY.public_key())
DEVICE = Identity(5, KEY, CERTIFICATE)
WITNESS = Witness(SIGNING.public_key().public_bytes_raw())
SITE = "ab" * 32


def test_a_device_signs_for_its_seat():
    assert DEVICE.client == 5 and WITNESS.check(5, CERTIFICATE, b"words", DEVICE.sign(b"words"))


@pytest.mark.parametrize(
    ("client", "certificate", "message", "signature"),
    [
        (6, CERTIFICATE, b"words", DEVICE.sign(b"words")),  # another seat
        (5, CERTIFICATE, b"other", DEVICE.sign(b"words")),  # other words
        (5, CERTIFICATE, b"words", OTHER.sign(b"words", ec.ECDSA(hashes.SHA384()))),
        (5, issue(Ed25519PrivateKey.generate(), 5, KEY.public_key()), b"words", DEVICE.sign(b"words")),  # another site
        (5, CERTIFICATE[:49] + issue(SIGNING, 5, OTHER.public_key())[49:], b"words", DEVICE.sign(b"words")),
        (-1, CERTIFICATE, b"words", DEVICE.sign(b"words")),
        (2**64, CERTIFICATE, b"words", DEVICE.sign(b"words")),
        (5, b"", b"words", DEVICE.sign(b"words")),
        (5, CERTIFICATE, b"words", b""),
    ],
)  # fmt: skip
def test_nobody_else_does(client, certificate, message, signature):
    assert not WITNESS.check(client, certificate, message, signature)


def test_a_witness_with_a_broken_key_believes_nobody():
    assert not Witness(b"short").check(5, CERTIFICATE, b"words", DEVICE.sign(b"words"))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, len(CERTIFICATE) * 8 - 1))
def test_no_bit_of_a_certificate_can_be_changed(bit):
    changed = bytearray(CERTIFICATE)
    changed[bit // 8] ^= 1 << bit % 8
    assert not WITNESS.check(5, bytes(changed), b"words", DEVICE.sign(b"words"))


def test_a_point_has_one_form():
    point = point_of(KEY.public_key())
    assert parse_point(point) == KEY.public_key()
    long = KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    for bad in (long, point[:-1], b"\x05" + point[1:], b"\x02" + b"\xff" * 48):
        with pytest.raises(ValueError):
            parse_point(bad)


def test_a_key_is_made_once_and_is_private(tmp_path):
    first = make_key(tmp_path / "key.pem")
    assert make_key(tmp_path / "key.pem").private_numbers() == first.private_numbers()
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_of_another_kind_is_refused(tmp_path):
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for content in (b"", b"nonsense", ec.generate_private_key(ec.SECP256R1()).private_bytes(*form)):
        (tmp_path / "key.pem").write_bytes(content)
        with pytest.raises(DataError, match="P-384"):
            read_key(tmp_path / "key.pem")


def test_an_identity_is_read_from_a_folder_and_shows_no_secret(tmp_path):
    make_key(tmp_path / "key.pem")
    (tmp_path / "device.json").write_text(json.dumps({"seat": 5, "certificate": CERTIFICATE.hex()}))
    identity = Identity.read(tmp_path)
    assert (identity.seat, identity.certificate) == (5, CERTIFICATE) and repr(identity) == "Identity(seat=5)"
    for torn in ("", "{}", "[]", '{"seat": "x", "certificate": ""}', '{"seat": 1, "certificate": "xy"}'):
        (tmp_path / "device.json").write_text(torn)
        with pytest.raises(DataError, match="enroll"):
            Identity.read(tmp_path)


def test_an_application_is_good_for_one_site_and_one_secret():
    secret = "0" * 64
    sound = Application.of(KEY, SITE, secret)
    assert sound.proven(SITE) == KEY.public_key()
    assert sound.proven("cd" * 32) is None
    assert sound.model_copy(update={"secret": "1" * 64}).proven(SITE) is None
    assert sound.model_copy(update={"key": point_of(OTHER.public_key()).hex()}).proven(SITE) is None
    assert sound.model_copy(update={"key": "07" * 49}).proven(SITE) is None
    assert secret not in repr(sound)
