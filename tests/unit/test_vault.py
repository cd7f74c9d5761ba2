"""A store at rest: legible to the holder of its key alone, never lost to a wrong one, set aside when damaged."""

import os
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from persons import CALLS, CANARY, KEY, Person, act, bytes_of, call, memory, seen, vector, wish

from fedrec.device import cells
from fedrec.device.cells import Plain, Sealed, WrongKey
from fedrec.device.contents import Shown
from fedrec.device.store import Store
from fedrec.embed import vault
from fedrec.errors import DataError, RunError, SpecError

OTHER = bytes(32)
ALL = (
    "SELECT CAST(item AS BLOB) FROM events UNION ALL SELECT text FROM events UNION ALL SELECT content FROM preferences \
UNION ALL SELECT content FROM pages UNION ALL SELECT value FROM embeddings UNION ALL SELECT content FROM settings"
)


@pytest.fixture
def folder():
    with memory() as place:
        yield place


@pytest.fixture
def path(folder):
    return folder / "events"


def lived(path, key):
    """A store with something of everything, all of it telling."""
    with Store(path, key=key) as store:
        store.append([act(CANARY, 1, CANARY), act(CANARY, 2), act("tea", 3, CANARY)], pages=[Shown(1, 1, (CANARY,))])
        store.prefer(wish(CANARY, 4, said=CANARY))
        store.set("tuning", CANARY)
        store.keep("t", 1, vector(0.123456789, 9))
        return seen(store)


def raw(path, asked=ALL):
    with sqlite3.connect(path) as db:
        rows = [row[0] for row in db.execute(asked)]
    db.close()
    return rows


def test_nothing_said_or_done_is_legible_in_a_sealed_file(folder, path):
    lived(path, KEY)
    assert CANARY.encode() not in bytes_of(folder) and vector(0.123456789).tobytes() not in bytes_of(folder)
    lived(folder / "plain", None)
    assert (folder / "plain").read_bytes().count(CANARY.encode()) > 6
    assert vector(0.123456789).tobytes() in (folder / "plain").read_bytes()


def test_a_sealed_file_holds_what_a_plain_one_does(folder, path):
    assert lived(path, KEY) == lived(folder / "plain", None)
    with Store(path, key=KEY) as again, Store(folder / "plain") as plain:
        assert seen(again) == seen(plain)


def test_an_item_is_found_by_its_mark_and_no_two_cells_are_alike(path):
    with Store(path, key=KEY) as store:
        store.append([act("tea", text="x")] * 3 + [act("soup", text="x")])
    marks, texts = raw(path, "SELECT item FROM events"), raw(path, "SELECT text FROM events")
    assert sorted(Counter(marks).values()) == [1, 3] and len({*texts}) == 4
    with Store(path, key=KEY) as store:
        assert store.forget(item="tea") == 3 and store.columns().items == ("soup",)
    assert raw(path, "SELECT item FROM events") == [marks[-1]]


def test_the_same_item_has_another_mark_under_another_key():
    assert Sealed(KEY).mark("tea") == Sealed(KEY).mark("tea") != Sealed(OTHER).mark("tea")
    assert len(Sealed(KEY).mark("tea")) == 16 and b"tea" not in Sealed(KEY).mark("tea")


@pytest.mark.parametrize(
    ("made", "given", "rule"),
    [
        (KEY, OTHER, "the key that it was sealed with"),
        (KEY, None, "a sealed store is opened with its key"),
        (None, KEY, "not sealed is opened without a key"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_and_nothing_is_lost(folder, path, made, given, rule):
    held, before = lived(path, made), path.read_bytes()
    with pytest.raises(WrongKey, match=rule) as refusal:
        Store(path, key=given)
    assert isinstance(refusal.value, DataError) and refusal.value.remedy
    with pytest.raises(WrongKey):
        vault.opened(path, key=given)
    assert path.read_bytes() == before and KEY.hex() not in str(refusal.value)
    with Store(path, key=made) as store:
        assert seen(store) == held


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33])
def test_a_key_has_32_bytes(path, key):
    with pytest.raises(SpecError, match="32 bytes"):
        Store(path, key=key)
    assert not path.exists()


def test_a_file_that_never_held_anything_is_sealed_by_the_first_key(path):
    Store(path).close()
    Store(path, key=KEY).close()
    with pytest.raises(WrongKey):
        Store(path)


@pytest.mark.parametrize(
    "used",
    [
        lambda store: store.set("name", "value"),
        lambda store: store.undo(store.append([act()])[0]),
        lambda store: store.keep("t", 1, vector(1)),
        lambda store: store.append([], pages=[Shown(1, 1, ("tea",))]),
    ],
)
def test_a_file_that_held_something_once_is_not(path, used):
    with Store(path) as store:
        used(store)
    with pytest.raises(WrongKey):
        Store(path, key=KEY)


@pytest.mark.parametrize("place", range(9))
def test_a_cell_that_was_changed_or_moved_is_damage(path, place):
    lived(path, KEY)
    columns = ["events SET item", "events SET text", "preferences SET content", "pages SET content",
               "embeddings SET value", "settings SET content"]  # fmt: skip
    changes = [f"{column} = x'00' || {column.split()[-1]}" for column in columns] + [
        "events SET item = (SELECT item FROM events WHERE id = 3) WHERE id = 1",  # found as what it is not
        "events SET text = (SELECT text FROM events WHERE id = 2) WHERE id = 1",  # sealed for another place
        "events SET id = 9 WHERE id = 1",
    ]
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE {changes[place]}")
    db.close()
    with Store(path, key=KEY) as store, pytest.raises(DataError, match="sound file") as refusal:
        store.check()
    assert not isinstance(refusal.value, WrongKey) and CANARY not in str(refusal.value)


@pytest.mark.parametrize("change", ["x'00'", "CAST(proof || x'00' AS BLOB)", "'text'"])
def test_a_proof_that_was_changed_is_damage_and_no_wrong_key(path, change):
    lived(path, KEY)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE seal SET proof = {change}")
    db.close()
    with pytest.raises(DataError, match="sound file") as refusal:
        Store(path, key=KEY)
    assert not isinstance(refusal.value, WrongKey)


# Sealing a store that is not


def test_sealing_keeps_everything_and_leaves_nothing_legible(folder, path):
    held = lived(path, None)
    vault.encrypt(path, KEY)
    assert CANARY.encode() not in bytes_of(folder)
    with Store(path, key=KEY) as store:
        assert seen(store) == held and store.append([act()]) == [held["last"] + 1]


def test_a_store_is_sealed_once(path):
    lived(path, None)
    vault.encrypt(path, KEY)
    for key in (KEY, OTHER):
        with pytest.raises(WrongKey):
            vault.encrypt(path, key)
    with Store(path, key=KEY) as store, pytest.raises(WrongKey, match="sealed once"):
        store.seal(OTHER)
    Store(path, key=KEY).close()


def test_who_has_the_file_open_while_it_is_sealed_neither_writes_plainly_nor_takes_it_for_damaged(folder, path):
    lived(path, None)
    with Store(path) as plain:
        vault.encrypt(path, KEY)
        for use in (
            lambda: plain.append([act(CANARY)]),
            plain.columns,
            lambda: plain.set("a", CANARY),
            lambda: plain.forget(everything=True),
        ):
            with pytest.raises(WrongKey, match="as it was when it was opened"):
                use()
    assert CANARY.encode() not in bytes_of(folder)


def test_a_sealing_that_fails_changes_nothing(path, monkeypatch):
    held = lived(path, None)
    monkeypatch.setattr(cells.Sealed, "seal", lambda *given: 1 / 0)
    with Store(path) as store:
        with pytest.raises(ZeroDivisionError):
            store.seal(KEY)
        assert seen(store) == held and store.append([act()])


def test_life_goes_on_in_a_store_that_was_sealed(path):
    person = Person()
    for place, step in enumerate(CALLS):
        with Store(path, key=KEY if place > 4 else None) as store:
            call(store, step)
            call(person, step)
            assert seen(store) == person.seen()
        if place == 4:
            vault.encrypt(path, KEY)


# Damage


def damage(path, start=0):
    content = path.read_bytes()
    path.write_bytes(content[:start] + os.urandom(5000) + content[start + 5000 :])
    return path.read_bytes()


def test_a_sound_store_is_opened_where_it_is(path):
    held = lived(path, KEY)
    store, aside = vault.opened(path, key=KEY)
    with store:
        assert aside is None and seen(store) == held


@pytest.mark.parametrize("start", [0, 9000])
def test_a_damaged_store_is_set_aside_whole_and_a_new_one_begins(folder, path, start):
    lived(path, KEY)
    damaged = damage(path, start)
    store, aside = vault.opened(path, key=KEY)
    with store:
        assert len(store) == 0 and store.append([act()]) == [1]
    assert aside.read_bytes() == damaged and aside.parent == folder
    again, nothing = vault.opened(path, key=KEY)
    with again:
        assert nothing is None and len(again) == 1


def test_a_column_that_holds_what_was_never_stored_is_found_at_opening(path):
    lived(path, None)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET kind = 99")
    db.close()
    store, aside = vault.opened(path)
    store.close()
    assert aside is not None and raw(aside, "SELECT kind FROM events") == [99] * 3


def test_quarantine_overwrites_nothing_and_takes_the_journal_along(folder, path):
    places = []
    for number in range(3):
        path.write_bytes(b"%d" % number)
        path.with_name("events-journal").write_bytes(b"journal %d" % number)
        places.append(vault.quarantine(path))
        assert not path.exists() and not path.with_name("events-journal").exists()
    assert [place.read_bytes() for place in places] == [b"0", b"1", b"2"]
    assert [place.with_name(place.name + "-journal").read_bytes() for place in places] == [
        b"journal 0", b"journal 1", b"journal 2",
    ]  # fmt: skip


def test_of_many_who_find_the_damage_one_sets_it_aside(folder, path):
    lived(path, None)
    damage(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: vault.opened(path), range(8)))
    for store, _ in found:
        store.append([act()])
        store.close()
    assert len([aside for _, aside in found if aside]) == 1
    assert len([*folder.glob("events.damaged-????????-?")]) == 1
    with Store(path) as store:
        assert len(store) == 8


@pytest.mark.parametrize("trouble", ["newer", "folder"])
def test_what_is_no_damage_is_not_set_aside(folder, path, trouble):
    if trouble == "newer":
        lived(path, None)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        path.mkdir()
    with pytest.raises(RunError):
        vault.opened(path)
    assert [file.name for file in folder.iterdir() if "damaged" in file.name] == []


def test_plain_cells_are_what_they_hold():
    assert Plain().pair("p", "a", "b") == ("a", "b") and Plain().seal("p", b"c") == b"c"


def test_the_key_of_marks_is_not_that_of_cells():
    assert cells._derived(KEY, b"marks") != cells._derived(KEY, b"cells") and KEY not in (
        cells._derived(KEY, b"marks"), cells._derived(KEY, b"cells"),
    )  # fmt: skip
