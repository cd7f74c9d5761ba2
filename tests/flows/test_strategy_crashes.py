"""A server that crashes anywhere goes on as if it had not, and never pays less than it released."""

from contextlib import suppress

import numpy as np
import pytest
from federation import CLIENTS, INITIAL, PLAN, SIZE, Tampered, grid_of, saved, strategy_of, train, vector_of
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors import safe_open

from fedrec.exchange import wire
from fedrec.privacy.ledger import Ledger
from fedrec.rounds.checkpoint import Checkpoint

# Crashes: after a round was told, before its checkpoint, between checkpoint and release.


class Crash(BaseException):
    """Nothing of ours catches this."""


def crashing(folder, place, number, *, private):
    """Start and die at `place` of round `number`, if it is reached."""

    def crash(*arguments):
        raise Crash

    def told(progress):
        if place == "told" and progress.round == number:
            raise Crash

    with strategy_of(folder, private=private) as strategy, suppress(Crash), pytest.MonkeyPatch.context() as patch:
        strategy.observers.append(told)
        if place in ("charged", "saved"):
            cohort = strategy.rounds.cohort
            owner, name = {"charged": (Checkpoint, "save"), "saved": (type(strategy.rounds), "published")}[place]

            def armed(rounds, at, clients):
                if at == number:
                    patch.setattr(owner, name, crash)
                return cohort(at, clients)

            patch.setattr(type(strategy.rounds), "cohort", armed)
        grid = grid_of(private=private)
        strategy.join(grid, CLIENTS)
        strategy.start(grid, wire.arrays(INITIAL))


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What uninterrupted runs tell, by privacy."""
    return {private: train(tmp_path_factory.mktemp("calm"), private=private)[1] for private in (False, True)}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_stopped_after_any_round_a_run_ends_where_it_would_have(tmp_path, calm, private, number):
    crashing(tmp_path, "told", number, private=private)
    assert saved(tmp_path).round == number
    shared, told = train(tmp_path, private=private)
    assert shared.tobytes() == calm[private][-1].shared.tobytes()
    assert [progress.round for progress in told] == list(range(number, 5))  # the stopped round is told again
    assert [p.shared.tobytes() for p in told] == [p.shared.tobytes() for p in calm[private][number - 1 :]]
    again, rows = train(tmp_path, private=private)
    assert again.tobytes() == shared.tobytes()
    assert [progress.round for progress in rows] == [4]


@pytest.mark.parametrize("place", ["charged", "saved"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_without_privacy_a_crash_anywhere_leaves_no_trace(tmp_path, calm, place, number):
    crashing(tmp_path, place, number, private=False)
    assert (saved(tmp_path).round if saved(tmp_path) else 0) == (number if place == "saved" else number - 1)
    assert train(tmp_path)[0].tobytes() == calm[False][-1].shared.tobytes()


def ledger_of(folder):
    with Ledger(folder / "ledger.jsonl", PLAN) as ledger:
        return ledger.charges, ledger.pending, [(r.round, str(r.state)) for r in ledger.records[1:]]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_crash_between_charge_and_checkpoint_costs_a_charge_and_a_round(tmp_path, calm, number):
    crashing(tmp_path, "charged", number, private=True)
    assert ledger_of(tmp_path)[:2] == (number, ledger_of(tmp_path)[1])
    assert ledger_of(tmp_path)[1][0] == number
    assert (saved(tmp_path).round if saved(tmp_path) else 0) == number - 1
    shared, told = train(tmp_path, private=True)
    charges, pending, records = ledger_of(tmp_path)
    assert (charges, pending) == (PLAN.rounds, None)
    assert records.count((number, "charged")) == 2
    assert [n for n, state in records if state == "released"] == [1, 2, 3]
    assert told[-1].round == saved(tmp_path).round == 3  # a round early rather than over budget
    assert shared.tobytes() == calm[True][2].shared.tobytes()  # at level `test` the same noise comes again


@pytest.mark.parametrize("number", [1, 4])
def test_a_crash_between_checkpoint_and_release_costs_nothing(tmp_path, calm, number):
    crashing(tmp_path, "saved", number, private=True)
    assert ledger_of(tmp_path)[1][0] == number
    shared, _ = train(tmp_path, private=True)
    charges, pending, records = ledger_of(tmp_path)
    assert (charges, pending, records.count((number, "charged"))) == (PLAN.rounds, None, 1)
    assert shared.tobytes() == calm[True][-1].shared.tobytes()


crashes = some.lists(
    some.tuples(some.sampled_from(["told", "charged", "saved"]), some.integers(1, 4)), min_size=1, max_size=6
)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(crashes)
def test_whatever_crashes_there_are_never_more_charges_than_rounds(tmp_path_factory, calm, history):
    folder = tmp_path_factory.mktemp("crashes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        for place, number in history:
            crashing(folder, place, number, private=True)
        train(folder, private=True)
    charges, pending, records = ledger_of(folder)
    done = saved(folder).round if saved(folder) else 0
    lost = sum(state == "aborted" for _, state in records)
    assert (charges, pending) == (PLAN.rounds, None)
    assert [n for n, state in records if state == "released"] == list(range(1, done + 1))
    assert done == PLAN.rounds - lost
    expected = calm[True][done - 1].shared if done else INITIAL
    assert (saved(folder).optimum.shared if done else INITIAL).tobytes() == expected.tobytes()


# What may be told of a private cohort.


def test_nothing_is_told_or_kept_of_a_private_cohort(tmp_path, calm):
    assert [(p.tally, p.seconds) for p in calm[True]] == [(None, None)] * 4
    train(tmp_path, private=True, rounds=1)
    assert saved(tmp_path).tally is None
    with safe_open(tmp_path / "checkpoint.safetensors", framework="numpy") as file:
        kept = {name: value for name, value in file.metadata().items() if value}
        assert set(file.keys()) == {"shared", "first", "second"}
    assert set(kept) == {"round", "task", "digest"}


def test_a_private_round_goes_on_with_whatever_arrived(tmp_path, calm):
    silent = Tampered(grid_of(private=True), lambda requests, replies: [])
    shared, told = train(tmp_path, private=True, grid=silent, rounds=1)
    assert told[0].tally is None
    assert ledger_of(tmp_path)[0] == 1
    assert shared.tobytes() != calm[True][0].shared.tobytes()
    assert (shared != INITIAL).all()  # noise alone


def test_a_private_liar_changes_nothing_but_its_own_part(tmp_path):
    loud = vector_of(lambda v: np.full(SIZE, 2**31 - 1, np.int32))
    liar = Tampered(
        grid_of(private=True), lambda requests, replies: [loud(requests[0], replies[0]), *replies[1:]]
    )  # fmt: skip
    silent = Tampered(grid_of(private=True), lambda requests, replies: replies[1:])
    one, other = (
        train(tmp_path / name, private=True, grid=grid, rounds=2)[0]
        for name, grid in (("liar", liar), ("silent", silent))
    )
    assert one.tobytes() == other.tobytes()
