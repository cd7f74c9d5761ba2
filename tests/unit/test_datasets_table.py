"""Any table: mapping of columns, defaults that are public, and rows as an editor shows them."""

import traceback

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from fedrec.datasets import events, load
from fedrec.datasets.table import from_frames
from fedrec.device.event import NO_ITEM, Kind
from fedrec.errors import DataError, SpecError

ITEMS = "id,text,tags\na,Apple pie,food|sweet\nb,Bread,food\nc,Car,\n"
EVENTS = "user,item,time\n1,a,10\n2,b,5\n1,c,7\n"


def table(folder, log=EVENTS, items=ITEMS, **options):
    (folder / "log.csv").write_text(log, "utf-8")
    (folder / "items.csv").write_text(items, "utf-8")
    return load("table", folder / "log.csv", {"items": str(folder / "items.csv"), **options})


def test_the_least_that_works(tmp_path):
    loaded = table(tmp_path)
    assert loaded.population.names == ("1", "2")
    assert loaded.population[0].items.tolist() == [2, 0]
    assert loaded.population[0].kinds.tolist() == [Kind.CLICK] * 2
    assert loaded.population[0].weights.tolist() == [1.0, 1.0]
    assert np.isnan(loaded.population[0].ratings).all()


def test_tags_reach_the_text_once(tmp_path):
    items = ITEMS + "d,Sweet food [tags: food],food|sweet\n"
    assert table(tmp_path, items=items).catalogue.texts == (
        "Apple pie [tags: food, sweet]", "Bread [tags: food]", "Car", "Sweet food [tags: food]",
    )  # fmt: skip


def test_every_column_under_another_name(tmp_path):
    log = (
        "who,what,when,how,words,stars,much\n"
        "1,a,2020-01-01T00:00:00Z,LIKE,,,2\n"
        "1,,2020-01-02,search,red bike,,\n"
        "1,b,1577836801,rate,,3,\n"
    )
    options = {"user": "who", "item": "what", "time": "when", "kind": "how", "text": "words", "rating": "stars",
               "weight": "much", "item_id": "key", "item_text": "name", "item_tags": "kinds", "rating_scale": "0:6",
               "features": "img_"}  # fmt: skip
    items = "key,name,kinds,img_0,img_1\na,Apple,fruit,0.5,-1\nb,Bread,,1e3,0\n"
    loaded = table(tmp_path, log, items, **options)
    [history] = loaded.population
    assert history.kinds.tolist() == [Kind.LIKE, Kind.RATE, Kind.SEARCH]
    assert history.items.tolist() == [0, 1, NO_ITEM]
    assert history.times.tolist() == [1577836800, 1577836801, 1577923200]
    assert history.weights.tolist() == [2.0, 1.0, 1.0]
    assert history.texts == ["", "", "red bike"]
    assert history.ratings[1] == 0.5
    assert loaded.catalogue.features.tolist() == [[0.5, -1.0], [1000.0, 0.0]]
    assert not loaded.notes


def test_the_scale_is_public(tmp_path):
    """Without a given scale it is 1:5, whatever range the private ratings happen to have."""
    loaded = table(tmp_path, "user,item,time,rating\n1,a,1,2\n1,b,2,3\n1,c,3,8\n")
    assert loaded.population[0].ratings.tolist() == [0.25, 0.5]
    assert loaded.notes.count(events.BAD_RATING) == 1


@pytest.mark.parametrize("scale", ["5", "5:1", "1:1", "a:b", "1:inf", ""])
def test_a_wrong_scale(tmp_path, scale):
    with pytest.raises(SpecError, match="LOW:HIGH"):
        table(tmp_path, rating_scale=scale)


def test_no_time_column_keeps_the_order_and_says_so(tmp_path):
    loaded = table(tmp_path, "user,item\n1,c\n1,a\n1,b\n")
    assert loaded.population[0].items.tolist() == [2, 0, 1]
    assert loaded.notes.count(events.UNTIMED) == 3


def test_searches_only(tmp_path):
    loaded = table(tmp_path, "user,text,time\n1,red bike,1\n1,  ,2\n")
    assert loaded.population[0].kinds.tolist() == [Kind.SEARCH]
    assert loaded.notes.count(events.NOTHING) == 1


@pytest.mark.parametrize(
    ("line", "reason", "column", "value"),
    [
        ("1,zz,1,click,,", events.UNKNOWN_ITEM, "item", "zz"),
        ("1,a secret wish,1,click,,", events.UNKNOWN_ITEM, "item", "<13 characters>"),
        ("1,a,1,dance,,", events.UNKNOWN_KIND, "kind", "dance"),
        ("1,a,1,rate,,", events.BAD_RATING, "rating", ""),
        ("1,a,1,click,nan,", events.BAD_RATING, "rating", "nan"),
        ("1,a,1,click,,-1", events.BAD_WEIGHT, "weight", "-1"),
        ("1,a,1,click,,heavy", events.BAD_WEIGHT, "weight", "heavy"),
        ("1,a,1577836800000,click,,", events.FUTURE, "time", "1577836800000"),
        ("1,a,inf,click,,", events.BAD_TIME, "time", "inf"),
        (" ,a,1,click,,", events.NO_USER, "user", ""),
    ],
)
def test_bad_rows(tmp_path, line, reason, column, value):
    log = f"user,item,time,kind,rating,weight\n1,a,1,click,,\n{line}\n1,b,2,click,,\n"
    loaded = table(tmp_path, log)
    [note] = loaded.notes.entries
    assert (note.reason, note.rows) == (reason, 1)
    assert (note.examples[0].row, note.examples[0].column, note.examples[0].value.strip()) == (3, column, value)
    assert loaded.population.table.num_rows == 2


def test_rows_are_lines_even_when_text_spans_lines(tmp_path):
    log = 'user,item,text,time\n1,a,"two\nlines ""and"" more",1\n\n1,zz,,2\n1,b,,3\n'
    notes = table(tmp_path, log).notes
    assert notes.entries[0].examples[0].row == 5


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("item,time\na,1\n", r"missing=\['user'\].*present=\['item', 'time'\]"),
        ("user,time\n1,1\n", r"missing=\['item'\]"),
        ("user,user,item\n1,1,a\n", r"a header names each column once.*twice=\['user'\]"),
        ("user,item,time\n1,a,1,9\n", "row=2, expected=3, values=4"),
        ("", "not empty"),
        ("user,item,time\n", "no event in the file"),
    ],
)
def test_wrong_tables(tmp_path, log, message):
    with pytest.raises(DataError, match=message):
        table(tmp_path, log)


@pytest.mark.parametrize("row", [2, 4])
def test_an_open_quote_does_not_swallow_the_rest(tmp_path, row):
    lines = ["user,item,text", '1,a,"two', 'lines"', "1,a,x", "1,b,y", "1,c,z"]
    lines[row - 1] = '1,a,"x'
    lines[2] = 'lines"' if row != 2 else "1,a,x"
    with pytest.raises(DataError, match=f"a quote that opens also closes.*row={row}"):
        table(tmp_path, "\n".join(lines) + "\n")


@pytest.mark.parametrize("rest", ["1,a,{}\n1,a,{},{}\n", '1,a,"{}\n'])
def test_an_error_in_a_row_does_not_quote_it(tmp_path, rest):
    words = "".join(["se", "cret"])  # not in one piece in this line, which a traceback shows
    with pytest.raises(DataError) as caught:
        table(tmp_path, "user,item,text\n" + rest.replace("{}", words))
    assert words not in "".join(traceback.format_exception(caught.value))


def test_a_mapped_column_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"missing=\['when'\]"):
        table(tmp_path, time="when")


def test_options_that_nobody_knows(tmp_path):
    with pytest.raises(SpecError, match=r"the options of table are: items, user.*unknown=\['colour'\]"):
        table(tmp_path, colour="red")
    with pytest.raises(SpecError, match="a table needs a file of items"):
        load("table", tmp_path, {})


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert table(tmp_path, "\ufeff" + EVENTS, "\ufeff" + ITEMS).hash == table(tmp_path).hash


def test_csv_tsv_parquet_and_frames_agree(tmp_path):
    expected = table(tmp_path).hash
    log, items = pd.read_csv(tmp_path / "log.csv"), pd.read_csv(tmp_path / "items.csv")
    (tmp_path / "log.tsv").write_text(EVENTS.replace(",", "\t"))
    log.to_parquet(tmp_path / "log.parquet")
    for name in ("log.tsv", "log.parquet"):
        assert load("table", tmp_path / name, {"items": str(tmp_path / "items.csv")}).hash == expected
    assert from_frames(log, items).hash == expected


def test_frames_with_gaps_and_timestamps():
    log = pd.DataFrame({
        "user": ["x", "x", None, "x"], "item": [1.0, np.nan, 1.0, 2.0], "rating": [5, np.nan, 3, np.nan],
        "time": pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-01", None], utc=True),
    })  # fmt: skip
    loaded = from_frames(log, pd.DataFrame({"id": [1, 2], "text": ["One", None]}))
    assert loaded.catalogue.texts == ("One", "")
    assert loaded.population[0].items.tolist() == [0]
    assert loaded.population[0].times.tolist() == [1577923200]
    places = {note.reason: note.examples[0] for note in loaded.notes.entries if note.examples}
    assert places[events.NO_USER][:2] == ("events", 3)
    assert places[events.NOTHING][:2] == ("events", 2)
    assert places[events.BAD_RATING][:2] == ("events", 4)


def test_a_frame_of_mixed_types_is_refused_without_its_values():
    log = pd.DataFrame({"user": [1, 2], "item": [1, "secret"]})
    with pytest.raises(DataError, match="a column has one type.*column='item'") as caught:
        from_frames(log, pd.DataFrame({"id": ["1"], "text": [""]}))
    assert "secret" not in str(caught.value)


def test_a_torn_parquet_file(tmp_path):
    table(tmp_path)
    pa.parquet.write_table(pa.table({"user": ["1"], "item": ["a"]}), tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[:-9])
    with pytest.raises(DataError, match="Parquet file must be whole"):
        load("table", tmp_path / "log.parquet", {"items": str(tmp_path / "items.csv")})
