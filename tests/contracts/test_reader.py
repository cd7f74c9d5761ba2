"""A device without torch reads a text as the model that was trained does, or says why not."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from shelf import TEXTS, published
from typer.testing import CliRunner

from fedrec.cli import app
from fedrec.embed.encoder import PortableEncoder
from fedrec.embed.reader import PackReader, open_reader, portable
from fedrec.errors import DataError, EncoderError, RunError
from fedrec.model import onnx_export
from fedrec.model.adapter import build_adapter
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.encoder_files import encoder_in, verify_encoder
from fedrec.model.equip import equip, export_for
from fedrec.model.listed import listed
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import read_pack
from fedrec.model.publish import sign_pack
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.task import Task

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
READ = ("a lighthouse", "Bread, and slow mornings; " * 40, "sail", "", "  ", "!!!", "clock 7 clock", "naïve 北京")

WORDED = [True, True, True, False, False, False, True, True]


class Tower:
    """A model after some training, its pack in a folder, and what torch makes of texts."""

    def __init__(self, folder, encoder, adapter, seed=0):
        features = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
        catalogue = Catalogue([f"book-{n}" for n in range(6)], [*TEXTS, *TEXTS[::-1]], features, [("sea",)] * 6)
        plan = {"clients": 10, "seed": seed, "model": {"encoder": encoder, "adapter": adapter, "dim": 3, "rank": 2}}
        self.task, self.folder = Task(Plan.of(plan), catalogue), folder
        self.learn(0)

    def learn(self, seed):
        layout = self.task.model.layout
        away = stream(seed, "learned").normal(0.0, 0.3, layout.size)
        self.shared = (self.task.model.initial + away).astype(np.float32)
        write_pack(self.folder, self.task, self.shared, statements(None, simulated=True))
        return read_pack(self.folder, None)

    def expected(self, texts):
        model = self.task.model
        with torch.no_grad():
            parameters = model.layout.views(torch.from_numpy(self.shared.copy()))
            inputs = model.adapter.prepare(texts)
            return model.text_vectors(parameters, inputs).numpy(), model.pooled(parameters, inputs).numpy()


def command(*words):
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module", params=["none", "bottleneck"])
def hashing(request, tmp_path_factory):
    return Tower(tmp_path_factory.mktemp("hash") / "pack", "hash", request.param)


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    tower = Tower(tmp_path_factory.mktemp("lora") / "pack", "tiny", "lora")
    command("export", tower.folder, "--float32")
    return tower


@pytest.fixture(scope="module")
def bottleneck(tmp_path_factory):
    """In int8, and not named by its pack."""
    folder = tmp_path_factory.mktemp("bottleneck")
    tower = Tower(folder / "pack", "tiny", "bottleneck")
    assert "MB in" in command("export", tower.folder, "--out", folder / "encoder")
    return tower


def equipped(tower):
    pack = read_pack(tower.folder, None)
    return pack, encoder_in(tower.folder.parent, pack.reader)


def cosines(some, others):
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return (some * others).sum(axis=1)[lengths > 0] / lengths[lengths > 0]


def test_hashed_texts(hashing):
    reader = open_reader(read_pack(hashing.folder, None), None)
    vectors, pooled = hashing.expected(READ)
    assert np.allclose(reader.vectors(READ), vectors, atol=1e-5)
    assert np.allclose(reader.pooled(READ), pooled, atol=1e-5)
    assert np.array_equal(reader.frozen(READ), hashing.task.model.adapter.encoder.encode(READ))
    assert reader.vectors(READ).any(axis=1).tolist() == WORDED
    assert reader.vectors([]).shape == (0, 3)


def test_a_transformer_with_lora_inside(lora):
    reader = open_reader(*equipped(lora))
    vectors, pooled = lora.expected(READ)
    assert np.allclose(reader.vectors(READ), vectors, atol=1e-4)
    assert np.allclose(reader.pooled(READ), pooled, atol=1e-4)
    frozen = lora.task.model.adapter.encoder.encode(READ)
    assert not np.allclose(frozen, pooled, atol=1e-2)  # the factors count
    assert np.allclose(reader.frozen(READ), frozen, atol=1e-4)  # and may be left out


def test_a_transformer_in_int8_under_a_bottleneck(bottleneck):
    reader = open_reader(read_pack(bottleneck.folder, None), bottleneck.folder.parent / "encoder")
    for found, expected in zip((reader.vectors(READ), reader.pooled(READ)), bottleneck.expected(READ), strict=True):
        assert cosines(found, expected).min() > 0.98
        assert not np.allclose(found, expected, atol=1e-6)  # int8 it is
        assert np.array_equal(found.any(axis=1), expected.any(axis=1))


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_texts_without_words_are_zero_and_others_are_not(kind, request):
    tower = request.getfixturevalue(kind)
    pack, encoder = equipped(tower)
    reader = open_reader(pack, encoder or tower.folder.parent / "encoder")
    assert reader.vectors(READ).any(axis=1).tolist() == WORDED
    assert reader.pooled(READ).any(axis=1).tolist() == WORDED


def test_a_text_is_read_without_regard_to_others(bottleneck):
    reader = open_reader(read_pack(bottleneck.folder, None), bottleneck.folder.parent / "encoder")
    together, alone = reader.pooled(READ), [reader.pooled([text])[0] for text in READ]
    assert np.allclose(together, alone, atol=1e-6)


def test_a_new_round_needs_no_other_encoder(lora, tmp_path):
    before, encoder = equipped(lora)
    again = Tower(tmp_path / "pack", "tiny", "lora")
    learned = again.learn(1)
    reader = open_reader(learned, encoder)
    assert np.allclose(reader.vectors(READ), again.expected(READ)[0], atol=1e-4)
    assert not np.allclose(reader.vectors(READ), open_reader(before, encoder).vectors(READ), atol=1e-2)


def test_an_export_tells_nothing_of_the_machine(lora, bottleneck):
    _, encoder = equipped(lora)
    for folder in (encoder, bottleneck.folder.parent / "encoder"):
        for path in folder.iterdir():
            content = path.read_bytes()
            assert not [mark for mark in (b".py", b"/root", b"/home", b"site-packages", b"File ") if mark in content]


def test_an_equipped_pack_names_its_encoder(lora):
    pack, encoder = equipped(lora)
    assert encoder.name == pack.reader == verify_encoder(encoder, digest=pack.reader).digest


def test_published_with_its_encoder(bottleneck, tmp_path):
    """What `fedrec export --out` writes is what a site publishes."""
    exported = bottleneck.folder.parent / "encoder"
    version = published(tmp_path / "packs", [0], encoder=exported)
    pack = read_pack(tmp_path / "packs" / str(version), None)
    assert encoder_in(tmp_path / "packs", pack.reader)


def test_without_an_encoder(lora):
    with pytest.raises(EncoderError, match="texts are read with the pack's own encoder"):
        open_reader(read_pack(lora.folder, None), None)


def test_the_encoder_of_another_pack(lora, bottleneck, tmp_path):
    pack, encoder = equipped(lora)
    foreign = bottleneck.folder.parent / "encoder"
    with pytest.raises(EncoderError, match="the pack's own"):
        open_reader(pack, foreign)  # it names another one
    with pytest.raises(EncoderError, match="has the adapter of the pack"):
        open_reader(read_pack(bottleneck.folder, None), encoder)  # the same transformer, but LoRA inside
    other = Tower(tmp_path / "pack", "tiny", "lora", seed=1).learn(0)
    with pytest.raises(EncoderError, match="the pack's own"):
        open_reader(other, encoder)  # A was drawn with another seed


def test_a_damaged_graph(bottleneck, tmp_path):
    folder = shutil.copytree(bottleneck.folder.parent / "encoder", tmp_path / "encoder")
    content = bytearray((folder / "encoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "encoder.onnx").write_bytes(content)
    with pytest.raises(EncoderError, match="hash that encoder.json names") as caught:
        open_reader(read_pack(bottleneck.folder, None), folder).vectors(["a secret wish"])
    assert "secret" not in str(caught.value)


def test_a_manifest_that_was_touched(lora, tmp_path):
    pack, encoder = equipped(lora)
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    content = (folder / "encoder.json").read_bytes()
    (folder / "encoder.json").write_bytes(content + b" ")
    with pytest.raises(EncoderError, match="the pack's own"):
        open_reader(pack, folder)
    (folder / "encoder.json").write_bytes(content[:100])
    with pytest.raises(DataError, match="can be read"):
        open_reader(pack, folder)


def test_a_lost_graph(bottleneck, tmp_path):
    folder = shutil.copytree(bottleneck.folder.parent / "encoder", tmp_path / "encoder")
    (folder / "encoder.onnx").unlink()
    reader = open_reader(read_pack(bottleneck.folder, None), folder)
    assert not reader.vectors(["", " "]).any()  # nothing to read, nothing opened
    with pytest.raises(EncoderError, match="files are there"):
        reader.vectors(["wish"])


def test_a_graph_that_onnxruntime_cannot_run(bottleneck, tmp_path):
    folder = shutil.copytree(bottleneck.folder.parent / "encoder", tmp_path / "encoder")
    about = json.loads((folder / "encoder.json").read_bytes())
    (folder / "encoder.onnx").write_bytes(b"no graph")
    about["files"]["encoder.onnx"] = listed(b"no graph")
    (folder / "encoder.json").write_text(json.dumps(about))
    with pytest.raises(EncoderError, match="onnxruntime runs the encoder"):
        open_reader(read_pack(bottleneck.folder, None), folder).vectors(["wish"])


def test_a_newer_format(bottleneck, tmp_path):
    folder = shutil.copytree(bottleneck.folder.parent / "encoder", tmp_path / "encoder")
    about = json.loads((folder / "encoder.json").read_bytes()) | {"format": 2}
    (folder / "encoder.json").write_text(json.dumps(about))
    with pytest.raises(EncoderError, match="upgrade fedrec"):
        open_reader(read_pack(bottleneck.folder, None), folder)


def test_without_onnxruntime(bottleneck, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    reader = open_reader(read_pack(bottleneck.folder, None), bottleneck.folder.parent / "encoder")
    with pytest.raises(RunError, match=r"fedrec\[text\]"):
        reader.vectors(["wish"])


def test_without_the_extra_for_exports(bottleneck, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RunError, match=r"fedrec\[export\]"):
        export_for(bottleneck.folder, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_a_graph_that_reads_otherwise_is_not_exported(bottleneck, monkeypatch, tmp_path):
    lifted = bottleneck.folder.parent / "encoder" / "encoder.onnx"
    monkeypatch.setattr(onnx_export, "_graph", lambda *_: lifted.read_bytes())
    adapter = build_adapter("none", open_encoder("tiny", max_tokens=63), rank=1, blocks=1, seed=0)
    adapter.encoder.trunk.pooling = "cls"  # the graph takes the mean
    with pytest.raises(EncoderError, match="reads as the original does"):
        onnx_export.export_encoder(adapter, tmp_path / "encoder", seed=0)
    assert not (tmp_path / "encoder").exists()


def test_what_is_not_exported(hashing):
    with pytest.raises(EncoderError, match="without a transformer"):
        export_for(hashing.folder, Path("unused"))


def test_a_signed_pack_is_not_changed(lora, tmp_path):
    folder = shutil.copytree(lora.folder, tmp_path / "pack")
    sign_pack(folder, KEY, version=1)
    with pytest.raises(EncoderError, match="signed"):
        equip(folder)


def test_reprs_withhold(lora):
    pack, folder = equipped(lora)
    encoder = portable(pack, folder)
    assert isinstance(encoder, PortableEncoder)
    assert "float32(" not in repr(encoder)
    assert len(repr(PackReader(pack, encoder.encode))) < 1000
