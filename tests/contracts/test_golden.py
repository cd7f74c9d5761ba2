"""The golden vectors, which ports are held to, are those of this code."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fedrec.embed.reader import PackReader, portable
from fedrec.model.encoder_files import verify_encoder
from fedrec.model.pack_files import read_pack

pytest.importorskip("onnxruntime")

GOLDEN = Path(__file__).parents[2] / "client" / "golden"
SAID = json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pack():
    return read_pack(GOLDEN / "pack", None)


@pytest.fixture(scope="module")
def popular():
    return read_pack(GOLDEN / "popular", None)


@pytest.fixture(scope="module")
def encoder(pack):
    return portable(pack, GOLDEN / "encoders" / pack.reader)


def test_the_folder_is_whole(pack):
    verify_encoder(GOLDEN / "encoders" / pack.reader, digest=SAID["encoder"])
    assert pack.reader == SAID["encoder"]
    assert [path.name for path in (GOLDEN / "encoders").iterdir()] == [pack.reader]


def test_every_rule_of_the_tokenizer_has_its_text(maker, encoder):
    assert [case["text"] for case in SAID["cases"]] == list(maker.TEXTS)
    words = encoder._words
    unknown, most = words.rows["[UNK]"], words.max_tokens
    found = {case["text"]: case["ids"] for case in SAID["cases"]}
    assert found["x" * 101][1:-1] == [unknown]
    assert len(found["the sea " * 40]) == most
    assert words.rows["[SEP]"] in found["half [SEP] time [MASK]"][1:-1]
    assert found["\u200b"] == [words.rows["[CLS]"], words.rows["[SEP]"]]
    assert found["   "] == found[""] == []


@pytest.mark.parametrize("case", SAID["cases"], ids=lambda case: ascii(case["text"][:12]))
def test_text_ids_vector_ranking(case, pack, encoder, maker):
    reader = PackReader(pack, encoder.encode)
    assert encoder.ids(case["text"]) == case["ids"]
    assert np.allclose(reader.pooled([case["text"]])[0], case["pooled"], atol=SAID["tolerance"])
    (vector,) = reader.vectors([case["text"]])
    assert np.allclose(vector, case["vector"], atol=SAID["tolerance"])
    assert_alike(maker.ranking(pack, reader, [{"kind": "search", "text": case["text"]}]), case["ranking"])


@pytest.mark.parametrize("case", SAID["histories"], ids=lambda case: f"{len(case['events'])}")
def test_events_ranking(case, pack, popular, encoder, maker):
    reader = PackReader(pack, encoder.encode)
    assert_alike(maker.ranking(pack, reader, case["events"]), case["ranking"])
    assert_alike(maker.ranking(popular, reader, case["events"]), case["popular"])


def assert_alike(found, said):
    assert [item for item, _ in found] == [item for item, _ in said]
    assert np.allclose([score for _, score in found], [score for _, score in said], atol=SAID["tolerance"])


def test_histories_are_those_of_the_maker_and_a_port_that_forgets_popularity_is_seen(maker, pack, popular):
    assert [case["events"] for case in SAID["histories"]] == [list(events) for events in maker.HISTORIES]
    assert all(case["ranking"] != case["popular"] for case in SAID["histories"])
    shares = dict(zip(popular.catalogue.ids, popular.popularity.tolist(), strict=True))
    assert [item for item, _ in SAID["histories"][0]["popular"]] == sorted(shares, key=shares.get, reverse=True)
    assert pack.popularity is None and np.array_equal(pack.vectors, popular.vectors)


def test_texts_rank_differently():
    assert len({tuple(item for item, _ in case["ranking"]) for case in SAID["cases"]}) > 5
