"""The ledger: spent is spent, and a changed line is noticed."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.records import Position, Record, State, advance
from fedrec.privacy.sampling import Poisson
from fedrec.privacy.terms import Budget

PLAN = PrivacyPlan(
    budget=Budget.of(8.0, 943), rounds=3, sampler=Poisson(0.1), clip=1.3, grid=2**19, multiplier=2.0
)  # fmt: skip
DIGEST = hashlib.sha256(b"a noised aggregate").hexdigest()


def run(ledger, number):
    ledger.reserve(number)
    ledger.charge(number, DIGEST)
    ledger.release(number, DIGEST)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def test_a_whole_run(path):
    with Ledger(path, PLAN) as ledger:
        assert (ledger.charges, ledger.remaining, ledger.epsilon) == (0, 3, 0)
        for number in (1, 2, 3):
            run(ledger, number)
            assert ledger.charges == number
        head = ledger.head
        assert ledger.epsilon == PLAN.epsilon
    with Ledger(path, PLAN) as again:
        assert (again.charges, again.remaining, again.head, again.pending) == (3, 0, head, None)
        assert [record.state for record in again.records[1:4]] == ["reserved", "charged", "released"]


def test_p10_ends_the_plan(path):
    with Ledger(path, PLAN) as ledger:
        for number in (1, 2, 3):
            run(ledger, number)
        with pytest.raises(BudgetExceeded, match="P10: .*charges=3, rounds=3.*new plan") as refusal:
            ledger.reserve(4)
        assert refusal.value.code == "P10"
    with Ledger(path, PLAN) as ledger, pytest.raises(BudgetExceeded):
        ledger.reserve(4)


def test_a_charge_that_a_crash_lost_stays_spent(path):
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(1)
        ledger.charge(1, DIGEST)
    with Ledger(path, PLAN) as ledger:
        assert ledger.pending == (1, DIGEST)
        run(ledger, 1)
        assert ledger.charges == 2
        run(ledger, 2)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(3)


def test_a_persisted_aggregate_may_be_released_after_a_crash_but_no_other(path):
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(1)
        ledger.charge(1, DIGEST)
    with Ledger(path, PLAN) as ledger:
        with pytest.raises(PrivacyRefusal, match="P11"):
            ledger.release(1, hashlib.sha256(b"fresh noise").hexdigest())
        ledger.release(1, DIGEST)
        assert (ledger.charges, ledger.pending) == (1, None)


def test_a_reservation_is_free_until_it_is_charged(path):
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(1)
        ledger.abort(1)
        assert ledger.charges == 0
        ledger.reserve(2)
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(2)
        ledger.charge(2, DIGEST)
        ledger.abort(2)
        assert ledger.charges == 1


@pytest.mark.parametrize(
    "steps",
    [
        ["charge 1"],
        ["release 1"],
        ["abort 1"],
        ["reserve 1", "release 1"],
        ["reserve 1", "charge 2"],
        ["reserve 1", "reserve 2"],
        ["reserve 1", "charge 1", "charge 1"],
        ["reserve 1", "charge 1", "reserve 2"],
        ["reserve 1", "charge 1", "release 1", "reserve 1"],
        ["reserve 1", "charge 1", "release 1", "release 1"],
        ["reserve 1", "charge 1", "release 1", "reserve 3"],
        ["reserve 1", "abort 1", "charge 1"],
        ["reserve -1"],
    ],
)
def test_p11_refuses_rounds_out_of_order(path, steps):
    def take(ledger, step):
        verb, number = step.split()
        getattr(ledger, verb)(int(number), *([DIGEST] if verb in ("charge", "release") else []))

    with Ledger(path, PLAN) as ledger:
        for step in steps[:-1]:
            take(ledger, step)
        before = ledger.head
        with pytest.raises(PrivacyRefusal, match="P11: "):
            take(ledger, steps[-1])
        assert ledger.head == before
    with Ledger(path, PLAN) as ledger:
        assert ledger.head == before


def test_another_plan_is_refused(path):
    Ledger(path, PLAN).close()
    with pytest.raises(RunError, match="a ledger belongs to one plan.*new run folder"):
        Ledger(path, replace(PLAN, rounds=2))


def test_one_process_at_a_time(path):
    with Ledger(path, PLAN), pytest.raises(RunError, match="one process at a time"):
        Ledger(path, PLAN)
    Ledger(path, PLAN).close()


def test_a_closed_ledger_takes_nothing(path):
    ledger = Ledger(path, PLAN)
    ledger.close()
    ledger.close()
    with pytest.raises(RunError, match="must be written before a round goes on"):
        ledger.reserve(1)


def test_records_hold_nothing_about_the_cohort(path):
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
        names = {name for record in ledger.records for name in (*asdict(record), *record.event)}
    assert not {name for name in names for word in ("cohort", "client", "size", "norm", "seed") if word in name}


def rewrite(path, change):
    """Alter the events of a ledger as someone would who knows how its hashes are made."""
    lines, before = [], None
    for line in path.read_bytes().splitlines(keepends=True):
        record = Record.parse(line)
        record = replace(record, prev=before.hash if before else record.prev, event=change(record))
        lines.append(record.line())
        before = record
    path.write_bytes(b"".join(lines))
    path.with_name(path.name + ".head").write_text(json.dumps({"seq": before.seq, "hash": before.hash}) + "\n")


@pytest.mark.parametrize(
    ("state", "field", "wrong", "says"),
    [
        (State.PLANNED, "spends", 0.5, "stored epsilon is what the events cost"),
        (State.PLANNED, "multiplier", 3.0, "the plan in the first record"),
        (State.CHARGED, "z_eff", 9.0, "every record is of the plan"),
    ],
)
def test_p11_refuses_a_forged_epsilon_even_with_good_hashes(path, state, field, wrong, says):
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
    rewrite(path, lambda record: record.event)
    Ledger(path, PLAN).close()
    rewrite(path, lambda record: {**record.event, field: wrong} if record.state is state else record.event)
    with pytest.raises(PrivacyRefusal, match=f"P11: .*{says}"):
        Ledger(path, PLAN)


def test_charges_never_exceed_the_plan_when_replayed():
    record = Record(
        seq=9, prev="", plan="", round=4, state=State.RESERVED, event={}, digest="", time=0, version=""
    )  # fmt: skip
    with pytest.raises(BudgetExceeded):
        advance(Position(3, State.RELEASED, charges=3), record, rounds=3)
