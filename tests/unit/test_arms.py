"""The contestants: trained like the federation but elsewhere, and tuned without the test items."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from fedrec.datasets.synthetic import generate
from fedrec.device.training import trainable
from fedrec.population.alone import Central, LocalOnly, central
from fedrec.population.simulate import Simulation
from fedrec.population.source import Population
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, ModelScorer, World
from fedrec.rounds.aggregate import Turn
from fedrec.spec import Plan
from fedrec.study.arms import arms
from fedrec.study.splits import ItemSets
from fedrec.task import Task

USERS, ITEMS, DIM = 24, 64, 8
SETTINGS = {
    "clients": USERS,
    "data": {"options": {"users": str(USERS), "items": str(ITEMS)}},
    "model": {"encoder": "hash", "dim": DIM},
    "federation": {
        "rounds": 1,
        "cohort": USERS,
        "optimizer": "sgd",
        "momentum": 0.0,
        "learning_rate": 0.7,
        "weight_decay": 0.1,
    },
    "evaluation": {"every": 0},
}
PLAN = Plan.of(SETTINGS)


@pytest.fixture(scope="module")
def dataset():
    return generate(users=USERS, items=ITEMS)


@pytest.fixture(scope="module")
def fleet(dataset, tmp_path_factory):
    return fleet_of(World.of(dataset, PLAN), tmp_path_factory.mktemp("fleet"))


def fleet_of(world, folder):
    task = Task(world.plan, world.dataset.catalogue)
    return Fleet(task, world, DeviceStates(folder / "devices", len(world.population), DIM))


def ask(scorer, fleet, clients, cuts=None):
    cuts = fleet.world.cuts if cuts is None else cuts
    return scorer(np.asarray(clients), [fleet.world.population[n].before(int(cuts[n])) for n in clients])


def loss_of(fleet, client, model):
    """Mean loss of a client's own training examples under (shared, embedding)."""
    events = fleet.events(client, int(fleet.world.cuts[client]))
    usable = torch.from_numpy(trainable(events))
    return float(fleet.rounds.open.loss(*map(torch.from_numpy, model), events, usable, None).detach())


def mean_loss(fleet, shared):
    able = [n for n in range(USERS) if len(trainable(fleet.events(n, int(fleet.world.cuts[n]))))]
    return np.mean([loss_of(fleet, client, (shared, np.zeros(DIM, np.float32))) for client in able])


def test_one_central_step_on_everybody_is_one_round_with_everybody(tmp_path):
    simulation = Simulation.start(PLAN, tmp_path / "run")
    simulation.train(lambda row: None)
    federated, shared = simulation._trained()
    (pooled,) = central(simulation.fleet, Central(epochs=1, batch=USERS))
    assert pooled.shared == pytest.approx(shared, abs=1e-6)
    assert pooled.embeddings == pytest.approx(federated.embeddings, abs=1e-6)
    assert np.abs(shared - simulation.task.model.initial).max() > 0.01 and federated.embeddings.any()
    (smaller,) = central(simulation.fleet, Central(epochs=1, batch=USERS // 2))
    assert smaller.shared != pytest.approx(shared, abs=1e-3)


def test_central_training_lowers_the_loss_of_the_pooled_people(fleet):
    epochs = list(central(fleet, Central(epochs=3, batch=8)))
    losses = [mean_loss(fleet, shared) for shared in (fleet.task.model.initial, *(one.shared for one in epochs))]
    assert len(epochs) == 3 and (np.diff(losses) < 0).all() and losses[-1] < losses[0] - 0.05
    assert (epochs[0].embeddings != epochs[-1].embeddings).any()  # an epoch keeps its own


def test_local_models_never_meet(dataset, fleet, tmp_path):
    """Everybody else's data is replaced: my scores stay, theirs do not."""
    people, cuts = dataset.population, fleet.world.cuts
    order = [0, *range(USERS - 1, 0, -1)]
    table = pa.concat_tables([people[n]._table for n in order]).combine_chunks()
    offsets = np.concatenate([[0], np.cumsum([len(people[n]) for n in order])]).astype(np.int64)
    replaced = replace(dataset, population=Population(table, offsets, people.names))
    others = fleet_of(World.of(replaced, PLAN), tmp_path)
    mine, theirs = (
        ask(LocalOnly(one, one.world.cuts, 1.0), one, [0, 1, 2], cuts=one.world.cuts) for one in (fleet, others)
    )
    assert (mine[0] == theirs[0]).all()
    assert (mine[1:] != theirs[1:]).any(axis=1).all()
    assert ask(LocalOnly(fleet, fleet.world.cuts, 1.0), fleet, [2, 0])[1] == pytest.approx(mine[0], abs=1e-6)
    start = ModelScorer(fleet, fleet.task.model.initial, np.zeros((USERS, DIM), np.float32))
    assert np.abs(ask(start, fleet, [0]) - mine[0]).max() > 0.01
    assert cuts[0] == others.world.cuts[0]


def test_a_local_model_learns_its_own_history(fleet):
    local = LocalOnly(fleet, fleet.world.cuts, 1.0)
    clients = [n for n in range(USERS) if len(fleet.world.population[n]) > 30][:3]
    assert len(clients) == 3
    for client in clients:
        shared, (embedding,) = local._train(client)
        before = loss_of(fleet, client, (fleet.task.model.initial, np.zeros(DIM, np.float32)))
        assert loss_of(fleet, client, (shared, embedding)) < before - 0.05


def test_the_plan_says_which_arms_compete(fleet):
    names = {}
    for level in ("none", "fast", "all"):
        plan = fleet.task.plan.override({"evaluation": {"baselines": level}})
        names[level] = [arm.name for arm in arms(Fleet(Task(plan, fleet.task.catalogue), fleet.world, fleet.states))]
    assert names["none"] == []
    assert {"random", "popularity", "frozen text", "EASE (central)", "local only"} <= set(names["fast"])
    assert set(names["all"]) - set(names["fast"]) == {"item-kNN (central)", "same model, central"}
    assert names["all"][: len(names["fast"])] == names["fast"]


def scores_of_arms(fleet):
    """Each arm's scores for the same people with the same histories."""
    clients = list(range(0, USERS, 3))
    return {arm.name: ask(arm.build().scorer, fleet, clients, cuts=fleet.world.split.test.cuts) for arm in arms(fleet)}


def test_no_arm_knows_the_test_items(fleet, tmp_path):
    """Other test items, other events after the test cut: every arm is the same. Other validation items: not."""
    world = fleet.world
    late = after(world, world.split.test.cuts)
    shifted = world.split.test.targets
    targets = ItemSets(shifted.indptr, (shifted.items + 1) % ITEMS)
    split = replace(world.split, test=replace(world.split.test, targets=targets))
    changed = fleet_of(replace(world, population=renamed(world, late), split=split), tmp_path / "test")
    mine, theirs = scores_of_arms(fleet), scores_of_arms(changed)
    assert all((mine[name] == theirs[name]).all() for name in mine)

    early = after(world, world.split.train)
    trained_on = fleet_of(replace(world, population=renamed(world, early)), tmp_path / "late")
    assert not (ask_frozen(trained_on) == ask_frozen(fleet)).all()  # the comparison can fail: histories differ


def ask_frozen(fleet):
    (frozen,) = [arm for arm in arms(fleet) if arm.name == "frozen text"]
    return ask(frozen.build().scorer, fleet, list(range(USERS)), cuts=fleet.world.split.test.cuts)


def after(world, cuts):
    """(event,) True from each client's cut on."""
    offsets = world.population.offsets
    within = np.arange(world.population.table.num_rows) - np.repeat(offsets[:-1], np.diff(offsets))
    return within >= np.repeat(cuts, np.diff(offsets))


def renamed(world, rows):
    """The population with the next item instead of each item in `rows`."""
    people = world.population
    items = people.table.column("item").to_numpy()
    moved = np.where(rows & (items >= 0), (items + 1) % ITEMS, items).astype(np.int32)
    place = people.table.schema.get_field_index("item")
    table = people.table.set_column(place, people.table.schema.field("item"), pa.array(moved))
    return Population(table, people.offsets, people.names)


def test_training_leaves_out_the_very_items_that_the_split_hides(dataset, tmp_path):
    """By their popularity, which moves for every rival of a chosen item and for nothing else."""
    hidden = {}
    for seed in (0, 1):
        plan = PLAN.override({"seed": seed, "split": {"kind": "cold-items", "hidden": 0.2}})
        world = World.of(dataset, plan)
        fleet = fleet_of(world, tmp_path / str(seed))
        moved = np.zeros(ITEMS, bool)
        for client in range(USERS):
            delta = fleet.take_part(client, Turn(1), fleet.task.model.initial)
            moved |= delta[fleet.task.model.layout.mask("popularity")] != 0
        assert (moved == ~world.split.cold_items).all() and (~moved).sum() == round(0.2 * ITEMS)
        hidden[seed] = world.split.cold_items
    assert (hidden[0] != hidden[1]).any()
    assert not World.of(dataset, PLAN).split.cold_items.any()
