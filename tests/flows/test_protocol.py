"""Leaks are planted where they happen, in the split, in training, in what is measured, and the protocol finds each."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedrec.device.training import LocalTraining, trainable
from fedrec.errors import DataError, RunError
from fedrec.population.simulate import Simulation
from fedrec.population.world import Fleet, ModelScorer, World
from fedrec.randomness import stream
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.spec import Plan
from fedrec.study.baselines import ease, tune
from fedrec.study.protocol import check, check_run
from fedrec.study.seal import Seal
from fedrec.study.splits import chosen

PLAN = {
    "data": {"options": {"users": "200", "items": "100"}},
    "model": {"encoder": "hash", "dim": 8},
    "federation": {"rounds": 3, "cohort": 20},
    "evaluation": {"every": 1, "baselines": "none"},
}
SMALL = {"data": {"options": {"users": "40", "items": "64"}}}
PRIVATE = SMALL | {"clients": 40, "privacy": {"mode": "user-central", "epsilon": 8.0, "clip": 0.5, "force": True}}
NEGATIVES = {"training": {"negatives": 16}}
both_losses = pytest.mark.parametrize("over", [{}, NEGATIVES], ids=["whole catalogue", "drawn negatives"])


@pytest.fixture
def start(tmp_path):
    """A run that nobody has trained yet."""
    return lambda over=None, name="run": Simulation.start(Plan.of(PLAN).override(over or {}), tmp_path / name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of three rounds, and its checkpoint after each."""
    path = tmp_path_factory.mktemp("protocol") / "run"
    simulation, saved = Simulation.start(Plan.of(PLAN).override(SMALL), path), []
    simulation.train(lambda row: saved.append((path / "checkpoint.safetensors").read_bytes()) if row["round"] else None)
    simulation.finish(lambda arm: None)
    return path, saved


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, to be tampered with."""
    return shutil.copytree(trained[0], tmp_path / "copy")


def changed(simulation, **split):
    """The same simulation on another split."""
    return replace(simulation, world=replace(simulation.world, split=replace(simulation.world.split, **split)))


class Leaky(LocalTraining):
    """Training that spares each client the items of `spared`, which it should know nothing of."""

    def __init__(self, fleet, spared):
        super().__init__(fleet.task.model, fleet.task.plan.training)
        self.spared = {id(fleet.held(client).events): items for client, items in enumerate(spared)}

    def _drawn(self, events, rng):
        choices, negatives = super()._drawn(events, rng)
        if negatives is None:
            return choices, None
        return choices, negatives[~np.isin(negatives.numpy(), self.spared[id(events)])]

    def _hidden(self, events, choices, rows, negatives):
        mask, rows = super()._hidden(events, choices, rows, negatives), torch.arange(100) if rows is None else rows
        spared = torch.isin(rows, torch.from_numpy(self.spared[id(events)].astype(np.int64)))
        return mask | (spared & (rows != events.chosen[choices][:, None]))


def test_an_honest_simulation_passes_and_says_what_was_looked_at(start):
    said = check(start())
    assert said[:2] == (
        "No history that is trained on or ranked with mentions a held-out item (leave-one-out, 200 people).",
        "No test item is a validation item: settings are chosen without them.",
    )
    assert [line.split(" items")[0] for line in said[2:]] == [
        f"Training rivals do not depend on {name}" for name in ("test", "validation")
    ]
    assert all("pairs of people, +0.0 standard deviations" in line for line in said[2:])


OTHERS = {
    "negatives": NEGATIVES,
    "by time": {"split": {"kind": "global-time"}},
    "trains on validation": {"split": {"fit": "train+validation"}},
    "by DP-SGD": {
        "data": {"options": {"users": "80", "items": "100"}},
        "privacy": {"mode": "interaction-local", "epsilon": 8.0, "force": True},
    },
}


@pytest.mark.parametrize("over", OTHERS.values(), ids=OTHERS)
def test_no_honest_simulation_is_accused(start, over):
    said = check(start(over))
    asked = 1 if over.get("split", {}).get("fit") else 2  # items that are trained on are not held out
    assert len(said) == 2 + asked and all(line.startswith("Training rivals do not depend") for line in said[2:])


def test_checking_changes_nothing_that_is_trained(start):
    vectors = []
    for name in ("checked", "unchecked"):
        simulation = start(SMALL, name)
        if name == "checked":
            check(simulation)
        simulation.train(lambda row: None)
        vectors.append(simulation._trained()[1])
    assert (vectors[0] == vectors[1]).all()


def test_too_few_people_are_no_pass(start):
    said = check(start({"data": {"options": {"users": "20", "items": "100"}}}))
    assert [line.split(" depend")[0] for line in said[2:]] == ["Too few people to test whether training rivals"] * 2


def test_a_future_item_in_one_history_is_caught(start):
    simulation = start()
    cuts = simulation.world.split.test.cuts.copy()
    cuts[np.flatnonzero(simulation.world.split.test.targets.sizes)[17]] += 1
    with pytest.raises(DataError, match="mentioned nowhere in its history.*leaked=1"):
        check(changed(simulation, test=replace(simulation.world.split.test, cuts=cuts)))


def test_devices_that_train_past_their_cut_are_caught(start, monkeypatch):
    simulation = start()
    late = simulation.world.cuts.copy()
    late[3] += 1  # one of two hundred, on its validation item
    with monkeypatch.context() as patched:
        patched.setattr(World, "cuts", late)
        with pytest.raises(DataError, match="before the cut, and nothing else; got past_the_cut=1"):
            check(simulation)
    check(simulation)
    monkeypatch.setattr(Fleet, "held", lambda self, client: self.holding(client, int(late[client]) + 1))
    with pytest.raises(DataError, match="before the cut, and nothing else"):
        check(simulation)


@both_losses
@pytest.mark.parametrize("of", ["the test item", "all that was ever chosen"])
def test_training_that_spares_what_is_held_out_is_caught(start, over, of):
    """The second is the sampler behind published figures: negatives are what a person never touches."""
    simulation = start(over)
    people, fleet, fair = simulation.world.population, simulation.fleet, simulation.fleet.rounds.open
    spared = list(simulation.world.split.test.targets if of == "the test item" else chosen(people, people.sizes))
    fleet.rounds.open = leaky = Leaky(fleet, spared)
    moved = [training.round(*begin(simulation), stream(1, "round")).delta for training in (fair, leaky)]
    assert (moved[0] != moved[1]).any()  # it is in what devices send, not beside it
    with pytest.raises(DataError, match="do not depend on what is held out; got sigmas=-.*held-out items included"):
        check(simulation)


def test_the_way_in_which_leaks_are_planted_is_none(start):
    simulation = start(NEGATIVES)
    nothing = [np.zeros(0, np.int32)] * len(simulation.world.population)
    simulation.fleet.rounds.open = Leaky(simulation.fleet, nothing)
    assert len(check(simulation)) == 4


@both_losses
def test_training_that_prefers_what_is_held_out_is_caught(start, over):
    """Held-out items of the others are spared, one's own are not."""
    simulation = start(over)
    targets = simulation.world.split.test.targets
    everybody = np.unique(targets.items)
    simulation.fleet.rounds.open = Leaky(simulation.fleet, [np.setdiff1d(everybody, own) for own in targets])
    with pytest.raises(DataError, match=r"do not depend on what is held out; got sigmas=\d"):
        check(simulation)


def test_training_that_spares_validation_items_is_caught(start):
    simulation = start()
    simulation.fleet.rounds.open = Leaky(simulation.fleet, list(simulation.world.split.validation.targets))
    with pytest.raises(DataError, match="do not depend on what is held out"):
        check(simulation)


def test_hidden_items_among_the_rivals_are_caught(start):
    simulation = start({"split": {"kind": "cold-items"}})
    assert check(simulation)[2] == "Hidden items are no rivals in training (200 people)."
    simulation.fleet.rounds.open = LocalTraining(simulation.task.model, simulation.task.plan.training)
    with pytest.raises(DataError, match="hidden items are no rivals"):
        check(simulation)


@both_losses
def test_the_rivals_that_are_checked_are_those_of_the_loss(start, over):
    """Popularity moves for the target and its rivals, and for nothing else."""
    simulation = start(over)
    training, events = simulation.fleet.rounds.open, simulation.fleet.held(5).events
    usable, seen = trainable(events), 0
    popularity = torch.from_numpy(simulation.task.model.layout.mask("popularity"))
    for seed in range(10):
        rivals = training.rivals(events, stream(seed, "rivals"))
        rng = stream(seed, "rivals")
        choices, negatives = training.draw(usable, rng)
        one = torch.from_numpy(choices[[rng.integers(len(choices))]])
        shared = torch.from_numpy(simulation.task.model.initial.copy()).requires_grad_()
        given = None if negatives is None else torch.from_numpy(negatives)
        loss = training.loss(shared, torch.zeros(8), events, one, given)
        (gradient,) = torch.autograd.grad(loss, shared)
        target = events.chosen[one].numpy()
        assert set(rivals) == set(np.flatnonzero(gradient[popularity])) - set(target)
        seen += len(rivals)
    assert seen > 50


def test_the_rivals_that_are_checked_are_those_of_dp_sgd(start):
    simulation = start(OTHERS["by DP-SGD"] | NEGATIVES)
    training, holding = simulation.fleet.rounds.noisy, simulation.fleet.held(5)
    examples, seen = holding.examples(training.terms.blocks), 0
    popularity = torch.from_numpy(simulation.task.model.layout.mask("popularity"))
    for seed in range(10):
        rivals = set(simulation.fleet.rounds.rivals(holding, stream(seed, "rivals")))
        rng = stream(seed, "rivals")
        at = examples.targets.nonzero()
        place, slot = at[int(rng.integers(len(at)))]
        shared = torch.from_numpy(simulation.task.model.initial.copy()).requires_grad_()
        loss = training.loss(shared, torch.zeros(8), examples, place[None], training._rivals(rng))
        (gradient,) = torch.autograd.grad(loss, shared)
        targets = examples.rows[place][examples.targets[place]].tolist()
        assert int(examples.rows[place, slot]) not in rivals
        assert rivals - set(targets) == set(np.flatnonzero(gradient[popularity])) - set(targets)
        seen += len(rivals)
    assert seen > 50


def begin(simulation, client=5):
    return simulation.task.model.initial, np.zeros(8, np.float32), simulation.fleet.held(client).events


def test_settings_chosen_on_test_are_caught(start):
    simulation = start()
    world = simulation.world
    leaky = changed(simulation, validation=world.split.test)  # `tune` takes a split, so this is the way to fool it
    grid = (1.0, 1000.0)
    build = lambda l2: ease(world.population, world.cuts, 100, l2=l2)  # noqa: E731
    honest, fooled = (tune(build, grid, world.population, one.world.split) for one in (simulation, leaky))
    assert fooled.tried != honest.tried
    with pytest.raises(DataError, match="a test item is no validation item.*both="):
        check(leaky)


def test_a_baseline_that_looks_twice_is_refused_before_it_has_figures(start):
    simulation = start(SMALL)
    world = simulation.world
    scorers = [ease(world.population, world.cuts, 64, l2=l2) for l2 in (1.0, 1.0, 1000.0)]
    first, again = (simulation.test("EASE (central)", scorer).summary for scorer in scorers[:2])
    assert first == again
    with pytest.raises(DataError, match="asked once, of one model; got arm='EASE"):
        simulation.test("EASE (central)", scorers[2])
    simulation.validate(scorers[0]), simulation.validate(scorers[2])  # validation items are there to be asked


def test_an_honest_run_passes(trained):
    path, saved = trained
    check_run(path)
    assert len(saved) == 3 and list(Seal(path).looks) == ["fedrec"]


def test_a_baseline_that_was_measured_alone_passes(start):
    simulation = start(SMALL)
    simulation.measure("popularity")
    check_run(simulation.run.path)


def test_a_round_chosen_on_test_is_refused_at_the_second_look(start):
    simulation = start(SMALL)
    rounds, figures = [], []
    simulation.train(lambda row: rounds.append(simulation._trained()[0]))
    with pytest.raises(DataError, match="asked once, of one model; got arm='fedrec'"):
        best = max(rounds, key=lambda model: figures.append(simulation.test("fedrec", model)) or len(figures))
        assert best is None, "a round was chosen on test"
    assert len(figures) == 1
    with pytest.raises(DataError, match="asked once"):  # what was looked at is not the last round
        simulation.finish(lambda arm: None)


def test_a_round_chosen_on_test_under_other_names_is_caught(start):
    simulation = start(SMALL)
    simulation.train(lambda row: simulation.test(f"round {row['round']}", simulation._trained()[0]))
    simulation.finish(lambda arm: None)
    with pytest.raises(DataError, match="not those of its results.*contestants=.*'round 0', 'round 1', 'round 2'"):
        check_run(simulation.run.path)


def test_looks_that_were_deleted_or_changed_are_caught(run):
    looks = run / "looks.json"
    looks.write_text(json.dumps({"fedrec": "0" * 64}))
    with pytest.raises(DataError, match="not those of its results.*contestants=.'fedrec'"):
        check_run(run)
    looks.unlink()
    with pytest.raises(DataError, match="not those of its results"):
        check_run(run)


def test_a_look_that_came_after_the_results_is_caught(run):
    simulation = Simulation.resume(run)
    simulation.test("another", ModelScorer(simulation.fleet, simulation.task.model.initial, 0))
    with pytest.raises(DataError, match="not those of its results.*contestants=.'another'"):
        check_run(run)


def test_a_swapped_checkpoint_is_caught(run, trained):
    (run / "checkpoint.safetensors").write_bytes(trained[1][1])
    with pytest.raises(DataError, match="at its last round, but the model that was measured is not in its checkpoint"):
        check_run(run)
    (run / "checkpoint.safetensors").unlink()
    with pytest.raises(DataError, match="not in its checkpoint"):
        check_run(run)


def test_an_early_round_that_was_measured_anew_is_caught(run, trained):
    """Looks forgotten, the better checkpoint put back, and everything recorded again as it should be."""
    (run / "looks.json").unlink()
    (run / "checkpoint.safetensors").write_bytes(trained[1][1])
    Simulation.resume(run).finish(lambda arm: None)
    with pytest.raises(DataError, match=r"rounds are missing; got run=.*measured=2, told=\[3\], planned=3"):
        check_run(run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match=r"rounds are missing.*measured=2, told=\[2\], planned=3"):
        check_run(run)
    (run / "plan.toml").write_text((run / "plan.toml").read_text().replace("rounds = 3", "rounds = 2"))
    with pytest.raises(RunError, match="keeps the plan it was started with"):
        check_run(run)


def test_a_curve_that_ends_before_the_model_is_caught(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match=r"rounds are missing.*measured=3, told=\[2\], planned=3"):
        check_run(run)


def test_a_run_that_is_not_finished_has_nothing_to_check(start):
    with pytest.raises(RunError, match="a finished run has results"):
        check_run(start(SMALL).run.path)


def test_a_private_run_may_end_with_its_budget_and_not_before(start, monkeypatch):
    """A crash between a charge and its checkpoint costs a round; nobody chose where the run ends."""
    simulation, save = start(PRIVATE), Checkpoint.save
    path = simulation.run.path

    def crash(self, where):
        if self.round == 2:
            raise KeyboardInterrupt
        save(self, where)

    monkeypatch.setattr(Checkpoint, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        simulation.train(lambda row: None)
    monkeypatch.undo()
    resumed = Simulation.resume(path)
    resumed.train(lambda row: None)
    resumed.finish(lambda arm: None)
    assert resumed.run.metrics()[-1]["round"] == 2  # of three: the second was charged twice
    check_run(path)


def test_a_private_run_that_stopped_while_it_could_pay_is_caught(start):
    simulation = start(PRIVATE)

    def stop(row):
        if row["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulation.train(stop)
    stopped = Simulation.resume(simulation.run.path)
    stopped.finish(lambda arm: None)
    with pytest.raises(DataError, match="rounds are missing.*measured=2.*planned=3"):
        check_run(stopped.run.path)
