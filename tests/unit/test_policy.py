"""What an owner does not allow, a device refuses, by the name of the term that offends."""

from dataclasses import replace

import pytest

from fedrec.device.policy import InteractionCap, Policy, UserCap, terms_of
from fedrec.errors import PrivacyRefusal, SpecError
from fedrec.privacy.enrolment import Charge
from fedrec.privacy.events import Gaussian, SampledGaussian
from fedrec.privacy.inside import InteractionPromise
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.masking import Masking, Neighbours
from fedrec.privacy.noise import Level
from fedrec.privacy.phase import Phase, Purpose
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Cyclic, Poisson
from fedrec.privacy.terms import Budget, Mode, Relation, Unit

BUDGET = Budget(epsilon=8.0, delta=1e-4, population=1000)
STEPS = InteractionTerms(rate=0.1, steps=5, clip=1.0, multiplier=2.0, examples=100)
FIRST = InteractionTerms(rate=1.0, steps=1, clip=1.0, multiplier=8.0, examples=100)
WARM = Phase(purpose=Purpose.WARM_START, rounds=1, schedule=Cyclic(1), clip=2.0, multiplier=9.0, grid=2**16)
TRAIN = Phase(rounds=12, schedule=Cyclic(4), clip=1.0, multiplier=3.0, grid=2**16)


def plan(mode=Mode.LAYERED, *, phases=(WARM, TRAIN), **over):
    inner = InteractionPromise(budget=8.0, participations=3, terms=STEPS, statistics=FIRST)
    settings = {
        "budget": BUDGET if mode.protects_users else None,
        "interaction": inner if mode.protects_interactions else None,
        "least": 50 if mode in (Mode.USER_DISTRIBUTED, Mode.LAYERED) else 0,
    } | over
    return PrivacyPlan(mode=mode, population=1000, phases=phases, **settings)


PLANS = {
    Mode.LAYERED: plan(),
    Mode.USER_DISTRIBUTED: plan(Mode.USER_DISTRIBUTED),
    Mode.USER_LOCAL: plan(Mode.USER_LOCAL),
    Mode.INTERACTION_LOCAL: plan(Mode.INTERACTION_LOCAL),
    Mode.USER_CENTRAL: plan(Mode.USER_CENTRAL),
}


def refused(policy, public, says):
    with pytest.raises(PrivacyRefusal, match=f"P10: .*{says}.*only the device's owner"):
        policy.accept(public, "task")


@pytest.mark.parametrize("mode", PLANS)
def test_by_default_noise_is_added_before_anything_leaves(mode):
    if mode.on_device:
        terms = Policy().accept(PLANS[mode], "task")
        assert (terms.task, terms.statement) == ("task", PLANS[mode].hash)
    else:
        refused(Policy(), PLANS[mode], "mode='user-central', accepted=")
    assert Policy(modes=(mode,)).accept(PLANS[mode], "task")
    others = tuple(other for other in Mode if other is not mode)
    refused(Policy(modes=others), PLANS[mode], f"mode='{mode}'")


def test_none_is_accepted_by_name_only():
    with pytest.raises(PrivacyRefusal, match="P10: .*mode='none'"):
        Policy().accept_none()
    Policy(modes=(Mode.NONE,)).accept_none()


def test_replayable_noise_is_none():
    refused(Policy(), plan(level=Level.TEST), "mode='none'")
    assert Policy(modes=(Mode.NONE,)).accept(plan(level=Level.TEST), "task")


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"least": 51}, "least=50, accepted=51"),
        ({"masked": True}, "behind a mask"),
        ({"separation": 5}, "separation=4, accepted=5"),
        ({"clip": 1.9}, "clip=2.0, accepted=1.9"),
        ({"user": UserCap(epsilon=1.0)}, "epsilon about users.*accepted=1.0"),
        ({"user": UserCap(delta=1e-5)}, "delta about users.*delta=0.0001, accepted=1e-05"),
        ({"interaction": InteractionCap(epsilon=0.1)}, "epsilon about interactions.*accepted=0.1"),
        ({"interaction": InteractionCap(delta=1e-7)}, "delta about interactions.*delta=1e-06"),
    ],
)
def test_the_offending_term_is_named(terms, says):
    refused(Policy(**terms), plan(), says)


@pytest.mark.parametrize(
    "terms", [{"least": 50}, {"separation": 4}, {"clip": 2.0}, {"user": UserCap(epsilon=8.0, delta=1e-4)}]
)
def test_a_term_that_is_just_kept_is_kept(terms):
    assert Policy(**terms).accept(plan(), "task")


def test_masks_satisfy_who_wants_them():
    masked = plan(masking=Masking(bits=63, neighbours=2 * (Neighbours(99, 60),), key_bits=128), colluders=5)
    assert Policy(masked=True).accept(masked, "task")


def test_the_terms_of_a_layered_plan():
    warm, train = Policy().accept(plan(), "task").spans
    assert (warm.first, warm.rounds, warm.participations, warm.separation) == (1, 1, 1, 1)
    assert (train.first, train.rounds, train.participations, train.separation) == (2, 12, 3, 4)
    assert warm.charge == Charge(user=((Gaussian(9.0, Relation.ZERO_OUT), 1),), interaction=tuple(FIRST.charges(1)))
    assert train.charge == Charge(
        user=((Gaussian(3.0, Relation.ZERO_OUT), 1),), interaction=((SampledGaussian(0.1, 2.0), 5),)
    )


def test_a_device_counts_what_the_plan_promises_and_no_sampling():
    layered, local = PLANS[Mode.LAYERED], PLANS[Mode.USER_LOCAL]
    for public, unit, said in (
        (layered, Unit.USER, layered.epsilon), (layered, Unit.INTERACTION, layered.interaction.epsilon),
        (local, Unit.USER, local.epsilon),
    ):  # fmt: skip
        delta = public.interaction.delta if unit is Unit.INTERACTION else public.budget.delta
        assert Policy().accept(public, "task").whole.epsilon(unit, delta) == pytest.approx(said, abs=1e-6)
    sampled = plan(Mode.USER_DISTRIBUTED, phases=(replace(TRAIN, schedule=Poisson(0.1)),))
    terms = Policy().accept(sampled, "task")
    assert terms.spans[0].participations == 12
    assert terms.whole.epsilon(Unit.USER, 1e-4) > 2 * sampled.epsilon


def test_noise_of_the_server_is_not_the_devices_to_count():
    terms = Policy(modes=(Mode.USER_CENTRAL,)).accept(PLANS[Mode.USER_CENTRAL], "task")
    assert terms.whole == Charge()
    assert [span.participations for span in terms.spans] == [1, 3]


def test_the_limits_that_the_ledger_keeps():
    policy = Policy(participations=7, lifetime=9, user=UserCap(epsilon=8.5, lifetime=12.0))
    most = policy.accept(plan(), "task").most
    assert (most.participations, most.user.epsilon, most.user.delta) == (7, 8.5, 1e-4)
    assert (policy.limits.participations, policy.limits.user.epsilon, policy.limits.user.delta) == (9, 12.0, 1e-3)
    assert Policy().accept(PLANS[Mode.USER_LOCAL], "task").most.interaction is None


def test_terms_follow_the_public_plan_alone():
    public = plan()
    again = PrivacyPlan.of_public(public.public())
    assert terms_of(again, "task", Policy().limits) == terms_of(public, "task", Policy().limits)


def test_a_policy_is_a_file(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('modes = ["user-local"]\nleast = 20\n[user]\nepsilon = 2.0\n')
    policy = Policy.read(path)
    assert (policy.modes, policy.least, policy.user.epsilon) == ((Mode.USER_LOCAL,), 20, 2.0)
    assert Policy.from_toml(policy.to_toml()) == policy
    assert Policy.from_toml("") == Policy() == Policy.from_toml(Policy().to_toml())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('modes = ["nobody"]', "modes.0"),
        ("epsilon = 3", "epsilon"),
        ("[user]\nepsilon = inf", "user.epsilon"),
        ("[user]\nepsilon = 0", "user.epsilon"),
        ("least = ", "valid TOML"),
    ],
)
def test_a_bad_policy_is_refused_and_not_replaced_by_the_default(text, says):
    with pytest.raises(SpecError, match=says):
        Policy.from_toml(text)


def test_a_policy_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    for path in (tmp_path / "none.toml", tmp_path / "latin.toml"):
        with pytest.raises(SpecError, match="policy can be read"):
            Policy.read(path)
