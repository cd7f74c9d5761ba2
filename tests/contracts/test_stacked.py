"""The stacked engine equals the loop over devices: what a cohort sends, what is clipped, what devices keep.

The updates agree to float32 rounding. Everything behind them is whole numbers: a coordinate may differ by the steps
that this rounding is worth, and noise that is replayed (level `test`) by nothing at all.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from fedrec.device.event import Event, Kind
from fedrec.population import heads as heads_module
from fedrec.population import rivals, updates
from fedrec.population import stacked as stacked_module
from fedrec.population.batch import lay
from fedrec.population.engines import spending_of
from fedrec.population.source import Population
from fedrec.population.stacked import Stacked
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, World
from fedrec.randomness import stream
from fedrec.rounds.aggregate import Turn
from fedrec.spec import Plan
from fedrec.speed import Engine, Speed
from fedrec.task import Task

USERS, ITEMS, DIM = 40, 64, 8
COHORT = np.arange(0, USERS, 2)
PLAN = Plan.of(
    {
        "clients": USERS,
        "data": {"options": {"users": str(USERS), "items": str(ITEMS)}},
        "model": {"encoder": "hash", "dim": DIM, "rank": 3, "decays": [0.0, 0.9]},
        "profile": {"rating": 1.5},
        "training": {"examples": 7, "embedding_rate": 0.5, "learning_rate": 0.5},
        "federation": {"rounds": 3, "cohort": 20},
    }
)
TEST = {"noise": "test", "force": True, "clip": 0.3}
ALONE = {"seconds": 0, "span": 1, "rate": 1.0, "steps": 1}
MODES = {
    "none": {},
    "user-central": {"privacy": {"mode": "user-central", **TEST}},
    "adaptive": {"privacy": {"mode": "user-central", **TEST}, "adaptive": {"quantile": 0.5}},
    "user-distributed": {"privacy": {"mode": "user-distributed", **TEST}},
    "user-local": {"privacy": {"mode": "user-local", **TEST}},
    "interaction-local": {"privacy": {"mode": "interaction-local", **TEST}},
    "layered": {"privacy": {"mode": "layered", **TEST}, "interaction": ALONE},
}
MODELS = {
    "default": {},
    "diagonal maps": {"model": {"maps": "diagonal"}},
    "fixed axes, no residuals": {"model": {"projection": False, "residuals": False}},
    "no popularity": {"model": {"popularity": False}},
    "no adapter": {"model": {"adapter": "none"}},
    "a frozen tower": {"model": {"adapter": "none", "projection": False}},
    "nothing of items": {"model": {"adapter": "none", "projection": False, "residuals": False}},
    "lora": {"model": {"adapter": "lora", "encoder": "tiny", "rank": 2}},
    "lora, several steps": {"model": {"adapter": "lora", "encoder": "tiny", "rank": 2}, "training": {"steps": 2}},
    "drawn rivals": {"training": {"negatives": 15}},
    "seen items are rivals": {"training": {"hide_seen": False}},
    "seen and drawn": {"training": {"hide_seen": False, "negatives": 15}},
    "several steps": {"training": {"steps": 3}},
    "several steps, drawn rivals": {"training": {"steps": 2, "negatives": 15}},
    "no embedding": {"training": {"embedding_rate": 0.0}},
    "hidden items": {"split": {"kind": "cold-items", "hidden": 0.2}},
    "all examples": {"training": {"examples": 1000}},
}


@dataclass
class Pair:
    """One world, seen by the loop and by the stacked engine, each with states and ledgers of its own."""

    loop: Fleet
    stacked: Stacked

    @classmethod
    def of(cls, folder, settings, *, memory=1, world=None):
        plan = PLAN.override(settings)
        world = world or World.open(plan)
        task = Task(plan, world.dataset.catalogue)
        fleets = []
        for engine in (Engine.LOOP, Engine.STACKED):
            place = folder / engine
            states = DeviceStates(place, len(world.population), DIM)
            spending = spending_of(place, task, None, Speed(engine=engine))
            fleets.append(Fleet(task, world, states, spending))
        return cls(fleets[0], Stacked(fleets[1], Speed(memory=memory)))

    def shared(self, seed=0):
        """A vector somewhere beside the start."""
        start = self.loop.task.model.initial
        return (start + stream(seed, "somewhere").normal(0, 0.05, start.size)).astype(np.float32)

    def sent(self, number, clients=COHORT, seed=0):
        """What both send in a round: the loop's rows (client, width), and the stacked sum."""
        turn, shared = Turn(number), self.shared(seed)
        rows = [self.loop.take_part(int(client), turn, shared) for client in clients]
        return np.array(rows), self.stacked.take_part(turn, shared, clients)

    def grid(self, number):
        privacy = self.loop.task.privacy
        return privacy.crossing(number).grid if privacy else 1


def agree(pair, number, rows, partial):
    """The sums of a round, in units of an update."""
    assert partial.summed.count == len(rows) and not partial.refused
    ours, theirs = partial.summed.total / pair.grid(number), rows.sum(axis=0, dtype=np.float64) / pair.grid(number)
    assert np.abs(theirs).max() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=3e-6 * len(rows), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("warm", [False, True])
def test_every_mode_is_the_loop(tmp_path, mode, warm):
    pair = Pair.of(tmp_path, MODES[mode] | {"warm": {"enabled": warm}})
    for number in (1, 3):  # some schedules have a round between two of one device
        rows, partial = pair.sent(number)
        agree(pair, number, rows, partial)
    kept = pair.loop.states.after(3)
    np.testing.assert_allclose(pair.stacked.fleet.states.after(3), kept, atol=1e-6)
    assert kept.any()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", ["none", "user-central"])
def test_every_model_is_the_loop(tmp_path, mode, model):
    pair = Pair.of(tmp_path, {**MODES[mode], **MODELS[model]})
    for number in (1, 2):
        agree(pair, number, *pair.sent(number, seed=number))
    np.testing.assert_allclose(pair.stacked.fleet.states.after(2), pair.loop.states.after(2), atol=1e-6)


def people():
    """Everybody whom a chunk must not stumble over: empty, with a single event, with searches only, without choices."""
    at = lambda kind, item=-1, text="", time=0: Event(kind=kind, item=item, text=text, time=time)
    return Population.of(
        [
            [],
            [at(Kind.CLICK, 3)],
            [at(Kind.SEARCH, text="jazz", time=n) for n in range(3)],
            [at(Kind.SKIP, 5), at(Kind.SKIP, 6, time=1)],
            [at(Kind.SEARCH, text="jazz"), at(Kind.CLICK, 2, time=1)],
            [at(Kind.CLICK, 2), at(Kind.REVIEW, 2, "a loud record", 1), at(Kind.CLICK, 0, time=2)],
            [at(Kind.CLICK, item, time=item) for item in range(20)],
            [at(Kind.CLICK, 7, time=n) for n in range(5)],
        ]
    )


@pytest.mark.parametrize("mode", ["none", "user-central", "user-distributed"])
@pytest.mark.parametrize("steps", [1, 2])
def test_nobody_is_too_small_for_a_chunk(tmp_path, mode, steps):
    made = World.open(PLAN)
    everybody = people()
    split = made.split.__class__(
        made.split.name, np.diff(everybody.offsets), made.split.validation, made.split.test, np.zeros(ITEMS, bool)
    )
    world = World(made.dataset, everybody, split, PLAN)
    settings = {**MODES[mode], "clients": 8, "federation": {"cohort": 8}, "training": {"steps": steps}}
    pair = Pair.of(tmp_path, settings, world=world)
    agree(pair, 1, *pair.sent(1, np.arange(8)))
    idle = pair.stacked.take_part(Turn(2), pair.shared(), np.arange(4))  # nobody has an example: a chunk of none
    assert idle.summed.count == 4 and idle.summed.total.any() == (mode == "user-distributed")
    nothing = pair.stacked.take_part(Turn(2), pair.shared(), np.zeros(0, np.int64))
    assert nothing.summed.count == 0 and not nothing.summed.total.any()


def test_the_same_updates_are_clipped(tmp_path):
    """Nobody is so close to the clip norm that rounding decides, so the votes of an adaptive norm are equal."""
    pair = Pair.of(tmp_path, MODES["adaptive"])
    rows, partial = pair.sent(1)
    votes = np.sign(rows[:, -1])
    assert 0 < (votes > 0).sum() < len(votes)
    assert partial.summed.total[-1] == rows[:, -1].sum()


@pytest.mark.parametrize("mode", ["none", "user-central", "user-local"])
def test_a_sum_depends_on_chunks_by_rounding_only_and_not_on_threads_at_all(tmp_path, mode):
    pairs = [Pair.of(tmp_path / str(memory), MODES[mode], memory=memory) for memory in (1, 1000)]
    small, large = (pair.stacked.take_part(Turn(1), pair.shared(), COHORT).summed.total for pair in pairs)
    np.testing.assert_allclose(small / pairs[0].grid(1), large / pairs[0].grid(1), atol=1e-5)
    for threads in (1, 3):
        pair = Pair.of(tmp_path / f"threads {threads}", MODES[mode])
        pair.stacked.updates.speed = Speed(memory=1, threads=threads)
        again = pair.stacked.take_part(Turn(1), pair.shared(), COHORT).summed.total
        np.testing.assert_array_equal(again, small)


@pytest.mark.parametrize("mode", ["none", "user-central", "layered"])
def test_a_cohort_may_be_everybody(tmp_path, monkeypatch, mode):
    """So it is worked on in slabs; a slab's sum is added to the others'."""
    pair = Pair.of(tmp_path, MODES[mode])
    monkeypatch.setattr(stacked_module, "SLAB", 7)
    rows, partial = pair.sent(1)
    agree(pair, 1, rows, partial)
    seen = []
    monkeypatch.setattr(Stacked, "_some", lambda self, turn, shared, clients: seen.append(len(clients)) or partial)
    pair.stacked.take_part(Turn(1), pair.shared(), COHORT)
    assert seen == [7, 7, 6]


def test_clipping_by_norms_alone_is_clipping(tmp_path):
    """Level `research` adds floats and rounds once: the sum is that of exact clipping but for √dim steps each."""
    central = {"mode": "user-central", "force": True, "clip": 0.3}
    research, exact = (
        Pair.of(tmp_path / level, {"privacy": {**central, "noise": level}}) for level in ("research", "test")
    )
    theirs = exact.stacked.take_part(Turn(1), exact.shared(), COHORT).summed
    ours = research.stacked.take_part(Turn(1), research.shared(), COHORT).summed
    crossing = research.loop.task.privacy.crossing(1)
    slack = len(COHORT) * (1 - crossing.reach(len(exact.shared())) / crossing.clip)
    assert 0 < slack < 0.1
    difference = (ours.total - theirs.total) / crossing.radius
    assert np.linalg.norm(difference) < slack + len(COHORT) * np.sqrt(difference.size) / crossing.radius
    assert np.linalg.norm(ours.total) > crossing.radius


def test_a_repeated_round_sends_the_same_and_is_counted_once(tmp_path):
    for mode in ("user-central", "user-local", "layered"):
        pair = Pair.of(tmp_path / mode, MODES[mode])
        first = pair.stacked.take_part(Turn(1), pair.shared(), COHORT).summed.total
        second = pair.stacked.take_part(Turn(1), pair.shared(), COHORT).summed.total
        np.testing.assert_array_equal(first, second)


def test_who_has_given_enough_stays_out_and_the_others_do_not(tmp_path):
    once = {
        "federation": {"rounds": 4, "cohort": 10},
        "privacy": {"mode": "user-central", "schedule": "min-sep", **TEST},
    }
    pair = Pair.of(tmp_path, once)
    cohort, shared = np.arange(0, USERS, 4), pair.shared()
    assert pair.stacked.take_part(Turn(1), shared, cohort).summed.count == 10
    mixed = np.arange(0, USERS, 2)
    partial = pair.stacked.take_part(Turn(2), shared, mixed)
    assert partial.summed.count == 10 and sum(partial.refused.values()) == 10
    alone = Pair.of(tmp_path / "alone", once)
    others = alone.stacked.take_part(Turn(2), shared, np.setdiff1d(mixed, cohort))
    np.testing.assert_array_equal(partial.summed.total, others.summed.total)


def test_an_update_that_is_not_finite_is_one_less(tmp_path):
    pair = Pair.of(tmp_path, {})
    broken = pair.stacked.fleet.states
    embedding = np.full((1, DIM), np.nan, np.float32)
    broken.keep_all(COHORT[3:4], 1, embedding)
    partial = pair.stacked.take_part(Turn(2), pair.shared(), COHORT)
    assert partial.refused == {"not finite": 1} and partial.summed.count == len(COHORT) - 1
    fresh = Pair.of(tmp_path / "fresh", {})
    rest = fresh.stacked.take_part(Turn(2), fresh.shared(), np.delete(COHORT, 3))
    np.testing.assert_allclose(partial.summed.total, rest.summed.total, atol=1e-5)


def _seen_too_late(laid):
    return laid.chose[:, None] & (laid.choice_at[:, None] <= laid.cuts[:, :, None] - 2)


def _everyone_weighs_alike(laid):
    return laid.real / laid.real.shape[1]


def _everyone_takes_all(training, batch, coins):
    return lay(batch, batch.all_usable), None


MUTANTS = {
    "a seen item stays a rival": ("none", rivals, "_seen", _seen_too_late),
    "sums instead of means": ("none", heads_module, "_shares", _everyone_weighs_alike),
    "examples are not drawn": ("none", updates, "draw", _everyone_takes_all),
    "a seen item stays a rival, clipped": ("user-central", rivals, "_seen", _seen_too_late),
    "examples are not drawn, clipped": ("user-central", updates, "draw", _everyone_takes_all),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_fault_is_found(tmp_path, monkeypatch, mutant):
    mode, *fault = MUTANTS[mutant]
    monkeypatch.setattr(*fault)
    pair = Pair.of(tmp_path, MODES[mode])
    with pytest.raises(AssertionError):
        agree(pair, 1, *pair.sent(1))
