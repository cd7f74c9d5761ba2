"""Writing a catalogue and reading it back gives the same content hash, in every format."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.errors import DataError, SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import ItemColumns, read_catalogue, write_catalogue

SUFFIXES = [".parquet", ".csv", ".tsv", ".jsonl"]

texts = st.text(st.characters(codec="utf-8"), max_size=20)
tags = st.lists(texts, max_size=3)
ids = st.lists(texts.map(str.strip).filter(bool), min_size=1, max_size=5, unique=True)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def catalogues(draw):
    names = draw(ids)
    column = st.lists(texts, min_size=len(names), max_size=len(names))
    labels = draw(st.lists(tags, min_size=len(names), max_size=len(names)))
    features = draw(arrays(np.float32, (len(names), draw(st.integers(0, 3))), elements=finite))
    return Catalogue(names, draw(column), features, labels)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(catalogues(), st.sampled_from(SUFFIXES))
def test_a_round_trip_keeps_the_hash(catalogue, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"items{suffix}"
        write_catalogue(catalogue, path)
        again = read_catalogue(path)
    assert (again.ids, again.texts, again.tags) == (catalogue.ids, catalogue.texts, catalogue.tags)
    assert again.hash == catalogue.hash


SMALL = Catalogue(["a", "b"], ["One", "Two"], np.array([[1, 2], [3, 4]], np.float32), [["x"], []])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_change_changes_the_hash(tmp_path, suffix):
    for other in (
        Catalogue(["a", "c"], SMALL.texts, SMALL.features, SMALL.tags),
        Catalogue(SMALL.ids, ["One", "two"], SMALL.features, SMALL.tags),
        Catalogue(SMALL.ids, SMALL.texts, SMALL.features + np.float32(1e-6), SMALL.tags),
        Catalogue(SMALL.ids, SMALL.texts, SMALL.features, [["x"], ["x"]]),
    ):
        write_catalogue(other, tmp_path / f"items{suffix}")
        assert read_catalogue(tmp_path / f"items{suffix}").hash != SMALL.hash


def test_a_parquet_file_that_was_edited_is_refused(tmp_path):
    path = tmp_path / "items.parquet"
    write_catalogue(SMALL, path)
    table = pa.parquet.read_table(path)
    edited = table.set_column(1, "text", pa.array(["One", "Two!"]))
    pa.parquet.write_table(edited.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(DataError, match="the content that its hash names"):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.csv", "id,text\na,One\na,Two\n", "item ids are unique.*row=3, column='id', value='a', first_row=2"),
        ("i.csv", "id,text\n,One\n", "an item has an id.*row=2"),
        ("i.csv", "id,name\na,One\n", r"a needed column is missing.*missing=\['text'\]"),
        ("i.csv", "id,text,feature_0\na,One,1\nb,Two,red\n", "finite numbers.*row=3, column='feature_0', value='red'"),
        ("i.csv", "id,text,feature_0\na,One,1\n\nb,Two,nan\n", "finite numbers.*row=4"),
        ("i.csv", "id,text,feature_0\na,One,1e60\n", "finite numbers.*row=2.*'1e60'"),
        ("i.csv", "", "not empty"),
        ("i.jsonl", '{"id": "a", "text": "One"}\n{"id": "b"}\n', "row=2, column='text', value='NoneType'"),
        ("i.jsonl", '{"id": "a", "text": "One"}\n[1]\n', "one JSON object.*row=2, value='list'"),
        ("i.jsonl", '{"id": "a", "text": "One"}\n\n{"id": "b", text}\n', "one JSON object.*row=3, column=13"),
        ("i.jsonl", '{"id": "a", "text": "", "features": [1, 2]}\n{"id": "b", "text": "", "features": [1]}\n',
         "every feature list has 2 numbers.*row=2"),
        ("i.jsonl", '{"id": "a", "text": "", "features": [1]}\n{"id": "b", "text": "", "features": ["x"]}\n', "row=2"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        read_catalogue(tmp_path / name)


def test_other_names_and_several_feature_columns(tmp_path):
    (tmp_path / "i.jsonl").write_text('{"sku": 7, "title": "One", "img": [1, 2], "img_bright": 3, "kinds": ["x"]}\n')
    columns = ItemColumns(id="sku", text="title", tags="kinds", features="img")
    catalogue = read_catalogue(tmp_path / "i.jsonl", columns)
    assert (catalogue.ids, catalogue.tags) == (("7",), (("x",),))
    assert catalogue.features.tolist() == [[1.0, 2.0, 3.0]]


def test_a_suffix_that_nobody_knows(tmp_path):
    with pytest.raises(SpecError, match=".parquet"):
        read_catalogue(tmp_path / "items.xlsx")
    with pytest.raises(SpecError, match=".parquet"):
        write_catalogue(SMALL, tmp_path / "items.xlsx")


@pytest.mark.parametrize("item", ["", " a", "a\n"])
def test_ids_that_could_not_be_told_apart_in_a_file(item):
    with pytest.raises(DataError, match="an item id is not empty and has no space around it"):
        Catalogue(["b", item], ["", ""])
