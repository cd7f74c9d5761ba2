"""A taste is what training makes of the same events, and does not depend on how they came to be in it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.device.act import Act
from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events
from fedrec.device.store import Columns
from fedrec.device.training import queries_at
from fedrec.embed import taste as module
from fedrec.embed.ranker import Ranker, Standing
from fedrec.embed.reader import open_reader
from fedrec.embed.taste import Taste
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import read_pack
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.task import Task

laws = settings(derandomize=True, deadline=None, max_examples=40)

IDS = [f"i{row}" for row in range(7)]
TEXTS = ["red apple", "green apple", "red car", "blue car", "", "old blue boat", "green boat"]

acts = st.builds(
    Act,
    kind=st.sampled_from(list(Kind)),
    item=st.sampled_from([*IDS, "gone"]),
    text=st.sampled_from(["", "", "apple", "a blue boat"]),
    weight=st.sampled_from([0.0, 1.0, 2.5]),
    rating=st.sampled_from([math.nan, 0.0, 0.3, 1.0]),
    time=st.integers(-2, 5),
) | st.builds(Act, kind=st.just(Kind.SEARCH), text=st.sampled_from(["red", "!", "old boat"]), time=st.integers(-2, 5))
histories = st.lists(acts, max_size=12)


@pytest.fixture(scope="module", params=["full", "diagonal"])
def made(request, tmp_path_factory):
    """A task with moved parameters, its shared vector, and the pack of it."""
    model = {"encoder": "hash", "dim": 5, "rank": 2, "decays": [0.0, 0.7, 1.0], "maps": request.param}
    plan = Plan.of({"clients": 10, "model": model, "profile": {"rating": 1.5, "text": 0.4}})
    task = Task(plan, Catalogue(IDS, TEXTS, stream(0, "features").normal(size=(7, 2)).astype(np.float32)))
    shared = (task.model.initial + stream(0, "away").normal(0.0, 0.3, task.model.layout.size)).astype(np.float32)
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder, task, shared, statements(None, simulated=True))
    return task, shared, read_pack(folder, None)


@pytest.fixture(scope="module", autouse=True)
def _kept_often():
    """Sums are kept so often that a change goes back to some of them."""
    usual, module._EVERY = module._EVERY, 3
    yield
    module._EVERY = usual


def columns(events):
    """What a store gives of (id, act) pairs."""
    events = sorted(events, key=lambda event: (event[1].time, event[0]))
    acts = [act for _, act in events]
    return Columns(
        ids=np.array([number for number, _ in events], np.int64),
        kinds=np.array([act.kind for act in acts], np.int8),
        times=np.array([act.time for act in acts], np.int64),
        weights=np.array([act.weight for act in acts], np.float32),
        ratings=np.array([act.rating for act in acts], np.float32),
        items=tuple(act.item for act in acts),
        texts=tuple(act.text for act in acts),
    )


def numbered(acts):
    return list(enumerate(acts, 1))


def same(one, other):
    """Nothing tells them apart, to the last bit."""
    return (
        [trace[:-1] for trace in one.traces] == [trace[:-1] for trace in other.traces]
        and np.array_equal(one.views, other.views)
        and one.evidence == other.evidence
        and np.array_equal(one.seen, other.seen)
        and np.array_equal(one.choices, other.choices)
        and np.array_equal(one.before_choices(3), other.before_choices(3))
    )


class Steady:
    """A reader that says of a text the same to the last bit, however many come with it."""

    def __init__(self, pack):
        self.reader, self.known = open_reader(pack, None), {}

    def vectors(self, texts):
        for text in texts:
            if text not in self.known:
                self.known[text] = self.reader.vectors([text])[0]
        return np.stack([self.known[text] for text in texts])

    pooled = None


def trained(made, acts):
    """Queries, scores and choices as training computes them after all of the events."""
    task, shared, _ = made
    rows = task.catalogue.rows
    known = [act for act in acts if not act.item or act.item in rows]
    fields = ("kind", "text", "weight", "rating", "time")
    history = History.of(
        Event(item=rows.get(act.item, NO_ITEM), **{name: getattr(act, name) for name in fields}) for act in known
    )
    events = Events.of(history, task.plan.profile, task.model.adapter.prepare)
    with torch.no_grad():
        parameters = task.model.layout.views(torch.from_numpy(shared))
        table = task.model.item_vectors(parameters)
        queries = queries_at(task.model, parameters, (events, torch.tensor([len(history)])), (table, None))
        scores = (queries @ table.T + task.model.prior(parameters)).numpy()[0]
    return queries.numpy()[0], scores, events.chosen.numpy()


@laws
@given(given_acts=histories)
def test_queries_scores_and_choices_are_those_of_training(made, given_acts):
    pack = made[2]
    taste = Taste.of(columns(numbered(given_acts)), pack, open_reader(pack, None))
    queries, scores, chosen = trained(made, given_acts)
    ranker, standing = Ranker(pack), Standing.bare(taste)
    assert np.allclose(ranker.query(standing), queries, atol=2e-4)
    assert np.allclose(ranker.scores(standing), scores, atol=5e-4)
    assert np.allclose(pack.scores(taste.contexts, np.zeros(5, np.float32)), scores, atol=5e-4)
    assert taste.choices.tolist() == chosen.tolist()
    assert np.flatnonzero(taste.seen).tolist() == sorted(chosen.tolist())


def test_the_comparison_with_training_is_sharp(made):
    """One event more, another order, another rating or another text: each is seen in the query."""
    pack, reader = made[2], open_reader(made[2], None)
    like = Act(kind=Kind.LIKE, item="i0", time=1)
    rated = Act(kind=Kind.RATE, item="i2", rating=0.2, text="blue boat", time=2)
    right, *_ = trained(made, [like, rated])
    for wrong in (
        [like],
        [rated, Act(kind=Kind.LIKE, item="i0", time=3)],
        [like, Act(kind=Kind.RATE, item="i2", rating=0.3, text="blue boat", time=2)],
        [like, Act(kind=Kind.RATE, item="i2", rating=0.2, text="apple", time=2)],
    ):
        found = Ranker(pack).query(Standing.bare(Taste.of(columns(numbered(wrong)), pack, reader)))
        assert np.abs(found - right).max() > 0.01


@laws
@given(given_acts=histories)
def test_the_way_the_events_came_does_not_matter(made, given_acts):
    pack, reader = made[2], Steady(made[2])
    step_by_step = Taste(pack, reader)
    for number, act in numbered(given_acts):
        step_by_step.add(number, act)
    assert same(step_by_step, Taste.of(columns(numbered(given_acts)), pack, reader))


@laws
@given(given_acts=histories, data=st.data())
def test_what_was_removed_was_never_there(made, given_acts, data):
    pack, reader = made[2], Steady(made[2])
    gone = data.draw(st.sets(st.integers(0, len(given_acts) + 1)))
    taste = Taste.of(columns(numbered(given_acts)), pack, reader)
    taste.remove(gone)
    kept = [(number, act) for number, act in numbered(given_acts) if number not in gone]
    assert same(taste, Taste.of(columns(kept), pack, reader))


@laws
@given(given_acts=histories)
def test_evidence_is_every_event_that_says_something(made, given_acts):
    pack, reader = made[2], Steady(made[2])
    taste = Taste.of(columns(numbered(given_acts)), pack, reader)
    alone = [Taste.of(columns([event]), pack, reader) for event in numbered(given_acts)]
    assert taste.evidence == sum(not one.empty for one in alone)


@laws
@given(given_acts=histories, seed=st.integers(0, 99))
def test_parts_add_up(made, given_acts, seed):
    pack = made[2]
    taste = Taste.of(columns(numbered(given_acts)), pack, open_reader(pack, None))
    wanted = stream(seed, "wanted").normal(size=taste.views.shape)
    parts = taste.parts(wanted)
    assert parts.shape == (len(taste),)
    assert abs(parts.sum() - (taste.views * wanted).sum()) < 1e-6


@laws
@given(given_acts=histories)
def test_views_before_a_choice_are_those_of_the_events_before_it(made, given_acts):
    pack, reader = made[2], Steady(made[2])
    taste = Taste.of(columns(numbered(given_acts)), pack, reader)
    firsts = [next(n for n, one in enumerate(taste.traces) if one.chooses and one.row == row) for row in taste.choices]
    kept = dict(numbered(given_acts))
    for views, place in zip(taste.before_choices(99), firsts, strict=True):
        before = [(trace.id, kept[trace.id]) for trace in taste.traces[:place]]
        assert np.array_equal(views, Taste.of(columns(before), pack, reader).views)
    assert np.array_equal(taste.before_choices(2), taste.before_choices(99)[-2:])


def test_a_repr_says_nothing_of_a_person(made):
    taste = Taste(made[2], open_reader(made[2], None))
    taste.add(1, Act(kind=Kind.SEARCH, text="private boat"))
    shown = repr(taste) + repr(taste.traces) + repr(Standing.bare(taste))
    assert "1 events" in shown and "boat" not in shown
