"""One client's round, worked by hand: the loss, its rivals, the draw, and what is left behind."""

from math import exp, log

import numpy as np
import pytest
import torch

from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.device.profile import Events
from fedrec.device.training import LocalTraining, trainable
from fedrec.errors import DataError, WireError
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec
from fedrec.study.leaks import check_negatives
from fedrec.study.splits import chosen, leave_one_out

NOBODY = np.zeros(2, np.float32)


def model_of(items, **spec):
    catalogue = Catalogue([f"i{n}" for n in range(items)], [f"word{n} word{n // 2}" for n in range(items)])
    return Model.build(catalogue, open_encoder("hash"), ModelSpec(adapter="none", dim=2, **spec), seed=0)


def events_of(model, *acts):
    return Events.of(History.of(acts), ProfileSpec(), model.adapter.prepare)


def clicks(model, *items):
    return events_of(model, *(Event(kind=Kind.CLICK, item=item, time=time) for time, item in enumerate(items)))


def shared_of(model, **values):
    """The public start with some parameters replaced."""
    named = model.layout.views(torch.from_numpy(model.initial.copy()))
    return model.layout.flatten(named | {name: torch.tensor(value) for name, value in values.items()})


TOY = model_of(3, decays=(0.0,))
# Without text: vectors are (1, 0), (0, 1), (1, 1), a query is the vector of the last item.
SHARED = shared_of(
    TOY, projection=[[0.0, 0.0]] * 256, maps=[[[1.0, 0.0], [0.0, 1.0]]],
    residuals=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], popularity=[0.0, 0.5, -0.5],
)  # fmt: skip


def loss(training, events, choice, *, negatives=None, embedding=NOBODY, shared=SHARED):
    drawn = None if negatives is None else torch.tensor(negatives)
    at = torch.from_numpy(np.atleast_1d(choice))
    return float(training.loss(torch.from_numpy(shared), torch.from_numpy(embedding), events, at, drawn))


@pytest.mark.parametrize(
    ("hide", "negatives", "expected"),
    [
        # After item 0 the logits are 1, 0 + 0.5, 1 − 0.5; item 1 is the target.
        (True, None, log(2)),
        (False, None, log(exp(1) + 2 * exp(0.5)) - 0.5),
        (True, [2], log(2)),
        (True, [0], 0.0),
        (False, [0], log(exp(1) + exp(0.5)) - 0.5),
        (False, [0, 2], log(exp(1) + 2 * exp(0.5)) - 0.5),
        (False, [1, 2], log(2)),  # a target that is drawn too counts once
    ],
)
def test_cross_entropy_by_hand(hide, negatives, expected):
    training = LocalTraining(TOY, TrainingSpec(hide_seen=hide))
    assert loss(training, clicks(TOY, 0, 1, 2), 1, negatives=negatives) == pytest.approx(expected, abs=1e-6)


def test_the_embedding_joins_the_query():
    training = LocalTraining(TOY, TrainingSpec())
    found = loss(training, clicks(TOY, 0, 1, 2), 1, embedding=np.array([0.25, -1.0], np.float32))
    mine, other = 0.5 - 1.0, 0.5 + 0.25 - 1.0
    assert found == pytest.approx(log(exp(mine) + exp(other)) - mine, abs=1e-6)


def test_the_loss_of_several_choices_is_their_mean():
    training, events = LocalTraining(TOY, TrainingSpec(hide_seen=False)), clicks(TOY, 0, 1, 2)
    alone = [loss(training, events, choice) for choice in (1, 2)]
    assert loss(training, events, [1, 2]) == pytest.approx(np.mean(alone), abs=1e-6)
    assert alone[0] != pytest.approx(alone[1], abs=0.1)


WIDE = model_of(9)


def rivals(training, events, choice, negatives=None):
    """Items whose popularity would change the loss upwards: the softmax gives each of its rivals a share."""
    shared = torch.from_numpy(WIDE.initial.copy()).requires_grad_()
    drawn = None if negatives is None else torch.tensor(negatives)
    found = training.loss(shared, torch.zeros(2), events, torch.tensor([choice]), drawn)
    (gradient,) = torch.autograd.grad(found, shared)
    return set(np.flatnonzero(gradient[torch.from_numpy(WIDE.layout.mask("popularity"))] > 0).tolist())


ACTS = [
    Event(kind=Kind.SKIP, item=8, time=0),
    Event(kind=Kind.CLICK, item=3, time=1),
    Event(kind=Kind.SEARCH, text="word7", time=2),
    Event(kind=Kind.CLICK, item=5, time=3),
    Event(kind=Kind.LIKE, item=3, time=4),
    Event(kind=Kind.CLICK, item=1, time=5),
    Event(kind=Kind.CLICK, item=6, time=6),
]
LIFE = events_of(WIDE, *ACTS)  # chooses 3, 5, 1, 6


@pytest.mark.parametrize(("choice", "before"), [(0, set()), (1, {3}), (2, {3, 5}), (3, {1, 3, 5})])
def test_rivals_are_all_but_what_was_chosen_before(choice, before):
    target, everything = [3, 5, 1, 6][choice], set(range(9))
    hiding, open_ = (LocalTraining(WIDE, TrainingSpec(hide_seen=hide)) for hide in (True, False))
    assert rivals(hiding, LIFE, choice) == everything - before - {target}  # skipped 8 and later ones stay
    assert rivals(open_, LIFE, choice) == everything - {target}
    assert rivals(hiding, LIFE, choice, [0, 3, 6, 7]) == {0, 3, 6, 7} - before - {target}
    assert rivals(open_, LIFE, choice, [0, 3, 6, 7]) == {0, 3, 6, 7} - {target}


def test_hidden_items_are_no_rivals_and_are_never_drawn():
    hidden = np.isin(np.arange(9), [0, 7])
    training = LocalTraining(WIDE, TrainingSpec(negatives=4), hidden=hidden)
    assert rivals(training, LIFE, 1) == set(range(9)) - {0, 7, 3, 5}
    assert rivals(training, LIFE, 1, [0, 2, 8]) == {2, 8}
    rng = stream(0, "hidden")
    drawn = np.concatenate([training.draw(trainable(LIFE), rng)[1] for _ in range(200)])
    assert set(drawn.tolist()) == set(range(9)) - {0, 7}


def test_a_chosen_item_that_is_hidden_is_still_a_target():
    hidden = np.isin(np.arange(9), [5])
    for negatives in (None, [0, 5]):
        found = loss(LocalTraining(WIDE, TrainingSpec(), hidden=hidden), LIFE, 1, negatives=negatives,
                     shared=WIDE.initial)  # fmt: skip
        assert 0 < found < 10


def people():
    rng = stream(0, "people")
    weight = 1 / (1 + np.arange(60))
    lists = [rng.choice(60, 4 + n % 12, replace=False, p=weight / weight.sum()) for n in range(160)]
    return Population.of([[Event(kind=Kind.CLICK, item=int(i), time=t) for t, i in enumerate(one)] for one in lists])


@pytest.fixture(scope="module")
def crowd():
    population, model = people(), model_of(60)
    split = leave_one_out(population)
    events = [
        Events.of(population[client].before(int(cut)), ProfileSpec(), model.adapter.prepare)
        for client, cut in enumerate(split.train)
    ]
    return population, split, model, events


def test_drawn_negatives_do_not_know_the_person(crowd):
    population, split, model, events = crowd
    training, rng = LocalTraining(model, TrainingSpec(negatives=12)), stream(1, "draw")
    check_negatives(lambda client: training.draw(trainable(events[client]), rng)[1], population, split, draws=60)
    ever = chosen(population, np.diff(population.offsets))

    def leaky(client):  # what the published samplers do: never an item that the person will choose
        drawn = training.draw(trainable(events[client]), rng)[1]
        return drawn[~np.isin(drawn, ever[client])]

    with pytest.raises(DataError, match="do not depend on what is held out"):
        check_negatives(leaky, population, split, draws=60)


def test_the_rivals_of_the_whole_catalogue_do_not_know_the_future(crowd):
    population, split, model, events = crowd
    training = LocalTraining(model, TrainingSpec())
    ever = chosen(population, np.diff(population.offsets))
    of_popularity = torch.from_numpy(model.layout.mask("popularity"))

    def candidates(client):
        usable = trainable(events[client])
        if not len(usable):
            return np.zeros(0, np.int64)
        shared = torch.from_numpy(model.initial.copy()).requires_grad_()
        found = training.loss(shared, torch.zeros(2), events[client], torch.from_numpy(usable[-1:]), None)
        (gradient,) = torch.autograd.grad(found, shared)
        return np.flatnonzero(gradient[of_popularity])

    known = [candidates(client) for client in range(len(population))]
    check_negatives(lambda client: known[client], population, split)
    with pytest.raises(DataError, match="do not depend on what is held out"):
        check_negatives(lambda client: np.setdiff1d(known[client], ever[client]), population, split)


def round_of(events, *, embedding=NOBODY, shared=SHARED, model=TOY, rng=None, **spec):
    training = LocalTraining(model, TrainingSpec(**spec))
    return training.round(shared, embedding, events, rng or stream(0, "client"))


def test_one_step_is_the_learning_rate_against_the_gradient():
    events, start = clicks(TOY, 0, 1, 2), np.array([0.3, -0.2], np.float32)
    shared, embedding = torch.from_numpy(SHARED.copy()).requires_grad_(), torch.from_numpy(start).requires_grad_()
    training = LocalTraining(TOY, TrainingSpec())
    found = training.loss(shared, embedding, events, torch.tensor([1, 2]), None)
    to_shared, to_embedding = torch.autograd.grad(found, (shared, embedding))
    outcome = round_of(events, embedding=start, learning_rate=0.25, embedding_rate=2.0, embedding_decay=0.5)
    assert outcome.delta == pytest.approx(-0.25 * to_shared.numpy(), abs=1e-6)
    assert outcome.embedding == pytest.approx(start - 2.0 * (to_embedding.numpy() + 0.5 * start), abs=1e-6)
    assert np.abs(outcome.delta).max() > 0.01


def test_the_embedding_never_travels():
    events, start = clicks(TOY, 0, 1, 2), np.array([0.3, -0.2], np.float32)
    still, moving = (round_of(events, embedding=start, embedding_rate=rate) for rate in (0.0, 5.0))
    assert (still.delta == moving.delta).all() and still.delta.shape == (TOY.layout.size,)
    assert (still.embedding == start).all() and moving.embedding != pytest.approx(start, abs=0.01)


def test_without_a_rate_there_is_no_embedding():
    assert (round_of(clicks(TOY, 0, 1, 2), embedding_rate=0.0, steps=3).embedding == NOBODY).all()
    moved = round_of(clicks(TOY, 0, 1, 2)).embedding
    assert moved.shape == (2,) and moved.any()


@pytest.mark.parametrize(
    "acts",
    [
        [],
        [Event(kind=Kind.CLICK, item=0)],
        [Event(kind=Kind.SEARCH, text="word1"), Event(kind=Kind.SKIP, item=1, time=1)],
        [Event(kind=Kind.CLICK, item=0), Event(kind=Kind.LIKE, item=0, time=1)],
    ],
    ids=["nothing", "one choice", "no choice", "one item twice"],
)
def test_without_a_usable_choice_nothing_moves(acts):
    start = np.array([0.3, -0.2], np.float32)
    outcome = round_of(events_of(TOY, *acts), embedding=start, steps=2, negatives=2)
    assert outcome.delta.shape == (TOY.layout.size,) and not outcome.delta.any()
    assert (outcome.embedding == start).all()


def test_a_first_choice_after_a_search_is_usable():
    searched = events_of(WIDE, Event(kind=Kind.SEARCH, text="word1"), Event(kind=Kind.CLICK, item=0, time=1))
    assert trainable(searched).tolist() == [0]
    assert round_of(searched, model=WIDE, shared=WIDE.initial).delta.any()


def test_a_step_uses_at_most_so_many_examples():
    """With one example allowed, a step is one of the single-example gradients; with two, a mean of two."""
    events, training = clicks(WIDE, 3, 5, 1, 6, 8), LocalTraining(WIDE, TrainingSpec())
    shared = torch.from_numpy(WIDE.initial.copy()).requires_grad_()
    single = []
    for choice in range(1, 5):
        found = training.loss(shared, torch.zeros(2), events, torch.tensor([choice]), None)
        single.append(-torch.autograd.grad(found, shared)[0].numpy())
    means = [(single[a] + single[b]) / 2 for a in range(4) for b in range(a)]
    used = set()
    for seed in range(12):
        one, two = (
            round_of(events, model=WIDE, shared=WIDE.initial, examples=bound, rng=stream(seed, "c")).delta
            for bound in (1, 2)
        )
        distance = [np.abs(one - gradient).max() for gradient in single]
        assert min(distance) < 1e-6
        used.add(int(np.argmin(distance)))
        assert min(np.abs(two - mean).max() for mean in means) < 1e-6
    assert len(used) > 1
    whole = round_of(events, model=WIDE, shared=WIDE.initial, examples=99).delta
    assert whole == pytest.approx(np.mean(single, axis=0), abs=1e-6)


def test_a_round_can_be_replayed():
    draw = {"model": WIDE, "shared": WIDE.initial, "examples": 2, "negatives": 3, "steps": 2}
    first, again, other = (round_of(LIFE, rng=stream(seed, "client", 4), **draw) for seed in (0, 0, 1))
    assert (first.delta == again.delta).all() and (first.embedding == again.embedding).all()
    assert (first.delta != other.delta).any()


def test_a_round_leaves_its_inputs_alone():
    shared, embedding = SHARED.copy(), np.array([0.3, -0.2], np.float32)
    shared.flags.writeable = embedding.flags.writeable = False
    outcome = round_of(clicks(TOY, 0, 1, 2), shared=shared, embedding=embedding, steps=2)
    assert (shared == SHARED).all() and embedding.tolist() == pytest.approx([0.3, -0.2])
    assert outcome.delta.dtype == outcome.embedding.dtype == np.float32


def test_a_vector_of_another_model_is_refused():
    with pytest.raises(WireError, match="does not fit the model"):
        round_of(clicks(TOY, 0, 1), shared=SHARED[:-1])
