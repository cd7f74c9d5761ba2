"""Rounds behind masks: the same model as without, whoever falls silent, lies or is killed on the way."""

import logging
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
from federation import (
    INITIAL,
    ROUNDS,
    SIZE,
    TASK,
    Tampered,
    Toy,
    disguise_of,
    grid_of,
    grid_with,
    local,
    masked,
    memory_of,
    saved,
    train,
    vector_of,
)
from flwr.app import ConfigRecord, Error, Message, RecordDict
from plans import LEAST, plan_of
from scipy.stats import chi2
from slices import plan as whole_plan

from fedrec.device.participation import Exit, Participation
from fedrec.device.policy import anything, terms_of
from fedrec.errors import PrivacyRefusal
from fedrec.exchange import wire
from fedrec.exchange.masked import Journal
from fedrec.exchange.masks import Disguise
from fedrec.exchange.secagg.residues import Residues
from fedrec.population.simulate import Simulation
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.chain import Book
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Level
from fedrec.privacy.statement import statements
from fedrec.privacy.terms import Adversary, Relation
from fedrec.rounds.aggregate import PrivateRounds
from fedrec.speed import Engine, Speed

STEPS = ["keys", "shares", "train", "consent", "reveal"]
FOLLOW = Adaptive(spread=10.0, least=0.5, most=4.0)
PLAINS = {
    "shares": plan_of("shares", rounds=ROUNDS, level=Level.TEST),
    "layered": plan_of("layered", rounds=ROUNDS, level=Level.TEST),
    "warm": plan_of("layered", rounds=ROUNDS - 1, warm=True, level=Level.TEST),
    "adaptive": plan_of("shares", rounds=ROUNDS, level=Level.TEST, adaptive=FOLLOW),
    "sampled shares": plan_of("sampled shares", rounds=ROUNDS, level=Level.TEST),
}
PLAIN, PLAN = PLAINS["shares"], masked(PLAINS["shares"])
FIRST = range(0, 40, 4)  # who comes to round 1


pytestmark = pytest.mark.usefixtures("no_disk")


@dataclass
class Spending(Toy):
    """A toy that spends participations as real devices do, in one ledger for all."""

    ledger: DeviceLedger | None = None

    def take_part(self, turn, shared):
        crossing = self.plan.crossing(turn.number, turn.clip)
        out = Exit(
            cross=lambda update: super(Spending, self).take_part(turn, shared), size=SIZE,
            sent=(crossing.width(SIZE), crossing.dtype),
        )  # fmt: skip
        part = Participation(ledger=self.ledger, device=str(self.client), task=TASK)
        return part.take_part(turn.number, lambda: local(self.client, turn.number, shared), out)

    def revealed(self, number):
        self.ledger.withhold(str(self.client), TASK, number)

    def forget(self):
        """A restart: masks are in memory alone."""
        self.disguise = disguise_of(self.client, self.plan)


@pytest.fixture
def toys(tmp_path):
    """Everybody of `PLAN`, with a ledger."""
    with DeviceLedger(tmp_path / "devices.sqlite", anything(PLAN), fast=True) as ledger:
        for client in range(PLAN.population):
            ledger.enrol(str(client), terms_of(PLAN, TASK, anything(PLAN)))
        yield [Spending(client, PLAN, TASK, disguise_of(client, PLAN), ledger) for client in range(PLAN.population)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The models of uninterrupted runs without masks, round by round."""
    known = {}

    def shared(kind="shares"):
        if kind not in known:
            known[kind] = [p.shared.tobytes() for p in train(tmp_path_factory.mktemp("calm"), PLAINS[kind])[1]]
        return known[kind]

    return shared


def step_of(requests):
    return requests[0].metadata.message_type.removeprefix("query.") if requests else ""


@dataclass
class Wire:
    """A grid on which `tamper` changes what is answered in one step. It keeps all requests and replies, with steps."""

    grid: object
    step: str = ""
    tamper: object = None
    asked: list = field(default_factory=list)
    heard: list = field(default_factory=list)

    def get_node_ids(self):
        return self.grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        requests = list(messages)
        self.asked.append((step_of(requests), requests))
        replies = list(self.grid.send_and_receive(requests, timeout=timeout))
        if self.tamper and step_of(requests) == self.step:
            replies = self.tamper(requests, replies)
        self.heard.append((step_of(requests), replies))
        return replies

    @property
    def steps(self):
        """The steps that were asked for, in order."""
        return [step for step, _ in self.asked if step in STEPS]


def released(folder):
    """The name of the last release, byte for byte: a first step of Adam keeps signs alone."""
    return saved(folder).digest


def charged(folder):
    return Book.read(folder / "ledger.jsonl").position.charged


# The same model.


@pytest.mark.parametrize("kind", PLAINS)
def test_masks_change_no_byte_of_any_model(tmp_path, calm, kind):
    plan = masked(PLAINS[kind])
    _, told = train(tmp_path, plan)
    assert [progress.shared.tobytes() for progress in told] == calm(kind)
    assert charged(tmp_path) == tuple(range(1, plan.rounds + 1))
    assert not (tmp_path / "secagg").exists()  # it names a cohort


def test_devices_and_their_ledgers_do_so_too(tmp_path, toys, calm):
    assert train(tmp_path, PLAN, grid=grid_with(toys))[0].tobytes() == calm()[-1]
    assert {toy.ledger.standing(str(toy.client)).seats[TASK].last for toy in toys} == {1, 2, 3, 4}


def test_a_simulation_behind_masks_ends_at_the_model_of_one_without(tmp_path):
    """The deployed app, real training, the devices' ledger: all but a network."""
    models = []
    for hidden in (False, True):
        plan = whole_plan(
            privacy={"mode": "user-distributed", "noise": "test", "force": True},
            shares={"survivors": 0.7, "masked": hidden}, simulation={"dropout": 0.05},
        )  # fmt: skip
        simulation = Simulation.start(plan, tmp_path / str(hidden), speed=Speed(engine=Engine.LOOP))
        simulation.train(lambda row: None)
        models.append(simulation._trained()[1])
    assert models[0].tobytes() == models[1].tobytes()
    assert models[0].tobytes() != simulation.task.model.initial.tobytes()


# What the server sees.


def nibbles_p(vectors):
    """How likely it is that all half-bytes of so many vectors are uniform."""
    raw = np.concatenate([vector.view(np.uint8) for vector in vectors])
    seen = np.bincount(np.concatenate([raw >> 4, raw & 15]), minlength=16)
    expected = seen.sum() / 16
    return chi2.sf(float(((seen - expected) ** 2 / expected).sum()), 15)


def sent_in(folder):
    """The vectors that leave devices in a whole run, and the kinds of records beside them."""
    grid, vectors, kinds = Wire(grid_of(PLAN)), [], set()
    with suppress(PrivacyRefusal):  # a mutant's sums are none
        train(folder, PLAN, grid=grid)
    for step, replies in grid.heard:
        kinds |= {(step, *sorted(reply.content.keys())) for reply in replies if step in STEPS}
        vectors += [wire.vector(reply.content["vector"]) for reply in replies if step == "train"]
    return vectors, kinds


def test_every_vector_on_the_wire_is_masked_and_says_nothing(tmp_path):
    vectors, kinds = sent_in(tmp_path)
    assert {(vector.dtype, vector.shape) for vector in vectors} == {(np.dtype(np.uint32), (SIZE,))}
    assert len(vectors) == 10 * ROUNDS and nibbles_p(vectors) > 1e-6
    assert kinds == {("train", "header", "vector"), *((step, "header", "said") for step in STEPS if step != "train")}


def test_a_device_that_puts_no_mask_on_is_found(tmp_path, monkeypatch):
    mask = Disguise.mask

    def plain(self, header, vector, delivery):
        mask(self, header, vector, delivery)  # all other steps go on as usual
        return Residues(SIZE, 32).of(vector.astype(np.int64))

    monkeypatch.setattr(Disguise, "mask", plain)
    assert nibbles_p(sent_in(tmp_path)[0]) < 1e-12


def test_what_the_server_may_be_told_of_a_masked_plan():
    """Its ε is that of sums, at zero-out; without masks it is that of a single share, at twice the sensitivity."""
    plain, hidden = (
        next(p for p in plan.promises if p.guarantee.adversary is Adversary.SERVER).guarantee
        for plan in (plan_of("shares"), masked(plan_of("shares")))
    )
    assert (plain.relation, hidden.relation) == (Relation.REPLACE_ONE, Relation.ZERO_OUT)
    assert hidden.epsilon < plain.epsilon / 4
    (claim,) = [
        claim for claim in statements(masked(plan_of("shares")), simulated=False)
        if claim.guarantee and claim.guarantee.adversary is Adversary.SERVER
    ]  # fmt: skip
    assert "because it sees sums only" in claim.text() and "nobody breaks the masks" in claim.text()
    assert "without masks" not in claim.text()


# Who falls away.


def silent(victims):
    return lambda requests, replies: [r for r in replies if r.metadata.src_node_id - 1 not in victims]


def broken(victims):
    return lambda requests, replies: [
        Message(Error(code=1, reason="x" * 10**6), reply_to=request)
        if request.metadata.dst_node_id - 1 in victims else reply
        for request, reply in zip(requests, replies, strict=True)
    ]  # fmt: skip


def raving(victims):
    """Records of other kinds, vectors of other forms."""

    def rave(request, reply):
        if step_of([request]) == "train":
            return vector_of(lambda v: v.astype(np.int64))(request, reply)
        return Message(RecordDict({**reply.content, "said": ConfigRecord({"client": 1})}), reply_to=request)

    return lambda requests, replies: [
        rave(request, reply) if request.metadata.dst_node_id - 1 in victims else reply
        for request, reply in zip(requests, replies, strict=True)
    ]


WAYS = {"silent": silent, "broken": broken, "raving": raving}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_down_to_the_required_survivors_the_sum_is_exact(tmp_path, step, way):
    """Whoever sent a masked vector is in it, whatever becomes of them afterwards."""
    gone = list(FIRST)[: 10 - LEAST]
    train(tmp_path / "masked", PLAN, grid=Wire(grid_of(PLAN), step, WAYS[way](gone)), rounds=1)
    lost = [] if step in ("consent", "reveal") else gone
    train(tmp_path / "plain", PLAIN, grid=Tampered(grid_of(PLAIN), silent(lost)), rounds=1)
    assert released(tmp_path / "masked") == released(tmp_path / "plain")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_one_fewer_and_nothing_is_released_or_charged(tmp_path, step, way):
    grid = Wire(grid_of(PLAN), step, WAYS[way](list(FIRST)[: 11 - LEAST]))
    with pytest.raises(PrivacyRefusal, match="P06"):
        train(tmp_path, PLAN, grid=grid, rounds=1)
    assert (charged(tmp_path), saved(tmp_path)) == ((), None)
    # A round is begun anew unless masks may have been lifted: then the same survivors are asked again.
    assert grid.steps.count("keys") == (1 if step == "reveal" else 3)
    assert grid.steps.count("reveal") == (3 if step == "reveal" else 0)


def test_different_devices_may_fall_away_at_each_step(tmp_path):
    """Four of ten, each at a step of its own."""
    gone, grid = dict(zip(STEPS[1:], FIRST, strict=False)), grid_of(PLAN)
    for step, victim in gone.items():
        grid = Wire(grid, step, silent([victim]))
    train(tmp_path / "masked", PLAN, grid=grid, rounds=1)
    early = [gone["shares"], gone["train"]]
    train(tmp_path / "plain", PLAIN, grid=Tampered(grid_of(PLAIN), silent(early)), rounds=1)
    assert released(tmp_path / "masked") == released(tmp_path / "plain")


@pytest.mark.parametrize("step", STEPS)
def test_a_round_that_too_few_finish_is_given_up_and_the_run_goes_on(tmp_path, toys, step):
    grid = Wire(grid_with(toys), step, silent(FIRST))
    _, told = train(tmp_path, PLAN, grid=grid)
    assert [progress.round for progress in told] == [2, 3, 4] and charged(tmp_path) == (2, 3, 4)
    assert not (tmp_path / "secagg").exists()


@pytest.mark.parametrize("step", STEPS)
def test_a_round_that_fails_once_is_finished_at_the_next_attempt(tmp_path, toys, calm, step):
    times = []

    def once(requests, replies):
        times.append(step)
        return replies[:2] if len(times) == 1 else replies

    shared, _ = train(tmp_path, PLAN, grid=Wire(grid_with(toys), step, once))
    assert shared.tobytes() == calm()[-1]


def test_a_device_that_lifted_masks_stays_out_of_another_attempt(tmp_path, toys):
    """The journal is lost with the sum: those who revealed do not send the same bytes under other masks."""
    with suppress(Crash):
        train(tmp_path, PLAN, grid=Dying(grid_with(toys), "after reveal"), rounds=1)
    (tmp_path / "secagg").unlink()
    with pytest.raises(PrivacyRefusal, match="P06"):
        train(tmp_path, PLAN, grid=grid_with(toys), rounds=1)
    assert charged(tmp_path) == ()


# A server that is killed.


class Crash(BaseException):
    """Nothing of ours catches this."""


@dataclass
class Dying:
    """A grid whose server dies before or after the first batch of a step; `from_round` on."""

    grid: object
    when: str
    number: int = 1

    def get_node_ids(self):
        return self.grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        requests = list(messages)
        due = requests and wire.read_header(requests[0]).round == self.number
        if due and self.when == f"before {step_of(requests)}":
            raise Crash
        replies = list(self.grid.send_and_receive(requests, timeout=timeout))
        if due and self.when == f"after {step_of(requests)}":
            raise Crash
        return replies


PLACES = {
    "journal not written": (Journal, "keep", "before"),
    "journal written": (Journal, "keep", "after"),
    "sum known": (PrivateRounds, "release", "before"),
    "checkpoint written": (PrivateRounds, "published", "before"),
}


def killed_at(folder, toys, place, number):
    """Train until the server dies at a place of round `number`."""
    owner, name, when = PLACES[place]
    real = getattr(owner, name)

    def dying(self, *arguments):
        if (saved(folder).round if saved(folder) else 0) + (place != "checkpoint written") < number:
            return real(self, *arguments)
        if when == "after":
            real(self, *arguments)
        raise Crash

    with suppress(Crash), pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        train(folder, PLAN, grid=grid_with(toys))


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_a_server_finishes_the_same_round_with_the_same_model(tmp_path, toys, calm, place, number):
    killed_at(tmp_path, toys, place, number)
    assert (saved(tmp_path).round if saved(tmp_path) else 0) == (
        number if place == "checkpoint written" else number - 1
    )
    assert train(tmp_path, PLAN, grid=grid_with(toys))[0].tobytes() == calm()[-1]
    assert charged(tmp_path) == (1, 2, 3, 4)
    assert not (tmp_path / "secagg").exists()


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_any_step_it_does_so_too(tmp_path, toys, calm, when, step, number):
    with suppress(Crash):
        train(tmp_path, PLAN, grid=Dying(grid_with(toys), f"{when} {step}", number))
    assert (saved(tmp_path).round if saved(tmp_path) else 0) == number - 1
    grid = Wire(grid_with(toys))
    assert train(tmp_path, PLAN, grid=grid)[0].tobytes() == calm()[-1]
    fixed = step in ("consent", "reveal")
    assert grid.steps[0] == ("consent" if fixed else "keys")  # nobody is asked for another sum
    assert charged(tmp_path) == (1, 2, 3, 4)


@pytest.mark.parametrize("lost", [10 - LEAST, 11 - LEAST])
def test_a_device_that_lost_its_masks_in_between_counts_as_a_dropout(tmp_path, toys, calm, lost):
    """Too many, before any mask is lifted: the round is begun anew, with the same model."""
    with suppress(Crash):
        train(tmp_path, PLAN, grid=Dying(grid_with(toys), "before reveal"))
    for client in list(FIRST)[:lost]:
        toys[client].forget()
    grid = Wire(grid_with(toys))
    assert train(tmp_path, PLAN, grid=grid)[0].tobytes() == calm()[-1]
    assert grid.steps[:2] == ["consent", "keys" if lost > 10 - LEAST else "reveal"]


def test_if_too_many_lost_them_after_it_the_round_is_given_up(tmp_path, toys):
    with suppress(Crash):
        train(tmp_path, PLAN, grid=Dying(grid_with(toys), "after reveal"))
    for client in FIRST:
        toys[client].forget()
    _, told = train(tmp_path, PLAN, grid=grid_with(toys))
    assert [progress.round for progress in told] == [2, 3, 4] and charged(tmp_path) == (2, 3, 4)


def test_a_charge_that_a_crash_lost_takes_its_sum_with_it(tmp_path, toys):
    with suppress(Crash), pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedrec.rounds.checkpoint.Checkpoint.save", lambda *arguments: (_ for _ in ()).throw(Crash()))
        train(tmp_path, PLAN, grid=grid_with(toys))
    assert (tmp_path / "secagg").exists()
    grid = Wire(grid_with(toys))
    _, told = train(tmp_path, PLAN, grid=grid)
    assert [progress.round for progress in told] == [2, 3, 4] and charged(tmp_path) == (1, 2, 3, 4)
    assert {wire.read_header(request).round for step, asked in grid.asked if step in STEPS for request in asked} == {
        2, 3, 4,
    }  # fmt: skip


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[:40] + b"x" + raw[41:]])
def test_a_torn_journal_is_dropped_and_the_round_tried_anew(tmp_path, toys, calm, caplog, damage):
    """`write_atomic` leaves none: it is a disk that failed. Nothing is lost, for devices keep their bytes sealed."""
    killed_at(tmp_path, toys, "journal written", 1)
    (tmp_path / "secagg").write_bytes(damage((tmp_path / "secagg").read_bytes()))
    with caplog.at_level(logging.WARNING):
        shared, _ = train(tmp_path, PLAN, grid=grid_with(toys))
    assert shared.tobytes() == calm()[-1]
    assert "round 1 is tried anew: a secure sum resumes from what was written down whole" in caplog.text


# A server that asks what no honest one asks.


def asked_until(toys, folder, until, number=1):
    """What the first client of a round was asked in each step, by a server that stopped there."""
    grid = Wire(Dying(grid_with(toys), until, number))
    with suppress(Crash):
        train(folder, PLAN, grid=grid)
    return {step: requests[0] for step, requests in reversed(grid.asked) if step in STEPS}


def says(toys, message):
    """What a device answers: the text of an error, or the kinds of its records."""
    (reply,) = grid_with(toys).send_and_receive([again(message)])
    return reply.error.reason if reply.has_error() else sorted(reply.content.keys())


def again(message, **records):
    """The same request, with other records in place of its own."""
    to = message.metadata
    return Message(RecordDict({**message.content, **records}), dst_node_id=to.dst_node_id, message_type=to.message_type)


def worded(message, **header):
    """The same request with other words in its header."""
    return again(message, header=ConfigRecord({**message.content["header"], **header}))


def spent(toys):
    """How many entries the first client's ledger has."""
    return toys[0].ledger.standing("0").counter


def about_fewer(message):
    """The same survivors without the last of them."""
    bits = np.unpackbits(np.frombuffer(message.content["said"]["alive"], np.uint8))
    bits[np.flatnonzero(bits)[-1]] = 0
    return again(message, said=ConfigRecord({"alive": np.packbits(bits).tobytes()}))


def test_no_second_set_of_survivors_is_consented_to(tmp_path, toys):
    consent = asked_until(toys, tmp_path, "before reveal")["consent"]
    assert says(toys, consent) == ["header", "said"]  # the same again is answered again
    assert "P13: a device is asked one thing at each step of a round" in says(toys, about_fewer(consent))
    assert "P13: a device that left a round does not come back to it" in says(toys, consent)


ATTEMPT = "a device has masks for the attempt that it began"
LIES = {
    "another attempt": (lambda asked: worded(asked, nonce="another"), ATTEMPT),
    "a later round": (lambda asked: worded(asked, round=5), ATTEMPT),
    "another task": (lambda asked: worded(asked, task="other"), "server and device were set up for one task"),
    "a model that it does not name": (
        lambda asked: again(asked, vector=wire.arrays(INITIAL + 1)), "a request holds the model that it names",
    ),
    "another model": (
        lambda asked: worded(again(asked, vector=wire.arrays(INITIAL + 1)), model=wire.digest(INITIAL + 1)), ATTEMPT,
    ),
    "no delivery": (
        lambda asked: Message(RecordDict({k: v for k, v in asked.content.items() if k != "said"}), dst_node_id=1,
                              message_type=wire.TRAIN),
        "an update leaves a device behind a mask where the plan says so, and only there",
    ),
    "half a delivery": (
        lambda asked: again(asked, said=ConfigRecord({"dealers": [4]})),
        "a step of a secure aggregation says what its kind says",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_an_update_is_not_made_for_anything_but_the_attempt_at_hand(tmp_path, toys, lie):
    """Nor is a participation spent on it."""
    forge, rule = LIES[lie]
    asked, before = asked_until(toys, tmp_path, "before train")["train"], spent(toys)
    assert says(toys, forge(asked)).startswith(rule)
    assert spent(toys) == before
    assert says(toys, asked) == ["header", "vector"]


def test_a_device_without_masks_puts_none_on(tmp_path, toys):
    asked = asked_until(toys, tmp_path, "before train")["train"]
    plain = [Toy(0, PLAIN)]
    for message in (asked, wire.ask(1, "keys", wire.read_header(asked))):
        assert says(plain, message).startswith("an update leaves a device behind a mask where the plan says so")


def test_a_second_attempt_after_a_reveal_gets_keys_and_no_update(tmp_path, toys):
    asked_until(toys, tmp_path, "after reveal")
    (tmp_path / "secagg").unlink()
    asked = asked_until(toys, tmp_path, "before train")
    assert set(asked) == {"keys", "shares", "train"}
    assert "P10: a round is answered again only while its bytes are kept" in says(toys, asked["train"])


def test_an_older_round_is_not_asked_again(tmp_path, toys):
    old = asked_until(toys, tmp_path, "before keys", 2)
    new = worded(old["keys"], round=2, nonce="newer")
    assert says(toys, new) == ["header", "said"]
    for step in STEPS[1:]:
        assert says(toys, old[step]).startswith(ATTEMPT)


def test_a_plan_with_masks_needs_a_crew_that_shows_sums_alone(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl", PLAN) as ledger, pytest.raises(PrivacyRefusal, match="P13"):
        PrivateRounds(PLAN, ledger, 0, Conduct(schedules=PLAN.schedules, minimum=LEAST), memory_of(tmp_path))
