"""MovieLens, three formats, and every way in which the files can be wrong."""

import zipfile

import numpy as np
import pytest

from fedrec.datasets import events, load
from fedrec.datasets.movielens import film_text
from fedrec.device.event import Kind
from fedrec.errors import DataError

FLAGS = "|".join(str(int(n in (1, 16))) for n in range(19))
ITEMS = f"1|Suspects, The (1995)|01-Jan-1995||url|{FLAGS}\n2|Été (1996)|||url|{FLAGS.replace('1', '0')}\n"
EVENTS = "7\t1\t5\t200\n9\t2\t1\t100\n7\t2\t3\t100\n9\t1\t2\t100\n"


def ml100k(folder, ratings=EVENTS, films=ITEMS):
    (folder / "u.data").write_text(ratings, "utf-8")
    (folder / "u.item").write_text(films, "latin-1")
    return folder


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("Usual Suspects, The (1995)", "The Usual Suspects (1995)"),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)",
         "The City of Lost Children (La Cité des enfants perdus) (1995)"),
        ("Good, The Bad and The Ugly, The (1966)", "The Good, The Bad and The Ugly (1966)"),
        ("I, Robot (2004)", "I, Robot (2004)"),
        ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_articles_return_to_the_front(title, text):
    assert film_text(title, []) == text


def test_100k_worked_by_hand(tmp_path):
    loaded = load("movielens-100k", ml100k(tmp_path))
    assert loaded.catalogue.ids == ("1", "2")
    assert loaded.catalogue.texts == ("The Suspects (1995) [genre: Action, Thriller]", "Été (1996)")
    assert loaded.catalogue.tags == (("Action", "Thriller"), ())
    assert loaded.population.names == ("7", "9")
    seven, nine = loaded.population
    assert (seven.items.tolist(), seven.times.tolist(), seven.ratings.tolist()) == ([1, 0], [100, 200], [0.5, 1.0])
    assert (nine.items.tolist(), nine.ratings.tolist()) == ([1, 0], [0.0, 0.25])  # a tie keeps the order of the file
    assert set(seven.kinds) == {Kind.RATE}
    assert not loaded.notes


def test_1m(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::20::4::978300760\n1::10::5::978302109\n", "utf-8")
    (tmp_path / "movies.dat").write_text("10::Été: Part 2, The (1995)::Drama|War\n20::Two (1996)::Comedy\n", "latin-1")
    loaded = load("movielens-1m", tmp_path)
    assert loaded.catalogue.texts == ("The Été: Part 2 (1995) [genre: Drama, War]", "Two (1996) [genre: Comedy]")
    assert loaded.population[0].items.tolist() == [1, 0]
    assert loaded.population[0].ratings.tolist() == [0.75, 1.0]


def ml25m(folder, ratings="1,10,0.5,100\n1,20,5.0,50\n", head="userId,movieId,rating,timestamp\n"):
    (folder / "ratings.csv").write_text(head + ratings, "utf-8")
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n10,"Été, The (1995)",Drama|IMAX\n20,Two,(no genres listed)\n', "utf-8"
    )
    return folder


def test_25m_has_half_stars(tmp_path):
    loaded = load("movielens-25m", ml25m(tmp_path))
    assert loaded.catalogue.texts == ("The Été (1995) [genre: Drama, IMAX]", "Two")
    assert loaded.population[0].ratings.tolist() == [1.0, 0.0]


def test_a_zip_is_read_like_its_folder(tmp_path):
    ml100k(tmp_path)
    archive = tmp_path / "get" / "ml-100k.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("u.data", "u.item"):
            packed.write(tmp_path / name, f"ml-100k/{name}")
    expected = load("movielens-100k", tmp_path).hash
    assert load("movielens-100k", archive).hash == expected
    assert load("movielens-100k", archive.parent).hash == expected  # where `fedrec data get` leaves it


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_truncated_zip(tmp_path, keep):
    archive = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("u.data", EVENTS * 50)
        packed.writestr("u.item", ITEMS)
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(DataError, match="zip archive must be whole"):
        load("movielens-100k", archive)


def test_a_zip_whose_bytes_changed(tmp_path):
    archive = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("u.data", EVENTS)
        packed.writestr("u.item", ITEMS)
    archive.write_bytes(archive.read_bytes().replace(b"7\t1\t5", b"7\t1\t1"))
    with pytest.raises(DataError, match="zip archive must be whole"):
        load("movielens-100k", archive)


@pytest.mark.parametrize(
    ("line", "reason", "column", "value"),
    [
        ("7\t99\t5\t200", events.UNKNOWN_ITEM, "item", "99"),
        ("7\t1\tNaN\t200", events.BAD_RATING, "rating", "NaN"),
        ("7\t1\t\t200", events.BAD_RATING, "rating", ""),
        ("7\t1\tgood\t200", events.BAD_RATING, "rating", "good"),
        ("7\t1\t9\t200", events.BAD_RATING, "rating", "9"),
        ("7\t1\t5\t99999999999", events.FUTURE, "time", "99999999999"),
        ("7\t1\t5\tsoon", events.BAD_TIME, "time", "soon"),
        ("7\t1\t5\t", events.BAD_TIME, "time", ""),
        ("\t1\t5\t200", events.NO_USER, "user", ""),
    ],
)
def test_a_bad_row_is_skipped_counted_and_located(tmp_path, line, reason, column, value):
    good = load("movielens-100k", ml100k(tmp_path))
    loaded = load("movielens-100k", ml100k(tmp_path, EVENTS.replace("9\t2", f"\n{line}\n9\t2", 1)))
    assert loaded.hash == good.hash
    [note] = loaded.notes.entries
    assert (note.reason, note.rows) == (reason, 1)
    assert note.examples[0] == ("u.data", 3, column, value)  # row 2 is blank


def test_every_row_is_kept_or_counted_once(tmp_path):
    ratings = EVENTS + "\t99\tNaN\tsoon\n" * 8 + "7\t98\tNaN\t1\n" * 7
    loaded = load("movielens-100k", ml100k(tmp_path, ratings))
    assert loaded.population.table.num_rows + sum(note.rows for note in loaded.notes.entries) == 19
    assert (loaded.notes.count(events.NO_USER), loaded.notes.count(events.UNKNOWN_ITEM)) == (8, 7)
    assert all(len(note.examples) == 5 for note in loaded.notes.entries)


def test_someone_with_one_event_is_kept_and_noted(tmp_path):
    loaded = load("movielens-100k", ml100k(tmp_path, EVENTS + "5\t1\t5\t10\n"))
    assert loaded.population.names == ("7", "9", "5")
    assert loaded.notes.count(events.ONE_EVENT) == 1


def test_someone_without_a_usable_event_does_not_exist(tmp_path):
    loaded = load("movielens-100k", ml100k(tmp_path, "5\t99\t5\t10\n" + EVENTS))
    assert loaded.population.names == ("7", "9")
    assert np.diff(loaded.population.offsets).tolist() == [2, 2]


def test_no_usable_event_at_all(tmp_path):
    with pytest.raises(DataError, match="no event in the file can be used.*not in the catalogue: 1"):
        load("movielens-100k", ml100k(tmp_path, "5\t99\t5\t10\n"))


def test_a_row_with_missing_values(tmp_path):
    with pytest.raises(DataError, match="every row has the columns of the first.*row=3, expected=4, values=2"):
        load("movielens-100k", ml100k(tmp_path, "7\t1\t5\t200\n9\t2\t1\t100\n7\t1\n"))


def test_a_missing_column(tmp_path):
    with pytest.raises(DataError, match=r"a needed column is missing.*ratings.csv.*missing=\['timestamp'\]"):
        load("movielens-25m", ml25m(tmp_path, "1,10,5\n", "userId,movieId,rating\n"))


def test_bytes_that_are_not_utf8(tmp_path):
    ml25m(tmp_path)
    with (tmp_path / "ratings.csv").open("ab") as file:
        file.write(b"1,10,5,\xe9\n")
    with pytest.raises(DataError, match="must be UTF-8") as caught:
        load("movielens-25m", tmp_path)
    assert caught.value.got["row"] == 4
    assert (tmp_path / "ratings.csv").read_bytes()[caught.value.got["byte"]] == 0xE9


@pytest.mark.parametrize(
    ("films", "message"),
    [
        (ITEMS + ITEMS.splitlines()[0] + "\n", "item ids are unique.*u.item.*row=3.*value='1'.*first_row=1"),
        ("1|One|1995\n", "a film has 24 fields.*row=1, fields=3"),
        ("", "a data file is not empty"),
    ],
)
def test_a_wrong_film_file(tmp_path, films, message):
    with pytest.raises(DataError, match=message):
        load("movielens-100k", ml100k(tmp_path, films=films))


def test_an_empty_ratings_file(tmp_path):
    with pytest.raises(DataError, match="a data file is not empty.*u.data"):
        load("movielens-100k", ml100k(tmp_path, ""))


def test_a_folder_with_half_of_the_files(tmp_path):
    (ml100k(tmp_path) / "u.item").unlink()
    with pytest.raises(DataError, match="folder is not complete"):
        load("movielens-100k", tmp_path)
