"""A person's copy: legible, whole, brought back to the same state, and refused whole if it is anything else."""

import json
import os
import traceback
import zipfile

import pytest
from persons import CANARY, KEY, act, memory, seen, vector, wish

from fedrec.device.act import Act
from fedrec.device.contents import Shown
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed import portable
from fedrec.errors import DataError, FedrecError, RunError

EVENT = {"id": 1, "time": 5, "kind": "rate", "item": "tea", "text": CANARY, "weight": 0.1, "rating": 0.25}


@pytest.fixture
def folder():
    with memory() as place:
        yield place


@pytest.fixture
def store(folder):
    with Store(folder / "events", key=KEY) as store:
        store.append([
            Act(kind=Kind.RATE, item="tea", text=CANARY, weight=0.1, rating=0.25, time=5),
            Act(kind=Kind.SEARCH, text="süß\u2028\0", time=3),
        ], pages=[Shown(1700, 6, ("tea", "soup"))])  # fmt: skip
        store.prefer(wish("war", 7, said="no war"))
        store.keep("task", 2, vector(0.1))
        store.set("consent", '{"contribute": true}')
        yield store


@pytest.fixture
def copy(store, folder):
    portable.write(store, folder / "me.zip")
    return folder / "me.zip"


@pytest.fixture
def empty(folder):
    with Store(folder / "empty") as empty:
        yield empty


def lines(copy, name):
    with zipfile.ZipFile(copy) as file:
        return [json.loads(line) for line in file.read(name).split(b"\n") if line]


def changed(copy, name, content):
    """Another copy, in which one file is another."""
    with zipfile.ZipFile(copy) as file:
        files = {info.filename: file.read(info) for info in file.infolist()}
    files[name] = content if isinstance(content, bytes) else "".join(json.dumps(row) + "\n" for row in content).encode()
    with zipfile.ZipFile(copy, "w") as file:
        for name, content in files.items():
            if content != b"gone":
                file.writestr(name, content)
    return copy


def test_a_copy_is_legible(copy):
    assert lines(copy, "about.json") == [{"what": "fedrec person", "version": 1, "last": 3, "forgets": 0}]
    assert lines(copy, "events.jsonl") == [{"id": 2, "time": 3, "kind": "search", "text": "süß\u2028\0"}, EVENT]
    assert lines(copy, "preferences.jsonl") == [
        {"id": 3, "time": 7, "polarity": "less", "scope": "item", "about": "war", "said": "no war"}
    ]
    assert lines(copy, "pages.jsonl") == [{"id": 1700, "time": 6, "items": ["tea", "soup"]}]
    assert lines(copy, "learnt.jsonl")[0]["embedding"] == vector(0.1).tolist()
    assert lines(copy, "settings.jsonl") == [{"name": "consent", "value": '{"contribute": true}'}]


def test_a_copy_brings_back_the_same_state(copy, store, empty):
    portable.read(empty, copy)
    assert seen(empty) == seen(store)
    assert empty.append([act()]) == [4]


def test_a_copy_is_its_owners_alone_and_takes_the_place_of_the_last_one(copy, store, folder):
    assert copy.stat().st_mode & 0o777 == 0o600
    store.append([act()])
    portable.write(store, copy)
    assert len(lines(copy, "events.jsonl")) == 3
    assert sorted(file.name for file in folder.iterdir()) == ["events", "events-journal", "me.zip"]


def test_settings_that_are_there_are_not_replaced(copy, empty):
    """A consent that was withdrawn is not given again by a copy of before."""
    empty.set("consent", '{"contribute": false}')
    portable.read(empty, copy)
    assert empty.setting("consent") == '{"contribute": false}'


@pytest.mark.parametrize(
    "holding",
    [
        lambda store: store.append([act()]),
        lambda store: store.prefer(wish()),
        lambda store: store.keep("t", 1, vector(1)),
        lambda store: store.append([], pages=[Shown(1, 1, ("tea",))]),
    ],
)
def test_a_store_that_holds_something_is_not_overwritten(copy, empty, holding):
    holding(empty)
    before = seen(empty)
    with pytest.raises(RunError, match="into an empty store"):
        portable.read(empty, copy)
    assert seen(empty) == before
    empty.forget(everything=True)
    portable.read(empty, copy)
    assert len(empty) == 2


def test_no_id_comes_again_after_a_copy_was_brought_back(copy, empty):
    ids = empty.append([act()] * 9)
    empty.forget(everything=True)
    portable.read(empty, copy)
    assert empty.append([act()]) == [ids[-1] + 1]


WRONG = {
    "no zip": lambda copy: copy.write_bytes(CANARY.encode() * 100),
    "nothing": lambda copy: copy.write_bytes(b""),
    "torn": lambda copy: os.truncate(copy, copy.stat().st_size // 2),
    "a file is gone": lambda copy: changed(copy, "pages.jsonl", b"gone"),
    "a file too many": lambda copy: changed(copy, "more.jsonl", b""),
    "about is gone": lambda copy: changed(copy, "about.json", b"gone"),
    "about is empty": lambda copy: changed(copy, "about.json", b""),
    "about is a list": lambda copy: changed(copy, "about.json", b"[]"),
    "about something else": lambda copy: changed(copy, "about.json", [{"what": "zip", "version": 1}]),
    "version is no number": lambda copy: changed(copy, "about.json", [{"what": "fedrec person", "version": "1"}]),
    "two abouts": lambda copy: changed(copy, "about.json", lines(copy, "about.json") * 2),
    "last too large": lambda copy: changed(copy, "about.json", [lines(copy, "about.json")[0] | {"last": 2**63}]),
    "last too small": lambda copy: changed(copy, "about.json", [lines(copy, "about.json")[0] | {"last": 2}]),
    "no JSON": lambda copy: changed(copy, "events.jsonl", CANARY.encode()),
    "an empty line": lambda copy: changed(copy, "events.jsonl", b"\n"),
    "the same id twice": lambda copy: changed(copy, "events.jsonl", [EVENT, EVENT]),
    "an id of a wish": lambda copy: changed(copy, "events.jsonl", [EVENT | {"id": 3}]),
    "an id below 1": lambda copy: changed(copy, "events.jsonl", [EVENT | {"id": 0}]),
    "the same page twice": lambda copy: changed(copy, "pages.jsonl", lines(copy, "pages.jsonl") * 2),
    "learnt twice": lambda copy: changed(copy, "learnt.jsonl", lines(copy, "learnt.jsonl") * 2),
    "an infinite embedding": lambda copy: changed(
        copy, "learnt.jsonl", [lines(copy, "learnt.jsonl")[0] | {"embedding": [1e300]}]
    ),
    "a wish of no scope": lambda copy: changed(
        copy, "preferences.jsonl", [lines(copy, "preferences.jsonl")[0] | {"scope": CANARY}]
    ),
    "half a character": lambda copy: changed(copy, "settings.jsonl", b'{"name": "a", "value": "\\ud800"}'),
} | {
    f"an event with {name} {value!r:.9}": lambda copy, name=name, value=value: changed(
        copy, "events.jsonl", [EVENT | {name: value}]
    )
    for name, value in [
        ("kind", CANARY), ("kind", 3), ("item", 3), ("item", ["tea"]), ("text", None), ("weight", "1"), ("weight", -1),
        ("weight", 1e300), ("weight", float("nan")), ("rating", 2), ("rating", float("nan")), ("time", 1.5),
        ("time", 2**63), ("id", "1"), ("id", True), (CANARY, 1), ("text", "\ud800" + CANARY),
    ]
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_whole_in_words_without_it(copy, empty, name):
    WRONG[name](copy)
    before = seen(empty)
    with pytest.raises(DataError, match="written by export") as refusal:
        portable.read(empty, copy)
    assert CANARY not in "".join(traceback.format_exception(refusal.value)) and refusal.value.remedy
    assert seen(empty) == before


def test_a_changed_byte_is_found_wherever_it_is(copy, empty):
    content = copy.read_bytes()
    refused = 0
    for place in range(0, len(content), 3):
        copy.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            portable.read(empty, copy)
        except FedrecError as error:
            assert CANARY not in str(error)
            assert seen(empty)["events"] == []
            refused += 1
        else:  # in a field that nobody reads, such as a time
            assert len(empty) == 2
            empty.forget(everything=True)
    assert refused > len(content) / 6


def test_a_newer_copy_is_refused_whole(copy, empty):
    changed(copy, "about.json", [{"what": "fedrec person", "version": 2, "more": 1}])
    changed(copy, "more.jsonl", b"{}")
    with pytest.raises(RunError, match="not newer than the program"):
        portable.read(empty, copy)
    assert seen(empty)["events"] == []


def test_a_file_that_would_unpack_without_end_is_refused(copy, empty, monkeypatch):
    monkeypatch.setattr(portable, "_LARGEST", 30)
    with pytest.raises(DataError, match="written by export"):
        portable.read(empty, copy)


def test_a_file_that_is_not_there(empty, folder):
    with pytest.raises(RunError, match="a copy can be read"):
        portable.read(empty, folder / "nowhere.zip")


def test_a_copy_that_cannot_be_written_leaves_the_last_one(copy, store, folder, monkeypatch):
    before = copy.read_bytes()

    def full(place, *given):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(RunError, match="No space left"):
                portable.write(store, copy)
        assert copy.read_bytes() == before
    with pytest.raises(RunError, match="a copy can be written"):
        portable.write(store, folder / "nowhere" / "me.zip")
    assert [*folder.glob(".me*")] == []
