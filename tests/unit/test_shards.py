"""People on disk: written once, whole or not at all; mapped one file at a time; never another person's events."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedrec.datasets import load, pieces, shards, synthetic
from fedrec.datasets.dataset import Dataset, Stream
from fedrec.datasets.detect import detect
from fedrec.datasets.notes import Notes
from fedrec.device.event import Event, Kind
from fedrec.device.history import SCHEMA
from fedrec.errors import DataError, SpecError
from fedrec.model.catalogue import Catalogue
from fedrec.population import source
from fedrec.population.shards import Manifest, Shards
from fedrec.population.source import Population

SECRET = "my own words"
ITEMS = Catalogue(["a", "b", "c"], ["A", "B", "C"])


def act(item, time=0, **more):
    return Event(kind=Kind.CLICK, item=item, time=time, **more)


def dataset():
    """Seven people: somebody who did nothing, somebody who searched and reviewed, equal texts in two files."""
    people = Population.of(
        [
            [act(0, 3), act(1, 1)],
            [],
            [Event(kind=Kind.SEARCH, text=SECRET, time=5), act(2, 6, rating=0.5)],
            [act(2, 9, text="both")],
            [act(1, 4), act(1, 5, text="both"), act(0, 6)],
            [act(0)],
            [],
        ],
        [f"person {n}" for n in range(7)],
    )
    return Dataset("seven", ITEMS, people, Notes.of("left out, the item is not in the catalogue", 4))


@pytest.fixture
def folder(tmp_path):
    """Files of three, three and one."""
    pieces = (dataset().population.between(n, n + 1) for n in range(7))
    shards.write(Stream("seven", ITEMS, pieces, dataset().notes), tmp_path / "people", clients=3)
    return tmp_path / "people"


def content(history):
    columns = (history.kinds, history.items, history.weights, np.nan_to_num(history.ratings, nan=-1), history.times)
    return [column.tolist() for column in columns] + [history.texts]


def change(folder, edit):
    manifest = json.loads((folder / "people.json").read_text())
    edit(manifest)
    (folder / "people.json").write_text(json.dumps(manifest))


def test_what_is_read_is_what_was_written(folder):
    again, whole = shards.read(folder), dataset()
    assert sorted(path.name for path in folder.glob("part*")) == [f"part-0000{n}.arrow" for n in range(3)]
    assert [shard.clients for shard in again.population.manifest.shards] == [3, 3, 1]
    assert (again.hash, again.name, again.catalogue.hash) == (whole.hash, "seven", ITEMS.hash)
    assert again.notes.lines() == whole.notes.lines()
    assert (len(again.population), again.population.sizes.tolist()) == (7, [2, 0, 2, 1, 3, 1, 0])
    assert [content(history) for history in again.population] == [content(history) for history in whole.population]
    assert [content(again.population[n]) for n in range(7)] == [content(history) for history in whole.population]
    assert again.population.written() == whole.population.written() == ["both", SECRET]


@pytest.mark.parametrize("wanted", [[5, 0, 2, 2, 6, 3], [0, 1, 2, 3], [1], [], [6, 6], [4, 3, 0]])
def test_clients_come_in_the_order_asked_for(folder, wanted):
    people, clients = dataset().population, np.array(wanted, np.int64)
    for taken in (Shards.open(folder).take(clients), people.take(clients)):
        assert [content(history) for history in taken] == [content(people[client]) for client in wanted]
    assert people.take(clients).names == tuple(people.names[client] for client in wanted)
    assert Shards.open(folder).take(clients).names == ()


@pytest.mark.parametrize("wanted", [[7], [-1], [0, 99]])
def test_nobody_is_taken_who_is_not_there(folder, wanted):
    with pytest.raises(IndexError, match="from 0 to 6"):
        Shards.open(folder).take(np.array(wanted))
    with pytest.raises(IndexError, match="from 0 to 3"):  # person 4 is in the file, and not in the run
        Shards.open(folder).head(4).take(np.array([4]))


@pytest.mark.parametrize("clients", range(8))
def test_the_first_people(folder, clients, monkeypatch):
    monkeypatch.setattr(source, "BLOCK", 2)
    whole, some = dataset().population.head(clients), Shards.open(folder).head(clients)
    assert (len(some), some.sizes.tolist(), some.hash) == (clients, whole.sizes.tolist(), whole.hash)
    for people in (whole, some):
        blocks = list(people.blocks())
        assert [first + n for first, block in blocks for n in range(len(block))] == list(range(clients))
        assert all(len(block) <= 2 for _, block in blocks)
        assert [content(history) for _, block in blocks for history in block] == [content(one) for one in whole]
    with pytest.raises(DataError, match="at most as many clients"):
        some.head(clients + 1)


def test_the_hash_does_not_know_about_files(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "HASHED_ROWS", 4)  # so that blocks of the hash span files
    found = {
        shards.write(Stream.of(dataset()), tmp_path / str(clients), clients=clients).hash for clients in (1, 2, 5, 99)
    }
    assert found == {dataset().population.hash}
    other = dataset().population.take(np.array([1, 0, 2, 3, 4, 5, 6]))
    assert shards.write(Stream("other", ITEMS, [other]), tmp_path / "other").hash not in found


def test_a_population_of_nobody(tmp_path):
    shards.write(Stream("nobody", ITEMS, []), tmp_path / "nobody")
    again = shards.read(tmp_path / "nobody").population
    assert (len(again), list(again), list(again.blocks()), again.written()) == (0, [], [], [])
    assert again.hash == Population.of([]).hash


def test_one_file_at_a_time_is_mapped(folder):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what is mapped")

    def mapped():
        return {line.split()[-1] for line in maps.read_text().splitlines() if str(folder) in line}

    people, kept = Shards.open(folder), []
    for client in (0, 3, 4, 2):  # the third file has no event to map
        kept.append((people[client], people.take(np.arange(6))))
        assert len(mapped()) == 1
    view = people._shard(0)  # the check can fail: who keeps a view keeps its file
    kept.append(people[4])
    assert len(mapped()) == 2 and len(view) == 3


def test_a_write_that_breaks_off_leaves_nothing(tmp_path):
    def broken():
        yield dataset().population
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        shards.write(Stream("seven", ITEMS, broken()), tmp_path / "people", clients=3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_once(folder, tmp_path):
    with pytest.raises(SpecError, match="new folder"):
        shards.write(Stream.of(dataset()), folder)
    (tmp_path / "other.unfinished").mkdir()
    with pytest.raises(SpecError, match="one process"):
        shards.write(Stream.of(dataset()), tmp_path / "other")


def test_it_tells_how_far_it_is(tmp_path):
    told = []
    shards.write(Stream.of(dataset()), tmp_path / "people", told.append, clients=3)
    assert sum(told) == 7
    told.clear()
    shards.verify(tmp_path / "people", told.append)
    assert sum(told) == sum(path.stat().st_size for path in (tmp_path / "people").glob("part*"))


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda folder: (folder / "people.json").unlink(), "has a manifest"),
        (lambda folder: (folder / "people.json").write_text("{"), "is JSON"),
        (lambda folder: (folder / "people.json").write_text("[]"), "has the format 'fedrec people 1'"),
        (lambda folder: change(folder, lambda m: m.update(format="fedrec people 2")), "got .*'fedrec people 2'"),
        (lambda folder: change(folder, lambda m: m.pop("hash")), "is complete"),
        (lambda folder: change(folder, lambda m: m["shards"][0].pop("bytes")), "is complete"),
        (lambda folder: change(folder, lambda m: m.update(clients=8)), "counts what its files hold"),
        (lambda folder: change(folder, lambda m: m["shards"][1].update(events=9)), "holds what its manifest says"),
        (lambda folder: change(folder, lambda m: m["shards"].pop()), "counts what its files hold"),
        (lambda folder: (folder / "part-00001.arrow").unlink(), "part-00001.arrow.*bytes=None"),
        (lambda folder: torn(folder / "part-00001.arrow"), "has the length it was written with"),
        (lambda folder: blank(folder / "part-00001.arrow"), "cannot open the population file"),
    ],
)
def test_a_damaged_folder_is_refused_when_it_is_opened(folder, damage, rule):
    damage(folder)
    with pytest.raises(DataError, match=rule) as caught:
        shards.read(folder)
    assert caught.value.remedy and SECRET not in str(caught.value)


def torn(path):
    path.write_bytes(path.read_bytes()[:-8])


def blank(path):
    path.write_bytes(bytes(path.stat().st_size))


def test_a_missing_list_of_texts_is_refused_when_it_is_needed(folder):
    (folder / "words.parquet").unlink()
    with pytest.raises(DataError, match="distinct texts"):
        shards.read(folder).population.written()


def test_one_changed_byte_is_found_by_reading_all(folder):
    path = folder / "part-00001.arrow"
    assert shards.verify(folder) == Manifest.read(folder)
    whole = path.read_bytes()
    place = whole.index(np.array([4, 5, 6], np.int64).tobytes())  # the times of person 4
    path.write_bytes(whole[:place] + b"\7" + whole[place + 1 :])
    assert shards.read(folder).population[4].times.tolist() == [7, 5, 6]  # opening cannot see it
    with pytest.raises(DataError, match="has the bytes it was written with.*part-00001"):
        shards.verify(folder)


def test_a_hash_of_other_events_is_found(folder):
    change(folder, lambda manifest: manifest.update(hash="0" * 64))
    with pytest.raises(DataError, match="names the hash of its events"):
        shards.verify(folder)


def test_nothing_private_in_a_repr(folder):
    people = Shards.open(folder)
    assert repr(people) == "Shards(7 clients, 9 events, contents withheld)"
    assert SECRET not in repr(people.manifest) and "person" not in repr(people.manifest)


def test_one_door(folder):
    assert detect(folder) == "shards"
    assert load("shards", folder).hash == dataset().hash
    with pytest.raises(DataError, match="Check the path"):
        load("shards", folder / "nowhere")


def test_the_synthetic_set_is_the_same_in_pieces():
    options = {"users": "600", "items": "64", "seed": "3", "phrases": "2"}
    parts = list(pieces("synthetic", None, options).people)
    assert [len(part) for part in parts] == [256, 256, 88]
    whole = load("synthetic", None, options).population
    joined = Population.joined(parts)
    assert (joined.hash, joined.names) == (whole.hash, whole.names)
    assert joined.names == tuple(f"reader-{n:06d}" for n in range(600))
    with pytest.raises(SpecError, match="made, not read"):
        pieces("synthetic", Path("here"), options)


@pytest.mark.parametrize(("phrases", "most"), [(1, 256), (3, 768)])
def test_a_bound_on_wordings_holds_however_many_speak(phrases, most):
    few, many = (synthetic.generate(users=users, items=64, phrases=phrases) for users in (300, 1200))
    free = synthetic.generate(users=1200, items=64)
    assert len(few.population.written()) <= len(many.population.written()) <= most < len(free.population.written())
    silent = [name for name in SCHEMA.names if name not in ("text", "rating")]
    assert many.population.table.select(silent) == free.population.table.select(silent)  # only words differ
