"""The plan: consistent by construction, refused otherwise."""

import ast
import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from numpy.random import default_rng
from plans import CLIENTS, COHORT, GROUPS, KINDS, LEAST, USERS, Z, plan_of

import fedrec.privacy
from fedrec.errors import BudgetExceeded, PrivacyRefusal, RunError, SpecError
from fedrec.privacy.accounting import gaussian_epsilon
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.masking import Masking, Neighbours
from fedrec.privacy.matrix import sensitivity
from fedrec.privacy.noise import Hardened, Level, Research, Seeded
from fedrec.privacy.phase import Purpose
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Fixed, Poisson, SecretCoins
from fedrec.privacy.terms import Adversary, Budget, Mode, Relation, Unit

PLAN, SHARES = plan_of("poisson"), plan_of("shares")
TEST = replace(PLAN, level=Level.TEST)
FOLLOW = Adaptive(spread=10.0, least=0.5, most=4.0)
MASKS = Masking(bits=40, neighbours=(Neighbours(11, 8),))

every = pytest.mark.parametrize("kind", KINDS)
warm_or_not = pytest.mark.parametrize("warm", [False, True])


def refused(make, code, says):
    with pytest.raises(PrivacyRefusal, match=f"{code}: .*{says}") as refusal:
        make()
    assert refusal.value.code == code
    assert refusal.value.remedy


# What is promised to whom.

USER, INTERACTION = Unit.USER, Unit.INTERACTION
READER, SERVER, ANYONE = Adversary.READER, Adversary.SERVER, Adversary.ANYONE
ADD, ZERO, REPLACE = Relation.ADD_OR_REMOVE, Relation.ZERO_OUT, Relation.REPLACE_ONE
PROMISED = {
    "poisson": [(USER, ADD, READER)],
    "min-sep": [(USER, ZERO, READER)],
    "banded": [(USER, ZERO, READER)],
    "fixed": [(USER, REPLACE, READER)],
    "shares": [(USER, ZERO, READER), (USER, REPLACE, SERVER)],
    "sampled shares": [(USER, ZERO, READER), (USER, REPLACE, SERVER)],
    "local": [(USER, REPLACE, ANYONE)],
    "inside": [(INTERACTION, ADD, ANYONE)],
    "layered": [(USER, ZERO, READER), (INTERACTION, ADD, ANYONE), (USER, REPLACE, SERVER)],
}


@every
@warm_or_not
def test_each_mode_promises_what_it_can_to_those_it_can(kind, warm):
    given = [promise.guarantee for promise in plan_of(kind, warm=warm).promises]
    assert [(each.unit, each.relation, each.adversary) for each in given] == PROMISED[kind]


MU = {  # by hand, for six rounds of four groups: the first two groups come twice
    "min-sep": math.sqrt(2) / Z,
    "banded": sensitivity(6, 3, GROUPS) / Z,
    "shares": math.sqrt(2) / Z,
    "local": 2 * math.sqrt(2) / Z,
    "layered": math.sqrt(2) / Z,
}


@pytest.mark.parametrize("kind", MU)
@warm_or_not
def test_what_nobody_is_sampled_for_costs_its_mu(kind, warm):
    first = (2 if kind == "local" else 1) / Z if warm else 0.0
    plan = plan_of(kind, warm=warm)
    assert plan.epsilon == pytest.approx(gaussian_epsilon(math.hypot(MU[kind], first), plan.budget.delta), rel=1e-9)


@pytest.mark.parametrize(("kind", "times"), [("shares", 2), ("sampled shares", 6), ("layered", 2)])
def test_the_server_sees_each_share_by_itself_and_knows_who_came(kind, times):
    mu = 2 * math.sqrt(times * LEAST) / Z  # PRIVACY.md B0
    plan = plan_of(kind)
    seen = next(promise.guarantee for promise in plan.promises if promise.guarantee.adversary is SERVER)
    assert seen.epsilon == pytest.approx(gaussian_epsilon(mu, plan.budget.delta), rel=1e-9)
    assert seen.epsilon > 2 * plan.epsilon


def test_behind_masks_the_server_sees_sums():
    plan = replace(SHARES, masking=MASKS)
    assert [promise.guarantee.relation for promise in plan.promises] == [ZERO, ZERO]
    assert plan.promises[1].guarantee.epsilon == pytest.approx(plan.epsilon)
    sampled = replace(plan_of("sampled shares"), masking=MASKS)
    assert sampled.promises[1].guarantee.epsilon > sampled.epsilon  # which coins hide from readers only


def test_sampling_makes_the_same_noise_cheaper():
    costs = {kind: plan_of(kind).epsilon for kind in ("poisson", "sampled shares", "fixed")}
    assert costs["poisson"] == costs["sampled shares"] < gaussian_epsilon(math.sqrt(6) / Z, 1e-4)
    assert costs["poisson"] < costs["fixed"] < gaussian_epsilon(2 * math.sqrt(6) / Z, 1e-4)


# One round's way out.

HALVES = {  # share and rest, in clip norms
    "poisson": (0.0, Z), "min-sep": (0.0, Z), "banded": (0.0, Z), "fixed": (0.0, Z),
    "shares": (Z / math.sqrt(LEAST), 0.0), "sampled shares": (Z / math.sqrt(LEAST), 0.0),
    "layered": (Z / math.sqrt(LEAST), 0.0), "local": (Z, 0.0), "inside": (0.0, 0.0),
}  # fmt: skip


@every
@warm_or_not
def test_both_halves_of_a_round_have_the_plan_s_numbers(kind, warm):
    plan = plan_of(kind, warm=warm)
    crossing = plan.crossing(1 + warm)
    assert (crossing.share, crossing.rest) == pytest.approx(HALVES[kind])
    assert (crossing.clip, crossing.expected, crossing.population) == (1.0, COHORT, CLIENTS)
    assert crossing.least == plan.required == (LEAST if plan.least else 0)
    if warm:
        first = plan.crossing(1)
        assert (first.clip, first.expected) == (0.5, CLIENTS)
        assert (first.share, first.rest) == pytest.approx(HALVES[kind])


@every
@warm_or_not
def test_rounds_lie_in_their_phases(kind, warm):
    plan = plan_of(kind, warm=warm)
    assert plan.rounds == 6 + warm
    places = [plan.place(number) for number in range(1, plan.rounds + 1)]
    assert [str(place.phase.purpose) for place in places] == ["warm start"] * warm + ["training"] * 6
    assert [place.at for place in places] == [0] * warm + list(range(6))
    for outside in (-1, 0, plan.rounds + 1):
        assert not plan.affords([], outside)
        with pytest.raises(RunError, match="a round is one of the plan's"):
            plan.place(outside)


@every
@warm_or_not
def test_a_plan_affords_itself_and_nothing_beyond(kind, warm):
    plan, charged = plan_of(kind, warm=warm), []
    for number in range(1, plan.rounds + 1):
        assert plan.affords(charged, number)
        charged.append(number)
    assert 0 == plan.spent([]) < plan.spent(charged[:2]) <= plan.epsilon
    assert plan.spent(charged) == pytest.approx(plan.epsilon, abs=1e-9)
    assert not any(plan.affords(charged, number) for number in (1, 2 + warm))


def test_a_charge_that_was_lost_is_paid_by_those_who_meet_it_twice():
    """Groups 0 and 1 of four come twice in six rounds, and have it used up when round 1 is repeated."""
    plan = plan_of("min-sep")
    assert plan.affords([1], 1)
    assert plan.affords([1, 1, 2, 3, 4], 2)
    assert not plan.affords([1, 1, 2, 3, 4], 5)
    assert plan.spent([1, 1]) == plan.spent([1, 5]) > plan.spent([1, 2]) == plan.spent([1])
    inside = plan_of("inside")
    assert inside.spent([1, 1]) == inside.spent([1, 5]) > inside.spent([1, 2])


def test_a_row_of_correlated_noise_is_drawn_once():
    plan = plan_of("banded")
    assert not plan.affords([1], 1)
    assert plan.spent([1]) == plan.epsilon  # the first row commits to all


def test_a_charge_is_counted_in_its_own_phase():
    plan = plan_of("poisson", warm=True)
    assert not plan.affords([1], 1)
    assert plan.affords([1, 2, 3], 3)
    assert plan.spent([1]) == pytest.approx(gaussian_epsilon(1 / Z, 1e-4), abs=1e-4)
    assert plan.spent([2]) < plan.spent([1])


@every
@warm_or_not
def test_a_plan_comes_back_from_json(kind, warm):
    plan = plan_of(kind, warm=warm)
    again = PrivacyPlan.of_public(json.loads(json.dumps(plan.public())))
    assert again == plan
    assert again.hash == plan.hash


def test_an_adaptive_masked_plan_comes_back_from_json():
    for plan in (plan_of("poisson", adaptive=FOLLOW), replace(SHARES, masking=MASKS, colluders=2)):
        assert PrivacyPlan.of_public(json.loads(json.dumps(plan.public()))) == plan


# What holds together.


def test_no_plan_costs_more_than_its_budget():
    exact = Budget.of(PLAN.epsilon, CLIENTS)
    assert replace(PLAN, budget=exact).epsilon == exact.epsilon
    with pytest.raises(BudgetExceeded, match="P10: a plan keeps its budget.*`calibrated`") as refusal:
        replace(PLAN, budget=Budget.of(PLAN.epsilon * (1 - 1e-9), CLIENTS))
    assert refusal.value.code == "P10"


COUPLINGS = {  # what does not fit together, and the code
    "fixed shares": ("shares", Fixed(COHORT), "P02"),
    "fixed local": ("local", Fixed(COHORT), "P02"),
    "fixed inside": ("inside", Fixed(COHORT), "P02"),
    "fixed layered": ("layered", Fixed(COHORT), "P02"),
    "sampled local": ("local", Poisson(0.25), "P02"),
    "sampled inside": ("inside", Poisson(0.25), "P02"),
    "shares of too small a cohort": ("shares", Cyclic(10), "P06"),
    "sampled shares of too small a cohort": ("sampled shares", Poisson(0.1), "P06"),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_impossible_couplings_are_refused(name):
    kind, schedule, code = COUPLINGS[name]
    plan = plan_of(kind, rounds=1)
    refused(lambda: replace(plan, phases=(replace(plan.phases[0], schedule=schedule),)), code, "")


@pytest.mark.parametrize("kind", ["shares", "local", "layered"])
def test_p02_correlated_noise_has_one_owner(kind):
    plan = plan_of(kind)
    refused(lambda: replace(plan, phases=(replace(plan.phases[0], bands=2),)), "P02", "bands=2.*one owner")


def test_bands_lie_within_the_separation():
    for schedule, bands in ((Cyclic(4), 5), (Poisson(0.25), 2), (Fixed(10), 2), (Cyclic(4), 0)):
        with pytest.raises(SpecError, match="banded within the separation"):
            replace(PLAN.phases[0], schedule=schedule, bands=bands)


def test_p04_one_plan_is_about_one_relation():
    warm = plan_of("poisson", warm=True)
    refused(lambda: replace(warm, phases=(warm.phases[0], plan_of("min-sep").phases[0])), "P04", "one relation")
    refused(lambda: replace(warm, phases=(warm.phases[0], plan_of("fixed").phases[0])), "P04", "one relation")


def test_a_warm_start_is_one_round_before_training():
    first, then = plan_of("min-sep", warm=True).phases
    for phases in ((then, first), (first, first), (then, then), (first, then, then)):
        with pytest.raises(SpecError, match="a warm start comes before training"):
            replace(PLAN, phases=phases)
    with pytest.raises(SpecError, match="a warm start is one round"):
        replace(first, rounds=2)
    assert replace(plan_of("min-sep"), phases=(first,)).place(1).phase.purpose is Purpose.WARM_START


@pytest.mark.parametrize("wrong", [{"mode": Mode.NONE}, {"phases": ()}, {"budget": None}, {"population": 41},
                                   {"interaction": plan_of("inside").interaction}])  # fmt: skip
def test_a_mode_has_its_parts_and_no_others(wrong):
    with pytest.raises((SpecError, PrivacyRefusal)):
        replace(PLAN, **wrong)


@pytest.mark.parametrize("kind", ["inside", "layered"])
def test_p02_a_device_trains_as_often_as_is_accounted(kind):
    plan, warm = plan_of(kind), plan_of(kind, warm=True)
    fewer = replace(plan.interaction, participations=1)
    without = replace(warm.interaction, terms=None)
    for of, wrong in ((plan, fewer), (warm, plan.interaction), (plan, warm.interaction), (plan, without)):
        refused(lambda of=of, wrong=wrong: replace(of, interaction=wrong), "P02", "as often as is accounted")


def test_p06_shares_have_a_size_and_a_cohort_that_makes_them_up():
    refused(lambda: replace(SHARES, least=0), "P06", "at least one honest client")
    refused(lambda: replace(SHARES, colluders=COHORT - LEAST + 1), "P06", "a full cohort has all the shares")
    assert replace(SHARES, colluders=COHORT - LEAST).required == COHORT


def test_p12_a_clip_norm_moves_where_the_plan_lets_it():
    refused(lambda: PLAN.crossing(1, 0.9), "P12", "moves only in a plan that lets it")
    assert PLAN.crossing(1, 1.0) == PLAN.crossing(1)
    plan = plan_of("poisson", adaptive=FOLLOW)
    assert plan.crossing(1, 2.0).clip == 2.0
    refused(lambda: plan.crossing(1, 4.1), "P12", "public range")
    refused(lambda: plan_of("poisson", adaptive=replace(FOLLOW, spread=2.0)), "P12", "z < 2")
    banded = plan_of("banded").phases[0]
    refused(lambda: replace(banded, adaptive=FOLLOW), "P12", "one clip norm")


def test_an_adaptive_plan_makes_room_for_its_bit_within_the_same_epsilon():
    still, moving = plan_of("poisson"), plan_of("poisson", adaptive=FOLLOW)
    assert moving.epsilon == still.epsilon
    assert moving.crossing(1).rest == pytest.approx(Z / math.sqrt(1 - (Z / 20) ** 2))
    assert moving.crossing(1).width(5) == 6


def test_p13_masks_are_admitted_where_shares_are():
    refused(lambda: replace(PLAN, masking=MASKS), "P13", "masks hide vectors that carry noise shares")
    refused(lambda: replace(SHARES, masking=replace(MASKS, bits=16)), "P13", "a sum fits the modulus")
    few = replace(MASKS, neighbours=(Neighbours(11, 6),))
    refused(lambda: replace(SHARES, masking=few, least=3, colluders=6), "P13", "cannot lift a mask")


@pytest.mark.parametrize("grid", [0, -4, 3, 1000])
def test_p18_refuses_a_grid_that_does_not_divide_exactly(grid):
    refused(lambda: replace(PLAN.phases[0], grid=grid), "P18", "a grid is a power of two")


def test_p18_refuses_noise_narrower_than_five_steps():
    refused(lambda: replace(PLAN, phases=(replace(PLAN.phases[0], grid=1),)), "P18", "5 grid steps; got sigma=4")


@pytest.mark.parametrize("kind", USERS)
def test_p01_refuses_a_private_plan_without_noise(kind):
    plan = plan_of(kind)
    refused(lambda: replace(plan, phases=(replace(plan.phases[0], multiplier=0.0),)), "P01", "noise is positive")


# What a strategy may do.


@every
@pytest.mark.parametrize("wrong", [{"tops_up": True}, {"retries": True}, {"shuffles": True}, {"minimum": 2}])
def test_p03_refuses_a_strategy_that_conditions_on_who_came(kind, wrong):
    plan = plan_of(kind)
    conduct = replace(Conduct(schedules=plan.schedules), **wrong)
    refused(lambda: plan.admit(conduct), "P03", next(iter(wrong)))


def test_p03_refuses_a_strategy_without_independent_coins():
    refused(lambda: PLAN.admit(Conduct(schedules=(Fixed(COHORT),))), "P03", "it tosses no coins")


@pytest.mark.parametrize(("kind", "other"), [("poisson", Poisson(0.2)), ("min-sep", Cyclic(5)), ("fixed", Fixed(11)),
                                             ("min-sep", Poisson(0.25)), ("shares", Cyclic(3))])  # fmt: skip
def test_p02_refuses_another_schedule_than_the_accounted_one(kind, other):
    plan = plan_of(kind)
    refused(lambda: plan.admit(Conduct(schedules=(other,))), "P02", "schedules in use")
    refused(lambda: plan.admit(Conduct(schedules=plan.schedules * 2)), "P02", "schedules in use")


@every
def test_p05_refuses_weights_and_p04_a_private_denominator(kind):
    plan = plan_of(kind)
    right = Conduct(schedules=plan.schedules)
    for weights in ("examples", "client"):
        refused(lambda w=weights: plan.admit(replace(right, weights=w)), "P05", "all weights are equal")
    for denominator in ("replies", "enrolled"):
        refused(lambda d=denominator: plan.admit(replace(right, denominator=d)), "P04", "public denominator")


@every
@warm_or_not
def test_a_strategy_that_keeps_the_rules_gets_the_accounted_schedules(kind, warm):
    plan = plan_of(kind, warm=warm)
    assert plan.admit(Conduct(schedules=plan.schedules)) == plan.schedules
    assert plan.admit(Conduct(schedules=plan.schedules, minimum=plan.required)) == plan.schedules


# Noise and coins.


def test_p07_keeps_seeds_out_of_private_plans():
    assert PLAN.noise() == Hardened()
    assert replace(PLAN, level=Level.RESEARCH).noise() == Research()
    assert isinstance(PLAN.coins(), SecretCoins)
    for seeded in (PLAN.noise, PLAN.coins):
        refused(lambda s=seeded: s(default_rng(0)), "P07", "never seeded")


def test_a_test_plan_replays_and_is_not_private():
    assert isinstance(TEST.noise(default_rng(0)), Seeded)
    assert TEST.coins(default_rng(1)).random(3).tolist() == default_rng(1).random(3).tolist()
    assert not TEST.private
    assert TEST.public()["label"] == "non-private"
    assert TEST.hash != PLAN.hash


# Sizes.


def test_noise_that_would_drown_the_signal_is_refused_with_the_width_that_would_not():
    assert PLAN.check_width(1, 6) == PLAN.noise_to_clip(1, 6) == pytest.approx(Z / COHORT * math.sqrt(6))
    with pytest.raises(SpecError, match="at most 10 clip norms.*at most 625 shared parameters"):
        PLAN.check_width(1, 626)
    assert PLAN.check_width(1, 625) <= 10
    assert PLAN.check_width(1, 626, force=True) > 10


def test_a_mean_of_local_noise_is_noisier_than_one_of_shares_and_these_than_the_server_s():
    central, shares, local = (plan_of(kind).noise_to_clip(1, 1) for kind in ("poisson", "shares", "local"))
    assert (central, shares, local) == pytest.approx(
        (Z / COHORT, Z / COHORT * math.sqrt(COHORT / LEAST), Z / math.sqrt(COHORT))
    )


def test_p18_refuses_more_parameters_than_the_grid_can_hold():
    coarse = replace(PLAN, phases=(replace(PLAN.phases[0], grid=64),))
    assert coarse.check_width(1, 300, force=True) > 0
    refused(lambda: coarse.check_width(1, 600, force=True), "P18", "rounding moves a norm by 1 % at most")


# The hash.

OTHER_PHASE = {
    "purpose": Purpose.WARM_START, "rounds": 5, "schedule": Cyclic(2), "clip": 1.5, "multiplier": 5.0, "grid": 2**11,
    "bands": 2, "adaptive": FOLLOW,
}  # fmt: skip
OTHER_PLAN = {
    "mode": Mode.LAYERED, "population": 41, "phases": (), "budget": Budget.of(18.0, CLIENTS),
    "interaction": plan_of("layered").interaction, "level": Level.RESEARCH, "least": 5, "colluders": 1,
    "masking": MASKS,
}  # fmt: skip


def test_the_hash_covers_every_public_number():
    """Any field changed alone, whether or not such a plan could exist."""
    (phase,) = SHARES.phases
    assert set(OTHER_PHASE) == {field.name for field in fields(phase)}
    assert set(OTHER_PLAN) == {field.name for field in fields(SHARES)}

    def changed(thing, name, value):
        other = object.__new__(type(thing))
        other.__dict__.update({field.name: getattr(thing, field.name) for field in fields(thing)} | {name: value})
        return other

    phases = [changed(phase, name, value) for name, value in OTHER_PHASE.items()]
    plans = [changed(SHARES, name, value) for name, value in OTHER_PLAN.items()]
    plans += [changed(SHARES, "phases", (each,)) for each in phases]
    assert len({plan.hash for plan in (SHARES, *plans)}) == 1 + len(plans)
    assert plan_of("shares").hash == SHARES.hash


def test_pillars_never_import_each_other():
    pillars = {"clipping", "noise", "sampling", "accounting"}
    folder = Path(fedrec.privacy.__file__).parent
    for pillar in pillars:
        imported = {
            node.module
            for node in ast.walk(ast.parse((folder / f"{pillar}.py").read_text()))
            if isinstance(node, ast.ImportFrom)
        }
        assert not imported & {f"fedrec.privacy.{other}" for other in pillars}
