"""A person's events: what is acknowledged is there, what is forgotten is gone, and nothing is told to anybody."""

import errno
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.device import contents, database
from fedrec.device.act import Act, acts_of
from fedrec.device.database import Database
from fedrec.device.event import NO_ITEM, Kind
from fedrec.device.recall import history_of
from fedrec.device.store import Store
from fedrec.errors import DataError, RunError
from fedrec.population.states import DeviceStates
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Limits
from fedrec.randomness import stream

ROWS = {"tea": 0, "cocoa": 1, "soup": 2}
CANARY = "zq-canary-kx"
TASK = "the task"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.sqlite"


@pytest.fixture
def store(path):
    with Store(path) as store:
        yield store


def view(item="tea", time=0, text=""):
    return Act(kind=Kind.VIEW, item=item, time=time, text=text)


def forget_everything(store):
    return store.forget(everything=True)


def items(store):
    return history_of(store, ROWS).items.tolist()


def test_events_come_back_as_they_went_in(store):
    store.append([
        Act(kind=Kind.RATE, item="cocoa", text="süß ☕\0", weight=0.1, rating=0.25, time=-5),
        Act(kind=Kind.SEARCH, text="warm", time=2**40),
    ])  # fmt: skip
    history = history_of(store, ROWS)
    assert history.kinds.tolist() == [Kind.RATE, Kind.SEARCH] and history.items.tolist() == [1, NO_ITEM]
    assert history.texts == ["süß ☕\0", "warm"] and history.times.tolist() == [-5, 2**40]
    assert history.weights.tolist() == [np.float32(0.1), 1.0]
    assert history.ratings[0] == 0.25 and np.isnan(history.ratings[1])


def test_time_order_then_order_of_arrival(store):
    store.append([view("soup", 9), view("tea", 3)])
    store.append([view("cocoa", 3), view("tea", 1)])
    assert items(store) == [0, 0, 1, 2]
    assert len(store) == 4


def test_an_empty_store_has_an_empty_history(store):
    store.append([])
    assert len(store) == len(history_of(store, ROWS)) == 0
    assert history_of(store, ROWS).texts == [] and history_of(store, ROWS).items.dtype == np.int32


def test_another_catalogue_reads_the_same_events_by_their_ids(store):
    store.append([view("soup", 1), view("tea", 2), Act(kind=Kind.SEARCH, text="a word", time=3)])
    assert history_of(store, {"tea": 7}).items.tolist() == [7, NO_ITEM]
    assert items(store) == [2, 0, NO_ITEM]


def test_more_events_than_are_read_at_a_time(store, monkeypatch):
    monkeypatch.setattr(contents, "_PAGE", 7)
    store.append(view("tea" if time % 2 else "soup", time) for time in range(50))
    assert items(store) == [2, 0] * 25


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.builds(
            Act,
            kind=st.sampled_from(Kind),
            item=st.sampled_from([*ROWS]),
            text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            weight=st.floats(0, 100, width=32),
            rating=st.floats(0, 1, width=32) | st.just(float("nan")),
            time=st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=8,
    )
)
def test_whatever_is_stored_is_what_is_read(acts):
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "events") as store:
        store.append(acts)
        found = acts_of(history_of(store, ROWS), [*ROWS])
        assert [*map(str_of, found)] == [*map(str_of, sorted(acts, key=lambda act: act.time))]


def str_of(act):
    return str((act.kind, act.item, act.text, act.weight, act.rating, act.time))


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({}, "about an item or holds a text"),
        ({"text": " \n"}, "about an item or holds a text"),
        ({"text": CANARY + "\ud800"}, "made of characters"),
        ({"item": CANARY, "weight": -1.0}, "weight"),
        ({"item": CANARY, "weight": float("inf")}, "weight"),
        ({"item": CANARY, "weight": float("nan")}, "weight"),
        ({"item": CANARY, "rating": 1.5}, "rating"),
        ({"item": CANARY, "time": 2**63}, "Unix seconds"),
    ],
)
def test_a_wrong_event_is_refused_in_words_without_it(wrong, rule):
    with pytest.raises(DataError, match=rule) as refusal:
        Act(kind=Kind.VIEW, **wrong)
    assert CANARY not in str(refusal.value)


def test_all_of_a_batch_or_nothing(store):
    def broken():
        yield view()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.append(broken())
    store._file._db.execute(
        "CREATE TRIGGER no BEFORE INSERT ON events WHEN new.item = 'soup' BEGIN SELECT raise(ABORT, 'no'); END"
    )
    with pytest.raises(DataError):
        store.append([view("tea"), view("soup")])
    assert len(store) == 0


def test_nothing_shows_in_a_repr(store):
    store.append([view(text=CANARY)])
    assert CANARY not in repr(store) + repr(view(text=CANARY)) + repr(history_of(store, ROWS))


def test_only_its_owner_may_read_the_file(store, path):
    store.append([view()])
    assert path.stat().st_mode & 0o777 == 0o600


# Forgetting


def canaries(path):
    """How often the canary is anywhere in the folder."""
    return sum(file.read_bytes().count(CANARY.encode()) for file in path.parent.iterdir())


def filled(store, rounds=40):
    """Rows of very different lengths, a third of them canaries: when they go, SQLite moves rows between pages."""
    rng = stream(1, "store")
    for _ in range(rounds):
        store.append(
            view("soup", int(rng.integers(10**6)), CANARY * int(rng.choice([1, 1, 1, 300])))
            if rng.random() < 0.3
            else view("tea", int(rng.integers(10**6)), "x" * int(rng.integers(300)))
            for _ in range(rng.integers(1, 30))
        )


def test_what_is_forgotten_is_in_no_byte_of_the_file(store, path):
    filled(store)
    before, seen = len(store), canaries(path)
    assert seen > 1000
    assert store.forget(item="soup") == before - len(store) > 100
    assert canaries(path) == 0 and set(items(store)) == {0}


def swept_badly(store, monkeypatch):
    """Events come and go, as ever, but for the last step."""
    with monkeypatch.context() as patch:
        patch.setattr(Database, "sweep", lambda self: None)
        for _ in range(3):
            filled(store)
            store.forget(item="soup")


def test_without_the_sweep_there_would_be_copies(store, path, monkeypatch):
    swept_badly(store, monkeypatch)
    assert 2 not in items(store) and canaries(path) > 0


def test_a_sweep_that_a_crash_prevented_is_made_at_the_next_opening(store, path, monkeypatch):
    swept_badly(store, monkeypatch)
    store.close()
    assert canaries(path) > 0
    with Store(path) as again:
        assert canaries(path) == 0 and len(again) > 0
        assert to_sweep(again) == 0


def test_forgetting_by_time_by_item_by_both_and_everything(store):
    def stored():
        store.forget(everything=True)
        store.append([view("tea", 1), view("soup", 2), view("tea", 3), view("cocoa", 4)])

    stored()
    assert (store.forget(before=3), items(store)) == (2, [0, 1])
    stored()
    assert (store.forget(item="tea"), items(store)) == (2, [2, 1])
    stored()
    assert (store.forget(item="tea", before=3), items(store)) == (1, [2, 0, 1])
    stored()
    assert (store.forget(item="nothing of ours"), len(store)) == (0, 4)
    assert (store.forget(everything=True), len(store)) == (4, 0)


def test_what_was_learnt_goes_with_what_it_was_learnt_from(store, path):
    learnt = np.full(5, 0.123456789, np.float32)
    store.append([view("tea"), view("soup")])
    for number in (1, 2):
        store.keep(TASK, number, learnt)
        store.keep("another task", number, learnt)
    assert learnt.tobytes() in path.read_bytes()
    store.forget(item="tea")
    assert store.before(TASK, 9) is None and store.before("another task", 9) is None
    assert learnt.tobytes() not in path.read_bytes()


def test_retention_by_age_and_by_number(store, path):
    store.append([view("tea", 1, CANARY), view("soup", 2), view("tea", 2), view("cocoa", 4)])
    store.keep(TASK, 1, np.ones(2, np.float32))
    assert store.retain(newest=10, since=0) == 0
    assert (store.retain(newest=10, since=2), items(store), canaries(path)) == (1, [2, 0, 1], 0)
    assert (store.retain(newest=2, since=2), items(store)) == (1, [0, 1])
    assert (store.retain(newest=0, since=0), items(store)) == (2, [])
    assert store.before(TASK, 2) is not None


# Embeddings


def vector(value, dim=2):
    return np.full(dim, value, np.float32)


def known(store, number):
    found = store.before(TASK, number)
    return [0, 0] if found is None else found.tolist()


def test_embeddings_are_those_of_the_last_two_rounds_of_each_task(store):
    assert store.before(TASK, 1) is None
    for number in (2, 5, 9):
        store.keep(TASK, number, vector(number))
    assert [known(store, number)[0] for number in (20, 10, 9, 6, 5)] == [9, 9, 5, 5, 0]
    assert store.before("another task", 20) is None
    before = store.before(TASK, 20)
    before[:] = 7  # a copy
    assert before.dtype == np.float32 and known(store, 20) == [9, 9]


def test_embeddings_are_kept_as_a_virtual_device_keeps_them(store, tmp_path):
    """Rounds may be skipped, and the last one repeated."""
    states, rng, number = DeviceStates(tmp_path / "states", 1, 2), stream(3, "embeddings"), 1
    for step in range(60):
        assert known(store, number) == states.before(0, number).tolist()
        store.keep(TASK, number, vector(step))
        states.keep(0, number, vector(step))
        assert known(store, number + 1) == states.before(0, number + 1).tolist() == [step, step]
        number += int(rng.integers(3))


def test_what_was_learnt_before_a_forgetting_is_not_kept_after_it(store, path):
    store.append([view("tea"), view("soup")])
    seen = store.forgets
    with Store(path) as other:
        other.forget(item="soup")
    store.keep(TASK, 1, vector(1), forgets=seen)
    assert store.before(TASK, 2) is None and store.forgets == seen + 1
    store.keep(TASK, 1, vector(1), forgets=store.forgets)
    assert known(store, 2) == [1, 1]


def test_a_sweep_does_not_take_the_place_of_another_one(store, path, monkeypatch):
    """Another process forgets while this one sweeps, and dies: the next opening sweeps for it."""
    store.append([view("tea"), view("soup")])

    class Meanwhile(sqlite3.Connection):
        def execute(self, command, *values):
            if command == "VACUUM":
                with Store(path) as other, monkeypatch.context() as patch:
                    patch.setattr(Database, "sweep", lambda self: None)
                    other.forget(item="soup")
            return super().execute(command, *values)

    ours = store._file._db
    store._file._db = sqlite3.connect(path, isolation_level=None, factory=Meanwhile)
    store.forget(item="tea")
    store._file._db.close()
    store._file._db = ours
    assert to_sweep(store) == 1
    with Store(path) as again:
        assert to_sweep(again) == 0


def to_sweep(store):
    return store._file._db.execute("SELECT erased - swept FROM sweep").fetchone()[0]


# Crashes, and disks that refuse


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_killed_at_any_moment_every_acknowledged_event_is_there(path):
    rng, acknowledged = stream(5, "kills"), 0
    for _ in range(12):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            with suppress(BaseException), Store(path) as store:
                for number in range(acknowledged, 10**6):
                    store.append([view("tea", 2 * number), view("soup", 2 * number + 1)])
                    os.write(writer, b".")
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            for _ in range(int(rng.integers(1, 25))):
                acknowledged += len(pipe.read(1))
            os.kill(child, signal.SIGKILL)
            acknowledged += len(pipe.read())
        os.waitpid(child, 0)
        with Store(path) as store:
            store.check()
            times = history_of(store, ROWS).times.tolist()
            assert times == [*range(len(times))] and acknowledged <= len(times) // 2 <= acknowledged + 1
            acknowledged = len(times) // 2
    assert acknowledged > 12


def refused(error, rule, call, *arguments):
    with pytest.raises(error, match=rule) as refusal:
        call(*arguments)
    assert CANARY not in str(refusal.value) and refusal.value.remedy
    return refusal.value


def test_a_full_disk_loses_nothing(store, path):
    store.append([view("tea", 1)])
    pages = store._file._db.execute("PRAGMA page_count").fetchone()[0]
    store._file._db.execute(f"PRAGMA max_page_count = {pages}")
    refused(RunError, "can be read and stored", store.append, [view("soup", 2, CANARY * 3000)])
    assert items(store) == [0]
    store._file._db.execute("PRAGMA max_page_count = 100000")
    store.append([view("soup", 2)])
    assert items(store) == [0, 2]


@contextmanager
def at_most(size):
    """Let no file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_breaks_off_loses_nothing(store, path):
    store.append([view("tea", 1), view("soup", 2, CANARY)])
    with at_most(path.stat().st_size):
        refused(RunError, "can be read and stored", store.append, [view("soup", 2, CANARY * 3000)])
        assert items(store) == [0, 2]
    with at_most(512):  # not even the journal of a deletion
        refused(RunError, "can be read and stored", forget_everything, store)
        assert items(store) == [0, 2]
    store.forget(everything=True)
    assert canaries(path) == 0


@contextmanager
def as_nobody():
    """Without root's right to write everywhere."""
    user = os.geteuid()
    os.seteuid(65534) if user == 0 else None
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def locked():
    """A folder that may be read, with a store that may be read."""
    folder = Path(tempfile.mkdtemp())
    with Store(folder / "events") as store:
        store.append([view("tea", 1), view("soup", 2)])
    (folder / "events").chmod(0o444)
    folder.chmod(0o555)
    yield folder / "events"
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_disk_is_read_and_refuses_the_rest(locked):
    with as_nobody():
        with Store(locked) as store:
            assert items(store) == [0, 2]
            for call in (
                lambda: store.append([view(text=CANARY)]),
                lambda: store.forget(everything=True),
                lambda: store.keep("t", 1, vector(1)),
            ):
                refused(RunError, "can be read and stored", call)
            assert items(store) == [0, 2]
        refused(RunError, "can be read and stored; got .*Permission", Store, locked.with_name("another"))
    assert os.strerror(errno.EACCES) == "Permission denied"


def test_a_folder_that_is_not_there(tmp_path):
    refused(RunError, "can be read and stored", Store, tmp_path / "nowhere" / "events")


def test_a_closed_store_says_so(path):
    store = Store(path)
    store.close()
    store.close()
    refused(RunError, "can be read and stored", store.append, [view()])


# Files that are not what they were


def test_a_file_of_something_else_is_refused_and_left_alone(path):
    path.write_text(CANARY * 1000)
    refused(DataError, "sound file of ours", Store, path)
    assert path.read_text() == CANARY * 1000
    with DeviceLedger(path.with_name("ledger"), Limits(participations=1)):
        refused(DataError, "sound file of ours", Store, path.with_name("ledger"))
    with DeviceLedger(path.with_name("ledger"), Limits(participations=1)):
        pass


def test_a_damaged_file_is_refused_wherever_the_damage_is(store, path):
    filled(store, 20)
    store.close()
    sound, rng = path.read_bytes(), stream(7, "damage")
    noticed = 0
    for _ in range(60):
        content = bytearray(sound)
        start = int(rng.integers(len(sound) - 600))
        content[start : start + 600] = rng.bytes(600)
        path.write_bytes(content)
        try:
            with Store(path) as again:
                again.check()
                acts_of(history_of(again, ROWS), [*ROWS])
        except (DataError, RunError) as error:
            assert CANARY not in str(error)
            noticed += 1
    assert noticed > 30  # in free space and in the middle of a text nothing can be noticed
    path.write_bytes(sound)
    with Store(path) as again:
        again.check()


@pytest.mark.parametrize(
    "change",
    ["kind = 99", "kind = -1", "kind = 'x'", "time = 'noon'", "weight = 'much'", "rating = 'good'",
     "text = CAST(x'ff' AS TEXT)", "item = x'00'"],
)  # fmt: skip
def test_a_column_that_holds_what_was_never_stored_is_damage(store, path, change):
    store.append([view("tea", text=CANARY)])
    other = sqlite3.connect(path)
    with other:
        other.execute(f"UPDATE events SET {change}")
    other.close()
    refused(DataError, "sound file of ours", history_of, store, ROWS)


def test_a_torn_file_is_refused(store, path):
    filled(store, 20)
    store.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match="sound file of ours"), Store(path) as again:
        again.check()


# Versions


def test_a_migration_brings_an_older_file_up_to_date_once(path, monkeypatch):
    with Store(path) as store:
        store.append([view("tea", 1)])
    taken = []

    def second(db):
        taken.append("second")
        db.execute("ALTER TABLE events ADD COLUMN dwell REAL")

    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, second))
    for _ in range(2):
        with Store(path) as store:
            store.append([view("soup", 2)])
    assert taken == ["second"]
    with Store(path) as store:
        assert (
            items(store) == [0, 2, 2]
            and store._file._db.execute("SELECT dwell FROM events").fetchall() == [(None,)] * 3
        )


def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    with Store(path) as store:
        store.append([view("tea", 1)])

    def fails(db):
        db.execute("DROP TABLE events")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, fails))
        with pytest.raises(KeyboardInterrupt):
            Store(path)
    with Store(path) as store:
        assert items(store) == [0]


def test_a_newer_file_is_refused_and_left_alone(store, path):
    store.append([view("tea", 1)])
    store._file._db.execute("PRAGMA user_version = 99")
    store.close()
    refused(RunError, "not newer than the program", Store, path)


# Many at once


def test_threads_and_a_second_opening_lose_nothing(store, path):
    with Store(path) as other, ThreadPoolExecutor(8) as pool:

        def add(number):
            (store, other)[number % 2].append([view("tea", number)])
            return len(history_of(store, ROWS))

        sizes = list(pool.map(add, range(80)))
    assert history_of(store, ROWS).times.tolist() == [*range(80)]
    assert min(sizes) >= 1 and max(sizes) == 80


def test_two_openings_of_a_new_file_make_it_once(path):
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(Store, [path] * 4))
    for number, store in enumerate(stores):
        store.append([view("tea", number)])
        store.close()
    with Store(path) as store:
        assert len(store) == 4
