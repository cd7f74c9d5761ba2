"""What was planted in the synthetic library is found again by a federation, and not in shuffled data."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from fedrec.datasets import synthetic
from fedrec.device.profile import contexts
from fedrec.exchange.client import client_app
from fedrec.exchange.serve import serve
from fedrec.model.encoder import open_encoder
from fedrec.population.grid import in_process
from fedrec.population.source import Population
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, ModelScorer, VirtualDevice, World
from fedrec.randomness import stream
from fedrec.spec import Plan
from fedrec.study.baselines import frozen_text, popularity
from fedrec.study.evaluate import evaluate
from fedrec.study.metrics import interval
from fedrec.task import Task

USERS, ITEMS, ROUNDS, DIM = 300, 200, 12, 32
PLAN = Plan.of(
    {
        "clients": USERS,
        "model": {"encoder": "hash", "dim": DIM},
        "federation": {"rounds": ROUNDS, "cohort": 100},
        "evaluation": {"every": 0},
    }
)


def shuffled(population):
    """Everybody's items mixed with everybody else's: as popular as before, related to nothing."""
    items = population.table.column("item").to_numpy().copy()
    known = items >= 0
    items[known] = stream(0, "shuffled").permutation(items[known])
    place = population.table.schema.get_field_index("item")
    table = population.table.set_column(place, population.table.schema.field("item"), pa.array(items))
    return Population(table, population.offsets, population.names)


def trained_on(dataset, folder):
    world, task = World.of(dataset, PLAN), Task(PLAN, dataset.catalogue)
    fleet = Fleet(task, world, DeviceStates(folder / "devices", USERS, DIM))
    app = client_app(lambda context: VirtualDevice(fleet, int(context.node_config["partition-id"])))
    shared = serve(task, in_process(app, USERS), folder)
    return ModelScorer(fleet, shared, fleet.states.after(ROUNDS))


@pytest.fixture(scope="module")
def dataset():
    return synthetic.generate(users=USERS, items=ITEMS)


@pytest.fixture(scope="module")
def honest(dataset, tmp_path_factory):
    return trained_on(dataset, tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def mutant(dataset, tmp_path_factory):
    mixed = replace(dataset, population=shuffled(dataset.population))
    return trained_on(mixed, tmp_path_factory.mktemp("mutant"))


def ndcg(scorer, world):
    """Full-catalogue NDCG@10 on the test items, user by user."""
    found = evaluate(scorer, world.population, world.split.test, train=world.cuts)
    return found.users["ndcg@10"].to_numpy()


def rivals(world):
    vectors = open_encoder("hash").encode(world.dataset.catalogue.texts)
    return {"popularity": popularity(world.population, world.cuts, ITEMS), "frozen text": frozen_text(vectors)}


def test_the_federation_beats_popularity_and_frozen_text(honest):
    world = honest.fleet.world
    mine = ndcg(honest, world)
    for name, rival in rivals(world).items():
        low, _ = interval(mine - ndcg(rival, world))
        assert low > 0.03, name


def test_a_model_of_shuffled_histories_does_not(mutant):
    """Ranked on its own shuffled test items and on nobody's tastes, it is no better than popularity."""
    world = mutant.fleet.world
    mine = ndcg(mutant, world)
    low, high = interval(mine - ndcg(rivals(world)["popularity"], world))
    assert low < 0.01 and high < 0.05


def test_shuffled_training_does_not_rank_real_people(honest, mutant):
    """The same real test items, the same real histories: what differs is what was trained on."""
    world = honest.fleet.world
    moved = ModelScorer(honest.fleet, mutant.shared, np.zeros_like(mutant.embeddings))
    plain = ModelScorer(honest.fleet, honest.shared, np.zeros_like(honest.embeddings))
    low, _ = interval(ndcg(plain, world) - ndcg(moved, world))
    assert low > 0.05


def affinity(task, shared):
    """(item, item) score of each item after each other one, centred by row and column: popularity is left out."""
    model = task.model
    with torch.no_grad():
        parameters = model.layout.views(torch.from_numpy(shared))
        table = model.item_vectors(parameters)
        one = torch.tensor([1])
        queries = torch.cat(
            [model.queries(parameters, contexts(vector[None], one, model.spec.decays)) for vector in table]
        )
        scores = (queries @ table.T).numpy().astype(np.float64)
    return scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()


def gains(task, shared):
    """(topic,) how much more affinity items of related topics have than unrelated ones of equal text similarity.

    Both kinds of pairs are compared within bins of frozen text similarity; affinity is in its own
    standard deviations.
    """
    truth = synthetic.truth(users=USERS, items=ITEMS)
    topic = truth.shelf.topics.argmax(axis=1)
    pure = truth.shelf.topics.max(axis=1) > 0.9
    related = truth.relatedness[topic][:, topic] > truth.relatedness.min() + 0.1
    text = affinity(task, task.model.initial)
    learned = affinity(task, shared)
    learned = learned / learned.std()
    other = (topic[:, None] != topic[None, :]) & pure[:, None] & pure[None, :]
    bins = np.digitize(text, np.quantile(text[other], np.linspace(0, 1, 21)[1:-1]))
    found = []
    for one in np.unique(topic):
        mine = other & (topic == one)[:, None]
        within = [
            learned[mine & related & (bins == n)].mean() - learned[mine & ~related & (bins == n)].mean()
            for n in range(20)
            if (mine & related & (bins == n)).any() and (mine & ~related & (bins == n)).any()
        ]
        found.append(np.mean(within))
    return np.array(found)


def test_related_topics_become_alike_beyond_their_words(honest):
    low, _ = interval(gains(honest.fleet.task, honest.shared))
    assert low > 0.3


def test_shuffled_histories_relate_nothing(honest, mutant):
    low, high = interval(gains(mutant.fleet.task, mutant.shared))
    assert low < 0.1 and high < 0.3
    difference, _ = interval(gains(honest.fleet.task, honest.shared) - gains(mutant.fleet.task, mutant.shared))
    assert difference > 0.2
