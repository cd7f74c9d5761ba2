"""From a plan's settings to the promise they ask for, with the least noise that keeps it."""

import math

import pytest

from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.privacy.accounting import epsilon
from fedrec.privacy.interaction import Blocks
from fedrec.privacy.phase import Purpose
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson
from fedrec.privacy.terms import Adversary, Mode, Unit
from fedrec.protection import protection
from fedrec.spec import Plan

CLIENTS, COHORT, STATISTICS_CLIP = 203, 25, 0.7
TIGHT = 0.999
KINDS = {
    "poisson": {"mode": "user-central"},
    "min-sep": {"mode": "user-central", "schedule": "min-sep"},
    "banded": {"mode": "user-central", "schedule": "min-sep", "bands": 3},
    "fixed": {"mode": "user-central", "schedule": "fixed"},
    "shares": {"mode": "user-distributed"},
    "sampled shares": {"mode": "user-distributed", "schedule": "poisson"},
    "local": {"mode": "user-local"},
    "inside": {"mode": "interaction-local"},
    "layered": {"mode": "layered"},
}
SCHEDULES = {"poisson": Poisson(COHORT / CLIENTS), "fixed": Fixed(COHORT), "sampled shares": Poisson(COHORT / CLIENTS)}


def promised(kind, *, warm=False, rounds=6, share=0.8, opinions=0.0, **sections):
    """The promise of a plan of `kind`, with more settings on top."""
    own = {
        "clients": CLIENTS, "federation": {"rounds": rounds, "cohort": COHORT},
        "warm": {"enabled": warm, "share": share, "opinions": opinions},
        "privacy": {"epsilon": 4.0, **KINDS[kind]}, "interaction": {"epsilon": 3.0, "seconds": 0},
    }  # fmt: skip
    return protection(Plan.of(own).override(sections), lambda noise: (STATISTICS_CLIP, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_the_budget_is_kept_and_used(kind, warm):
    plan = promised(kind, warm=warm)
    budgets = {Unit.USER: 4.0, Unit.INTERACTION: 3.0}
    for promise in plan.promises:
        given = promise.guarantee
        if given.adversary is Adversary.SERVER:
            assert given.epsilon > budgets[Unit.USER]  # without masks: said, not promised
        else:
            assert TIGHT * budgets[given.unit] < given.epsilon <= budgets[given.unit]
            assert epsilon(promise.charges, delta=given.delta) == given.epsilon


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_phases_follow_from_the_settings(kind, warm):
    plan = promised(kind, warm=warm)
    assert (plan.mode, plan.population, plan.rounds) == (Mode(KINDS[kind]["mode"]), CLIENTS, 6 + warm)
    training = plan.phases[-1]
    assert training.schedule == SCHEDULES.get(kind, Cyclic(CLIENTS // COHORT))
    assert (training.rounds, training.clip, training.bands) == (6, 1.0, 3 if kind == "banded" else 1)
    if warm:
        first = plan.phases[0]
        assert (first.purpose, first.rounds) == (Purpose.WARM_START, 1)
        assert (first.clip == STATISTICS_CLIP) == (plan.interaction is None)  # the clip leaves room for inner noise
        assert first.schedule.expected(CLIENTS) == CLIENTS
        assert type(first.schedule) is type(training.schedule)


@pytest.mark.parametrize("kind", ["min-sep", "banded", "shares", "local"])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_warm_start_gets_its_share_of_the_budget(kind, share):
    """In squared noise multipliers, which is what rounds without sampling add up in."""
    (alone,) = promised(kind, rounds=0, warm=True).phases
    first, training = promised(kind, warm=True, share=share).phases
    assert (alone.multiplier / first.multiplier) ** 2 == pytest.approx(share, rel=2e-3)
    (untouched,) = promised(kind).phases
    assert (untouched.multiplier / training.multiplier) ** 2 == pytest.approx(1 - share, rel=2e-3)


@pytest.mark.parametrize("kind", ["poisson", "shares", "inside", "layered"])
def test_a_warm_start_may_be_all_there_is(kind):
    plan = promised(kind, warm=True, rounds=0)
    assert [phase.purpose for phase in plan.phases] == [Purpose.WARM_START]
    if plan.interaction:
        assert plan.interaction.terms is None and plan.interaction.statistics is not None


@pytest.mark.parametrize("kind", ["inside", "layered"])
def test_p14_opinions_need_more_than_one_event_in_an_example(kind):
    with pytest.raises(PrivacyRefusal, match="P14: an event that is an example by itself tells of popularity only"):
        promised(kind, warm=True, rounds=0, opinions=0.2)
    by_day = promised(kind, warm=True, rounds=0, interaction={"seconds": 86_400}, opinions=0.2)
    plain = promised(kind, warm=True, rounds=0, interaction={"seconds": 86_400})
    assert by_day.promises == plain.promises  # what is asked costs nothing but length


def test_shares_are_sized_for_the_survivors_among_the_honest():
    plan = promised("shares", shares={"survivors": 0.6, "colluders": 2})
    smallest = CLIENTS // (CLIENTS // COHORT)
    assert plan.required == math.ceil(0.6 * smallest)
    assert (plan.least, plan.colluders) == (plan.required - 2, 2)
    assert promised("shares", shares={"survivors": 0.01}).least == 1


def test_devices_train_as_their_terms_say():
    plan = promised("layered", warm=True, interaction={"rate": 0.1, "steps": 3, "clip": 2.0, "seconds": 60, "span": 4})
    terms, first = plan.interaction.terms, plan.interaction.statistics
    assert (terms.rate, terms.steps, terms.clip) == (0.1, 3, 2.0)
    assert (first.rate, first.steps, first.clip) == (1.0, 1, STATISTICS_CLIP)
    assert terms.blocks == first.blocks == Blocks(seconds=60, span=4)
    assert plan.interaction.participations == plan.phases[-1].participations == 1


def test_an_adaptive_clip_norm_gets_a_spread_that_suits_the_cohort():
    follow = promised("poisson", adaptive={"quantile": 0.5}).phases[0].adaptive
    assert (follow.quantile, follow.spread) == (0.5, COHORT / 20)
    assert promised("poisson", adaptive={"quantile": 0.5, "spread": 9.0}).phases[0].adaptive.spread == 9.0
    assert promised("min-sep").phases[0].adaptive is None


def test_without_a_mode_nothing_is_promised():
    assert protection(Plan.of({"clients": 5})) is None


@pytest.mark.parametrize(
    ("kind", "wrong", "code"),
    [
        ("poisson", {"epsilon": 0.0}, "P01"),
        ("poisson", {"epsilon": math.inf}, "P01"),
        ("poisson", {"epsilon": 25.0}, "P01"),
        ("poisson", {"delta": 0.1}, "P01"),
        ("local", {"schedule": "poisson"}, "P02"),
        ("inside", {"schedule": "fixed"}, "P02"),
        ("shares", {"schedule": "fixed"}, "P02"),
        ("shares", {"bands": 2}, "P02"),
        ("layered", {"schedule": "fixed"}, "P02"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_by_its_code(kind, wrong, code):
    with pytest.raises(PrivacyRefusal, match=code) as refusal:
        promised(kind, privacy=wrong)
    assert refusal.value.remedy


def test_interactions_have_budgets_of_their_own():
    for wrong in ({"epsilon": 0.0}, {"delta": 0.1}):
        with pytest.raises(PrivacyRefusal, match="P01"):
            promised("layered", interaction=wrong)
    with pytest.raises(PrivacyRefusal, match="P14"):
        promised("inside", interaction={"delta": 1e-4})


def test_a_cohort_is_part_of_the_population():
    with pytest.raises(SpecError, match="an expected cohort is at most the population.*Lower federation.cohort"):
        promised("poisson", federation={"rounds": 6, "cohort": CLIENTS + 1})
