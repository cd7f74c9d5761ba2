"""Text encoders that packs share: named by their hash, fetched once, and gone with the last pack that names them."""

import hashlib
import json
import os
import shutil

import pytest
from shelf import KEY, build, claim, contents, encoder, fetch_of, published

from fedrec.device.packs import Packs
from fedrec.errors import DataError, WireError
from fedrec.model.encoder_files import EncoderInfo, encoder_in, verify_encoder
from fedrec.model.pack_files import read_pack, verify_pack
from fedrec.model.pack_format import MANIFEST, versions
from fedrec.model.pack_parts import add_encoder
from fedrec.model.publish import publish, published_file

PUBLIC = KEY.public_key()


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


def digest_of(folder):
    return hashlib.sha256((folder / "encoder.json").read_bytes()).hexdigest()


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_unsigned_pack_names_an_encoder_beside_it(tmp_path, exported):
    build(tmp_path / "run" / "pack")
    assert read_pack(tmp_path / "run" / "pack", None).reader == ""
    add_encoder(tmp_path / "run" / "pack", exported)
    pack = read_pack(tmp_path / "run" / "pack", None)
    assert pack.reader == digest_of(exported)
    assert contents(encoder_in(tmp_path / "run", pack.reader)) == contents(exported)
    assert encoder_in(tmp_path / "run", "") is None and encoder_in(tmp_path, pack.reader) is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda folder: spoil(folder / "encoder.onnx"), "hash that the manifest names"),
        (lambda folder: (folder / "encoder.onnx").unlink(), "no others"),
        (lambda folder: (folder / "more").touch(), "no others"),
        (lambda folder: (folder / "encoder.json").write_text("{}"), "encoder is called by its hash|can be read"),
        (lambda folder: (folder / "encoder.json").unlink(), "files are there"),
    ],
)
def test_a_folder_that_is_no_whole_encoder_is_refused(exported, change, rule):
    digest = digest_of(exported)
    assert verify_encoder(exported, digest=digest).digest == digest
    change(exported)
    with pytest.raises(DataError, match=rule):
        verify_encoder(exported, digest=digest)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b'{"files": {}}', b'{"files": {"a": {"sha256": "0", "bytes": 1}}}',
        b'{"files": {"a": {"sha256": "%s"}}}' % (b"0" * 64),
        *(json.dumps({"files": {name: {"sha256": "0" * 64, "bytes": 1}}}).encode()
          for name in ("", ".", "..", "../a", "a/b", ".hidden", "a.", "é", "a\n", "a" * 65)),
    ],
)  # fmt: skip
def test_what_lists_no_files_is_no_encoder(content):
    with pytest.raises(DataError, match="what an encoder consists of can be read"):
        EncoderInfo.of(content)


def test_a_device_fetches_an_encoder_once_for_all_packs_that_name_it(site, device, exported):
    published(site, [0], encoder=exported)
    asked = []
    device.offer(fetch_of(site, asked=asked))
    digest = digest_of(exported)
    assert [name for name in asked if name.startswith("encoders/")] == [
        f"encoders/{digest}/{name}" for name in ("encoder.json", "encoder.onnx", "vocab.txt")
    ]
    assert contents(device.encoder(device.current())) == contents(exported)
    published(site, [1, 2], encoder=exported)
    asked = []
    assert device.offer(fetch_of(site, asked=asked)).version == 3
    assert not [name for name in asked if name.startswith("encoders/")]
    assert {path.name for path in (device.folder / "encoders").iterdir()} == {digest}


def test_a_pack_without_an_encoder_needs_none(site, device):
    published(site, [0])
    device.offer(fetch_of(site))
    assert device.encoder(device.current()) is None
    assert not (device.folder / "encoders").exists()


def test_encoders_go_with_the_last_pack_that_names_them(site, device, tmp_path):
    folders = [encoder(tmp_path / f"exported-{seed}", seed) for seed in range(2)]
    old, new = map(digest_of, folders)
    kept = lambda packs: {path.name for path in (packs / "encoders").iterdir()}
    for seed, folder in enumerate([folders[0], folders[1], None, None]):
        published(site, [seed], keep=2, encoder=folder)
        device.offer(fetch_of(site))
        expected = [{old}, {old, new}, {new}, set()][seed]
        assert (kept(site), kept(device.folder)) == (expected, expected)
    assert versions(site) == [4, 3]


def test_an_encoder_is_there_before_the_pack_that_names_it(site, device, exported):
    published(site, [0])
    device.offer(fetch_of(site))
    published(site, [1], encoder=exported)
    fetch = fetch_of(site, size=1000)

    def broken(name):
        for number, piece in enumerate(fetch(name)):
            if name.endswith("vocab.txt") or (name.endswith("encoder.onnx") and number == 9):
                raise ConnectionResetError
            yield piece

    with pytest.raises(WireError, match="arrives whole"):
        device.offer(broken)
    assert device.current().info.version == 1
    asked = []
    device.offer(fetch_of(site, asked=asked))
    assert device.current().info.version == 2 and device.encoder(device.current())
    onnx = f"encoders/{digest_of(exported)}/encoder.onnx"
    assert onnx not in asked  # it had arrived whole


@pytest.mark.parametrize("name", ["encoder.json", "encoder.onnx", "vocab.txt"])
@pytest.mark.parametrize("how", ["flip", "short", "long", "gone"])
def test_an_encoder_that_arrives_otherwise_is_refused_and_the_old_pack_stays(site, device, exported, name, how):
    published(site, [0])
    device.offer(fetch_of(site))
    published(site, [1], encoder=exported)
    path = site / "encoders" / digest_of(exported) / name
    whole = path.read_bytes()
    match how:
        case "flip":
            spoil(path)
        case "short":
            path.write_bytes(whole[:-1])
        case "long":
            path.write_bytes(whole + b"\n")
        case "gone":
            path.unlink()
    with pytest.raises((DataError, WireError)):
        device.offer(fetch_of(site))
    assert device.current().info.version == 1
    path.write_bytes(whole)
    assert device.offer(fetch_of(site)).version == 2
    assert contents(device.encoder(device.current())) == contents(exported)


def test_an_encoder_that_says_too_much_is_not_downloaded(site, tmp_path, exported):
    published(site, [0], encoder=exported)
    small = Packs(tmp_path / "small", PUBLIC, most=4000)
    asked = []
    with pytest.raises(DataError, match="no larger than its reader allows"):
        small.offer(fetch_of(site, asked=asked))
    large = encoder(tmp_path / "large", files={"encoder.onnx": {"sha256": "0" * 64, "bytes": 1 << 40}})
    shutil.rmtree(site)
    published(site, [0])
    (site / "encoders").mkdir()
    shutil.copytree(large, site / "encoders" / digest_of(large))
    claim(site / "1", text={"encoder": digest_of(large)})
    asked = []
    with pytest.raises(DataError, match="an encoder is no larger than its reader allows"):
        Packs(tmp_path / "other", PUBLIC).offer(fetch_of(site, asked=asked))
    assert asked[-1].endswith("encoder.json")


@pytest.mark.parametrize("name", ["encoder.json", "encoder.onnx", "vocab.txt"])
def test_an_encoder_damaged_on_disk_is_nobodys_and_is_fetched_again(site, device, exported, name):
    published(site, [0, 1], encoder=exported)
    (site / "latest").write_text("1\n")
    device.offer(fetch_of(site))
    (site / "latest").write_text("2\n")
    device.offer(fetch_of(site))
    assert device.offer(fetch_of(site)) is None
    spoil(device.encoder(device.current()) / name)
    digest = device.current().reader
    assert encoder_in(device.folder, digest) is None
    asked = []
    assert device.offer(fetch_of(site, asked=asked)).version == 2
    assert encoder_in(device.folder, digest) == device.encoder(device.current()) and "2/model.safetensors" not in asked
    assert {path.name for path in device.folder.iterdir()} >= {"1", "2"}  # the one before is still its deputy


def test_what_names_an_encoder_that_nobody_exported_is_not_published(site):
    def build_naming(folder):
        build(folder)
        about = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_text(json.dumps(about | {"text": {"encoder": "0" * 64}}))

    with pytest.raises(DataError, match="encoder that a pack names is published with it"):
        publish(site, build_naming, KEY)
    assert versions(site) == []


@pytest.mark.parametrize("text", [None, [], {"encoder": 1}, {"encoder": "0"}, {"encoder": "../" + "0" * 61}])
def test_a_manifest_that_names_nonsense_is_refused(tmp_path, text):
    build(tmp_path)
    claim(tmp_path, signer=PUBLIC.public_bytes_raw().hex(), text=text)
    with pytest.raises(DataError, match="manifest can be read; .*text"):
        verify_pack(tmp_path, PUBLIC)


def test_a_damaged_encoder_of_a_site_is_mended_by_publishing(site, exported):
    published(site, [0], encoder=exported)
    place = site / "encoders" / digest_of(exported)
    spoil(place / "encoder.onnx")
    published(site, [1], encoder=exported)
    assert contents(place) == contents(exported)


def test_of_an_encoder_only_what_it_lists_is_served(site, exported):
    published(site, [0], encoder=exported)
    digest = digest_of(exported)
    place = site / "encoders" / digest
    (place / "secret.txt").write_text("not published")
    os.symlink(place, site / "encoders" / ("0" * 64))
    (place / "vocab.txt").unlink()
    os.symlink("/etc/hostname", place / "vocab.txt")
    good = [f"encoders/{digest}/{name}" for name in ("encoder.json", "encoder.onnx")]
    assert [published_file(site, name) for name in good] == [site / name for name in good]
    odd = (
        "encoders", "encoders/", f"encoders/{digest}", f"encoders/{digest}/", f"encoders/{digest}/secret.txt",
        f"encoders/{digest}/vocab.txt", f"encoders/{'0' * 64}/encoder.json", f"encoders/{digest}/../../latest",
        f"encoders/{digest}//encoder.json", f"encoders/{digest}/encoder.json\0", f"encoders/{digest}/encoder.json\n",
        f"encoders/{digest.upper()}/encoder.json", f"encoders/../encoders/{digest}/encoder.json",
        f"encoders/{digest}/more/encoder.json", "encoders/1/pack.json",
    )  # fmt: skip
    assert [name for name in odd if published_file(site, name)] == []
