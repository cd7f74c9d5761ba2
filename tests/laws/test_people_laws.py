"""Laws of people in blocks and on disk: however they are cut, every split, count and figure is the same."""

import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.datasets import shards
from fedrec.datasets.dataset import Dataset, Stream
from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.population import source
from fedrec.population.shards import Shards
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.study import splits
from fedrec.study.baselines import together
from fedrec.study.evaluate import Ranking, evaluate
from fedrec.study.leaks import check_split

ITEMS = 9
CATALOGUE = Catalogue([f"i{n}" for n in range(ITEMS)], ["text"] * ITEMS)
law = settings(derandomize=True, deadline=None, max_examples=60)
events = st.builds(
    lambda kind, item, time, text: Event(kind=kind, item=item, time=time, text=text),
    st.sampled_from(list(Kind)),
    st.integers(NO_ITEM, ITEMS - 1),
    st.integers(0, 9),
    st.sampled_from(["", "", "jazz", "tea"]),
)
populations = st.lists(st.lists(events, max_size=8), min_size=1, max_size=9).map(Population.of)


def same(one, other):
    """Whether two answers are equal, array by array."""
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def answers(people):
    """Everything that is asked of everybody."""
    cuts = people.sizes // 2
    split = splits.leave_one_out(people)
    check_split(people, split)
    yield from (split, splits.chosen(people, cuts), splits.mentioned(people, cuts), people.hash, people.written())
    yield from (splits.Trained(people, cuts).counts(ITEMS), together(people, cuts, ITEMS))
    if people.sizes.any():
        yield splits.global_time(people, 0.4, 0.7)


@law
@given(populations, st.integers(1, 4), st.integers(1, 4))
def test_blocks_and_files_change_no_answer(population, block, clients):
    whole = list(answers(population))
    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(source, "BLOCK", block):
        shards.write(Stream.of(Dataset("any", CATALOGUE, population)), Path(scratch) / "p", clients=clients)
        for people in (population, Shards.open(Path(scratch) / "p")):
            assert all(same(one, other) for one, other in zip(whole, answers(people), strict=True))


@law
@given(populations, st.integers(1, 4), st.data())
def test_a_leak_is_found_in_whatever_block_it_is(population, block, data):
    split = splits.leave_one_out(population)
    asked = np.flatnonzero(split.test.targets.sizes)
    if not len(asked):
        return
    split.test.cuts[data.draw(st.sampled_from(asked.tolist()))] += 1
    with mock.patch.object(source, "BLOCK", block), pytest.raises(DataError, match="mentioned nowhere.*leaked=1"):
        check_split(population, split)


times = st.one_of(st.integers(-70_000, 70_000), st.integers(1_700_000_000, 1_700_000_200), st.sampled_from([5, 2**40]))


@law
@given(st.lists(times, min_size=1, max_size=30), st.floats(0, 1))
def test_dates_are_quantiles_however_many_events_there_are(found, share):
    lines = [[Event(kind=Kind.CLICK, item=0, time=time) for time in found[n::3]] for n in range(3)]
    with mock.patch.object(source, "BLOCK", 2):
        date = splits._time_at(Population.of(lines), int(np.ceil((len(found) - 1) * share)))
    assert date == np.quantile(np.array(found), share, method="higher")


def likes(rng, people):
    return Population.of(
        [Event(kind=Kind.LIKE, item=int(item), time=time) for time, item in enumerate(rng.permutation(ITEMS)[:5])]
        for _ in range(people)
    )


def test_a_sample_of_people_gets_the_figures_it_gets_among_all(monkeypatch):
    rng = stream(3, "sample")
    population, scores = likes(rng, 40), rng.random((40, ITEMS), np.float32)
    split = splits.leave_one_out(population)

    def run(people, seed=1):
        tags = [(f"t{item % 3}",) for item in range(ITEMS)]
        ranking = Ranking(k=(2,), negatives=3, seed=seed, people=people, tags=tags)
        return evaluate(lambda clients, _: scores[clients], population, split.test, train=split.train, ranking=ranking)

    whole, some = run(0), run(12)
    clients = some.users["client"].to_numpy()
    assert len(set(clients)) == 12 and (np.diff(clients) > 0).all()
    columns = [name for name in whole.users if name not in ("quartile", "taste")]  # these are of those who are asked
    expected = whole.users.set_index("client", drop=False).loc[clients, columns].reset_index(drop=True)
    assert some.users[columns].equals(expected)
    assert some.summary["hr@2"] == expected["hr@2"].mean() != whole.summary["hr@2"]
    assert some.protocol["people"] == "12 of 40 with a target, drawn with the seed"
    assert whole.protocol["people"] == "40 of 40 with a target" == run(40).protocol["people"]
    assert (some.protocol["evaluated"], some.protocol["not evaluated"]) == (12, 0)
    assert run(12).users.equals(some.users) and set(run(12, seed=2).users["client"]) != set(clients)
    assert set(run(6).users["client"]) < set(clients)  # more people, never other people
    monkeypatch.setattr(source, "BLOCK", 3)
    assert run(12).summary == some.summary


def test_what_was_trained_on_is_counted_once(monkeypatch):
    population, cuts = likes(stream(5, "counts"), 20), np.full(20, 3)
    trained = splits.Trained(population, cuts)
    first = trained.counts(ITEMS)
    by_hand = [sum(item in history.items[:3] for history in population) for item in range(ITEMS)]
    assert first.tolist() == by_hand and first.sum() == 60
    first += 1  # whoever changes an answer changes no later one
    monkeypatch.setattr(Population, "blocks", None)
    assert trained.counts(ITEMS + 2).tolist() == [*by_hand, 0, 0]


def test_two_holdouts_ask_nearly_the_same_people():
    rng = stream(4, "sample")
    population = likes(rng, 200)
    split = splits.leave_one_out(population)
    scorer = lambda clients, _: np.zeros((len(clients), ITEMS), np.float32)  # noqa: E731
    asked = [
        set(evaluate(scorer, population, holdout, ranking=Ranking(people=50)).users["client"])
        for holdout in (split.validation, split.test)
    ]
    assert asked[0] == asked[1]  # everybody here has both targets
