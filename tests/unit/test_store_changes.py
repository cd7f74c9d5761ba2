"""What a person does, says and takes back: ids, preferences, pages, settings, and what forgetting takes of each."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from persons import CANARY, KEY, act, bytes_of, memory, seen, vector, wish

from fedrec.device.act import Act
from fedrec.device.contents import Contents, Learnt, Shown
from fedrec.device.event import Kind
from fedrec.device.recall import history_of
from fedrec.device.store import Store
from fedrec.embed.preference import Polarity, Preference, Scope
from fedrec.errors import DataError, SpecError

VERSION_1 = f"""
PRAGMA application_id = {0x66656472};
PRAGMA user_version = 1;
CREATE TABLE events (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind INTEGER NOT NULL,
    item TEXT NOT NULL, text TEXT NOT NULL, weight REAL NOT NULL, rating REAL);
CREATE INDEX events_by_time ON events (time, id);
CREATE TABLE embeddings (task TEXT NOT NULL, round INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (task, round));
CREATE TABLE sweep (erased INTEGER NOT NULL, swept INTEGER NOT NULL, forgets INTEGER NOT NULL);
INSERT INTO sweep VALUES (2, 2, 2);
INSERT INTO events VALUES (3, 9, 1, 'tea', '', 0.1, NULL), (7, 5, 3, 'soup', 'süß', 1.0, 0.25);
INSERT INTO embeddings VALUES ('task', 4, x'0000803f');
"""


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request):
    return request.param


@pytest.fixture
def folder():
    with memory() as place:
        yield place


@pytest.fixture
def store(folder, key):
    with Store(folder / "events", key=key) as store:
        yield store


def shown(store, number, *items, time=0):
    store.append([], pages=[Shown(number, time, items)])


def test_columns_are_in_time_order_with_their_ids(store):
    assert store.append([act("soup", 9), Act(kind=Kind.SEARCH, text="warm", time=3)]) == [1, 2]
    assert store.append([act("tea", 3, rating=0.25, weight=0.1)]) == [3]
    columns = store.columns()
    assert columns.ids.tolist() == [2, 3, 1] and columns.times.tolist() == [3, 3, 9]
    assert columns.kinds.tolist() == [Kind.SEARCH, Kind.CLICK, Kind.CLICK] and columns.kinds.dtype == np.int8
    assert columns.items == ("", "tea", "soup") and columns.texts == ("warm", "", "")
    assert columns.weights.tolist() == [1, np.float32(0.1), 1] and columns.weights.dtype == np.float32
    assert np.isnan(columns.ratings).tolist() == [True, False, True] and columns.ratings[1] == 0.25
    assert len(columns) == len(store) == 3


def test_an_empty_store_has_empty_columns_of_the_same_types(store):
    columns = store.columns()
    assert [column.dtype for column in (columns.ids, columns.kinds, columns.times, columns.weights)] == [
        np.int64, np.int8, np.int64, np.float32,
    ]  # fmt: skip
    assert len(columns) == 0 and columns.items == columns.texts == ()
    assert store.preferences() == store.pages(newest=3) == [] and store.last_change() == 0


def test_history_is_over_the_rows_of_a_catalogue(store):
    store.append([act("soup", 1), act("tea", 2), Act(kind=Kind.SEARCH, text="warm", time=3)])
    assert history_of(store, {"tea": 7}).items.tolist() == [7, -1]
    assert history_of(store, {"tea": 7}).texts == ["", "warm"]


def test_no_id_is_ever_given_twice(store):
    assert store.append([act(), act()]) == [1, 2]
    assert store.prefer(wish()) == 3
    assert store.undo(3) and store.undo(2)
    assert store.append([act()]) == [4]
    store.forget(everything=True)
    assert (store.prefer(wish()), store.append([act()])) == (5, [6])


def test_a_change_is_undone_once(store, folder, key):
    store.append([act("tea", text=CANARY)])
    store.prefer(wish("soup", said=CANARY))
    assert [number for number, _ in store.preferences()] == [2] and store.last_change() == 2
    assert store.undo(2) and not store.undo(2) and store.last_change() == 1 and store.preferences() == []
    assert store.undo(1) and not store.undo(1) and store.last_change() == 0 and len(store) == 0
    assert not store.undo(0) and not store.undo(99)
    assert CANARY.encode() not in bytes_of(folder)


def test_undoing_an_event_leaves_what_was_said_of_its_item(store):
    store.append([act("tea", 1), act("tea", 2)])
    store.prefer(wish("tea", 3))
    shown(store, 9, "tea")
    shown(store, 10, "soup")
    assert store.undo(1) and len(store) == 1 and len(store.preferences()) == 1
    assert store.pages(newest=5) == [(10, ("soup",))]


def test_what_was_said_comes_back_as_it_was(store):
    said = Preference(polarity=Polarity.NEVER, scope=Scope.TAG, about="süß\0", said="no “süß”!", time=-5)
    store.prefer(said)
    assert store.preferences() == [(1, said)]


def test_the_newest_pages_come_first_and_a_thousand_are_kept(store):
    store.append([], pages=[Shown(number, number, ("tea", str(number))) for number in range(1, 1004)])
    assert store.pages(newest=2) == [(1003, ("tea", "1003")), (1002, ("tea", "1002"))]
    assert len(store.pages(newest=10**6)) == 1000


def test_pages_of_before_a_forgetting_are_not_stored_after_it(store):
    seen_at = store.forgets
    store.forget(item="tea")
    store.append([], pages=[Shown(1, 1, ("tea",))], forgets=seen_at)
    assert store.pages(newest=9) == []
    store.append([], pages=[Shown(1, 1, ("soup",))], forgets=store.forgets)
    assert store.pages(newest=9) == [(1, ("soup",))]


def test_settings_are_kept_by_name_and_through_every_forgetting(store):
    assert store.setting("consent") is None
    store.set("consent", '{"contribute": false}')
    store.set("spent", "3.5")
    store.set("consent", "{}")
    store.forget(everything=True)
    assert (store.setting("consent"), store.setting("spent")) == ("{}", "3.5")
    store.set("consent", None)
    store.set("nothing", None)
    assert store.setting("consent") is None


def test_forgetting_an_item_takes_what_names_it(store):
    store.append([act("tea"), act("soup")])
    for about, scope in (("tea", Scope.ITEM), ("tea", Scope.TAG), ("soup", Scope.ITEM)):
        store.prefer(wish(about, scope=scope))
    shown(store, 8, "soup", "tea")
    shown(store, 9, "soup")
    assert store.forget(item="tea") == 2
    assert store.columns().items == ("soup",)
    assert [number for number, _ in store.preferences()] == [4, 5] and [page for page, _ in store.pages(newest=9)] == [
        9
    ]


def test_forgetting_what_is_old(store):
    store.append([act("tea", 1), act("tea", 5)])
    store.prefer(wish("tea", 4))
    store.prefer(wish("tea", 5))
    shown(store, 8, "tea", time=4)
    shown(store, 9, "tea", time=5)
    assert store.forget(before=5) == 2
    assert store.columns().ids.tolist() == [2] and [number for number, _ in store.preferences()] == [4]
    assert store.pages(newest=9) == [(9, ("tea",))]


def test_forgetting_by_ids_takes_events_wishes_and_the_pages_that_show_them(store):
    store.append([act("tea"), act("soup"), act("jam"), Act(kind=Kind.SEARCH, text="warm")])
    store.prefer(wish("soup"))
    for number, item in enumerate(("tea", "soup", "jam", ""), 8):
        shown(store, number, item)
    assert store.forget(ids={1, 3, 4, 5, 77}) == 4
    assert store.columns().items == ("soup",) and store.preferences() == []
    assert [page for page, _ in store.pages(newest=9)] == [11, 9]
    assert store.forget(ids=[]) == 0 and len(store) == 1
    assert store.forget(ids=[2], item="tea") == 0 and store.forget(ids=[2], before=1) == 1


def test_what_is_to_be_forgotten_is_said(store):
    store.append([act()])
    for wrong in ({}, {"everything": True, "item": "tea"}, {"everything": True, "ids": []}):
        with pytest.raises(SpecError, match="what to forget is said"):
            store.forget(**wrong)
    assert len(store) == 1


def test_a_damaged_wish_keeps_nobody_from_forgetting_everything(store, folder):
    store.append([act(text=CANARY)])
    store.prefer(wish())
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE preferences SET content = x'00'")
    db.close()
    with pytest.raises(DataError, match="sound file"):
        store.preferences()
    with pytest.raises(DataError, match="sound file"):
        store.forget(item="tea")
    assert len(store) == 1 and store.forget(everything=True) == 2 and seen(store)["events"] == []
    assert CANARY.encode() not in bytes_of(folder)


def test_retention_takes_old_pages_and_leaves_wishes(store, folder, key):
    store.append([act("tea", 1)], pages=[Shown(1, 1, (CANARY,)), Shown(2, 5, ("soup",))])
    store.prefer(wish("tea", 1))
    store.keep("t", 1, vector(1))
    assert store.retain(newest=9, since=1) == 0 and len(store.pages(newest=9)) == 2
    assert store.retain(newest=9, since=5) == 1
    assert store.pages(newest=9) == [(2, ("soup",))] and len(store.preferences()) == 1
    assert store.before("t", 2) is not None and CANARY.encode() not in bytes_of(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.prefer(wish(CANARY + "\ud800")),
        lambda store: store.prefer(wish(said=CANARY + "\ud800")),
        lambda store: store.prefer(wish(time=2**63)),
        lambda store: shown(store, 1, CANARY + "\ud800"),
        lambda store: shown(store, 1, "tea", time=-(2**63) - 1),
        lambda store: store.set(CANARY + "\ud800", "x"),
        lambda store: store.set("x", CANARY + "\ud800"),
        lambda store: store.forget(item=CANARY + "\ud800"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_words_without_it(store, change):
    before = seen(store)
    with pytest.raises(DataError, match="made of characters|Unix seconds") as refusal:
        change(store)
    assert CANARY not in str(refusal.value) and refusal.value.__cause__ is None
    assert seen(store) == before


@pytest.mark.parametrize(
    "change",
    [
        'preferences SET content = CAST(\'[9, "item", "a", ""]\' AS BLOB)',
        'preferences SET content = CAST(\'[1, "place", "a", ""]\' AS BLOB)',
        'preferences SET content = CAST(\'[1, "item", 3, ""]\' AS BLOB)',
        "preferences SET content = CAST('[1]' AS BLOB)",
        "preferences SET content = '[]'",
        "preferences SET time = 'noon'",
        "pages SET content = CAST('{}' AS BLOB)",
        "pages SET content = CAST('[1]' AS BLOB)",
        "pages SET content = x'ff'",
        "settings SET content = x'ff'",
        "settings SET content = 'text'",
        "embeddings SET value = 'text'",
        "events SET item = x'00'",
        "events SET text = x'00'",
    ],
)
def test_what_was_never_stored_is_damage(folder, change):
    with Store(folder / "events") as store:
        store.append([act()], pages=[Shown(1, 1, ("tea",))])
        store.prefer(wish())
        store.set("name", "value")
        store.keep("t", 1, vector(1))
        store.check()
        with sqlite3.connect(store.path) as db:
            db.execute(f"UPDATE {change}")
        db.close()
        with pytest.raises(DataError, match="sound file of ours"):
            store.check()


def test_nothing_shows_in_a_repr(store):
    store.append([act(CANARY, text=CANARY)], pages=[Shown(1, 1, (CANARY,))])
    store.prefer(wish(CANARY, said=CANARY))
    held = store.contents()
    shows = [held, held.events, *held.preferences, *held.pages, Learnt(CANARY, 1, b"1234"), store]
    assert isinstance(held, Contents) and CANARY not in "".join(map(repr, shows))


def test_a_change_elsewhere_shows_in_the_version(store, key):
    first = store.version
    store.append([act()])
    assert store.version == first  # our own
    with Store(store.path, key=key) as other:
        other.append([act()])
    assert store.version != first


def test_eight_threads_and_two_openings_give_every_change_its_own_id(store, key):
    def work(number):
        mine = (store, other)[number % 2]
        given = mine.append([act(str(number), number)]) + [mine.prefer(wish(str(number)))]
        if number % 4 == 0:
            assert mine.undo(given.pop())
        mine.keep("t", number, vector(number))
        mine.set(str(number), "x")
        mine.columns(), mine.pages(newest=3), mine.last_change(), mine.forgets
        return given

    with Store(store.path, key=key) as other, ThreadPoolExecutor(8) as pool:
        ids = [number for given in pool.map(work, range(48)) for number in given]
    assert len(ids) == len({*ids}) == 48 + 36
    held = store.contents()
    assert sorted([*held.events.ids.tolist(), *(number for number, _ in held.preferences)]) == sorted(ids)
    assert held.last == 96 and held.forgets == 12 and len(held.settings) == 48


# Files of before


def test_a_file_of_version_1_is_brought_up_to_date_with_all_that_it_holds(folder):
    path = folder / "events"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
    db.close()
    for _ in range(2):
        with Store(path) as store:
            store.check()
            assert store.columns().ids.tolist()[:2] == [7, 3] and store.columns().items[:2] == ("soup", "tea")
            assert store.columns().texts[0] == "süß" and store.columns().ratings[0] == 0.25
            assert store.before("task", 5).tolist() == [1] and store.forgets == 2
    with Store(path) as store:
        assert store.append([act("jam", 20)]) == [8] and store.prefer(wish()) == 9


@pytest.mark.parametrize("version", [1, 2, 99])
def test_a_database_of_something_else_stays_as_it_is(folder, version):
    path = folder / "events"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
        db.execute("PRAGMA application_id = 7")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match="sound file of ours"):
        Store(path)
    assert path.read_bytes() == before
