"""A host of devices: what goes wrong beside the rounds."""

import logging
from threading import Event
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedrec.deploy import host
from fedrec.errors import DataError


@pytest.mark.parametrize("error", [ValueError("canary"), OSError(28, "canary"), KeyError("canary")])
def test_a_look_for_a_newer_model_that_fails_is_not_the_last(tmp_path, monkeypatch, caplog, error):
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    folder = SimpleNamespace(path=tmp_path, enrolment=SimpleNamespace(roster_key=key))
    stop, looks = Event(), [DataError("a pack is whole"), error, None]

    class Packs:
        def __init__(self, path, key):
            pass

        def offer(self, source):
            found = looks.pop(0)
            if found is not None:
                raise found
            stop.set()

    monkeypatch.setattr(host, "Packs", Packs)
    monkeypatch.setattr(host, "_OFTEN", 0.0)
    with caplog.at_level(logging.INFO, "fedrec.deploy.host"):
        host._keep_packs(folder, stop)
    assert not looks and [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert type(error).__name__ in caplog.text and "canary" not in caplog.text
