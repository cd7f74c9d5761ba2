"""A real device sends what the virtual device of its number sends, on its owner's terms and in its own ledger."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from fedrec.device.act import Act, acts_of
from fedrec.device.event import Kind
from fedrec.device.member import Member, Texts, Work
from fedrec.device.policy import InteractionCap, Policy, UserCap
from fedrec.device.store import Store
from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError
from fedrec.population.engines import spending_of
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, World
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.terms import Mode, Unit
from fedrec.randomness import stream
from fedrec.rounds.aggregate import Turn
from fedrec.spec import Plan
from fedrec.speed import Engine, Speed
from fedrec.task import Task

PLAN = Plan.of({
    "clients": 40,
    "data": {"options": {"users": "40", "items": "64"}},
    "model": {"encoder": "hash", "dim": 8, "rank": 3, "decays": [0.0, 0.9]},
    "training": {"examples": 5, "negatives": 9, "embedding_rate": 0.5, "learning_rate": 0.5},
    "federation": {"rounds": 3, "cohort": 20},
})  # fmt: skip
TEST = {"noise": "test", "force": True, "clip": 0.3}
ALONE = {"seconds": 0, "span": 1, "rate": 1.0, "steps": 1}
MODES = {
    "none": {},
    "user-local": {"privacy": {"mode": "user-local", **TEST}},
    "user-distributed": {"privacy": {"mode": "user-distributed", **TEST}},
    "interaction-local": {"privacy": {"mode": "interaction-local", **TEST}},
    "layered": {"privacy": {"mode": "layered", **TEST}, "interaction": ALONE},
}
ANYTHING = Policy(
    modes=tuple(Mode), user=UserCap(epsilon=1e6, delta=0.5, lifetime=1e6),
    interaction=InteractionCap(epsilon=1e6, delta=0.5, lifetime=1e6),
)  # fmt: skip
CLIENTS = (0, 7)


@cache
def world_of(mode, warm=False, level="test"):
    """A plan's world and task; calibrated once."""
    plan = PLAN.override(MODES[mode] | {"warm": {"enabled": warm}})
    plan = plan.override({"privacy": {"noise": level}}) if mode != "none" else plan
    world = World.open(plan)
    return world, Task(plan, world.dataset.catalogue)


def own(world, client):
    """What a client trains on."""
    history = world.population[client].before(int(world.cuts[client]))
    return acts_of(history, world.dataset.catalogue.ids)


def shared_of(task, seed=0):
    """A vector somewhere beside the start."""
    start = task.model.initial
    return (start + stream(seed, "somewhere").normal(0, 0.05, start.size)).astype(np.float32)


@dataclass
class Home:
    """One device's files, opened anew as often as one likes."""

    folder: object
    task: Task
    seat: int
    policy: Policy = ANYTHING

    def open(self, work=None):
        self.store = Store(self.folder / f"events {self.seat}")
        self.ledger = None
        if self.task.privacy:
            self.ledger = DeviceLedger(self.folder / f"ledger {self.seat}", self.policy.limits)
        return Member(work or Work(self.task), self.seat, self.store, policy=self.policy, ledger=self.ledger)

    def close(self):
        self.store.close()
        if self.ledger:
            self.ledger.close()


@pytest.fixture
def member_of(tmp_path):
    homes = []

    def make(task, seat, acts=(), policy=ANYTHING, work=None):
        homes.append(home := Home(tmp_path, task, seat, policy))
        member = home.open(work)
        member.store.append(acts)
        return member

    yield make
    for home in homes:
        home.close()


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("mode", MODES)
def test_it_sends_what_the_virtual_device_of_its_number_sends(tmp_path, member_of, mode, warm):
    world, task = world_of(mode, warm)
    states = DeviceStates(tmp_path / "states", 40, task.plan.model.dim)
    fleet = Fleet(task, world, states, spending_of(tmp_path, task, None, Speed(engine=Engine.LOOP)))
    work, moved = Work(task), 0
    for client in CLIENTS:
        member = member_of(task, client, own(world, client), work=work)
        assert (member.client, member.task) == (client, task.hash)
        for number in (1, 3):
            turn, shared = Turn(number), shared_of(task, number)
            expected, sent = fleet.take_part(client, turn, shared), member.take_part(turn, shared)
            assert sent.dtype == expected.dtype and sent.tobytes() == expected.tobytes() and sent.any()
            kept = states.before(client, number + 1)
            assert (member.store.before(task.hash, number + 1) == kept).all()
            moved += kept.any()
    assert moved or warm or mode == "interaction-local"


@pytest.mark.parametrize("change", ["seat", "event", "embedding"])
def test_another_device_sends_something_else(member_of, change):
    world, task = world_of("user-local")
    acts = own(world, 7)
    member = member_of(task, 7, acts)
    other = member_of(task, 8 if change == "seat" else 17, acts[1:] if change == "event" else acts)
    other.client = other.client if change == "seat" else 7  # the same coins and noise
    if other.client == 7:
        other.ledger.enrol("7", other.terms)
    if change == "embedding":
        other.store.keep(task.hash, 1, np.full(8, 0.5, np.float32))
    turn, shared = Turn(2), shared_of(task)
    assert member.take_part(turn, shared).tobytes() != other.take_part(turn, shared).tobytes()


def test_texts_go_through_a_tower_that_need_not_see_all_of_them_at_once(member_of):
    _, task = world_of("none")
    texts, adapter = Texts(task.model.adapter), task.model.adapter
    for asked in (["tea", "cocoa", "tea"], [], ["soup", "tea"]):
        assert (texts(asked).values == adapter.prepare(asked).values).all()
    assert "tea" not in repr(texts)


def test_texts_in_memory_are_bounded(monkeypatch):
    _, task = world_of("none")
    texts = Texts(task.model.adapter)
    monkeypatch.setattr("fedrec.device.member._HELD", 10 * 256 * 4)
    for number in range(100):
        found = texts([f"text {number}", "tea"])
        assert (found.values == task.model.adapter.prepare([f"text {number}", "tea"]).values).all()
        assert len(texts._inputs) <= 13


def test_a_repeated_round_sends_the_same_bytes_after_a_restart_and_spends_once(tmp_path):
    _, task = world_of("user-local", level="hardened")
    home = Home(tmp_path, task, 3)
    member = home.open()
    member.store.append(
        [Act(kind=Kind.CLICK, item=item, time=place) for place, item in enumerate(task.catalogue.ids[:5])]
    )
    first = member.take_part(Turn(1), shared_of(task))
    home.close()
    again = home.open().take_part(Turn(1), shared_of(task, 9))
    assert again.tobytes() == first.tobytes()
    assert home.ledger.standing("3").used == 1
    assert home.open().take_part(Turn(3), shared_of(task)).tobytes() != first.tobytes()
    home.close()


def test_hardened_noise_is_fresh_and_test_noise_is_not(tmp_path, member_of):
    sent = {}
    for level in ("hardened", "test"):
        _, task = world_of("user-local", level=level)
        for place in ("one", "two"):
            (tmp_path / level / place).mkdir(parents=True)
            home = Home(tmp_path / level / place, task, 5)
            sent[level, place] = home.open().take_part(Turn(1), shared_of(task))
            home.close()
    assert (sent["test", "one"] == sent["test", "two"]).all()
    assert (sent["hardened", "one"] != sent["hardened", "two"]).mean() > 0.5


@pytest.mark.parametrize("mode", ["user-local", "interaction-local"])
def test_an_event_between_two_rounds_counts_in_the_next(member_of, mode):
    _, task = world_of(mode)
    with_event, without = member_of(task, 4), member_of(task, 5)
    without.client = 4
    without.ledger.enrol("4", without.terms)
    ids, shared = task.catalogue.ids, shared_of(task)
    for member in (with_event, without):
        member.store.append([Act(kind=Kind.LIKE, item=item, time=place) for place, item in enumerate(ids[:6])])
        member.take_part(Turn(1), shared)
    with_event.store.append([Act(kind=Kind.LIKE, item=ids[9], time=99)])
    assert with_event.take_part(Turn(3), shared).tobytes() != without.take_part(Turn(3), shared).tobytes()


def test_an_embedding_learnt_from_what_was_forgotten_meanwhile_is_not_kept(member_of, monkeypatch):
    world, task = world_of("user-local")
    member = member_of(task, 7, own(world, 7))
    learnt = type(member.work.rounds).round

    def forgetting(self, *arguments):
        outcome = learnt(self, *arguments)
        with Store(member.store.path) as other:
            other.forget()
        return outcome

    monkeypatch.setattr(type(member.work.rounds), "round", forgetting)
    assert member.take_part(Turn(1), shared_of(task)).any()
    assert member.store.before(task.hash, 9) is None


def test_a_failure_sends_what_a_device_without_data_sends_and_tells_its_owner_alone(member_of):
    _, task = world_of("user-local")
    ids = task.catalogue.ids
    failing, empty, shared = member_of(task, 4), member_of(task, 5), shared_of(task)
    empty.client = 4
    empty.ledger.enrol("4", empty.terms)
    failing.store.append([Act(kind=Kind.LIKE, item=item, time=place) for place, item in enumerate(ids[:6])])
    with sqlite3.connect(failing.store.path) as db:
        db.execute("UPDATE events SET kind = 99")
    assert failing.take_part(Turn(1), shared).tobytes() == empty.take_part(Turn(1), shared).tobytes()
    assert "sound file" in str(failing.trouble) and empty.trouble is None
    failing.store.forget(everything=True)
    failing.take_part(Turn(3), shared)
    assert failing.trouble is None


# The owner's terms


def refused(call, says):
    with pytest.raises(PrivacyRefusal, match=says) as refusal:
        call()
    assert refusal.value.code == "P10"


@pytest.mark.parametrize(
    ("mode", "level", "policy", "says"),
    [
        ("none", "test", Policy(), "modes of its policy"),
        ("user-local", "test", Policy(), "modes of its policy"),  # replayable noise is none
        ("user-local", "hardened", Policy(modes=(Mode.LAYERED,)), "modes of its policy"),
        ("user-local", "hardened", Policy(user=UserCap(epsilon=0.5)), "epsilon about users"),
        ("user-local", "hardened", Policy(clip=0.1), "clip norms"),
        ("user-distributed", "hardened", Policy(user=UserCap(delta=0.5), masked=True), "behind a mask"),
    ],
)
def test_a_refusal_at_the_opening_leaves_nothing(tmp_path, mode, level, policy, says):
    _, task = world_of(mode, level=level)
    home = Home(tmp_path, task, 2, policy)
    refused(home.open, says)
    if home.ledger:
        assert home.ledger.standing("2").counter == 0
    home.close()


def test_the_terms_are_in_the_ledger_under_the_seat_and_once(tmp_path):
    _, task = world_of("user-local", level="hardened")
    home = Home(tmp_path, task, 2)
    for _ in range(2):
        member = home.open()
        home.close()
    standings = DeviceLedger.read(tmp_path / "ledger 2").standings
    assert standings.keys() == {"2"} and standings["2"].counter == 1
    assert standings["2"].seats[task.hash].terms == member.terms


def test_terms_that_were_agreed_do_not_change(tmp_path):
    _, task = world_of("user-local", level="hardened")
    Home(tmp_path, task, 2).open()
    with pytest.raises(PrivacyRefusal, match="P15"):
        Home(tmp_path, task, 2, ANYTHING.model_copy(update={"participations": 7})).open()


def test_it_comes_no_more_often_than_agreed(member_of):
    _, task = world_of("user-local", level="hardened")
    member = member_of(task, 2, policy=ANYTHING.model_copy(update={"participations": 1}))
    member.take_part(Turn(1), shared_of(task))
    refused(lambda: member.take_part(Turn(3), shared_of(task)), "so often")
    spent = member.ledger.standing("2")
    assert spent.used == 1 and spent.spent.epsilon(Unit.USER, 1e-5) > 0


def test_the_embedding_of_a_refused_round_is_not_learnt(member_of):
    world, task = world_of("user-local")
    member = member_of(task, 2, own(world, 2), policy=ANYTHING.model_copy(update={"participations": 1}))
    member.take_part(Turn(1), shared_of(task))
    before = member.store.before(task.hash, 9)
    with pytest.raises(BudgetExceeded):
        member.take_part(Turn(3), shared_of(task))
    assert (member.store.before(task.hash, 9) == before).all()


def test_a_task_with_promises_needs_a_ledger(tmp_path):
    _, task = world_of("user-local")
    with Store(tmp_path / "events") as store, pytest.raises(RunError, match="keeps a ledger"):
        Member(Work(task), 2, store, policy=ANYTHING, ledger=None)


# Masks


def test_once_its_masks_may_be_lifted_it_never_sends_for_this_round_again(tmp_path):
    _, task = world_of("user-distributed", level="hardened")
    home = Home(tmp_path, task, 2)
    member = home.open()
    member.take_part(Turn(1), shared_of(task))
    assert member.take_part(Turn(1), shared_of(task)).any()
    member.revealed(1)
    for _ in range(2):
        refused(lambda: home.open().take_part(Turn(1), shared_of(task)), "answered again only while its bytes are kept")
    home.close()


def test_what_was_sent_in_a_round_is_forgotten_once_the_next_one_is_answered(tmp_path, member_of):
    _, task = world_of("user-local", level="hardened")
    member = member_of(task, 2)
    member.take_part(Turn(1), shared_of(task))
    file = tmp_path / "ledger 2"

    def kept():
        with sqlite3.connect(file) as db:
            return db.execute("SELECT round FROM payloads").fetchall()

    assert kept() == [(1,)]
    member.take_part(Turn(3), shared_of(task))
    assert kept() == [(3,)]


# Many in one process


def test_members_of_one_task_may_be_asked_from_many_threads(tmp_path, member_of):
    world, task = world_of("layered")
    work, shared = Work(task), shared_of(task)
    together = [member_of(task, client, own(world, client), work=work) for client in range(6)]
    alone = []
    for client in range(6):
        (tmp_path / f"alone {client}").mkdir()
        home = Home(tmp_path / f"alone {client}", task, client)
        member = home.open()
        member.store.append(own(world, client))
        alone.append(member.take_part(Turn(1), shared).tobytes())
        home.close()
    with ThreadPoolExecutor(6) as pool:
        sent = list(pool.map(lambda member: member.take_part(Turn(1), shared).tobytes(), together))
    assert sent == alone and len(set(sent)) == 6
    assert "withheld" in repr(together[0])
