"""A store is what the plainest model of it says, sealed or not, before and after it is closed."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from persons import KEY, Person, call, memory, seen, vector

from fedrec.device import forgetting
from fedrec.device.act import Act
from fedrec.device.contents import Columns, Shown
from fedrec.device.event import Kind
from fedrec.device.store import Store
from fedrec.embed import portable
from fedrec.embed.preference import Polarity, Preference, Scope

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ITEM = st.sampled_from(["tea", "soup", "jam"])
TIME = st.integers(-3, 12)
ACT = st.builds(
    Act,
    kind=st.sampled_from(Kind),
    item=ITEM | TEXT.filter(bool),
    text=TEXT,
    weight=st.floats(0, 2.0**127, width=32),
    rating=st.floats(0, 1, width=32) | st.just(math.nan),
    time=TIME | st.integers(-(2**63), 2**63 - 1),
) | st.builds(Act, kind=st.just(Kind.SEARCH), text=TEXT.map("a".__add__), time=TIME)
WISH = st.builds(
    Preference, polarity=st.sampled_from(Polarity), scope=st.sampled_from(Scope), about=ITEM | TEXT, said=TEXT,
    time=TIME,
)  # fmt: skip
WHICH = st.fixed_dictionaries(
    {"item": st.none() | ITEM, "before": st.none() | TIME, "ids": st.none() | st.sets(st.integers(0, 12))}
).filter(lambda which: any(value is not None for value in which.values()))
PAGES = st.lists(st.tuples(TIME, st.lists(ITEM | TEXT, max_size=3)), max_size=2)
STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(ACT, max_size=4)),
    st.tuples(st.just("append"), st.lists(ACT, max_size=2), PAGES),
    st.tuples(st.just("prefer"), WISH),
    st.tuples(st.just("keep"), st.sampled_from(["a", "ü"]), st.integers(0, 4), st.integers(0, 9).map(vector)),
    st.tuples(st.just("set"), TEXT, TEXT),
    st.tuples(st.just("undo"), st.integers(0, 12)),
    st.tuples(st.just("forget"), WHICH),
    st.tuples(st.just("forget"), st.just({"everything": True})),
    st.tuples(st.just("retain"), st.fixed_dictionaries({"newest": st.integers(0, 6), "since": TIME})),
)
STEPS = st.lists(STEP, max_size=10).map(lambda steps: [numbered(place, step) for place, step in enumerate(steps)])


def numbered(place, step):
    """Pages get ids of their own, in the order in which they are shown."""
    if step[0] != "append" or len(step) < 3:
        return step
    return (*step[:2], [Shown(10 * place + n + 1, time, tuple(items)) for n, (time, items) in enumerate(step[2])])


def agreed(steps, key):
    """Whether a store and the model agree after every step, and once more when the store is opened again."""
    with memory() as folder:
        path, person = folder / "events", Person()
        with Store(path, key=key) as store:
            for step in steps:
                call(store, step)
                call(person, step)
                if seen(store) != person.seen():
                    return False
            store.check()
        with Store(path, key=key) as again:
            return seen(again) == person.seen()


@settings(max_examples=120, deadline=None, derandomize=True)
@given(STEPS, st.none() | st.just(KEY))
def test_a_store_is_what_its_model_is(steps, key):
    assert agreed(steps, key)


@pytest.mark.parametrize("name", ["_shown", "erase", "erase_everything"])
def test_the_model_notices_a_store_that_forgets_badly(name, monkeypatch):
    """The law is no law if it holds for a wrong store."""
    result = {"_shown": [], "erase": 0, "erase_everything": 0}[name]
    monkeypatch.setattr(forgetting, name, lambda *given: result)
    monkeypatch.setattr(f"fedrec.device.store.{name}", lambda *given: result, raising=False)
    page = Shown(9, 1, ("tea",))
    seen_before = [("append", [Act(kind=Kind.VIEW, item="tea")], [page])]
    which = {"everything": True} if name == "erase_everything" else {"item": "tea"}
    assert agreed(seen_before, None) and not agreed([*seen_before, ("forget", which)], None)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS, st.none() | st.just(KEY), st.none() | st.just(bytes(32)))
def test_a_copy_brings_back_what_was_there(steps, key, other):
    """Under another key or none; and a copy of the copy is the same file, byte for byte."""
    with memory() as here, Store(here / "a", key=key) as store, Store(here / "b", key=other) as restored:
        for step in steps:
            call(store, step)
        portable.write(store, here / "a.zip")
        portable.read(restored, here / "a.zip")
        portable.write(restored, here / "b.zip")
        assert seen(restored) == seen(store)
        assert (here / "a.zip").read_bytes() == (here / "b.zip").read_bytes()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(ACT, max_size=8))
def test_columns_come_apart_into_the_acts_that_they_were_made_of(acts):
    columns = Columns.of(enumerate(acts, 1))
    assert [number for number, _ in columns.acts()] == columns.ids.tolist()
    assert {number: str(one.__dict__) for number, one in columns.acts()} == {
        number: str(one.__dict__) for number, one in enumerate(acts, 1)
    }
