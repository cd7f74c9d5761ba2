"""The cache of vectors and hidden states: never stale, never torn, never private."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fedrec.model.adapter import build_adapter
from fedrec.model.cache import content_key
from fedrec.model.encoder import open_encoder
from fedrec.model.transformer import TransformerEncoder

TEXTS = ["Star Wars (1977)", "", "star wars: the empire strikes back", " \n", "Cinderella", "naïve café 東京"]


def tiny(cache: Path | None = None, max_tokens: int = 64) -> TransformerEncoder:
    encoder = open_encoder("tiny", cache=cache, max_tokens=max_tokens)
    assert isinstance(encoder, TransformerEncoder)
    return encoder


def entry(cache: Path) -> Path:
    (path,) = cache.glob("*.safetensors")
    return path


def test_the_second_time_comes_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, hidden = tiny(tmp_path).encode(TEXTS, public=True), tiny(tmp_path).hidden(TEXTS, 1, public=True)
    again = tiny(tmp_path)
    monkeypatch.delattr(again, "_tokenise")
    assert np.array_equal(again.encode(TEXTS, public=True), vectors)
    assert np.array_equal(again.hidden(TEXTS, 1, public=True).states, hidden.states)
    assert len(list(tmp_path.iterdir())) == 2


def test_private_texts_leave_no_trace(tmp_path: Path) -> None:
    encoder = tiny(tmp_path)
    encoder.encode(TEXTS)
    encoder.hidden(TEXTS, 1)
    build_adapter("lora", encoder, rank=1, blocks=1, seed=0).prepare(TEXTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["text", "order", "split", "encoder", "depth"])
def test_nothing_stale_is_served(change: str, tmp_path: Path) -> None:
    before, after, tokens, blocks = ["ab", "c"], ["ab", "c"], 64, 1
    match change:
        case "text":
            after = ["ab", "d"]
        case "order":
            after = ["c", "ab"]
        case "split":
            after = ["a", "bc"]
        case "encoder":
            tokens, before, after = 3, ["a b c d e"], ["a b c d e"]
        case "depth":
            blocks = 2
    for cache in (tmp_path, None):
        tiny(cache).encode(before, public=True)
        tiny(cache).hidden(before, 1, public=True)
    served, truth = tiny(tmp_path, tokens), tiny(None, tokens)
    assert np.array_equal(served.encode(after, public=True), truth.encode(after))
    assert np.array_equal(served.hidden(after, blocks, public=True).states, truth.hidden(after, blocks).states)
    assert not np.array_equal(served.hidden(after, blocks, public=True).states, tiny().hidden(before, 1).states)


def test_keys_differ_where_contents_differ() -> None:
    keys = [
        content_key("e", "p", texts=["ab", "c"]), content_key("e", "p", texts=["a", "bc"]),
        content_key("e", "p", texts=["c", "ab"]), content_key("e", "p", texts=["abc"]),
        content_key("e", "q", texts=["ab", "c"]), content_key("e", texts=["p", "ab", "c"]),
        content_key("ep", texts=["ab", "c"]), content_key("e", "p", "ab", texts=["c"]),
        content_key("e", "p", texts=["ab", "\ud800"]),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rename_key(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(path.stem.encode(), b"0" * 64))


DAMAGE = {
    "a flipped bit of data": lambda path: flip(path, -1),
    "a flipped bit of the header": lambda path: flip(path, 20),
    "a huge header": lambda path: flip(path, 6),
    "a torn file": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "an empty file": lambda path: path.write_bytes(b""),
    "another kind of file": lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0[]"),
    "another key": rename_key,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_computed_again(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = tiny().encode(TEXTS)
    tiny(tmp_path).encode(TEXTS, public=True)
    damage(entry(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(tiny(tmp_path).encode(TEXTS, public=True), truth)
    assert "damaged or misplaced; it is computed again" in caplog.text
    caplog.clear()
    assert np.array_equal(tiny(tmp_path).encode(TEXTS, public=True), truth)
    assert caplog.text == ""


def test_a_planted_entry_of_other_texts_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    tiny(mine).encode(["Star Wars"], public=True)
    tiny(other).encode(["Cinderella"], public=True)
    shutil.copy(entry(other), entry(mine))
    assert np.array_equal(tiny(mine).encode(["Star Wars"], public=True), tiny().encode(["Star Wars"]))
    assert "misplaced" in caplog.text


def test_writing_to_a_cached_array_does_not_reach_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = tiny(tmp_path).encode(TEXTS, public=True).copy()
    tiny(tmp_path).encode(TEXTS, public=True)[:] = 7.0
    assert np.array_equal(tiny(tmp_path).encode(TEXTS, public=True), truth)
    assert caplog.text == ""  # nothing had to be repaired


def test_many_writers_agree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoders = [tiny(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda encoder: encoder.encode(TEXTS, public=True), encoders))
    assert all(np.array_equal(vectors, found[0]) for vectors in found)
    assert entry(tmp_path).exists() and len(list(tmp_path.iterdir())) == 1 and caplog.text == ""


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert np.array_equal(tiny(blocked).encode(TEXTS, public=True), tiny().encode(TEXTS))
    assert "cannot keep a cache entry" in caplog.text


def test_blank_lists_are_cached_too(tmp_path: Path) -> None:
    for _ in range(2):
        assert tiny(tmp_path).encode([], public=True).shape == (0, 32)
        assert tiny(tmp_path).hidden([""], 1, public=True).padded()[0].shape == (1, 1, 32)
