"""Amazon reviews: review text belongs to a person, item text to the metadata."""

import gzip
import json

import pytest

from fedrec.datasets import events, load
from fedrec.datasets.amazon import UNTITLED
from fedrec.device.event import Kind
from fedrec.errors import DataError

SECRET = "my landlord hates this guitar"


def review(user="A", item="B1", **changes):
    return {
        "reviewerID": user, "asin": item, "reviewText": SECRET, "summary": "Loud", "overall": 4.0,
        "unixReviewTime": 1393545600, **changes,
    }  # fmt: skip


def written(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["reviews.json", "reviews.jsonl", "reviews.json.gz"])
def test_worked_by_hand(tmp_path, name):
    path = written(tmp_path / name, [review(), review(item="B2", overall=1, unixReviewTime=5)])
    loaded = load("amazon", path)
    [history] = loaded.population
    assert loaded.catalogue.ids == ("B1", "B2")
    assert history.items.tolist() == [1, 0]
    assert history.ratings.tolist() == [0.0, 0.75]
    assert history.texts == [f"Loud. {SECRET}"] * 2
    assert history.kinds.tolist() == [Kind.REVIEW] * 2
    assert load("amazon", tmp_path).hash == loaded.hash  # the folder with the one file


def test_without_metadata_items_are_neutral_and_this_is_said(tmp_path):
    loaded = load("amazon", written(tmp_path / "r.json", [review()]))
    assert loaded.catalogue.texts == ("item B1",)
    assert loaded.notes.count(UNTITLED) == 1


def test_the_release_of_2023(tmp_path):
    record = {"user_id": "A", "parent_asin": "P", "asin": "B", "title": "Loud", "text": "Very", "rating": 5.0,
              "timestamp": 1588687728923}  # fmt: skip
    items = written(tmp_path / "meta.jsonl", [{"parent_asin": "P", "title": "Strings", "store": "Ernie",
                                               "categories": ["Music", "Guitar"]}])  # fmt: skip
    loaded = load("amazon", written(tmp_path / "r.jsonl", [record]), {"items": str(items)})
    assert loaded.population[0].times.tolist() == [1588687728]
    assert loaded.catalogue.texts == ("Strings [brand: Ernie] [category: Music, Guitar]",)


def test_metadata_of_2014(tmp_path):
    meta = [{"asin": "B1", "title": "Strings", "categories": [["Music", "Guitar"], ["Music", "Bass"]]}, {"asin": "B9"}]
    items = written(tmp_path / "meta.json", meta)
    loaded = load("amazon", written(tmp_path / "r.json", [review(), review(item="B7")]), {"items": str(items)})
    assert loaded.catalogue.texts == ("Strings [category: Music, Guitar, Bass]", "item B9")
    assert loaded.catalogue.tags == (("Music", "Guitar", "Bass"), ())
    assert (loaded.notes.count(UNTITLED), loaded.notes.count(events.UNKNOWN_ITEM)) == (1, 1)


@pytest.mark.parametrize(
    ("change", "reason", "column"),
    [
        ({"overall": None}, events.BAD_RATING, "rating"),
        ({"overall": float("nan")}, events.BAD_RATING, "rating"),
        ({"overall": 7}, events.BAD_RATING, "rating"),
        ({"unixReviewTime": None}, events.BAD_TIME, "time"),
        ({"unixReviewTime": 4102444800}, events.FUTURE, "time"),
        ({"reviewerID": ""}, events.NO_USER, "user"),
    ],
)
def test_bad_reviews_are_skipped_and_never_quoted(tmp_path, change, reason, column):
    path = tmp_path / "r.json"
    path.write_text("\n" + "".join(json.dumps(each) + "\n" for each in [review(), review(**change), review()]))
    loaded = load("amazon", path)
    [note] = [note for note in loaded.notes.entries if note.reason == reason]
    assert (note.rows, note.examples[0].row, note.examples[0].column) == (1, 3, column)
    assert not any("landlord" in line for line in loaded.notes.lines())


def test_a_missing_field(tmp_path):
    record = review()
    del record["overall"]
    with pytest.raises(DataError, match="row=2, column='overall'"):
        load("amazon", written(tmp_path / "r.json", [review(), record]))


def test_python_dicts_are_no_json(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(review()) + "\n" + str(review()) + "\n")
    with pytest.raises(DataError, match=r"row=2, column=2.*Python dict.*ast.literal_eval") as caught:
        load("amazon", tmp_path / "r.json")
    assert "landlord" not in str(caught.value)


def test_not_utf8(tmp_path):
    line = json.dumps(review(), ensure_ascii=False).encode()
    (tmp_path / "r.json").write_bytes(line + b"\n" + line.replace(b"Loud", b"Lo\xfcd") + b"\n")
    with pytest.raises(DataError, match="must be UTF-8.*row=2") as caught:
        load("amazon", tmp_path / "r.json")
    assert (tmp_path / "r.json").read_bytes()[caught.value.got["byte"]] == 0xFC


@pytest.mark.parametrize("keep", [0.2, 0.9, 0.999])
def test_a_truncated_gzip(tmp_path, keep):
    path = written(tmp_path / "r.json.gz", [review(user=str(n)) for n in range(500)])
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match="gzip file must be whole"):
        load("amazon", path)


def test_duplicate_items(tmp_path):
    items = written(tmp_path / "meta.json", [{"asin": "B1"}, {"asin": "B2"}, {"asin": "B1"}])
    with pytest.raises(DataError, match="item ids are unique.*row=3.*value='B1'.*first_row=1"):
        load("amazon", written(tmp_path / "r.json", [review()]), {"items": str(items)})


def test_empty_files_and_folders(tmp_path):
    (tmp_path / "r.json").touch()
    with pytest.raises(DataError, match="not empty"):
        load("amazon", tmp_path / "r.json")
    (tmp_path / "q.json").touch()
    with pytest.raises(DataError, match="one .json or .jsonl file"):
        load("amazon", tmp_path)


def test_a_review_of_nothing_is_no_item(tmp_path):
    loaded = load("amazon", written(tmp_path / "r.json", [review(), review(item=None), review(item=" ")]))
    assert loaded.catalogue.ids == ("B1",)
    assert len(loaded.population[0]) == 3  # the text alone still says something about the person
