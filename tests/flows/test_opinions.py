"""The sentiment head comes out of a warm start, whoever runs it: one release, one charge, one statement."""

import csv
import json

import numpy as np
import pytest
from devices import Settlement
from shelf import KEY

from fedrec.datasets.dataset import Dataset
from fedrec.device.event import Event, Kind
from fedrec.embed.preview import preview
from fedrec.embed.reader import open_reader
from fedrec.embed.sentiment import valence
from fedrec.errors import PrivacyRefusal
from fedrec.exchange.client import client_app
from fedrec.exchange.serve import devices, serve
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import read_pack
from fedrec.model.publish import publish
from fedrec.population.engines import partition
from fedrec.population.grid import in_process
from fedrec.population.simulate import Simulation
from fedrec.population.source import Population
from fedrec.population.world import VirtualDevice
from fedrec.privacy.chain import Book
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.runs import Run
from fedrec.spec import Plan
from fedrec.speed import Engine, Speed

GOOD, BAD = ("wonderful", "superb", "delightful"), ("dreadful", "broken", "useless")
PEOPLE, ITEMS = 60, 12
ITEM_TEXTS = [f"{word} number{n}" for n, word in enumerate(("lamp", "rope", "drum", "boat") * 3)]
WHOLE = Plan.of({
    "clients": PEOPLE,
    "model": {"encoder": "hash", "dim": 4, "rank": 1, "decays": [0.5]},
    "federation": {"rounds": 0, "cohort": 20},
    "warm": {"enabled": True, "opinions": 0.2},
    "evaluation": {"every": 0, "baselines": "none"},
})  # fmt: skip
TEST = {"noise": "test", "force": True}
MODES = {
    "none": {},
    "user-central": {"privacy": {"mode": "user-central", **TEST}},
    "user-distributed": {"privacy": {"mode": "user-distributed", **TEST}},
    "interaction-local": {"privacy": {"mode": "interaction-local", **TEST}},
    "layered, a round of training": {"privacy": {"mode": "layered", **TEST}, "federation": {"rounds": 1}},
}

pytestmark = pytest.mark.usefixtures("no_disk")


def opinion(rng):
    """A text and its rating: what is praised and what is blamed differs, the words for it do not."""
    good = bool(rng.integers(2))
    words = rng.permutation([*(GOOD if good else BAD)[: int(rng.integers(1, 4))], f"thing{rng.integers(50)}"])
    return " ".join(words), float(good)


def person(number, *, shuffled=False):
    """Six reviews, each of another item. Of a mutant the ratings say nothing about the words."""
    rng = stream(3, "reviews", number)
    said = [opinion(rng) for _ in range(6)]
    ratings = [float(rng.integers(2)) if shuffled else rating for _, rating in said]
    return [
        Event(kind=Kind.REVIEW, item=int(item), text=text, rating=rating, time=86_400 * when)
        for when, (item, (text, _), rating) in enumerate(zip(rng.permutation(ITEMS), said, ratings, strict=False))
    ]


def dataset(*, shuffled=False):
    people = Population.of([person(n, shuffled=shuffled) for n in range(PEOPLE)])
    return Dataset("reviews", Catalogue([f"i{n}" for n in range(ITEMS)], ITEM_TEXTS), people)


def started(path, settings=None, *, engine=Engine.STACKED, data=None):
    plan = WHOLE.override(settings or {})
    return Simulation.start(plan, path, speed=Speed(engine=engine, threads=1), dataset=data or dataset())


def head_of(simulation):
    simulation.train(lambda row: None)
    return simulation.run.beside(simulation.task)["sentiment"]


def accuracy(folder):
    """How often the pack's head tells praise from blame in what strangers wrote."""
    pack = read_pack(folder, None)
    said = [opinion(stream(4, "strangers", n)) for n in range(300)]
    read = valence(open_reader(pack, None), pack, [text for text, _ in said])
    return float(np.mean((read > 0.5) == (np.array([rating for _, rating in said]) == 1)))


def test_strangers_are_read_and_by_a_head_that_learnt_nothing_they_are_not(tmp_path):
    for shuffled in (False, True):
        simulation = started(tmp_path / str(shuffled), data=dataset(shuffled=shuffled))
        simulation.train(lambda row: None)
        simulation.finish(lambda arm: None)
    assert accuracy(tmp_path / "False" / "pack") > 0.95
    assert accuracy(tmp_path / "True" / "pack") < 0.75
    pack = read_pack(tmp_path / "False" / "pack", None)
    assert np.isnan(valence(open_reader(pack, None), pack, ["?!"])).all()
    assert pack.popularity is not None


@pytest.mark.parametrize("mode", MODES)
def test_every_engine_learns_the_same_head(tmp_path, mode):
    """`loop` sends Flower messages, one for each device; `stacked` computes the sums."""
    heads = [
        head_of(started(tmp_path / str(engine), MODES[mode], engine=engine)) for engine in (Engine.LOOP, Engine.STACKED)
    ]
    np.testing.assert_allclose(*heads, rtol=0, atol=1e-4)
    assert np.abs(heads[0][:-1]).max() > 0.01
    if mode != "none":
        books = [Book.read(tmp_path / str(engine) / "ledger.jsonl") for engine in (Engine.LOOP, Engine.STACKED)]
        (first, second) = [[(line.state, line.round) for line in book.records] for book in books]
        assert first == second


def test_the_head_stays_when_the_model_trains_on(tmp_path):
    """And reads what nothing trained has moved."""
    warm = head_of(started(tmp_path / "warm"))
    simulation = started(tmp_path / "on", {"federation": {"rounds": 2}})
    assert head_of(simulation).tobytes() == warm.tobytes()
    simulation.finish(lambda arm: None)
    pack = read_pack(tmp_path / "on" / "pack", None)
    reader = open_reader(pack, None)
    assert np.abs(reader.pooled(["a superb lamp"]) - reader.frozen(["a superb lamp"])).max() > 1e-6
    assert (pack.sentiment == warm).all()
    assert accuracy(tmp_path / "on" / "pack") > 0.95


def test_a_pack_that_a_site_publishes_of_masked_rounds_has_the_head(tmp_path):
    masked = MODES["user-distributed"] | {"shares": {"masked": True}, "clients": 20, "federation": {"cohort": 20}}
    simulation = started(tmp_path / "run", masked)
    task, fleet, run = simulation.task, simulation.fleet, Run(tmp_path / "run")
    grid = in_process(client_app(lambda context: VirtualDevice(fleet, partition(context))), len(fleet))
    shared = serve(task, grid, run.path, crew=devices(task, run.path))
    claims = statements(task.privacy, ledger_head=run.ledger_head(task), simulated=False)

    def build(folder):
        write_pack(folder, task, shared, claims, round=1, beside=run.beside(task))

    version = publish(tmp_path / "packs", build, KEY)
    pack = read_pack(tmp_path / "packs" / str(version), KEY.public_key())
    assert (pack.sentiment == run.beside(task)["sentiment"]).all()
    plain = started(tmp_path / "plain", masked | {"shares": {"masked": False}})
    np.testing.assert_allclose(pack.sentiment, head_of(plain), rtol=0, atol=1e-4)


def test_what_would_be_sent_is_said_in_words(tmp_path):
    settings = {"privacy": {"mode": "user-central", "force": True}, "warm": {"enabled": True, "opinions": 0.2}}
    home = Settlement(tmp_path, settings).device(0, policy='modes = ["user-central"]\n')
    first, _ = preview(home).sendings
    assert [part.name for part in first.parts][-1] == "opinions"
    assert sum(int(np.prod(part.shape)) for part in first.parts) == first.shape[0]
    assert "opinions (33410,): how you rated what you wrote" in preview(home).text()


def test_single_events_have_no_room_for_opinions(tmp_path):
    alone = {"privacy": {"mode": "layered", **TEST}, "interaction": {"seconds": 0}}
    with pytest.raises(PrivacyRefusal, match="P14: an event that is an example by itself tells of popularity only"):
        started(tmp_path / "run", alone)


def test_the_command_line_makes_a_pack_with_a_head(cli, tmp_path):
    rows = [("user", "item", "time", "kind", "text", "rating")]
    for number in range(30):
        rows += [(f"u{number}", f"i{act.item}", act.time, "review", act.text, 1 + 4 * act.rating)
                 for act in person(number)]  # fmt: skip
    items = [("id", "text"), *((f"i{n}", text) for n, text in enumerate(ITEM_TEXTS))]
    for name, table in (("log.csv", rows), ("items.csv", items)):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(table)
    settings = {
        "data.options.items": tmp_path / "items.csv", "model.encoder": "hash", "model.dim": 4,
        "warm.enabled": "true", "warm.opinions": 0.2, "federation.rounds": 0, "evaluation.baselines": "none",
    }  # fmt: skip
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    data = ("--data", f"table:{tmp_path / 'log.csv'}")
    answer = cli("simulate", *data, *flags, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert read_pack(tmp_path / "run" / "pack", None).sentiment is not None
    assert json.loads((tmp_path / "run" / "pack" / "pack.json").read_bytes())["plan"]["warm"]["opinions"] == 0.2
    assert accuracy(tmp_path / "run" / "pack") > 0.9
    refused = cli("simulate", *data, "--set", "warm.opinions=0.2", "--out", tmp_path / "no")
    assert refused.code != 0 and "warm.enabled = true" in refused.err + refused.out
