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
    found = maker.ranking(pack, vector)
    assert [item for item, _ in found] == [item for item, _ in case["ranking"]]
    assert np.allclose([score for _, score in found], [score for _, score in case["ranking"]], atol=SAID["tolerance"])


def test_texts_rank_differently():
    assert len({tuple(item for item, _ in case["ranking"]) for case in SAID["cases"]}) > 5
