"""What format 3 added: a catalogue that is read without Arrow, a sentiment head, and popularity."""

import json
import shutil

import numpy as np
import pytest
from shelf import FORMAT_2, KEY, build, contents, encoder, fetch_of

from fedrec.device.packs import Packs
from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_lines import from_lines, to_lines
from fedrec.model.pack_files import read_pack, verify_pack
from fedrec.model.pack_format import MANIFEST
from fedrec.model.pack_parts import add_encoder
from fedrec.model.publish import publish, sign_pack

PUBLIC = KEY.public_key()
HEAD = np.arange(257, dtype=np.float32)


pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture
def site(tmp_path):
    return tmp_path / "site" / "packs"


@pytest.fixture
def device(tmp_path):
    return Packs(tmp_path / "device" / "packs", PUBLIC)


@pytest.fixture
def exported(tmp_path):
    return encoder(tmp_path / "exported")


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_catalogue_is_a_line_for_each_item():
    catalogue = Catalogue(["a", "é"], ["one\ntwo\u2028three", ""], np.float32([[0.1], [-3e38]]), [("x", "y|z"), ()])
    lines = to_lines(catalogue).decode().splitlines(keepends=True)[0]
    assert lines.startswith('{"id": "a", "text": "one\\ntwo')
    assert to_lines(catalogue).count(b"\n") == 2
    assert from_lines(to_lines(catalogue), items=2).hash == catalogue.hash


def test_a_catalogue_without_features_has_no_such_key():
    catalogue = Catalogue(["a", "b"], ["one", "two"])
    assert to_lines(catalogue).splitlines()[0] == b'{"id": "a", "text": "one", "tags": []}'
    assert from_lines(to_lines(catalogue), items=2).features.shape == (2, 0)


def test_a_sentiment_head_is_signed_and_read_like_the_rest(tmp_path):
    build(tmp_path)
    assert read_pack(tmp_path, None).sentiment is None
    build(tmp_path, beside={"sentiment": HEAD})
    sign_pack(tmp_path, KEY, version=3)
    assert (read_pack(tmp_path, PUBLIC).sentiment == HEAD).all()
    spoil(tmp_path / "sentiment.safetensors")
    with pytest.raises(DataError, match="hash that the manifest names; got file='sentiment"):
        verify_pack(tmp_path, PUBLIC)


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        (HEAD[:-1].copy(), "has besides fits its model"),
        (HEAD[None], "has besides fits its model"),
        (HEAD.astype(np.float64), "tensors are float32"),
        (np.full(257, np.inf, np.float32), "tensors are finite"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(tmp_path, weights, rule):
    build(tmp_path, beside={"sentiment": weights})
    with pytest.raises(DataError, match=rule):
        read_pack(tmp_path, None)


def test_popularity_is_read_like_the_rest_and_not_inherited(tmp_path):
    shares = np.float32([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    build(tmp_path, beside={"popularity": shares})
    sign_pack(tmp_path, KEY, version=3)
    assert (read_pack(tmp_path, PUBLIC).popularity == shares).all()
    build(tmp_path)
    assert read_pack(tmp_path, None).popularity is None


@pytest.mark.parametrize(
    ("shares", "rule"),
    [
        (np.full(5, 0.2, np.float32), "has besides fits its model"),
        (np.full(6, 0.2, np.float32), "positive and add up to 1"),
        (np.float32([1.0, 0, 0, 0, 0, 0]), "positive and add up to 1"),
        (np.full(6, np.nan, np.float32), "tensors are finite"),
    ],
)
def test_popularity_that_is_none_is_refused(tmp_path, shares, rule):
    build(tmp_path, beside={"popularity": shares})
    with pytest.raises(DataError, match=rule):
        verify_pack(tmp_path, None)


def test_a_version_of_the_last_format_is_served_until_the_next(site, device):
    shutil.copytree(FORMAT_2, site / "7")
    (site / "latest").write_text("7\n")
    assert device.offer(fetch_of(site)).format == 2
    assert contents(device.folder / "7") == contents(FORMAT_2)
    assert publish(site, build, KEY) == 8
    assert device.offer(fetch_of(site)).format == 3


def test_the_next_model_does_not_inherit_a_head(tmp_path):
    build(tmp_path, beside={"sentiment": HEAD})
    build(tmp_path, seed=1)
    assert read_pack(tmp_path, None).sentiment is None


def test_a_head_that_nobody_listed_is_refused(tmp_path):
    build(tmp_path, beside={"sentiment": HEAD})
    about = json.loads((tmp_path / MANIFEST).read_bytes())
    del about["files"]["sentiment.safetensors"]
    (tmp_path / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"no others; got odd=\['sentiment"):
        verify_pack(tmp_path, None)


def test_a_signed_pack_gets_nothing_more(tmp_path, exported):
    build(tmp_path / "pack")
    sign_pack(tmp_path / "pack", KEY, version=1)
    before = contents(tmp_path / "pack")
    with pytest.raises(DataError, match="a signed pack stays as it is"):
        add_encoder(tmp_path / "pack", exported)
    assert contents(tmp_path / "pack") == before and not (tmp_path / "encoders").exists()


def test_devices_fetch_the_head_too(site, device):
    publish(site, lambda folder: build(folder, beside={"sentiment": HEAD}), KEY)
    device.offer(fetch_of(site))
    assert (device.current().sentiment == HEAD).all()
