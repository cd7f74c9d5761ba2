"""One person's events."""

import numpy as np

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.history import History

SECRET = "how to leave my job"


def test_events_are_in_time_order_and_ties_keep_theirs():
    events = [Event(kind=Kind.VIEW, item=item, time=time) for item, time in [(0, 5), (1, 1), (2, 5), (3, 1)]]
    assert History.of(events).items.tolist() == [1, 3, 0, 2]


def test_columns_and_defaults():
    history = History.of([Event(kind=Kind.SEARCH, text=SECRET), Event(kind=Kind.RATE, item=4, rating=0.75, weight=2.0)])
    assert history.kinds.tolist() == [Kind.SEARCH, Kind.RATE]
    assert history.items.tolist() == [NO_ITEM, 4]
    assert history.texts == [SECRET, ""]
    assert history.weights.tolist() == [1.0, 2.0]
    assert np.isnan(history.ratings[0]) and history.ratings[1] == 0.75
    assert [getattr(history, name).dtype for name in ("kinds", "items", "weights", "ratings", "times")] == [
        np.int8, np.int32, np.float32, np.float32, np.int64,
    ]  # fmt: skip


def test_before_is_a_prefix():
    history = History.of([Event(kind=Kind.CLICK, item=item, time=item) for item in range(4)])
    assert history.before(2).items.tolist() == [0, 1]
    assert len(history.before(0)) == 0


def test_choices_are_first_times_of_chosen_items():
    events = [
        Event(kind=Kind.SKIP, item=7),
        Event(kind=Kind.CLICK, item=3),
        Event(kind=Kind.SEARCH, text="x"),
        Event(kind=Kind.LIKE, item=7),
        Event(kind=Kind.REVIEW, item=3, text="x"),
        Event(kind=Kind.RATE, item=1),
    ]
    assert History.of(events).choices().tolist() == [1, 3, 5]


def test_an_empty_history():
    history = History.of([])
    assert (len(history), history.choices().tolist(), history.texts) == (0, [], [])


def test_what_a_kind_says_about_choice():
    assert {kind.name for kind in Kind if not kind.chooses} == {"SEARCH", "SKIP"}


def test_no_content_in_a_repr():
    event = Event(kind=Kind.SEARCH, text=SECRET)
    assert SECRET not in repr(event) + str(event) + repr(History.of([event]))
