"""One door to every data set; the default folder; batches are not content; the real files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedrec.datasets import NAMES, events, files, load
from fedrec.datasets.detect import detect
from fedrec.errors import DataError, SpecError

SHARED = Path(os.environ.get("FEDREC_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")


def test_an_unknown_name_lists_the_known():
    with pytest.raises(SpecError) as caught:
        load("netflix")
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name, tmp_path):
    with pytest.raises(SpecError, match=r"the options of .*unknown=\['nope'\]"):
        load(name, None if name == "synthetic" else tmp_path, {"nope": "1"})


@pytest.mark.parametrize("name", ["movielens-100k", "movielens-1m", "movielens-25m", "amazon", "mind"])
def test_a_missing_set_says_how_to_get_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path))
    with pytest.raises(DataError, match=f"fedrec data get {name}"):
        load(name)
    with pytest.raises(DataError, match="Check the path"):
        load(name, tmp_path / "nowhere")


def test_the_default_folder_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path))
    folder = tmp_path / "data" / "movielens-1m" / "ml-1m"
    folder.mkdir(parents=True)
    (folder / "ratings.dat").write_text("1::20::4::978300760\n")
    (folder / "movies.dat").write_text("20::Two (1996)::Comedy\n")
    assert len(load("movielens-1m").catalogue) == 1


def test_synthetic_wants_whole_numbers(tmp_path):
    with pytest.raises(SpecError, match="users of synthetic is a whole number"):
        load("synthetic", None, {"users": "many"})
    with pytest.raises(SpecError, match="made, not read"):
        load("synthetic", tmp_path)


def test_the_size_of_batches_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{n},Film {n},Drama\n" for n in range(50)))
    rows = [f"{n % 7},{n % 53},{n % 11 / 2},{1000 - n}\n" for n in range(2000)]
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(rows))
    whole = load("movielens-25m", tmp_path)
    monkeypatch.setattr(files, "BLOCK", 512)
    pieces = load("movielens-25m", tmp_path)
    assert len(list(files.batches(tmp_path / "ratings.csv"))) > 20
    assert (pieces.hash, pieces.notes, pieces.population.names) == (whole.hash, whole.notes, whole.population.names)
    assert whole.notes.count(events.UNKNOWN_ITEM) + whole.notes.count(events.BAD_RATING) > 100
    assert [place.row for place in whole.notes.entries[0].examples][:4] == [52, 53, 54, 105]  # films 50, 51, 52, 50


def test_detection(tmp_path):
    for name, text, expected in [
        ("log.csv", "user,item\n1,a\n", "table"),
        ("log.tsv", "user\titem\n1\ta\n", "table"),
        ("items.csv", "id,text\n1,a\n", "catalogue"),
        ("items.jsonl", '{"id": "1", "text": "a"}\n', "catalogue"),
        ("reviews.jsonl", '{"user_id": "1"}\n', "amazon"),
        ("reviews.json", '{"reviewerID": "1"}\n', "amazon"),
    ]:
        (tmp_path / name).write_text(text)
        assert detect(tmp_path / name) == expected
    for names, expected in [
        ("u.data", "movielens-100k"),
        ("ratings.dat", "movielens-1m"),
        ("movies.csv", "movielens-25m"),
        ("news.tsv", "mind"),
        ("a/behaviors.tsv", "mind"),
        ("r.json.gz", "amazon"),
    ]:
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        (folder / names).parent.mkdir(parents=True)
        (folder / names).touch()
        assert detect(folder) == expected
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "notes.txt", tmp_path / "empty"):
        with pytest.raises(DataError, match="--as NAME"):
            detect(path)
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="whole"):
        detect(tmp_path / "torn.zip")


def test_naming_data_sets_costs_nothing():
    code = (
        "import sys, fedrec.datasets; sys.exit(any(m in sys.modules for m in ('pandas', 'pyarrow', 'torch', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@real
def test_the_real_movielens_100k():
    loaded = load("movielens-100k", SHARED / "ml-100k")
    assert (len(loaded.population), len(loaded.catalogue), loaded.population.table.num_rows) == (943, 1682, 100_000)
    assert not loaded.notes
    assert "The Usual Suspects (1995) [genre: Crime, Thriller]" in loaded.catalogue.texts
    assert all((history.times[1:] >= history.times[:-1]).all() for history in loaded.population)


@real
def test_the_real_amazon_reviews():
    loaded = load("amazon", SHARED / "amazon-musical-instruments")
    assert (len(loaded.population), len(loaded.catalogue), loaded.population.table.num_rows) == (1429, 900, 10_261)
    assert [note.rows for note in loaded.notes.entries] == [900]
    assert all(text == f"item {item}" for item, text in zip(loaded.catalogue.ids, loaded.catalogue.texts, strict=True))
