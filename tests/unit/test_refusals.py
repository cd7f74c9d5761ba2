"""P01 to P18 (docs/privacy.md): each is raised somewhere, can be provoked, and names a rule and a cure."""

import ast
import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from plans import LEAST, STATISTICS, TERMS, plan_of

import fedrec
from fedrec.device.participation import Exit, Participation
from fedrec.errors import BudgetExceeded, PrivacyRefusal
from fedrec.privacy.accounting import GdpFilter, SampledGaussian, epsilon, gaussian_mu
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.chain import Book
from fedrec.privacy.clipping import clip_to_grid, flatten
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.crossing import Summed
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Charge, Limits, Span, Terms
from fedrec.privacy.events import Gaussian
from fedrec.privacy.interaction import Practice, private_statistics
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.masking import Masking, Neighbours
from fedrec.privacy.noise import Hardened, Level, noise_source
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Fixed, Poisson
from fedrec.privacy.terms import Budget, Mode, Relation

PLAN, SHARES, BANDED, INSIDE = (plan_of(kind, rounds=3) for kind in ("poisson", "shares", "banded", "inside"))
CONDUCT, CROSSING = Conduct(schedules=PLAN.schedules), PLAN.crossing(1)
FOLLOW = Adaptive(spread=10.0, least=0.5, most=4.0)
SOUND = Masking(bits=40, neighbours=(Neighbours(11, 8),))
SEAT = Terms(
    task="t", statement="s", most=Limits(participations=9),
    spans=(Span(first=1, rounds=12, participations=2, separation=4, charge=Charge()),),
)  # fmt: skip
DIGEST = hashlib.sha256(b"a noised aggregate").hexdigest()
PRACTICES = {"windows": 2, "embedding": "outside", "rivals": "batch", "batches": "shuffled", "gradients": "ghost",
             "denominator": "count", "normalises": True, "buckets": True, "weights": True}  # fmt: skip


def ledger(path, plan=PLAN, rounds=0):
    book = Ledger(path / "ledger.jsonl", plan)
    for number in range(1, rounds + 1):
        book.reserve(number)
        book.charge(number, DIGEST)
        book.release(number, DIGEST)
    return book


def device(path, *rounds):
    """The ledger of a device that took part in `rounds`."""
    book = DeviceLedger(path / "device.ledger", SEAT.most)
    book.enrol("d", SEAT)
    for number in rounds:
        book.reserve("d", "t", number)
        book.seal("d", "t", number, b"sent")
    return book


def with_phase(plan, **change):
    return replace(plan, phases=(replace(plan.phases[0], **change),))


def damaged(path):
    with ledger(path, rounds=1):
        pass
    file = path / "ledger.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"round":1', b'"round":2', 1))
    Ledger(file, PLAN)


def exported(path):
    with ledger(path, rounds=1) as book:
        book.reserve(2)
        Book.read(path / "ledger.jsonl").check_export(1, DIGEST)


def overlong(path):
    class Open:
        """A ledger of a device that may do anything."""

        sent = staticmethod(lambda device, task, number: None)
        reserve = staticmethod(lambda device, task, number, echoed: None)

    cross = lambda update: np.append(update, 1.0)  # noqa: E731  (a norm, a loss, a count …)
    out = Exit(cross=cross, size=3, sent=(3, np.dtype(np.float64)))
    Participation(ledger=Open(), device="d", task="t").take_part(1, lambda: np.zeros(3), out)


# Each row: code, words of the rule, and what provokes it (given an empty folder).
ROWS = [
    ("P01", "epsilon is positive and finite", lambda path: Budget.of(0.0, 40)),
    ("P01", "epsilon is positive and finite", lambda path: Budget.of(float("inf"), 40)),
    ("P01", "delta lies between 0 and 1/N", lambda path: Budget.of(1.0, 40, delta=1 / 40)),
    ("P01", "delta lies between 0 and 1/N", lambda path: Budget.of(1.0, 40, delta=-1e-9)),
    ("P01", "so large an epsilon protects next to nothing", lambda path: Budget.of(20.1, 40)),
    ("P01", "private noise is positive", lambda path: with_phase(PLAN, multiplier=0.0)),
    ("P01", "private noise is positive", lambda path: SampledGaussian(0.1, 0.0)),
    ("P01", "delta lies between 0 and 1 / examples", lambda path: replace(TERMS, delta=0.5)),
    ("P02", "schedules in use are those that were accounted", lambda path: PLAN.admit(
        replace(CONDUCT, schedules=(Poisson(0.3),)))),
    ("P02", "a schedule is one that the mode's accountant covers", lambda path: with_phase(
        SHARES, schedule=Fixed(10))),
    ("P02", "a schedule is one that the mode's accountant covers", lambda path: with_phase(
        plan_of("local"), schedule=Poisson(0.25))),
    ("P02", "a schedule is one that the mode's accountant covers", lambda path: with_phase(SHARES, bands=2)),
    ("P02", "a device trains as often as is accounted", lambda path: with_phase(INSIDE, rounds=9)),
    ("P03", "it tosses no coins", lambda path: PLAN.admit(replace(CONDUCT, schedules=(Fixed(10),)))),
    ("P03", "it tops the cohort up", lambda path: PLAN.admit(replace(CONDUCT, tops_up=True))),
    ("P03", "it asks again", lambda path: PLAN.admit(replace(CONDUCT, retries=True))),
    ("P03", "it shuffles", lambda path: PLAN.admit(replace(CONDUCT, shuffles=True))),
    ("P03", "it waits for a minimum of replies", lambda path: PLAN.admit(replace(CONDUCT, minimum=2))),
    ("P04", "sums have a public denominator", lambda path: PLAN.admit(replace(CONDUCT, denominator="enrolled"))),
    ("P04", "the events of one account are about one relation", lambda path: epsilon(
        [(SampledGaussian(0.1, 4.0), 1), (Gaussian(4.0, Relation.REPLACE_ONE), 1)], delta=1e-6)),
    ("P04", "all rounds are about one relation", lambda path: replace(
        PLAN, phases=(plan_of("poisson", warm=True).phases[0], BANDED.phases[0]))),
    ("P05", "all weights are equal", lambda path: PLAN.admit(replace(CONDUCT, weights="examples"))),
    ("P05", "all weights are equal", lambda path: PLAN.admit(replace(CONDUCT, weights="client"))),
    ("P06", "as many noise shares arrive as the plan counts on", lambda path: SHARES.crossing(1).release(
        Summed(np.zeros(2, np.int64), LEAST - 1), None)),
    ("P06", "no noise share is missing", lambda path: SHARES.crossing(1).send(np.zeros(2), None)),
    ("P06", "no noise share is missing", lambda path: CROSSING.release(
        Summed(np.zeros(2, np.int64), 1), None)),
    ("P06", "shares are sized for at least one honest client", lambda path: replace(SHARES, least=0)),
    ("P06", "a full cohort has all the shares that a round needs", lambda path: replace(SHARES, colluders=9)),
    ("P07", "private noise is never seeded", lambda path: PLAN.noise(default_rng(0))),
    ("P07", "private noise is never seeded", lambda path: noise_source(Level.TEST)),
    ("P07", "private cohorts are never seeded", lambda path: PLAN.coins(default_rng(0))),
    ("P07", "noise is of the level that is stated", lambda path: CROSSING.release(
        Summed(np.zeros(2, np.int64), 1), noise_source(Level.TEST, default_rng(0)))),
    ("P08", "an aggregate is one int64 vector", lambda path: CROSSING.release(
        Summed(np.array([np.nan]), 1), Hardened())),
    ("P08", "an aggregate is within population", lambda path: CROSSING.release(
        Summed(np.array([2**62]), 1), Hardened())),
    ("P08", "every summand is within the clip norm", lambda path: CROSSING.total([np.array([2**20])], 1)),
    ("P08", "a clip norm is positive and finite", lambda path: with_phase(PLAN, clip=float("nan"))),
    ("P08", "a clip norm is positive", lambda path: replace(TERMS, clip=float("inf"))),
    ("P08", "an update is one flat vector", lambda path: clip_to_grid(np.ones((2, 2)), 1.0, 64)),
    ("P08", "an update holds only floating-point arrays", lambda path: flatten([np.array(7)])),
    ("P08", "an aggregate is finite", lambda path: FOLLOW.next(1.0, float("nan"))),
    ("P09", "what leaves a device has the same form for everyone", overlong),
    ("P10", "a plan keeps its budget", lambda path: replace(PLAN, budget=Budget.of(PLAN.epsilon / 2, 40))),
    ("P10", "a promise keeps its budget", lambda path: replace(INSIDE.interaction, budget=0.01)),
    ("P10", "a plan is charged for the rounds that it has", lambda path: ledger(path, rounds=4)),
    ("P10", "the squares of mu keep within the limit's", lambda path: GdpFilter(0.1).charge(
        Gaussian(4.0, Relation.ZERO_OUT))),
    ("P10", "a device answers a round once, and no older one", lambda path: device(path, 2, 1)),
    ("P10", "rounds of one device lie apart", lambda path: device(path, 1, 2)),
    ("P10", "a device takes part as often as the plan counts on", lambda path: device(path, 1, 5, 9)),
    ("P11", "a ledger line reads as it was written", damaged),
    ("P11", "a round is reserved, then charged", lambda path: ledger(path).charge(1, DIGEST)),
    ("P12", "the bits cost less than the whole release", lambda path: FOLLOW.split(20.0)),
    ("P12", "a clip norm stays within its public range", lambda path: plan_of(
        "poisson", adaptive=FOLLOW).crossing(1, 5.0)),
    ("P12", "a clip norm moves only in a plan that lets it", lambda path: PLAN.crossing(1, 0.9)),
    ("P12", "correlated noise keeps one clip norm", lambda path: with_phase(BANDED, adaptive=FOLLOW)),
    ("P13", "masks come from keys of at least 128 bits", lambda path: replace(SOUND, key_bits=28)),
    ("P13", "colluders cannot lift a mask", lambda path: replace(
        SHARES, masking=replace(SOUND, neighbours=(Neighbours(11, 6),)), least=3, colluders=6)),
    ("P13", "a sum fits the modulus", lambda path: replace(SHARES, masking=replace(SOUND, bits=16))),
    ("P13", "masks hide vectors that carry noise shares", lambda path: replace(PLAN, masking=SOUND)),
    *(("P14", "", lambda path, wrong=wrong: Practice(**dict([wrong]))) for wrong in PRACTICES.items()),
    ("P14", "delta for interactions is at most", lambda path: replace(TERMS, delta=1e-3)),
    ("P14", "statistics and training cut a history alike", lambda path: replace(
        plan_of("inside", warm=True).interaction, statistics=replace(STATISTICS, delta=1e-7))),
    ("P14", "statistics are one release of all examples", lambda path: private_statistics(
        np.ones((2, 2)), TERMS, Hardened())),
    ("P15", "only releases without sampling have a mu", lambda path: gaussian_mu([(SampledGaussian(0.1, 4.0), 1)])),
    ("P15", "the terms of a task do not change", lambda path: device(path).enrol(
        "d", replace(SEAT, statement="other"))),
    ("P16", "a model and its ledger tell of one release", lambda path: ledger(path, rounds=1).settle(0, "")),
    ("P16", "a model and its ledger tell of one release", lambda path: ledger(path).settle(3, DIGEST)),
    ("P16", "a model is handed out when no round is open", exported),
    ("P17", "only epsilons of one unit, relation and adversary may be added", lambda path: (
        PLAN.promises[0].guarantee + SHARES.promises[0].guarantee)),
    ("P18", "a grid is a power of two", lambda path: with_phase(PLAN, grid=1000)),
    ("P18", "noise spans at least 5 grid steps", lambda path: with_phase(PLAN, grid=1)),
    ("P18", "noise has a standard deviation of 5 to 2^40 grid steps", lambda path: Hardened().draw(4.0, 1)),
    ("P18", "the clip norm is at least one grid step", lambda path: clip_to_grid(np.ones(1), 0.01, 64)),
    ("P18", "rounding moves a norm by 1 % at most", lambda path: with_phase(PLAN, grid=64).check_width(
        1, 600, force=True)),
    ("P18", "the bit spans at least one grid step", lambda path: FOLLOW.half(4.0, 2)),
]  # fmt: skip
CODES = [f"P{number:02}" for number in range(1, 19)]


@pytest.mark.parametrize(("code", "rule", "provoke"), ROWS, ids=[f"{code} {rule}" for code, rule, _ in ROWS])
def test_a_claim_that_cannot_be_honoured_is_refused(tmp_path, code, rule, provoke):
    with pytest.raises(PrivacyRefusal) as refusal:
        provoke(tmp_path)
    error = refusal.value
    assert error.code == code
    assert error.rule.startswith(f"{code}: ") and rule in error.rule
    assert error.remedy and error.remedy in str(error)
    assert error.exit_code == 4
    assert isinstance(error, BudgetExceeded) == (code == "P10")


# Every code has a place where it is raised, and a row above.


def raised():
    """(code, module) of every refusal in the sources that names its code."""
    for path in sorted(Path(fedrec.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("PrivacyRefusal", "BudgetExceeded"):
                first = node.args[0]
                yield (first.value if isinstance(first, ast.Constant) else None), path.stem


def test_every_code_is_raised_somewhere_and_has_a_row():
    places = Counter(code for code, _ in raised() if code)  # the doctor repeats codes of its findings
    assert sorted(places) == CODES
    assert sorted({code for code, _, _ in ROWS}) == CODES


def test_modes_and_plans_are_what_they_say():
    """The rows refuse for the reason they give: the same without the fault is accepted."""
    assert isinstance(PLAN, PrivacyPlan) and SHARES.mode is Mode.USER_DISTRIBUTED
    assert replace(SHARES, masking=SOUND, colluders=2).required == LEAST + 2
    assert Practice()
    assert PLAN.admit(CONDUCT) == PLAN.schedules
    assert with_phase(PLAN, grid=2**12).check_width(1, 600, force=True) > 0
