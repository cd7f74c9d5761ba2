"""Several local steps in one batched computation leave behind what each client's own steps do.

The oracle is `LocalTraining.round`, one client at a time. Seven people cover what a history can hold: searches,
reviews, ratings, skips, repetitions, free text beside an item, no usable choice, one event, nothing.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedrec.device.event import NO_ITEM, Event, Kind
from fedrec.device.profile import Events
from fedrec.device.training import LocalTraining
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.population import rivals, several
from fedrec.population.batch import Batch
from fedrec.population.heads import Heads
from fedrec.population.several import bytes_per_client, several_steps
from fedrec.population.source import Population
from fedrec.population.tower import Tower
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

DIM = 3
TEXTS = ["red apple", "green apple pie", "red car", "a blue car", "", "old boat", "new green boat", "pie and tea"]
ITEMS = len(TEXTS)
PROFILE = ProfileSpec(rating=1.5)
HISTORIES = [
    [(Kind.CLICK, 0, ""), (Kind.SKIP, 3, ""), (Kind.SEARCH, NO_ITEM, "a green boat"), (Kind.CLICK, 6, "tea"),
     (Kind.CLICK, 0, ""), (Kind.LIKE, 4, ""), (Kind.SEARCH, NO_ITEM, "tea"), (Kind.CLICK, 2, "")],
    [],
    [(Kind.REVIEW, 4, "no words about pie"), (Kind.LIKE, 0, ""), (Kind.CLICK, 2, ""), (Kind.CLICK, 7, "")],
    [(Kind.RATE, 5, "")],
    [(Kind.SEARCH, NO_ITEM, "tea"), (Kind.SKIP, 1, "")],
    [(Kind.RATE, 7, ""), (Kind.RATE, 1, "tea"), (Kind.RATE, 6, ""), (Kind.CLICK, 2, ""), (Kind.CLICK, 5, "")],
    [(Kind.VIEW, 3, ""), (Kind.VIEW, 1, "")],
]  # fmt: skip
IDLE = [1, 3, 4]  # nobody can be asked what these choose next
HIDDEN = np.arange(ITEMS) == 3

every_adapter = pytest.mark.parametrize("adapter", ["none", "bottleneck", "lora"])
RIVALS = pytest.mark.parametrize("negatives", [0, 4], ids=["catalogue", "drawn"])


def people():
    return Population.of(
        [
            Event(kind=kind, item=item, text=text, rating=0.9 if kind is Kind.RATE else float("nan"), time=time)
            for time, (kind, item, text) in enumerate(acts)
        ]
        for acts in HISTORIES
    )  # fmt: skip


def model_of(adapter="bottleneck", *, features=1, **changes):
    spec = {"encoder": "tiny", "adapter": adapter, "rank": 2, "dim": DIM, "decays": (0.0, 0.6)} | changes
    dense = stream(0, "features").normal(size=(ITEMS, features)).astype("f4")
    return Model.build(
        Catalogue([f"i{n}" for n in range(ITEMS)], TEXTS, dense), open_encoder("tiny"), ModelSpec(**spec), seed=1
    )


def training_of(**changes):
    return TrainingSpec(**({"steps": 3, "learning_rate": 0.7, "examples": 3} | changes))


def start_of(model):
    """Away from the public start, where half of an adapter's gradients are zero."""
    away = stream(2, "moved").normal(0.0, 0.3, model.layout.size)
    embeddings = stream(2, "embeddings").normal(0.0, 0.5, (len(HISTORIES), DIM))
    return (model.initial + away).astype("f4"), embeddings.astype("f4")


def coins():
    return [stream(5, "client", 1, client) for client in range(len(HISTORIES))]


def by_loop(model, spec, hidden=None):
    """Updates, embeddings, and one number more of each client's generator: it was asked as often."""
    shared, embeddings = start_of(model)
    training, rngs = LocalTraining(model, spec, hidden=hidden), coins()
    found = []
    for client, history in enumerate(people()):
        events = Events.of(history, PROFILE, model.adapter.prepare)
        found.append(training.round(shared, embeddings[client], events, rngs[client]))
    deltas, kept = np.stack([one.delta for one in found]), np.stack([one.embedding for one in found])
    return deltas, kept, [rng.random() for rng in rngs]


def at_once(model, spec, hidden=None):
    shared, embeddings = start_of(model)
    cohort = people()
    words = sorted({text for acts in HISTORIES for _, _, text in acts} - {""})
    numbers = {text: row for row, text in enumerate(words)}
    batch = Batch.of(cohort, np.diff(cohort.offsets), PROFILE, items=ITEMS, words=numbers)
    shut = torch.from_numpy(np.zeros(ITEMS, bool) if hidden is None else hidden)
    tower = Tower(model, torch.from_numpy(shared), model.adapter.prepare(words), clients=len(HISTORIES))
    heads, rngs = Heads(model, tower, shut, spec.hide_seen), coins()
    training = LocalTraining(model, spec, hidden=hidden)
    return *several_steps(heads, training, batch, embeddings, coins=rngs), [rng.random() for rng in rngs]


def agree(mine, theirs):
    return all(np.allclose(one, two, rtol=1e-3, atol=3e-5) for one, two in zip(mine[:2], theirs[:2], strict=True))


@every_adapter
@RIVALS
@pytest.mark.parametrize("hide", [True, False])
def test_each_client_ends_where_its_own_steps_lead(adapter, negatives, hide):
    model, spec = model_of(adapter), training_of(negatives=negatives, hide_seen=hide)
    mine, theirs = at_once(model, spec, HIDDEN), by_loop(model, spec, HIDDEN)
    assert agree(mine, theirs)
    assert mine[2] == theirs[2]
    busy = np.delete(np.arange(len(HISTORIES)), IDLE)
    for name, _ in model.layout.shapes:  # nothing is left out
        assert (np.abs(theirs[0][busy][:, model.layout.mask(name)]).max(axis=1) > 1e-3).all()


@RIVALS
@pytest.mark.parametrize(
    "changes",
    [
        {"maps": "diagonal", "projection": False},
        {"projection": False, "residuals": False, "popularity": False},
        {"adapter": "none", "projection": False},
        {"adapter": "lora", "projection": False, "features": 0},
        {"features": 0, "residuals": False},
        {"maps": "diagonal", "popularity": False, "features": 2},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
def test_so_it_is_with_every_kind_of_model(changes, negatives):
    model, spec = model_of(**changes), training_of(negatives=negatives)
    assert agree(at_once(model, spec), by_loop(model, spec))


@pytest.mark.parametrize(
    "changes",
    [{"steps": 1}, {"examples": 1}, {"examples": 99}, {"embedding_rate": 0.0}, {"embedding_decay": 2.0}, {"steps": 6}],
    ids=str,
)
def test_so_it_is_with_every_kind_of_training(changes):
    model, spec = model_of(), training_of(**changes)
    assert agree(at_once(model, spec), by_loop(model, spec))


@RIVALS
def test_clients_without_a_usable_choice_move_nothing(negatives):
    model = model_of()
    deltas, kept, after = at_once(model, training_of(negatives=negatives))
    assert not deltas[IDLE].any()
    assert np.array_equal(kept[IDLE], start_of(model)[1][IDLE])
    assert [after[client] for client in IDLE] == [coins()[client].random() for client in IDLE]  # they draw nothing


def test_nobody_learns_nothing():
    model, spec = model_of(), training_of()
    nobody = Batch.of(Population.of([]), np.zeros(0, np.int64), PROFILE, items=ITEMS, words={})
    tower = Tower(model, torch.from_numpy(model.initial), model.adapter.prepare([]), clients=0)
    heads = Heads(model, tower, torch.zeros(ITEMS, dtype=torch.bool), hide_seen=True)
    deltas, kept = several_steps(heads, LocalTraining(model, spec), nobody, np.zeros((0, DIM), "f4"), coins=[])
    assert deltas.shape == (0, model.layout.size) and kept.shape == (0, DIM)


@pytest.mark.parametrize("adapter", ["bottleneck", "lora"])
@RIVALS
def test_planted_faults_are_told_apart(adapter, negatives, monkeypatch):
    model, spec = model_of(adapter), training_of(negatives=negatives)
    theirs = by_loop(model, spec, HIDDEN)

    def fault(name, replacement, where=several._Steps):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, replacement)
            return at_once(model, spec, HIDDEN)

    queries, entries, losses = several._Steps._queries, several.Towers.entries, several._Steps._losses
    seen = rivals._seen
    faults = {
        "an unmoved tower": fault("_slope", several._Steps._first_slope),
        "one tower for all": fault(
            "_losses", lambda steps, mine, *rest: losses(steps, mine.mean(0).expand_as(mine), *rest)
        ),
        "texts unread": fault("entries", lambda *of: 0 * entries(*of), several.Towers),
        "weights left out": fault(
            "_queries",
            lambda steps, parameters, laid, vectors: queries(
                steps, parameters, replace(laid, weight=(laid.weight != 0).float()), vectors
            ),
        ),
        "seen items compete": fault("_seen", lambda laid: seen(laid) & False, rivals),
    }
    assert [name for name, found in faults.items() if agree(found, theirs)] == []


def test_a_chunk_is_told_what_a_client_takes():
    few, many = model_of(dim=2), model_of("lora", dim=2)
    for spec in (training_of(), training_of(negatives=4)):
        taken = bytes_per_client(few, spec, 4, 8)
        assert taken >= 4 * 3 * few.layout.size
        assert taken < bytes_per_client(few, spec, 9, 8) < bytes_per_client(few, spec, 9, 30)
        assert bytes_per_client(many, spec, 4, 8) > 2 * taken  # states of every token
