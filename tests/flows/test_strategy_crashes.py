"""A server that crashes anywhere goes on as if it had not, and never pays less than it released."""

import json
from contextlib import suppress

import numpy as np
import pytest
from federation import (
    CLIENTS,
    INITIAL,
    PLAN,
    ROUNDS,
    SIZE,
    Tampered,
    grid_of,
    memory_of,
    saved,
    strategy_of,
    train,
    vector_of,
)
from hypothesis import example, given, settings
from hypothesis import strategies as some
from plans import KINDS, LEAST, plan_of
from safetensors import safe_open

from fedrec.errors import PrivacyRefusal
from fedrec.exchange import wire
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.chain import Book
from fedrec.privacy.noise import Level
from fedrec.privacy.plan import PrivacyPlan
from fedrec.rounds.checkpoint import Checkpoint

# The rounds of each kind at level `test`, whose noise comes again when a round is repeated.

WARM = plan_of("layered", rounds=ROUNDS - 1, warm=True, level=Level.TEST)
FOLLOW = Adaptive(spread=10.0, least=0.5, most=4.0)
PLANS = {
    "open": None,
    "warm": WARM,
    "adaptive": plan_of("poisson", rounds=ROUNDS, level=Level.TEST, adaptive=FOLLOW),
    **{kind: plan_of(kind, rounds=ROUNDS, level=Level.TEST) for kind in KINDS},
}
PRIVATE = ["warm", "adaptive", "poisson", "banded", "shares", "local"]  # where crashes differ
SPARE = {"poisson", "adaptive"}  # whose lost charge costs the last round, not this one


def skips(kind, number):
    """Whether a run goes on without a round whose charge was lost."""
    return kind in ("shares", "local") or (kind == "warm" and number > 1)


pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What uninterrupted runs tell, made when asked for."""
    known = {}

    def told(kind):
        if kind not in known:
            known[kind] = train(tmp_path_factory.mktemp("calm"), PLANS[kind])[1]
        return known[kind]

    return told


class Crash(BaseException):
    """Nothing of ours catches this."""


def crashing(folder, place, number, plan=None):
    """Start and die at `place` of round `number`, if it is reached."""

    def crash(*arguments):
        raise Crash

    def told(progress):
        if place == "told" and progress.round == number:
            raise Crash

    with strategy_of(folder, plan) as strategy, suppress(Crash), pytest.MonkeyPatch.context() as patch:
        strategy.observers.append(told)
        if place in ("charged", "saved"):
            cohort = strategy.rounds.cohort
            owner, name = {"charged": (Checkpoint, "save"), "saved": (type(strategy.rounds), "published")}[place]

            def armed(rounds, at, clients):
                if at == number:
                    patch.setattr(owner, name, crash)
                return cohort(at, clients)

            patch.setattr(type(strategy.rounds), "cohort", armed)
        grid = grid_of(plan)
        strategy.join(grid, plan.population if plan else CLIENTS)
        strategy.start(grid, wire.arrays(INITIAL))


def done(folder):
    return saved(folder).round if saved(folder) else 0


def ledger_of(folder):
    """(charged rounds, the open round if any, every transition)."""
    book = Book.read(folder / "ledger.jsonl")
    pending = book.position.round if book.position.state == "charged" else None
    return book.position.charged, pending, [(r.round, str(r.state)) for r in book.records[1:]]


@pytest.mark.parametrize("kind", PLANS)
def test_every_kind_of_run_comes_to_its_end(tmp_path, calm, kind):
    told = calm(kind)
    assert [progress.round for progress in told] == [1, 2, 3, 4]
    assert len({progress.shared.tobytes() for progress in told} | {INITIAL.tobytes()}) == 5


@pytest.mark.parametrize("kind", ["open", *PRIVATE])
@pytest.mark.parametrize("number", [1, 3])
def test_stopped_after_any_round_a_run_ends_where_it_would_have(tmp_path, calm, kind, number):
    crashing(tmp_path, "told", number, PLANS[kind])
    assert done(tmp_path) == number
    shared, told = train(tmp_path, PLANS[kind])
    assert shared.tobytes() == calm(kind)[-1].shared.tobytes()
    assert [progress.round for progress in told] == list(range(number, 5))  # the stopped round is told again
    assert [p.shared.tobytes() for p in told] == [p.shared.tobytes() for p in calm(kind)[number - 1 :]]
    again, rows = train(tmp_path, PLANS[kind])
    assert again.tobytes() == shared.tobytes()
    assert [progress.round for progress in rows] == [4]


@pytest.mark.parametrize("place", ["charged", "saved"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_without_privacy_a_crash_anywhere_leaves_no_trace(tmp_path, calm, place, number):
    crashing(tmp_path, place, number)
    assert done(tmp_path) == (number if place == "saved" else number - 1)
    assert train(tmp_path)[0].tobytes() == calm("open")[-1].shared.tobytes()


@pytest.mark.parametrize("kind", PRIVATE)
@pytest.mark.parametrize("number", [1, 3])
def test_a_crash_between_charge_and_checkpoint_costs_a_charge_and_a_round(tmp_path, calm, kind, number):
    """Sampled rounds are repeated, and the last is left out; a group that comes once, or a row of noise, is not."""
    plan = PLANS[kind]
    crashing(tmp_path, "charged", number, plan)
    assert ledger_of(tmp_path)[1] == number
    assert done(tmp_path) == number - 1
    shared, _ = train(tmp_path, plan)
    charged, pending, records = ledger_of(tmp_path)
    assert pending is None
    repeated = kind in SPARE
    assert charged.count(number) == 1 + repeated
    released = [n for n, state in records if state == "released"]
    if skips(kind, number):  # the others' turns are what they were
        assert released == [n for n in range(1, ROUNDS + 1) if n != number]
    else:  # a round early rather than over budget
        finished = ROUNDS - 1 if repeated else number - 1
        assert released == list(range(1, finished + 1))
        assert done(tmp_path) == finished
        expected = calm(kind)[finished - 1].shared if finished else INITIAL
        assert shared.tobytes() == expected.tobytes()
    assert plan.spent(charged) <= plan.epsilon


@pytest.mark.parametrize("kind", PRIVATE)
@pytest.mark.parametrize("number", [1, 4])
def test_a_crash_between_checkpoint_and_release_costs_nothing(tmp_path, calm, kind, number):
    crashing(tmp_path, "saved", number, PLANS[kind])
    assert ledger_of(tmp_path)[1] == number
    shared, _ = train(tmp_path, PLANS[kind])
    charged, pending, _ = ledger_of(tmp_path)
    assert (charged, pending) == ((1, 2, 3, 4), None)
    assert shared.tobytes() == calm(kind)[-1].shared.tobytes()


crashes = some.lists(
    some.tuples(some.sampled_from(["told", "charged", "saved"]), some.integers(1, 4)), min_size=1, max_size=6
)


@settings(derandomize=True, deadline=None, max_examples=8)
@given(crashes)
@example([("charged", 2)])
@pytest.mark.parametrize("kind", ["poisson", "banded", "warm"])
def test_whatever_crashes_there_are_nobody_pays_twice(tmp_path_factory, calm, kind, history):
    folder, plan = tmp_path_factory.mktemp("crashes"), PLANS[kind]
    for place, number in history:
        crashing(folder, place, number, plan)
    train(folder, plan)
    charged, pending, records = ledger_of(folder)
    assert pending is None
    released = [n for n, state in records if state == "released"]
    lost = sum(state == "aborted" for _, state in records)
    assert len(charged) == len(released) + lost <= ROUNDS
    assert plan.spent(charged) <= plan.epsilon
    if 1 < len(released) < done(folder):  # it went on without some rounds
        assert all(skips(kind, n) for n in range(1, done(folder)) if n not in released)
        return
    assert released == list(range(1, done(folder) + 1))
    assert done(folder) == ROUNDS or not plan.affords(charged, done(folder) + 1)
    expected = calm(kind)[done(folder) - 1].shared if done(folder) else INITIAL
    assert (saved(folder).optimum.shared if done(folder) else INITIAL).tobytes() == expected.tobytes()


# P16: what does not belong together is not gone on from.


def test_p16_a_checkpoint_is_not_gone_on_from_without_its_ledger(tmp_path):
    train(tmp_path, PLAN, rounds=2)
    (tmp_path / "ledger.jsonl").unlink()
    with pytest.raises(PrivacyRefusal, match="P11"):  # the head is there, the ledger is not
        train(tmp_path, PLAN)
    (tmp_path / "ledger.jsonl.head").unlink()
    with pytest.raises(PrivacyRefusal, match="P16: a model and its ledger tell of one release") as refusal:
        train(tmp_path, PLAN)
    assert refusal.value.remedy


@pytest.mark.parametrize("lost", ["whole", "a round"])
def test_p16_a_ledger_is_not_gone_on_from_without_its_checkpoint(tmp_path, lost):
    train(tmp_path, PLAN, rounds=1)
    checkpoint = tmp_path / "checkpoint.safetensors"
    older = checkpoint.read_bytes()
    train(tmp_path, PLAN, rounds=2)
    checkpoint.unlink() if lost == "whole" else checkpoint.write_bytes(older)
    with pytest.raises(PrivacyRefusal, match="P16"):
        train(tmp_path, PLAN)


# What may be told of a private cohort.


@pytest.mark.parametrize("kind", PRIVATE)
def test_nothing_is_told_or_kept_of_a_private_cohort(tmp_path, calm, kind):
    assert [(p.tally, p.seconds) for p in calm(kind)] == [(None, None)] * ROUNDS
    train(tmp_path, PLANS[kind], rounds=1)
    assert saved(tmp_path).tally is None
    with safe_open(tmp_path / "checkpoint.safetensors", framework="numpy") as file:
        kept = {name for name, value in file.metadata().items() if value}
        assert set(file.keys()) == {"shared", "first", "second", "anchor"}
    assert kept == {"round", "task", "digest"} | ({"clip"} if kind == "adaptive" else set())


def test_a_private_round_goes_on_with_whatever_arrived(tmp_path, calm):
    silent = Tampered(grid_of(PLAN), lambda requests, replies: [])
    shared, told = train(tmp_path, PLAN, grid=silent, rounds=1)
    assert told[0].tally is None
    assert ledger_of(tmp_path)[0] == (1,)
    assert shared.tobytes() != calm("poisson")[0].shared.tobytes()
    assert (shared != INITIAL).all()  # noise alone


@pytest.mark.parametrize("kind", ["shares", "sampled shares", "layered"])
def test_p06_a_round_short_of_shares_is_not_released_and_may_be_repeated(tmp_path, calm, kind):
    plan = PLANS[kind]
    few = Tampered(grid_of(plan), lambda requests, replies: replies[: LEAST - 1])
    with pytest.raises(PrivacyRefusal, match=f"P06: .*arrived={LEAST - 1}, least={LEAST}. Nothing was released"):
        train(tmp_path, plan, grid=few, rounds=1)
    assert (ledger_of(tmp_path)[:2], saved(tmp_path)) == (((), None), None)
    assert train(tmp_path, plan)[0].tobytes() == calm(kind)[-1].shared.tobytes()


def faltering(plan, times):
    """A grid on which too few answer so many times, and then all; and how often it was asked."""
    asked = []

    def tamper(requests, replies):
        asked.append(len(requests))
        return replies[: LEAST - 1] if len(asked) <= times else replies

    return Tampered(grid_of(plan), tamper), asked


@pytest.mark.parametrize("kind", ["shares", "layered"])
def test_where_who_comes_is_no_secret_a_round_short_of_shares_is_asked_again(tmp_path, calm, kind):
    plan = PLANS[kind]
    grid, asked = faltering(plan, 2)
    shared, _ = train(tmp_path, plan, grid=grid)
    assert shared.tobytes() == calm(kind)[-1].shared.tobytes()
    assert len(asked) == plan.rounds + 2 and ledger_of(tmp_path)[0] == tuple(range(1, plan.rounds + 1))


@pytest.mark.parametrize("kind", ["shares", "layered"])
def test_a_round_that_nobody_comes_to_is_given_up_and_the_run_goes_on(tmp_path, kind):
    """Three attempts, no release, no charge; a restart does not go back to it."""
    plan = PLANS[kind]
    grid, asked = faltering(plan, 3)
    shared, told = train(tmp_path, plan, grid=grid, rounds=2)
    assert [progress.round for progress in told] == [2] and len(asked) == 4
    assert ledger_of(tmp_path)[0] == (2,) and (shared != INITIAL).any()
    _, told = train(tmp_path, plan)
    assert [progress.round for progress in told] == [2, *range(3, plan.rounds + 1)]


@pytest.mark.parametrize("kind", ["shares", "layered"])
def test_a_last_round_that_nobody_comes_to_ends_the_run_without_it(tmp_path, kind):
    plan = PLANS[kind]
    first, _ = train(tmp_path, plan, rounds=ROUNDS - 1)
    grid, asked = faltering(plan, 100)
    shared, told = train(tmp_path, plan, grid=grid)
    assert shared.tobytes() == first.tobytes() and len(asked) == 3
    assert [progress.round for progress in told] == [ROUNDS - 1] and ledger_of(tmp_path)[0] == (1, 2, 3)


def test_a_restart_after_given_up_rounds_goes_on_with_the_last_of_them(tmp_path):
    grid, asked = faltering(PLANS["shares"], 6)

    def die(*arguments):
        raise Crash

    with suppress(Crash), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", die)
        train(tmp_path, PLANS["shares"], grid=grid)
    assert len(asked) == 7 and done(tmp_path) == 0  # two rounds were given up, the third was charged and lost
    told = train(tmp_path, PLANS["shares"])[1]
    assert [progress.round for progress in told] == [4] and ledger_of(tmp_path)[0] == (3, 4)


@pytest.mark.parametrize("kind", ["shares", "layered"])
def test_a_run_that_nobody_comes_to_ends_with_the_reason(tmp_path, kind):
    grid, asked = faltering(PLANS[kind], 100)
    with pytest.raises(PrivacyRefusal, match="P06"):
        train(tmp_path, PLANS[kind], grid=grid)
    assert len(asked) == 9 and ledger_of(tmp_path)[0] == ()


def test_a_secret_cohort_is_not_drawn_again_until_it_is_large(tmp_path):
    grid, asked = faltering(PLANS["sampled shares"], 1)
    with pytest.raises(PrivacyRefusal, match="P06"):
        train(tmp_path, PLANS["sampled shares"], grid=grid)
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["poisson", "shares", "local", "adaptive"])
def test_a_private_liar_changes_nothing_but_its_own_part(tmp_path, kind):
    plan = PLANS[kind]
    loud = vector_of(lambda v: np.full(v.shape, 2**31 - 1, np.int32))
    liar = Tampered(grid_of(plan), lambda requests, replies: [loud(requests[0], replies[0]), *replies[1:]])
    silent = Tampered(grid_of(plan), lambda requests, replies: replies[1:])
    one, other = (
        train(tmp_path / name, plan, grid=grid, rounds=2)[0] for name, grid in (("liar", liar), ("silent", silent))
    )
    assert one.tobytes() == other.tobytes()


# A clip norm that moves.


def test_devices_hear_where_the_clip_norm_stands_and_nothing_else_about_it(tmp_path):
    plan, heard = PLANS["adaptive"], []

    def look(requests, replies):
        heard.append({wire.read_header(request).clip for request in requests})
        assert {wire.read_header(reply).clip for reply in replies} == {0.0}
        return replies

    train(tmp_path, plan, grid=Tampered(grid_of(plan), look))
    charged = [r.event["clip"] for r in Book.read(tmp_path / "ledger.jsonl").records if r.state == "charged"]
    assert heard == [{0.0}, *({clip} for clip in charged[1:])]
    assert charged[0] == 1.0 and len(set(charged)) == ROUNDS
    assert saved(tmp_path).clip not in charged


def test_an_update_that_was_clipped_at_another_norm_does_not_count(tmp_path):
    plan = PLANS["adaptive"]
    shared = []
    for name, tamper in (
        ("stale", lambda requests, replies: list(map(stale, requests, replies))),
        ("silent", lambda requests, replies: []),
    ):
        train(tmp_path / name, plan, rounds=1)
        shared.append(train(tmp_path / name, plan, grid=Tampered(grid_of(plan), tamper), rounds=2)[0])
    assert shared[0].tobytes() == shared[1].tobytes()


def stale(request, reply):
    """An update clipped where the norm stood a round ago: its bit is another."""
    bit = PLANS["adaptive"].crossing(1).bit
    return vector_of(lambda v: np.append(v[:-1], bit).astype(v.dtype))(request, reply)


# The plan that a ledger holds is the one that ran.


def test_the_ledger_of_a_run_can_be_verified_without_its_task(tmp_path):
    train(tmp_path, WARM)
    book = Book.read(tmp_path / "ledger.jsonl")
    assert book.plan == WARM == PrivacyPlan.of_public(json.loads(json.dumps(WARM.public())))
    book.check_export(ROUNDS, saved(tmp_path).digest)


def test_only_correlated_noise_leaves_a_memory(tmp_path):
    for kind in ("poisson", "shares", "banded"):
        train(tmp_path / kind, PLANS[kind])
        assert memory_of(tmp_path / kind).key.exists() == (kind == "banded")
    assert len((tmp_path / "banded" / "noise.0").read_bytes()) > 8 * SIZE
