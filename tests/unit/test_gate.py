"""Gates: what they mean, what they refuse, and that they print as they are read."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from studies import broken, cell_of, made_up

from fedrec.errors import SpecError
from fedrec.study.findings import Point
from fedrec.study.gate import Figure, Gate

STUDY = made_up(seeds=(0, 1, 2), people=20)
CENTRAL, LAYERED = "warm start, user-central", "warm start, layered"
HALF = Point(LAYERED, 0.5)

finite = some.floats(allow_nan=False, allow_infinity=False)
names = some.text(min_size=1).filter(lambda name: not {"'", '"'} <= set(name))
figures = some.builds(
    Figure,
    metric=some.sampled_from(["ndcg@10", "hr@10/99", "mis_calibration@5", "x-y"]),
    end=some.sampled_from(["", "low", "high"]),
    epsilon=some.none() | some.just(math.inf) | finite,
    arm=some.none() | names,
)
gates = some.builds(
    Gate, figure=figures, relation=some.sampled_from([">=", ">", "<=", "<"]), number=finite, of=some.none() | figures
)


def judged(text, findings=STUDY):
    return Gate.parse(text).judge(findings)


def without_validation(findings):
    cells = [replace(cell, measured=replace(cell.measured, validation={})) for cell in findings.cells]
    return broken(findings, cells=tuple(cells))


@given(gate=gates)
@settings(derandomize=True, deadline=None)
def test_a_gate_prints_as_it_is_read(gate):
    assert Gate.parse(str(gate)) == gate


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("ndcg@10>=0.3", Gate(figure=Figure(metric="ndcg@10"), relation=">=", number=0.3)),
        (" hr@10/99 [ eps = 2 ] < 1e-1 ",
         Gate(figure=Figure(metric="hr@10/99", epsilon=2.0), relation="<", number=0.1)),
        ("gini@10.low[arm='a, [b]', eps=inf] > .5",
         Gate(figure=Figure(metric="gini@10", end="low", epsilon=math.inf, arm="a, [b]"), relation=">", number=0.5)),
        ("a[arm=EASE (central) ,eps=8] <= -2 * b.high[arm=random]",
         Gate(figure=Figure(metric="a", epsilon=8.0, arm="EASE (central)"), relation="<=", number=-2.0,
              of=Figure(metric="b", end="high", arm="random"))),
    ],
)  # fmt: skip
def test_a_gate_is_read(text, gate):
    assert Gate.parse(text) == gate


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "a metric's name at character 1"),
        ("0.3 < ndcg@10", "a metric's name at character 1"),
        ("ndcg@10", "one of >= > <= < at character 8"),
        ("ndcg@10 == 3", "one of >= > <= < at character 9"),
        ("ndcg@10.mean > 1", "one of >= > <= < at character 8"),
        ("ndcg@10.lower > 1", "one of >= > <= < at character 8"),
        ("ndcg@10[eps=2]] > 1", "one of >= > <= < at character 15"),
        ("ndcg@10 >= x", "a number at character 12"),
        ("ndcg@10 >= 1e999", "a number that a float can hold at character 12"),
        ("ndcg@10[eps=infinity] > 1", "a number at character 13"),
        ("ndcg@10[eps=nan] > 1", "a number at character 13"),
        ("ndcg@10[eps=2 > 1", "a comma or ] at character 15"),
        ("ndcg@10[arm='a\" > 1", "an arm's name at character 13"),
        ("ndcg@10[arm=''] > 1", "an arm's name at character 13"),
        ("ndcg@10[] > 1", "a filter (eps= or arm=, each once) at"),
        ("ndcg@10[eps=1,eps=2] > 1", "a filter (eps= or arm=, each once) at character 15"),
        ("ndcg@10[seed=1] > 1", "a filter (eps= or arm=, each once) at character 9"),
        ("ndcg@10 > 1 or 1", "its end, or * and a metric, at character 13"),
        ("ndcg@10 > 0.3.5", "its end, or * and a metric, at character 14"),
        ("ndcg@10 > 2 *", "a metric's name at character 14"),
        ("ndcg@10 > 2 * hr@10 * 2", "its end at character 21"),
    ],
)  # fmt: skip
def test_what_is_no_gate_is_told_where(text, rule):
    with pytest.raises(SpecError) as caught:
        Gate.parse(text)
    assert caught.value.rule.startswith(f"a gate has {rule}")
    assert caught.value.got["gate"] == text
    assert "ndcg@10[eps=2] >= 0.3" in caught.value.remedy


def test_a_figure_is_what_the_report_shows():
    expected = STUDY.estimate(HALF, "ndcg@10")
    for end, value in (("", expected.mean), (".low", expected.low), (".high", expected.high)):
        found = judged(f'ndcg@10{end}[eps=0.5, arm="{LAYERED}"] >= 0.01')
        assert (found.value, found.bound, found.point, found.holds) == (value, 0.01, str(HALF), True)
    assert judged("coverage@10[arm=federated] >= 0").value == pytest.approx(0.16)


@pytest.mark.parametrize("relation", [">=", ">", "<=", "<"])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_a_relation_means_what_it_says(relation, side):
    value = STUDY.estimate(HALF, "ndcg@10").mean
    bound = math.nextafter(value, side * math.inf) if side else value
    holds = {-1: relation in (">=", ">"), 0: relation in (">=", "<="), 1: relation in ("<=", "<")}[side]
    assert judged(f'ndcg@10[eps=0.5, arm="{LAYERED}"] {relation} {bound!r}').holds == holds


def test_a_bound_may_be_a_share_of_another_figure():
    reference = STUDY.estimate(STUDY.base, "ndcg@10").mean
    found = judged("ndcg@10[eps=8] >= 0.95 * ndcg@10[arm=federated]")
    assert found.bound == pytest.approx(0.95 * reference)
    assert found.holds == (found.value >= found.bound)
    assert not judged("ndcg@10[arm=random] >= 0.95 * ndcg@10[arm=federated]").holds


def test_validation_chooses_the_arm_and_test_does_not():
    best = judged("ndcg@10[eps=2] > 0")
    assert best.point == str(Point(CENTRAL, 2.0))
    cells = [
        replace(cell, measured=replace(cell.measured, validation={"ndcg@10": float(cell.arm == LAYERED)}))
        for cell in STUDY.cells
    ]
    other = judged("ndcg@10[eps=2] > 0", broken(STUDY, cells=tuple(cells)))
    assert other.point == str(Point(LAYERED, 2.0))
    assert other.value < best.value


def test_infinite_epsilon_is_the_private_arms_without_privacy():
    assert judged("ndcg@10[eps=inf] > 0").point == str(Point(CENTRAL, freed=True))
    assert judged(f'ndcg@10[eps=inf, arm="{LAYERED}"] > 0').point == str(Point(LAYERED, freed=True))


def test_an_arm_alone_at_a_budget_needs_no_choice():
    cells = tuple(cell for cell in STUDY.cells if cell.arm in (LAYERED, "federated"))
    assert judged("ndcg@10[eps=2] > 0", without_validation(broken(STUDY, cells=cells))).point == str(
        Point(LAYERED, 2.0)
    )


@pytest.mark.parametrize(
    ("text", "rule", "remedy"),
    [
        ("nope@10[eps=2] > 0", "a gate names a metric of the study", "There are: hr@10, "),
        ("ndcg@10[arm=x] > 0", "a gate names an arm of the study", "There are: random; popularity; "),
        ("ndcg@10[eps=3] > 0", "a gate names a budget of the study", "There are: eps=0.5, eps=2, eps=8, eps=inf."),
        ("ndcg@10[eps=2, arm=random] > 0", "a gate names a budget of the study", "There are: eps=inf."),
        (f'ndcg@10[arm="{LAYERED}"] > 0', "a gate is about one arm at one budget", f'[eps=0.5, arm="{LAYERED}"]; '),
        ("ndcg@10 > 0", "a gate is about one arm at one budget", '[eps=inf, arm="random"]; '),
        ("ndcg@10[arm=random] > 2 * nope", "a gate is about one arm at one budget", "Ask for one of: "),
        ("ndcg@10[arm=random] > 2 * nope[arm=random]", "a gate names a metric of the study", "There are: hr@10, "),
    ],
)  # fmt: skip
def test_what_the_study_lacks_is_told_with_what_it_has(text, rule, remedy):
    gate = Gate.parse(text)
    with pytest.raises(SpecError) as caught:
        gate.judge(STUDY)
    assert caught.value.rule == rule
    assert remedy in caught.value.remedy


def test_an_arm_that_nothing_can_choose_has_to_be_named():
    silent = without_validation(STUDY)
    with pytest.raises(SpecError, match="they cannot tell") as caught:
        judged("ndcg@10[eps=2] > 0", silent)
    assert caught.value.remedy == f'Ask for one of: [eps=2, arm="{CENTRAL}"]; [eps=2, arm="{LAYERED}"].'
    named = caught.value.remedy.split(": ")[1].split("; ")[0]
    assert judged(f"ndcg@10{named} > 0", silent).point == str(Point(CENTRAL, 2.0))


@pytest.mark.parametrize("arms", [["random"], ["random", "federated"]])
def test_baselines_are_not_chosen_for_you(arms):
    baselines = broken(STUDY, cells=tuple(cell for cell in STUDY.cells if cell.arm in arms))
    with pytest.raises(SpecError, match="they cannot tell"):
        judged("ndcg@10[eps=inf] > 0", baselines)


@pytest.mark.parametrize("relation", [">=", ">", "<=", "<"])
def test_a_figure_that_nobody_has_meets_no_bound(relation):
    known, lost = cell_of("known", None, 0, 0.1, people=5), cell_of("lost", None, 0, 0.1, people=5)
    lost.measured.users["ndcg@10"] = math.nan
    findings = broken(STUDY, cells=(known, lost))
    assert math.isnan(judged(f"ndcg@10[arm=lost] {relation} 0", findings).value)
    assert not judged(f"ndcg@10[arm=lost] {relation} 0", findings).holds
    assert not judged(f"ndcg@10[arm=known] {relation} 1 * ndcg@10[arm=lost]", findings).holds
    assert not judged(f"coverage@10.low[arm=known] {relation} 0", findings).holds
