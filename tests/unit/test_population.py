"""Many histories in one table."""

import numpy as np
import pyarrow as pa
import pytest

from fedrec.device.event import Event, Kind
from fedrec.device.history import SCHEMA
from fedrec.errors import DataError
from fedrec.population import source
from fedrec.population.source import Population

SECRET = "my own words"


def click(item, time=0, **more):
    return Event(kind=Kind.CLICK, item=item, time=time, **more)


def small():
    return Population.of([[click(1, 5), click(0, 2)], [], [click(2, 1, text=SECRET)]], ["ann", "bob", "eve"])


def test_of_sorts_each_history_and_keeps_the_empty_one():
    people = small()
    assert [history.items.tolist() for history in people] == [[0, 1], [], [2]]
    assert (len(people), people.names) == (3, ("ann", "bob", "eve"))


def test_from_columns_groups_by_owner_and_keeps_ties_in_order():
    rows = [click(item, time) for item, time in [(0, 9), (1, 3), (2, 3), (3, 1), (4, 3)]]
    columns = pa.concat_tables([Population.of([[row]]).table for row in rows])
    people = Population.from_columns(np.array([1, 0, 0, 1, 0]), columns, ["a", "b", "nobody"])
    assert [history.items.tolist() for history in people] == [[1, 2, 4], [3, 0], []]


def test_save_and_open(tmp_path):
    small().save(tmp_path / "p.arrow")
    again = Population.open(tmp_path / "p.arrow")
    assert (again.hash, again.names, again[2].texts) == (small().hash, small().names, [SECRET])


def test_a_torn_file(tmp_path):
    small().save(tmp_path / "p.arrow")
    (tmp_path / "p.arrow").write_bytes((tmp_path / "p.arrow").read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot open the population file"):
        Population.open(tmp_path / "p.arrow")


def test_the_hash_is_of_content_not_of_chunks(monkeypatch):
    monkeypatch.setattr(source, "HASHED_ROWS", 2)
    whole = small()
    pieces = [whole.table.slice(row, 1) for row in range(whole.table.num_rows)]
    chunked = Population(pa.concat_tables(pieces), whole.offsets, whole.names)
    assert chunked.table.column("item").num_chunks == 3
    assert chunked.hash == whole.hash
    padded = pa.concat_tables([whole.table.slice(2, 1), whole.table]).combine_chunks().slice(1)
    assert Population(padded, whole.offsets, whole.names).hash == whole.hash


@pytest.mark.parametrize(
    "other",
    [
        [[click(1, 5), click(0, 2)], [click(2, 1, text=SECRET)], []],
        [[click(1, 5), click(0, 3)], [], [click(2, 1, text=SECRET)]],
        [[click(1, 5), click(0, 2)], [], [click(2, 1, text="")]],
        [[click(1, 5), click(0, 2)], [], [click(2, 1, text=SECRET, weight=2.0)]],
        [[click(1, 5), click(0, 2)], [], [click(2, 1, text=SECRET, rating=0.0)]],
    ],
)
def test_any_change_changes_the_hash(other, monkeypatch):
    monkeypatch.setattr(source, "HASHED_ROWS", 2)  # so that the last event is in the second block
    assert Population.of(other).hash != small().hash


def test_the_hash_ignores_names():
    assert Population(small().table, small().offsets, ["x", "y", "z"]).hash == small().hash


def test_no_content_in_a_repr():
    assert SECRET not in repr(small()) + str(small())
    assert "ann" not in repr(small())


def test_another_schema_is_refused():
    with pytest.raises(DataError, match="event schema"):
        Population(pa.table({"item": [1]}), np.array([0, 1]), ["a"])


def test_an_empty_population_has_a_hash():
    assert Population(SCHEMA.empty_table(), np.array([0]), []).hash != small().hash
