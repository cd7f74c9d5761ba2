"""A folder is opened with little: what it does without is loaded later, and an encoder is read at the first text."""

import hashlib
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pocket
import pytest
from pocket import items, opened, scores

from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder_files import encoder_beside, read_encoder
from fedrec.model.pack_files import read_manifest

GOLDEN = Path(__file__).parents[2] / "client" / "golden"

PROGRAM = """
import sys
begun = set(sys.modules)
from pathlib import Path
home, pack = map(Path, sys.argv[1:])
import fedrec
rec = fedrec.Recommender.open(home / "me", pack=pack, key={key})
rec.log("like", rec.recommend(1)[0].item)
rec.recommend(1)[0].why
{more}
print(*begun)
print(*sys.modules)
"""
SYNC = """
try:
    rec.sync("https://127.0.0.1:9")
except fedrec.FedrecError:
    pass
"""

LATER = {  # what a list is made without, and what brings it
    "cryptography": "fedrec.Recommender.open(home / 'sealed', pack=pack, secret=bytes(32))",
    "httpx": SYNC,
    "ssl": SYNC,
    "importlib.metadata": "fedrec.__version__",
    "onnxruntime": "rec.log('search', text='a lighthouse at sea'); rec.recommend(1)",
    "pydantic": "rec.export(home / 'me.zip')",
    "torch": "fedrec.Simulation",
}


def loaded(home, more="", key=None):
    """What a fresh process has loaded before anything, and once it opened a folder, made lists, and did `more`."""
    program = PROGRAM.format(more=more, key=repr(key))
    command = [sys.executable, "-W", "error", "-c", program, str(home), str(GOLDEN / "pack")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    begun, now = done.stdout.splitlines()
    return set(begun.split()), set(now.split())


def test_a_list_is_made_without_what_is_not_needed(tmp_path):
    begun, now = loaded(tmp_path)
    assert "fedrec.embed.recommender" in now
    assert LATER.keys() & (now - begun) == set()


@pytest.mark.parametrize("name", LATER)
def test_what_is_needed_later_comes_later(tmp_path, name):
    if name in ("onnxruntime", "torch"):
        pytest.importorskip(name)
    _, now = loaded(tmp_path, LATER[name], bytes(32).hex() if LATER[name] == SYNC else None)
    assert name in now


@pytest.fixture
def packs(tmp_path):
    """A pack with its encoder beside it; the encoder's folder."""
    pytest.importorskip("onnxruntime")
    shutil.copytree(GOLDEN, tmp_path / "packs")
    return tmp_path / "packs"


def encoder_of(packs):
    return encoder_beside(packs, read_manifest(packs / "pack", None).text.encoder)


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def sessions(monkeypatch):
    """The graphs that onnxruntime was given."""
    import onnxruntime

    given, kind = [], onnxruntime.InferenceSession

    def session(graph, options, providers):
        given.append(graph)
        return kind(graph, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return given


@pytest.mark.parametrize("name", ["encoder.onnx", "vocab.txt"])
def test_a_flipped_bit_in_an_encoder_is_found_before_a_text_is_read(packs, tmp_path, sessions, name):
    spoil(encoder_of(packs) / name)
    with closing(opened(tmp_path / "me", pack=packs / "pack")) as rec:
        rec.log("like", items(rec, 1)[0])
        before = scores(rec)
        assert rec.notices == ()  # nobody has asked for a text
        rec.log("search", text="my private harbour")
        assert scores(rec).keys() == before.keys()
        (notice,) = rec.notices
        assert f"hash that encoder.json names; got file='{name}'" in notice
        assert "private" not in notice
    assert sessions == []


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_an_encoder_that_is_not_whole_is_as_good_as_none(packs, tmp_path, change):
    change(encoder_of(packs) / "encoder.onnx")
    assert encoder_of(packs) is None
    with closing(opened(tmp_path / "me", pack=packs / "pack")) as rec:
        rec.log("search", text="my private harbour")
        assert items(rec, 3)
        assert "texts are read with the pack's own encoder" in rec.notices[0]


def test_what_runs_is_what_was_verified(packs, tmp_path, sessions):
    """onnxruntime gets the bytes that were hashed, and no name of a file that may be another one by then."""
    folder = encoder_of(packs)
    with closing(opened(tmp_path / "me", pack=packs / "pack")) as rec:
        rec.log("search", text="a lighthouse at sea")
        items(rec)
        assert rec.notices == ()
    (graph,) = sessions
    assert hashlib.sha256(graph).hexdigest() == read_encoder(folder).files["encoder.onnx"].sha256


def test_items_of_today_and_searches_are_read_in_one_session(packs, tmp_path, sessions):
    with closing(opened(tmp_path / "me", pack=packs / "pack")) as rec:
        rec.stock(Catalogue(["new-1"], ["a comet over the harbour"]))
        rec.log("search", text="a lighthouse at sea")
        assert "new-1" in scores(rec)
        assert rec.notices == ()
    assert len(sessions) == 1


def test_a_pack_over_the_hash_encoder_needs_none(tmp_path):
    with closing(opened(tmp_path / "me")) as rec:
        rec.log("search", text="sourdough in the oven")
        assert {item.split("-")[0] for item in items(rec, 3)} == {"bread"}
        assert encoder_beside(pocket.pack().parent, "") is None
