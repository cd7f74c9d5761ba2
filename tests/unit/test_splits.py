"""Splits, worked by hand. Items are letters: a = 0, b = 1, …"""

import numpy as np
import pytest

from fedrec.device.event import Event, Kind
from fedrec.errors import DataError, SpecError
from fedrec.population.source import Population
from fedrec.study.splits import ItemSets, chosen, global_time, hide_items, leave_one_out, mentioned


def acts(line, start=0):
    """`"a b -c ? !d"`: like a, like b, skip c, search, review d; one second apart."""
    kinds = {"-": Kind.SKIP, "!": Kind.REVIEW, "~": Kind.VIEW}
    events = []
    for time, word in enumerate(line.split(), start):
        if word == "?":
            events.append(Event(kind=Kind.SEARCH, text="jazz", time=time))
        else:
            events.append(Event(kind=kinds.get(word[0], Kind.LIKE), item=ord(word[-1]) - ord("a"), time=time))
    return events


def people(*lines):
    return Population.of([acts(line) for line in lines])


def letters(items):
    return "".join(chr(ord("a") + item) for item in items)


def asked(holdout):
    return [(int(cut), letters(targets)) for cut, targets in zip(holdout.cuts, holdout.targets, strict=True)]


@pytest.mark.parametrize(
    ("line", "train", "validation", "test"),
    [
        ("a b c", 1, (1, "b"), (2, "c")),
        ("a b c d", 2, (2, "c"), (3, "d")),
        ("", 0, (0, ""), (0, "")),
        ("a", 1, (1, ""), (1, "")),
        ("? ? a", 3, (3, ""), (3, "")),
        ("a b", 1, (1, ""), (1, "b")),
        ("a b a", 1, (1, ""), (1, "b")),  # choosing a again is not a new choice
        ("a b ? c", 1, (1, "b"), (3, "c")),  # a search just before the target stays
        ("a b ~c !c", 1, (1, "b"), (2, "c")),  # the view already is the choice: cut there
        ("a -c b c", 2, (2, ""), (2, "b")),  # c was skipped before: its history names it
        ("-a a b", 2, (2, ""), (2, "b")),
        ("a b c -c c", 1, (1, "b"), (2, "c")),
    ],
)
def test_leave_one_out_by_hand(line, train, validation, test):
    split = leave_one_out(people(line))
    assert (split.train.tolist(), asked(split.validation), asked(split.test)) == ([train], [validation], [test])


def test_leave_one_out_takes_each_client_by_itself():
    split = leave_one_out(people("a b c", "", "c", "b a"))
    assert asked(split.test) == [(2, "c"), (0, ""), (1, ""), (1, "a")]
    assert split.train.tolist() == [1, 0, 1, 1]
    assert split.test.targets.sizes.tolist() == [1, 0, 0, 1]


def test_events_at_one_time_keep_the_order_of_the_file():
    together = [[Event(kind=Kind.LIKE, item=item, time=7) for item in (3, 1, 2)]]
    assert leave_one_out(Population.of(together)).test.targets[0].tolist() == [2]


def test_nobody_is_split_into_nothing():
    split = leave_one_out(Population.of([]))
    assert len(split.train) == len(split.test.targets) == 0


def test_global_time_by_hand():
    population = Population.of([acts("a b c d -e f"), acts("a b", start=6), acts("e b", start=8)])
    # Ten events at 0 … 9: t1 is 6 (the 0.6 quantile, rounded up to an event), t2 is 8.
    split = global_time(population, validation=0.6, test=0.8)
    assert split.train.tolist() == [6, 0, 0]
    assert asked(split.validation) == [(6, ""), (0, "ab"), (0, "")]
    assert asked(split.test) == [(6, ""), (2, ""), (0, "eb")]


def test_what_was_skipped_before_the_date_is_not_asked_for_after_it():
    split = global_time(people("a b c -d e d f d"), validation=0.4, test=0.5)
    assert asked(split.test) == [(4, "ef")]
    # Skipped inside the window is another matter: nothing before the date names it.
    assert asked(global_time(people("a b c d e -f f b"), validation=0.4, test=0.5).test) == [(4, "ef")]


@pytest.mark.parametrize(("validation", "test"), [(0.9, 0.8), (0.0, 0.5), (0.5, 1.0)])
def test_global_time_refuses_dates_out_of_order(validation, test):
    with pytest.raises(SpecError, match="0 < validation < test < 1"):
        global_time(people("a b"), validation, test)


def test_global_time_needs_events():
    with pytest.raises(DataError, match="needs events"):
        global_time(people("", ""))


def cold_by_loop(population, cold):
    """The cold-item split, client by client, as its docstring says it."""
    for history in population:
        visible = [row for row in range(len(history)) if history.items[row] < 0 or not cold[history.items[row]]]
        wanted = [row for row in history.choices() if cold[history.items[row]]]
        warm = [row for row in history.choices() if not cold[history.items[row]]]
        if wanted and any(row < wanted[-1] for row in warm):
            yield sum(row < wanted[-1] for row in visible), history.items[wanted[-1:]], history.items[wanted[:-1]]
        else:
            yield len(visible), [], history.items[wanted]


@pytest.mark.parametrize("seed", range(6))
def test_hidden_items_are_gone_and_the_last_of_them_is_asked_for(seed):
    population = people("a b -c c d e ? f g h", "h g f e d", "a", "", "c ? b a c d", "a e b f c g")
    reduced, split = hide_items(population, 0.4, seed, catalogue_size=8)
    assert split.cold_items.sum() == 3 and len(split.cold_items) == 8
    assert not np.isin(reduced.table.column("item").to_numpy(), np.flatnonzero(split.cold_items)).any()
    for client, (cut, target, others) in enumerate(cold_by_loop(population, split.cold_items)):
        assert split.test.cuts[client] == cut
        assert letters(split.test.targets[client]) == letters(target)
        assert letters(split.test.ignored[client]) == letters(others)
    assert (split.train <= split.validation.cuts).all() and (split.validation.cuts <= split.test.cuts).all()
    assert not split.cold_items[split.validation.targets.items].any()


def test_hiding_is_replayable_and_the_seed_matters():
    population = people("a b c d e f g h")
    masks = [hide_items(population, 0.5, seed, 64)[1].cold_items for seed in (1, 1, 2)]
    assert (masks[0] == masks[1]).all() and (masks[0] != masks[2]).any()


def test_hiding_refuses_an_item_outside_the_catalogue():
    with pytest.raises(DataError, match="every item is in the catalogue"):
        hide_items(people("a h"), 0.5, 0, catalogue_size=3)
    with pytest.raises(SpecError, match="hidden fraction"):
        hide_items(people("a h"), 1.0, 0, catalogue_size=8)


def test_chosen_and_mentioned():
    population = people("a -b a c b", "c ? d")
    cuts = np.array([4, 3])
    assert [letters(items) for items in chosen(population, cuts)] == ["ac", "cd"]
    assert [letters(items) for items in mentioned(population, cuts)] == ["abc", "cd"]


def test_item_sets_pair_up_and_hide_their_contents():
    sets = ItemSets.of(np.array([2, 0, 2]), np.array([5, 6, 7]), among=4)
    rows, items = sets.pairs(np.array([3, 2, 0]))
    assert (rows.tolist(), items.tolist()) == ([1, 1, 2], [5, 7, 6])
    assert repr(sets) == "ItemSets(4 clients, 3 items, contents withheld)"
