"""What was left out: counted, merged, and never somebody's words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.datasets.notes import EXAMPLES, Notes, Place, showable

places = st.builds(Place, st.just("f.csv"), st.integers(1, 99), st.sampled_from(["user", "item"]), st.just("7"))
one = st.builds(Notes.of, st.sampled_from(["a", "b", "c"]), st.integers(0, 9), st.lists(places, max_size=7))
notes = st.lists(one, max_size=4).map(lambda some: sum(some, Notes()))


@settings(derandomize=True, deadline=None)
@given(notes, notes, notes)
def test_notes_are_a_monoid(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert a + Notes() == a == Notes() + a
    assert (a + b).count("a") == a.count("a") + b.count("a")


def test_only_the_first_examples_are_kept():
    many = [Place("f.csv", row, "item", "x") for row in range(1, 9)]
    merged = Notes.of("odd", 3, many[:3]) + Notes.of("odd", 5, many[3:])
    assert merged.count("odd") == 8
    assert [place.row for place in merged.entries[0].examples] == [1, 2, 3, 4, 5] == list(range(1, EXAMPLES + 1))


def test_a_line_names_reason_count_and_place():
    assert Notes.of("events skipped", 1200, [Place("f.csv", 7, "item", "x9")]).lines() == [
        "events skipped: 1,200 (for example f.csv row 7, item 'x9')"
    ]


def test_rows_are_translated_in_one_call():
    calls = []

    def rows(records):
        calls.append(list(records))
        return [record + 100 for record in records]

    found = Notes.of("a", 1, [Place("f", 1, "x", "")]) + Notes.of(
        "b", 2, [Place("f", 2, "x", ""), Place("f", 3, "x", "")]
    )
    located = found.located(rows)
    assert calls == [[1, 2, 3]]
    assert [place.row for note in located.entries for place in note.examples] == [101, 102, 103]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("A1B2", "A1B2"),
        (4.5, "4.5"),
        (None, ""),
        ("11/11/2019 9:05:58 AM", "11/11/2019 9:05:58 AM"),
        ("where to hide money", "<19 characters>"),
        ("x" * 41, "<41 characters>"),
    ],
)
def test_prose_is_shown_by_its_length_only(value, shown):
    assert showable(value) == shown
