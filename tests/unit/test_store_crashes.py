"""Killed at any statement of any call, and on disks that are full, broken or read-only: what was acknowledged stays."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest
from persons import CALLS, CANARY, KEY, Person, act, bytes_of, call, memory, seen, vector, wish

from fedrec.device.contents import Shown
from fedrec.device.database import Database
from fedrec.device.store import Store
from fedrec.embed import portable, vault
from fedrec.errors import FedrecError, RunError

pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")


@pytest.fixture
def folder():
    with memory() as place:
        yield place


class Watched(sqlite3.Connection):
    """Tells `told` before every statement."""

    told = staticmethod(lambda: None)

    def execute(self, *given):
        Watched.told()
        return super().execute(*given)

    def executemany(self, *given):
        Watched.told()
        return super().executemany(*given)


def moments(folder, work, monkeypatch):
    """Copies of `folder`: as a kill would have left it before each statement of `work`, and at its end."""
    copies = folder.with_name(folder.name + "-moments")

    def told():
        shutil.copytree(folder, copies / str(len(list(copies.iterdir()))))

    copies.mkdir()
    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **more, factory=Watched))
        patch.setattr(Watched, "told", staticmethod(told))
        work()
        told()
    found = sorted(copies.iterdir(), key=lambda copy: int(copy.name))
    assert len(found) > 5
    return found


def prepared(path, steps, key):
    """A store after some steps of the script, and what it should hold."""
    person = Person()
    with Store(path, key=key) as store:
        for step in steps:
            call(store, step)
            call(person, step)
    return person


def taken(path, step, key):
    with Store(path, key=key) as store:
        call(store, step)


def left(path, key):
    """What a store holds when it is opened again."""
    with Store(path, key=key) as store:
        store.check()
        return seen(store)


@pytest.fixture
def place(folder):
    """A folder for a store alone: what is copied at every moment."""
    (folder / "person").mkdir()
    return folder / "person"


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("number", range(len(CALLS)), ids=[step[0] for step in CALLS])
def test_a_call_that_is_cut_short_has_happened_or_has_not(place, number, key, monkeypatch):
    person = prepared(place / "events", CALLS[:number], key)
    before = person.seen()
    call(person, CALLS[number])
    after = person.seen()
    copies = moments(place, lambda: taken(place / "events", CALLS[number], key), monkeypatch)
    found = [left(copy / "events", key) for copy in copies]
    assert found == sorted(found, key=lambda one: one == after)  # not undone again
    assert found[0] == before and found[-1] == after and all(one in (before, after) for one in found)


def test_without_transactions_calls_would_happen_by_halves(place, monkeypatch):
    before = prepared(place / "events", CALLS[:9], None).seen()

    @contextmanager
    def halves(database):
        with database._bare() as db:
            yield db

    monkeypatch.setattr(Database, "changing", halves)
    copies = moments(place, lambda: taken(place / "events", CALLS[9], None), monkeypatch)
    found = [left(copy / "events", None) for copy in copies]
    assert found[0] == before and any(one not in (before, found[-1]) for one in found)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
def test_what_a_forgetting_left_that_was_cut_short_is_gone_after_the_next_opening(place, key, monkeypatch):
    path = place / "events"
    prepared(path, [step for step in CALLS if step[0] != "forget"], key)
    with Store(path, key=key) as store:
        cells = cells_of(store)
    copies = moments(place, lambda: taken(path, ("forget", {"everything": True}), key), monkeypatch)
    forgotten = []
    for copy in copies:
        forgotten.append(not left(copy / "events", key)["events"])
        assert forgotten[-1] is not any(cell in bytes_of(copy) for cell in cells)
    assert not forgotten[0] and forgotten[-1] and len(cells) > 6


def cells_of(store):
    """Every cell of the file that says something, as it is in the file."""
    asked = "SELECT item FROM events UNION SELECT text FROM events UNION SELECT content FROM preferences"
    with store._file.reading() as db:
        cells = [cell for (cell,) in db.execute(f"{asked} UNION SELECT value FROM embeddings")]
    return [cell.encode() if isinstance(cell, str) else cell for cell in cells if len(cell) > 4]


def test_a_sealing_that_is_cut_short_has_happened_or_has_not(place, monkeypatch):
    path = place / "events"
    before = prepared(path, CALLS[:-1], None).seen()
    assert CANARY.encode() in bytes_of(place)
    sealed = []
    for copy in moments(place, lambda: vault.encrypt(path, KEY), monkeypatch):
        with sqlite3.connect(copy / "events") as db:
            (count,) = db.execute("SELECT count(*) FROM seal").fetchone()
        db.close()
        assert left(copy / "events", KEY if count else None) == before
        assert (count > 0) is (CANARY.encode() not in bytes_of(copy))
        sealed.append(count)
    assert sealed == sorted(sealed) and sealed[0] == 0 and sealed[-1] == 1


def test_a_restoring_that_is_cut_short_has_happened_or_has_not(place, folder, monkeypatch):
    held, empty = prepared(folder / "from", CALLS[:-1], KEY).seen(), Person().seen()
    with Store(folder / "from", key=KEY) as store:
        portable.write(store, folder / "copy.zip")
    Store(place / "events").close()

    def work():
        with Store(place / "events") as store:
            portable.read(store, folder / "copy.zip")

    found = [left(copy / "events", None) for copy in moments(place, work, monkeypatch)]
    assert all(one in (empty, held) for one in found) and found[0] == empty and found[-1] == held


def test_killed_at_any_moment_every_acknowledged_call_is_there(folder):
    """Not between statements but anywhere, in the midst of writing among others."""
    script = [step for _ in range(6) for step in CALLS if step[0] != "append" or len(step) == 2]
    person, states = Person(), []
    for step in script:
        call(person, step)
        states.append(person.seen())
    rng, path = random.Random(3), folder / "events"
    for trial in range(16):
        acknowledged = killed_in(script, path, rng.randrange(len(script) - 10), rng.random() / 200)
        with Store(path, key=KEY) as store:
            store.check()
            assert seen(store) in states[acknowledged - 1 : acknowledged + 1], trial
        path.unlink()


def killed_in(script, path, count, wait):
    """How many steps were acknowledged by a process that was killed some time after `count` of them."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        with suppress(BaseException), Store(path, key=KEY) as store:
            for step in script:
                call(store, step)
                os.write(writer, b".")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        acknowledged = 0
        while acknowledged < max(count, 1):
            acknowledged += len(pipe.read(1))
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        acknowledged += len(pipe.read())
    os.waitpid(child, 0)
    return acknowledged


# Disks


@pytest.fixture
def disk(tmp_path):
    """A disk of 256 KiB; only root may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("disks are mounted by root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


CHANGES = {
    "append": lambda store: store.append([act("tea", 1, CANARY * 2000)]),
    "prefer": lambda store: store.prefer(wish(said=CANARY * 2000)),
    "pages": lambda store: store.append([], pages=[Shown(1, 1, (CANARY * 2000,))]),
    "keep": lambda store: store.keep("t", 1, vector(1, 8000)),
    "set": lambda store: store.set("tuning", CANARY * 2000),
    "forget": lambda store: store.forget(item="tea"),
    "retain": lambda store: store.retain(newest=1, since=0),
    "seal": lambda store: store.seal(KEY),
    "write": lambda store: portable.write(store, store.path.with_name("copy.zip")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_full_disk_loses_nothing_and_says_so(disk, name):
    path = disk / "events"
    person = prepared(path, CALLS[:5], None)
    with Store(path) as store:
        ballast(disk)
        before = {file.name for file in disk.iterdir()}
        with pytest.raises(RunError, match="No space left|is full|disk I/O") as refusal:
            CHANGES[name](store)
        assert CANARY not in str(refusal.value)
        store.check()
        held = seen(store)
        if name in ("forget", "retain"):  # gone, and swept when there is room; or not even that
            assert held in (person.seen(), forgotten(person, name))
        else:
            assert held == person.seen()
        assert {file.name for file in disk.iterdir()} == before
        (disk / "ballast").unlink()
        CHANGES[name](store)
    with Store(path, key=KEY if name == "seal" else None) as store:
        store.check()


def forgotten(person, name):
    person.forget(item="tea") if name == "forget" else person.retain(newest=1, since=0)
    return person.seen()


def ballast(disk):
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
def test_a_read_only_disk_is_read_and_refuses_changes(disk, key):
    path = disk / "events"
    person = prepared(path, CALLS[:5], key)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with Store(path, key=key) as store:
        for name in ("append", "prefer", "pages", "keep", "set", "forget", "retain", "write"):
            with pytest.raises(RunError, match="read-only|readonly|Read-only") as refusal:
                CHANGES[name](store)
            assert CANARY not in str(refusal.value)
        assert seen(store) == person.seen()
    with pytest.raises(FedrecError):
        Store(disk / "another")


def test_a_large_change_leaves_nothing_legible_while_it_is_under_way(folder):
    """A transaction that does not fit into memory is on disk before it is over, and its journal too."""
    path = folder / "events"
    with Store(path, key=KEY) as store:
        store.append(act(CANARY, time, CANARY) for time in range(20_000))
        with pytest.raises(ZeroDivisionError), store._changing() as db:
            db.execute("PRAGMA cache_size = 10")
            db.execute("DELETE FROM events")
            assert (folder / "events-journal").stat().st_size > 100_000
            assert CANARY.encode() not in bytes_of(folder)
            raise ZeroDivisionError
        assert len(store) == 20_000
