"""Laws of splits, over any population."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.population.source import Population
from fedrec.study.leaks import check_split
from fedrec.study.splits import chosen, global_time, hide_items, leave_one_out, mentioned

ITEMS = 7
events = st.builds(
    lambda kind, item, time: Event(kind=kind, item=NO_ITEM if item == ITEMS else item, time=time),
    st.sampled_from(list(Kind)),
    st.integers(0, ITEMS),
    st.integers(0, 9),
)
populations = st.lists(st.lists(events, max_size=12), min_size=1, max_size=5).map(Population.of)
law = settings(derandomize=True, deadline=None, max_examples=150)


def leave_out_by_loop(history):
    """(test row, validation row) of one client, straight from the definition."""
    rows = history.choices()
    fresh = [int(row) for row in rows[1:] if history.items[row] not in history.items[:row]]
    return [None, None, *fresh][-1], [None, None, *fresh][-2]


@law
@given(populations)
def test_leave_one_out_equals_the_loop(population):
    split = leave_one_out(population)
    for client, history in enumerate(population):
        test, validation = leave_out_by_loop(history)
        cut = len(history) if test is None else test
        assert split.test.cuts[client] == cut
        assert split.validation.cuts[client] == (cut if validation is None else validation)
        assert split.test.targets[client].tolist() == ([] if test is None else [history.items[test]])
        assert split.validation.targets[client].tolist() == ([] if validation is None else [history.items[validation]])


@law
@given(populations, st.integers(0, 5))
def test_no_split_leaks(population, seed):
    check_split(population, leave_one_out(population))
    check_split(*hide_items(population, 0.3, seed, ITEMS))
    if population.table.num_rows:
        check_split(population, global_time(population))


@law
@given(populations, st.data())
def test_chosen_and_mentioned_equal_the_loop(population, data):
    cuts = np.array([data.draw(st.integers(0, len(history))) for history in population])
    for client, (picked, named) in enumerate(zip(chosen(population, cuts), mentioned(population, cuts), strict=True)):
        history = population[client].before(int(cuts[client]))
        assert picked.tolist() == history.items[history.choices()].tolist()
        assert named.tolist() == list(dict.fromkeys(item for item in history.items.tolist() if item != NO_ITEM))


@law
@given(populations)
def test_after_a_date_each_target_is_new_and_none_is_missed(population):
    if population.table.num_rows == 0:
        return
    split = global_time(population, 0.4, 0.6)
    for client, history in enumerate(population):
        cut = split.test.cuts[client]
        later = [item for item in history.items[history.choices()] if item not in history.items[:cut]]
        assert split.test.targets[client].tolist() == later
