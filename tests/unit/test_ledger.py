"""The ledger: spent is spent, and a changed line is noticed."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest
from plans import KINDS, plan_of

from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.chain import Book
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.records import Position, Record, State, advance, last_release

PLAN = plan_of("poisson", rounds=3)
FOLLOW = Adaptive(spread=10.0, least=0.5, most=4.0)
DIGEST = hashlib.sha256(b"a noised aggregate").hexdigest()


def run(ledger, number, clip=None):
    ledger.reserve(number)
    ledger.charge(number, DIGEST, clip)
    ledger.release(number, DIGEST)


def lose(ledger, number):
    """A charge whose release a crash swallowed."""
    ledger.reserve(number)
    ledger.charge(number, DIGEST)
    ledger.abort(number)


pytestmark = pytest.mark.usefixtures("no_disk")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def test_a_whole_run(path):
    with Ledger(path, PLAN) as ledger:
        assert (ledger.charged, ledger.affords(1), ledger.epsilon) == ((), True, 0)
        for number in (1, 2, 3):
            run(ledger, number)
            assert ledger.charged[-1] == number
        head = ledger.head
        assert ledger.epsilon == PLAN.epsilon
    with Ledger(path, PLAN) as again:
        assert (again.charged, again.affords(4), again.head, again.pending) == ((1, 2, 3), False, head, None)
        assert [record.state for record in again.records[1:4]] == ["reserved", "charged", "released"]
        assert last_release(again.records) == (3, DIGEST)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_every_mode_with_a_warm_start(path, kind):
    plan = plan_of(kind, rounds=3, warm=True)
    with Ledger(path, plan) as ledger:
        for number in (1, 2, 3, 4):
            run(ledger, number)
        assert ledger.epsilon == pytest.approx(plan.epsilon, abs=1e-9)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(5)
    charged = [record.event for record in Book.read(path).records if record.state is State.CHARGED]
    assert [event["purpose"] for event in charged] == ["warm start", *["training"] * 3]
    assert [event["clip"] for event in charged] == [0.5, 1.0, 1.0, 1.0]


def test_p10_ends_the_plan(path):
    with Ledger(path, PLAN) as ledger:
        for number in (1, 2, 3):
            run(ledger, number)
        with pytest.raises(BudgetExceeded, match="P10: .*charges=3, round=4.*new plan") as refusal:
            ledger.reserve(4)
        assert refusal.value.code == "P10"
    with Ledger(path, PLAN) as ledger, pytest.raises(BudgetExceeded):
        ledger.reserve(4)


def test_p10_refuses_to_call_a_group_again_that_has_come_as_often_as_was_accounted(path):
    """Eight rounds of four groups: each comes twice. When round 1 is lost and repeated, group 0 has used that up."""
    plan = plan_of("min-sep", rounds=8)
    with Ledger(path, plan) as ledger:
        lose(ledger, 1)
        for number in (1, 2, 3, 4):
            run(ledger, number)
        with pytest.raises(BudgetExceeded, match="P10"):
            ledger.reserve(5)
        assert not ledger.affords(5)
        assert ledger.epsilon == plan.epsilon


def test_a_group_that_comes_less_often_may_be_called_again(path):
    """In six rounds groups 2 and 3 come once: a lost round of theirs costs no more than the others pay anyway."""
    with Ledger(path, plan_of("min-sep", rounds=6)) as ledger:
        run(ledger, 1)
        run(ledger, 2)
        lose(ledger, 3)
        for number in (3, 4, 5, 6):
            run(ledger, number)
        assert ledger.epsilon == ledger.plan.epsilon


def test_a_lost_row_of_correlated_noise_ends_the_run(path):
    with Ledger(path, plan_of("banded")) as ledger:
        run(ledger, 1)
        ledger.reserve(2)
        ledger.abort(2)  # nothing was drawn yet
        lose(ledger, 2)
        with pytest.raises(BudgetExceeded, match="P10"):
            ledger.reserve(2)


def test_a_lost_warm_start_is_not_repeated(path):
    with Ledger(path, plan_of("shares", warm=True)) as ledger:
        lose(ledger, 1)
        with pytest.raises(BudgetExceeded, match="P10"):
            ledger.reserve(1)


def test_a_charge_says_where_an_adaptive_clip_norm_stood(path):
    plan = plan_of("poisson", rounds=3, adaptive=FOLLOW)
    with Ledger(path, plan) as ledger:
        run(ledger, 1)
        run(ledger, 2, 2.25)
        run(ledger, 3, 4.0)
    charged = [record.event for record in Book.read(path).records if record.state is State.CHARGED]
    assert [event["clip"] for event in charged] == [1.0, 2.25, 4.0]
    assert {event["z_eff"] for event in charged} == {plan.phases[0].multiplier}


def test_a_charge_that_a_crash_lost_stays_spent(path):
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(1)
        ledger.charge(1, DIGEST)
    with Ledger(path, PLAN) as ledger:
        assert ledger.pending == (1, DIGEST)
        run(ledger, 1)
        assert ledger.charged == (1, 1)
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
        assert (ledger.charged, ledger.pending) == ((1,), None)


def test_a_reservation_is_free_until_it_is_charged(path):
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(1)
        ledger.abort(1)
        assert ledger.charged == ()
        ledger.reserve(2)
    with Ledger(path, PLAN) as ledger:
        ledger.reserve(2)
        ledger.charge(2, DIGEST)
        ledger.abort(2)
        assert ledger.charged == (2,)


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
        Ledger(path, plan_of("poisson", rounds=2))


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
        names = {name for record in ledger.records[1:] for name in (*asdict(record), *record.event)}
    assert not {name for name in names for word in ("cohort", "client", "size", "norm", "seed") if word in name}


# What someone writes who knows how hashes are made.


def rewrite(path, change):
    """Put `change(record)` in place of each record, with every hash made good again."""
    lines, before = [], None
    for line in path.read_bytes().splitlines(keepends=True):
        record = Record.parse(line)
        record = change(replace(record, prev=before.hash if before else record.prev))
        lines.append(record.line())
        before = record
    path.write_bytes(b"".join(lines))
    path.with_name(path.name + ".head").write_text(json.dumps({"seq": before.seq, "hash": before.hash}) + "\n")


def forged(state, **fields):
    """Change fields of the event of records in `state`; a field of the plan by its path."""

    def change(record):
        if record.state is not state:
            return record
        event = json.loads(json.dumps(record.event))
        for where, value in fields.items():
            *path, last = where.split("__")
            inside = event
            for name in path:
                inside = inside[int(name) if name.isdigit() else name]
            inside[int(last) if last.isdigit() else last] = value
        return replace(record, event=event)

    return change


FORGERIES = [
    (forged(State.PLANNED, spends__0__epsilon=0.5), "stored epsilon is what the events cost"),
    *(
        (forged(State.PLANNED, spends=wrong), "stored epsilon is what the events cost")
        for wrong in ([], 7, [{}], ["nothing"], [{"epsilon": None}])
    ),
    (forged(State.PLANNED, plan=None), "a plan that can exist|the plan in the first record"),
    (forged(State.PLANNED, plan__phases=[]), "a plan that can exist|the plan in the first record"),
    (lambda record: replace(record, event=[]), "a ledger line reads as it was written"),
    (lambda record: replace(record, round="1"), "a ledger line reads as it was written"),
    (forged(State.PLANNED, plan__phases__0__multiplier=8.0), "the plan in the first record"),
    (forged(State.PLANNED, plan__phases__0__rounds=300), "the plan in the first record|a plan that can exist"),
    (forged(State.CHARGED, z_eff=9.0), "every record is of the plan"),
    (forged(State.CHARGED, clip=0.9), "every record is of the plan"),
    (forged(State.CHARGED, clip=None), "every record is of the plan"),
    (forged(State.CHARGED, purpose="warm start"), "every record is of the plan"),
    (forged(State.CHARGED, cohort=7), "every record is of the plan"),
]


@pytest.mark.parametrize(("change", "says"), FORGERIES)
def test_p11_refuses_a_forged_event_even_with_good_hashes(path, change, says):
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
    rewrite(path, lambda record: record)
    Ledger(path, PLAN).close()
    Book.read(path)
    rewrite(path, change)
    for look in (lambda: Ledger(path, PLAN), lambda: Book.read(path)):
        with pytest.raises(PrivacyRefusal, match=f"P11: .*({says})"):
            look()


def test_p11_refuses_an_adaptive_clip_norm_out_of_its_range(path):
    with Ledger(path, plan_of("poisson", adaptive=FOLLOW)) as ledger:
        run(ledger, 1, 2.0)
    rewrite(path, forged(State.CHARGED, clip=3.0))
    Book.read(path)  # within the range: nobody can tell
    rewrite(path, forged(State.CHARGED, clip=4.5))
    with pytest.raises(PrivacyRefusal, match="P11"):
        Book.read(path)


def with_plan(content):
    """Another plan in the first record, its hash in every record: what cannot be told from an honest ledger of it."""
    plan = PrivacyPlan.of_public(content)

    def change(record):
        event = {**record.event, "plan": content} if record.state is State.PLANNED else record.event
        return replace(record, plan=plan.hash, event=event)

    return change


def test_p11_refuses_a_plan_whose_stored_epsilon_is_another_s(path):
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
    quieter = json.loads(json.dumps(plan_of("poisson", rounds=2).public()))
    rewrite(path, with_plan(quieter))
    with pytest.raises(PrivacyRefusal, match="P11: the stored epsilon is what the events cost"):
        Book.read(path)


def test_charges_never_exceed_the_plan_when_replayed():
    record = Record(
        seq=9, prev="", plan="", round=4, state=State.RESERVED, event={}, digest="", time=0, version=""
    )  # fmt: skip
    with pytest.raises(BudgetExceeded):
        advance(Position(3, State.RELEASED, charged=(1, 2, 3)), record, PLAN.affords)


# Reading without writing.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_book_tells_a_ledger_from_its_own_first_record(path, kind, warm):
    plan = plan_of(kind, warm=warm)
    with Ledger(path, plan) as ledger:
        run(ledger, 1)
        ledger.reserve(2)
        ledger.charge(2, DIGEST)
        head = ledger.head
        before = path.read_bytes()
        book = Book.read(path)  # while it is open
    assert (book.plan, book.head, book.records) == (plan, head, ledger.records)
    assert (book.position.charged, book.position.state) == ((1, 2), State.CHARGED)
    assert path.read_bytes() == before


def test_a_book_repairs_nothing(path):
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"torn')
    assert len(Book.read(path).records) == 4
    assert path.read_bytes() == whole + b'{"torn'


def test_there_is_no_book_of_nothing(path):
    with pytest.raises(RunError, match="a ledger is a file"):
        Book.read(path)
    path.touch()
    with pytest.raises(PrivacyRefusal, match="P11: a ledger begins with its plan"):
        Book.read(path)


# P16: a model and its ledger.


def test_a_model_is_of_the_last_release(path):
    with Ledger(path, PLAN) as ledger:
        ledger.settle(0, "")
        run(ledger, 1)
        ledger.settle(1, DIGEST)
        assert ledger.charged == (1,)
        for number, digest in ((0, ""), (2, DIGEST), (1, "another")):
            with pytest.raises(PrivacyRefusal, match="P16: a model and its ledger tell of one release.*of one moment"):
                ledger.settle(number, digest)


@pytest.mark.parametrize(("model", "state"), [((2, DIGEST), "released"), ((1, DIGEST), "aborted")])
def test_a_pending_charge_is_settled_by_the_model_that_there_is(path, model, state):
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
        ledger.reserve(2)
        ledger.charge(2, DIGEST)
        with pytest.raises(PrivacyRefusal, match="P16"):
            ledger.settle(2, "another")
        assert ledger.pending == (2, DIGEST)
        ledger.settle(*model)
        assert (ledger.pending, ledger.records[-1].state, ledger.charged) == (None, state, (1, 2))


def test_p16_refuses_to_hand_out_a_model_while_a_round_is_open(path):
    with Ledger(path, PLAN) as ledger:
        Book.read(path).check_export(0, "")
        run(ledger, 1)
        Book.read(path).check_export(1, DIGEST)
        with pytest.raises(PrivacyRefusal, match="P16: a model and its ledger"):
            Book.read(path).check_export(1, "another")
        for step in (lambda: ledger.reserve(2), lambda: ledger.charge(2, DIGEST)):
            step()
            with pytest.raises(PrivacyRefusal, match="P16: .*no round is open.*round=2.*Finish the run") as refusal:
                Book.read(path).check_export(1, DIGEST)
            assert refusal.value.code == "P16"
        ledger.abort(2)
        Book.read(path).check_export(1, DIGEST)
