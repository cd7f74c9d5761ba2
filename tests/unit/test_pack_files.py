"""What is no whole pack of our format, signed by whom it should be, is refused; and older formats are still read."""

import json
import math
import os
import pickle
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from shelf import ALL, FORMAT_1, FORMAT_2, KEY, STRANGER, build, claim, task

from fedrec.errors import DataError
from fedrec.model.pack_files import read_manifest, read_pack, verify_pack
from fedrec.model.pack_format import FORMAT, MANIFEST, SIGNATURE, PackInfo, version_of, versions
from fedrec.model.publish import sign_pack

PUBLIC = KEY.public_key()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "pack"
    build(folder)
    sign_pack(folder, KEY, version=7)
    return folder


@pytest.fixture
def pack(made, tmp_path):
    return shutil.copytree(made, tmp_path / "pack")


def refused(folder, rule, key=PUBLIC, **settings):
    with pytest.raises(DataError, match=rule):
        verify_pack(folder, key, **settings)


def retold(folder, change):
    """The manifest after `change`, signed anew."""
    about = json.loads((folder / MANIFEST).read_bytes())
    change(about)
    manifest = json.dumps(about).encode()
    (folder / MANIFEST).write_bytes(manifest)
    (folder / SIGNATURE).write_bytes(KEY.sign(manifest))


def tensors(folder, name, change):
    """Other tensors in a file of the pack, listed and signed as if all was well."""
    held = load_file(folder / name)
    change(held)
    save_file(held, folder / name)
    claim(folder)


def test_a_signed_pack_is_what_was_written(pack):
    found, made = read_pack(pack, PUBLIC), task()
    info = found.info
    assert verify_pack(pack, PUBLIC) == info
    assert (info.format, info.version, info.round, info.task) == (FORMAT, 7, 3, made.hash)
    assert info.signer == PUBLIC.public_bytes_raw().hex()
    assert info.published.endswith("Z")
    assert info.layout == made.model.layout.shapes
    assert info.size == sum((pack / name).stat().st_size for name in info.files)
    assert (found.catalogue.hash, found.catalogue.tags) == (made.catalogue.hash, made.catalogue.tags)
    assert {name: value.shape for name, value in found.parameters.items()} == dict(made.model.layout.shapes)
    assert found.vectors.shape == (6, 3) and found.prior.shape == (6,)
    assert found.centre.shape == (256,) and found.projection.shape == (257, 3)
    assert found.statements[0]["label"] == "non-private"


@pytest.mark.parametrize("maps", ["full", "diagonal"])
def test_scores_are_maps_of_contexts_and_the_embedding_on_item_vectors(tmp_path, maps):
    build(tmp_path, of=task(maps, lean=maps == "diagonal"))
    pack = read_pack(tmp_path, None)
    contexts, embedding = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0, -1], np.float32)
    kind = pack.parameters["maps"]
    wanted = embedding + sum(
        row @ own if maps == "full" else row * own for row, own in zip(contexts, kind, strict=True)
    )
    expected = [sum(a * b for a, b in zip(wanted, row, strict=True)) for row in pack.vectors]
    assert pack.scores(contexts, embedding) == pytest.approx(np.array(expected) + pack.prior, abs=1e-5)


def test_an_unsigned_pack_says_so_and_is_not_what_a_site_signed(tmp_path):
    build(tmp_path)
    info = verify_pack(tmp_path, None)
    assert (info.version, info.published, info.signer) == (0, "", "")
    assert "unsigned" in (tmp_path / "README.md").read_text()
    refused(tmp_path, "signed by its site")
    (tmp_path / SIGNATURE).write_bytes(bytes(64))
    refused(tmp_path, "no others.*pack.sig", None)


def test_format_two_is_still_read():
    """FORMAT_2 is what the last code of that format wrote: the same model as `build` writes today."""
    pack, again = read_pack(FORMAT_2, PUBLIC), task()
    assert (pack.info.format, pack.info.version, pack.info.round) == (2, 7, 3)
    assert (pack.info.task, pack.catalogue.hash) == (again.hash, again.catalogue.hash)
    assert (pack.reader, pack.sentiment) == ("", None)
    assert pack.vectors.shape == (6, 3) and pack.catalogue.features.shape == (6, 1)


def test_format_one_is_still_read():
    pack = read_pack(FORMAT_1, None)
    assert (pack.info.format, pack.info.version, pack.info.round, pack.info.size) == (1, 0, None, None)
    assert pack.catalogue.ids[1] == "book-1" and pack.catalogue.tags[5] == ("home", "green")
    assert pack.info.encoder.name == "hash" and pack.info.plan["name"] == "format one"
    assert pack.parameters["maps"].shape == (2, 4, 4) and pack.vectors.shape == (6, 4)
    assert np.ptp(pack.scores(np.ones((2, 4), np.float32), np.zeros(4, np.float32))) > 0.1
    refused(FORMAT_1, "signed by its site")


@pytest.mark.parametrize("fixture", [FORMAT_1, FORMAT_2])
def test_without_arrow_an_older_pack_says_what_it_needs(fixture, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "fedrec.model.catalogue_parquet", raising=False)
    refused(fixture, "formats 1 and 2 are read with pyarrow; got file='catalogue.parquet'. .*pip install", None)


def test_the_last_format_is_verified_like_this_one(tmp_path):
    pack = shutil.copytree(FORMAT_1, tmp_path / "pack")
    model = (pack / "model.safetensors").read_bytes()
    (pack / "model.safetensors").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    refused(pack, "hash that the manifest names", None)


def test_the_last_format_cannot_claim_what_it_never_had(tmp_path):
    pack = shutil.copytree(FORMAT_1, tmp_path / "pack")
    about = json.loads((pack / MANIFEST).read_bytes()) | {"version": 9, "signer": PUBLIC.public_bytes_raw().hex()}
    (pack / MANIFEST).write_text(json.dumps(about))
    info = verify_pack(pack, None)
    assert (info.version, info.signer) == (0, "")


def test_a_newer_format_asks_for_an_upgrade(pack):
    retold(pack, lambda about: about.update(format=FORMAT + 1, strange={"new": 1}))
    refused(pack, "newer than this fedrec; got format=4.*Upgrade")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda about: about.update(kind="fedrec task"), "does not say that it is a model pack"),
        (lambda about: about.update(format="2"), "does not say"),
        (lambda about: about.update(format=True), "does not say|can be read"),
        (lambda about: about.update(format=0), "does not say"),
        (lambda about: about.pop("task"), "task: it is missing"),
        (lambda about: about.update(version="7"), "version: .*integer"),
        (lambda about: about.update(version=-1), "version: 0 to 999999999 is asked for"),
        (lambda about: about.update(version=10**9), "version: 0 to 999999999 is asked for"),
        (lambda about: about.update(round=1.5), "round: .*integer"),
        (lambda about: about.update(published="yesterday"), "published: "),
        (lambda about: about.update(files=[]), "files: "),
        (lambda about: about["files"].pop("privacy.json"), "no others; got odd=.'privacy.json'."),
        (lambda about: about["files"].update({"../evil": {"sha256": "0" * 64, "bytes": 1}}), "no others.*evil"),
        (lambda about: about["files"]["README.md"].update(sha256="0"), "files.README.md.sha256"),
        (lambda about: about["files"]["README.md"].update(bytes=0), "files.README.md.bytes"),
        (lambda about: about["files"]["README.md"].update(bytes=9), "its length.*expected=9"),
        (lambda about: about["catalogue"].update(items=5), "its items; got items=6, expected=5"),
        (lambda about: about["catalogue"].update(hash="0" * 64), "catalogue is that of its manifest"),
        (lambda about: about["ranking"].update(dim=2), "item vectors are those of its catalogue"),
        (lambda about: about["ranking"].update(decays=[0.5]), "parameters are those of its plan"),
        (lambda about: about["ranking"].update(parameters=1), "parameters are those of its plan"),
        (lambda about: about["encoder"].update(dim=255), "item vectors are those of its catalogue"),
        (lambda about: about["plan"]["model"].update(residuals=False), "parameters are those of its plan"),
        (lambda about: about["plan"]["model"].update(maps="diagonal"), "parameters are those of its plan"),
        (lambda about: about["plan"]["model"].update(maps="odd"), "maps: one of 'full', 'diagonal'"),
        (lambda about: about["plan"].update(model=3), "can be read"),
        (lambda about: about.update(plan=[]), "plan: "),
        (lambda about: about["layout"].pop(), "parameters are those of its plan"),
        (lambda about: about["layout"][0].__setitem__(1, [1, 1]), "parameters are those of its plan"),
    ],
)
def test_a_signed_manifest_that_is_not_true_is_refused(pack, change, rule):
    verify_pack(pack, PUBLIC)
    retold(pack, change)
    refused(pack, rule)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', pickle.dumps({"format": 2})],
)
def test_what_is_no_manifest_is_refused(pack, content):
    (pack / MANIFEST).write_bytes(content)
    (pack / SIGNATURE).write_bytes(KEY.sign(content))
    refused(pack, "a pack's manifest can be read")


def test_what_a_later_writer_adds_to_this_format_is_passed_over(pack):
    retold(pack, lambda about: (about.update(note="later"), about["encoder"].update(tokens=64)))
    assert verify_pack(pack, PUBLIC).version == 7


def test_only_the_key_that_was_given_signs(pack):
    claim(pack, STRANGER)  # signed by a stranger in the site's name
    refused(pack, "signed by its site")
    refused(pack, "signed by its site", None)
    claim(pack, STRANGER, signer=STRANGER.public_key().public_bytes_raw().hex())
    refused(pack, "signed by its site; got key")
    assert verify_pack(pack, None).signer != PUBLIC.public_bytes_raw().hex()


def test_a_signed_manifest_names_its_signer(pack):
    for signer in ("", STRANGER.public_key().public_bytes_raw().hex()):
        claim(pack, KEY, signer=signer)
        refused(pack, "a pack names whoever signed it")


def test_nothing_is_parsed_before_the_given_key_has_signed_it(pack, monkeypatch):
    claim(pack, STRANGER)
    monkeypatch.setattr(PackInfo, "of", lambda manifest: pytest.fail("parsed"))
    refused(pack, "signed by its site")


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63), bytes(65), bytes(10_000)])
def test_another_signature_is_refused(pack, signature):
    (pack / SIGNATURE).write_bytes(signature)
    refused(pack, "signed by its site|are short")


@pytest.mark.parametrize("name", ALL)
def test_every_file_must_be_there(pack, name):
    (pack / name).unlink()
    refused(pack, "files are there|no others|signed by its site")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_only_plain_files_are_read(pack, name, kind, tmp_path):
    (pack / name).rename(tmp_path / name)
    match kind:
        case "link":
            (pack / name).symlink_to(tmp_path / name)
        case "folder":
            (pack / name).mkdir()
        case "pipe":
            os.mkfifo(pack / name)
    refused(pack, "plain files|no others|files are there")


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE])
def test_a_manifest_behind_a_link_is_not_read(pack, name, tmp_path):
    (pack / name).rename(tmp_path / name)
    (pack / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match=f"files are there; got file='{name}'"):
        read_manifest(pack, PUBLIC)


@pytest.mark.parametrize("name", ["model.bin", "model.pkl", ".hidden", "README.md~", "é"])
def test_what_does_not_belong_to_it_is_refused(pack, name):
    (pack / name).write_bytes(pickle.dumps("never read"))
    refused(pack, "the files of its format, and no others.*Remove")


def test_no_folder_is_no_pack(tmp_path):
    refused(tmp_path / "absent", "files are there; got file='pack.json'", None)
    (tmp_path / "plain").touch()
    refused(tmp_path / "plain", "files are there", None)


def test_what_is_too_large_is_not_read(pack, monkeypatch):
    size = verify_pack(pack, PUBLIC).size
    assert verify_pack(pack, PUBLIC, most=size)
    with (pack / "items.safetensors").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: reading it would take all day
    refused(pack, "no larger than its reader allows")
    (pack / MANIFEST).write_bytes(b" " * (1 << 21))
    refused(pack, "manifest and signature are short")


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        ("items", lambda held: held.update(prior=held["prior"].astype(np.float64)), "float32; got .*F64"),
        ("items", lambda held: held.update(prior=held["prior"].astype(np.int32)), "float32; got .*I32"),
        ("items", lambda held: held["vectors"].__setitem__((1, 2), math.nan), "finite.*vectors"),
        ("items", lambda held: held["centre"].__setitem__(0, math.inf), "finite.*centre"),
        ("items", lambda held: held.update(vectors=held["vectors"][:5].copy()), "item vectors are those"),
        ("items", lambda held: held.update(vectors=held["vectors"].T.copy()), "item vectors are those"),
        ("items", lambda held: held.pop("prior"), "item vectors are those"),
        ("items", lambda held: held.update(more=held["prior"]), "item vectors are those"),
        ("items", lambda held: held["prior"].__setitem__(0, 9.0), "of one model"),
        ("items", lambda held: held["projection"].__setitem__((0, 0), 9.0), "of one model"),
        ("model", lambda held: held["maps"].__setitem__((0, 0, 0), -math.inf), "finite.*maps"),
        ("model", lambda held: held.update(maps=held["maps"].astype(np.float16)), "float32; got .*F16"),
        ("model", lambda held: held.update(maps=held["maps"][0].copy()), "parameters are those of its plan"),
        ("model", lambda held: held.pop("residuals"), "parameters are those of its plan"),
        ("model", lambda held: held.update({"adapter.more": held["maps"]}), "parameters are those of its plan"),
        ("model", lambda held: held.pop("adapter.body.up"), "parameters are those of its plan"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(pack, name, change, rule):
    tensors(pack, f"{name}.safetensors", change)
    refused(pack, rule)


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 64, pickle.dumps([1.0]), b"PK\x03\x04" + bytes(99)])
def test_what_holds_no_tensors_is_refused(pack, content):
    (pack / "model.safetensors").write_bytes(content or b"\n")
    claim(pack)
    refused(pack, "tensors can be read")


LINE = {"id": "book-0", "text": "a", "tags": ["sea"], "features": [1.0]}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"", "catalogue can be read; got line=2"),
        (b"[]", "catalogue can be read; got line=2"),
        (b'{"id": "x", "text": "\xff", "tags": []}', "catalogue can be read; got line=2"),
        ({"more": 1}, "line=2, reason='more: "),
        ({"id": 7}, "line=2, reason='id: "),
        ({"text": None}, "line=2, reason='text: "),
        ({"tags": "sea"}, "line=2, reason='tags: "),
        ({"tags": [None]}, "line=2, reason='tags.0: "),
        ({"features": ["1"]}, "line=2, reason='features.0: "),
        ({"features": [math.nan]}, "line=2"),
        ({"features": [1e300]}, "finite numbers"),
        ({"features": [1.0, 2.0]}, "equally many features"),
        ({"features": []}, "equally many features"),
        ({"id": "book-2"}, "ids are unique"),
        ({"id": " book"}, "no space around it"),
        ({}, "catalogue is that of its manifest"),
    ],
)
def test_a_catalogue_of_another_kind_is_refused(pack, line, rule):
    path = pack / "catalogue.jsonl"
    lines = path.read_bytes().splitlines()
    lines[1] = line if isinstance(line, bytes) else json.dumps(LINE | {"id": "book-1"} | line).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    claim(pack)
    refused(pack, rule)


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:-1], lambda lines: [*lines, lines[0]], lambda lines: [*lines, b""]]
)
def test_a_catalogue_has_as_many_lines_as_items(pack, change):
    path = pack / "catalogue.jsonl"
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())) + b"\n")
    claim(pack)
    refused(pack, "catalogue has its items; got items=[57], expected=6")


def test_an_older_catalogue_of_another_kind_is_refused(tmp_path):
    pack = shutil.copytree(FORMAT_2, tmp_path / "pack")
    path = pack / "catalogue.parquet"
    table = pq.read_table(path)
    wrong = {
        "its items and its columns": [
            table.slice(1), table.drop_columns("text"), table.append_column("more", table["id"]),
            table.set_column(0, "id", pa.array([str(n).encode() for n in range(6)])),
        ],
        "has no gaps": [
            table.set_column(1, "text", pa.array([None] * 6, pa.string())),
            table.set_column(2, "tags", pa.array([None] * 6, pa.list_(pa.string()))),
        ],
        "is that of its manifest": [
            table.set_column(1, "text", pa.array(["another"] * 6)), table.drop_columns("features"),
        ],
        "equally many features": [
            table.set_column(3, "features", pa.array([[1.0], *[[1.0, 2.0]] * 5], pa.list_(pa.float32())))
        ],
        "finite": [table.set_column(3, "features", pa.array([[math.nan]] * 6, pa.list_(pa.float32())))],
        "unique": [table.set_column(0, "id", pa.array(["same"] * 6))],
    }  # fmt: skip
    for rule, tables in wrong.items():
        for other in tables:
            pq.write_table(other, path)
            claim(pack)
            refused(pack, rule)
    path.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    claim(pack)
    refused(pack, "catalogue can be read")


@pytest.mark.parametrize("content", [b"{}", b"[]", b"[1]", b"nothing", b"[" * 100_000, b"\xff"])
def test_a_pack_without_a_statement_is_refused(pack, content):
    (pack / "privacy.json").write_bytes(content)
    claim(pack)
    refused(pack, "states who is protected from whom")


def test_reading_needs_no_torch_and_no_table_library():
    import subprocess

    code = "import sys, fedrec.device.packs, fedrec.model.publish; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "pyarrow", "scipy", "flwr", "transformers", "pickle5"} & set(found)
    assert "fedrec.model.pack_files" in found


def test_versions_are_plain_numbers(tmp_path):
    assert [version_of(text) for text in (b"7\n", b"7", b"100000000", b"999999999")] == [7, 7, 10**8, 10**9 - 1]
    odd = (b"", b"0", b"07", b"-1", b"+1", b" 7", b"7 ", b"7\n\n", b"1e3", b"1000000000", "٧".encode(), b"\xff")
    assert not any(map(version_of, odd))
    for name in ("10", "9", "x", ".incoming", "007"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert versions(tmp_path) == [10, 9]


def test_a_manifest_names_itself_by_its_hash(pack):
    manifest = (pack / MANIFEST).read_bytes()
    assert PackInfo.of(manifest).digest != PackInfo.of(manifest + b"\n").digest
    lying = json.dumps(json.loads(manifest) | {"digest": "0" * 64}).encode()
    assert PackInfo.of(lying).digest != "0" * 64
