"""A study as it is written: what is refused, what it comes to, and that equal contents have equal keys."""

import math

import pytest

from fedrec.errors import SpecError
from fedrec.spec import Plan
from fedrec.study.arms import BASELINES as KNOWN
from fedrec.study.design import BASELINES, RECIPES, ArmSpec, Study, key_of, narrowed

SMALL = {"data": {"options": {"users": "40", "items": "64"}}, "model": {"encoder": "hash", "dim": 16}}
BASE = Plan.of(SMALL)


def study(**settings):
    return narrowed(Study(), settings)


def test_every_baseline_that_a_study_may_name_is_one_that_runs_know():
    assert sorted(BASELINES.values()) == sorted(KNOWN)


def test_a_study_survives_its_own_toml(tmp_path):
    grid = [{"federation": {"learning_rate": 0.01}}, {"federation": {"learning_rate": 0.1}}]
    arms = [
        {"recipe": "warm-start", "mode": "layered", "epsilon": [1, math.inf]},
        {"recipe": "federated", "grid": grid},
    ]
    before = study(arms=arms, seeds=3, plan=SMALL)
    path = tmp_path / "study.toml"
    path.write_text(before.to_toml())
    after = Study.read(path)
    assert after == before and after.seeds == (0, 1, 2)
    assert [(str(arm.title), epsilon) for arm, epsilon in after.points] == [
        ("warm start, layered", 1.0), ("warm start, layered", None), ("federated", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arms": [{"recipe": "federate"}]}, "a recipe is one of federated"),
        ({"arms": [{"recipe": "ease", "mode": "layered"}]}, "a baseline has no mode"),
        ({"arms": [{"recipe": "federated", "epsilon": [1.0]}]}, "without a privacy mode there is no budget"),
        ({"arms": [{"recipe": "federated", "settings": {"data": {"source": "table"}}}]}, "data belongs in \\[plan\\]"),
        ({"arms": [{"recipe": "federated", "grid": [{"seed": 3}]}]}, "seed belongs in \\[plan\\]"),
        ({"arms": [{"recipe": "federated", "settings": {"privacy": {"epsilon": 3}}}]}, "mode and budgets are its"),
        ({"arms": [{"recipe": "federated", "grid": [{"interaction": {"epsilon": 3}}]}]}, "mode and budgets are its"),
        ({"arms": [{"recipe": "federated", "settings": {"privacy": 3}}]}, "settings stand in their sections"),
        ({"arms": [{"recipe": "federated", "settings": {"model": 3}}]}, "settings stand in their sections"),
        ({"arms": [{"recipe": "federated"}, {"recipe": "federated"}]}, "arms have names of their own"),
        ({"arms": [{"recipe": "federated", "grid": [{}] * 3}], "trials": 2}, "tuning budgets are equal"),
        ({"epsilon": [0.0]}, "a budget is positive"),
        ({"epsilon": []}, "a study has a budget"),
        ({"metric": "ndgc@10"}, "one of ndcg@10, hr@10, recall@10"),
        ({"plan": {"evaluation": {"k": 20}}}, "one of ndcg@20"),
        ({"metric": "recall@10", "arms": [{"recipe": "federated", "grid": [{}]}]}, "one of ndcg@10, hr@10\\."),
        ({"seeds": [0, -1]}, "a seed is not negative"),
        ({"epsilon": [math.nan]}, "a budget is positive"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "each seed once"),
        ({"seeds": [1000]}, "a seed of their own"),
        ({"plan": {"privacy": {"mode": "layered"}}}, "plan.privacy.mode stays none"),
        ({"plan": {"federation": {"round": 3}}}, "no setting has this name.*rounds, cohort"),
        ({"arms": [{"recipe": "federated", "modes": "none"}]}, "no setting has this name.*recipe, mode"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_a_mistake_is_named_where_it_is(settings, said):
    with pytest.raises(SpecError, match=said):
        study(**settings)


def test_a_file_that_is_no_study_is_refused(tmp_path):
    for content, said in ((b"arms = [", "not valid TOML"), (b"\xff\xfe", "byte 0 is not UTF-8")):
        (tmp_path / "study.toml").write_bytes(content)
        with pytest.raises(SpecError, match=said):
            Study.read(tmp_path / "study.toml")
    with pytest.raises(SpecError, match="cannot read the study"):
        Study.read(tmp_path / "absent.toml")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("mode", ["user-central", "user-distributed", "user-local", "interaction-local", "layered"])
def test_an_arm_differs_from_itself_without_a_budget_in_nothing_but_the_promise(recipe, mode):
    arm = ArmSpec(recipe=recipe, mode=mode)
    bounded, free = (arm.plan(BASE, epsilon).model_dump() for epsilon in (2.0, None))
    assert bounded["privacy"]["mode"] == mode and free["privacy"]["mode"] == "none"
    assert bounded["privacy"]["epsilon"] == bounded["interaction"]["epsilon"] == 2.0
    assert {name for name in free if free[name] != bounded[name]} <= {"privacy", "interaction"}


def test_recipes_are_what_their_names_say():
    base = Plan.of({**SMALL, "warm": {"enabled": True}, "federation": {"rounds": 7}})
    made = {recipe: ArmSpec(recipe=recipe, mode="user-central").plan(base, 1.0) for recipe in RECIPES}
    assert {name: (plan.warm.enabled, plan.federation.rounds) for name, plan in made.items()} == {
        "federated": (True, 7), "warm-start": (True, 0), "warm-start+rounds": (True, 7), "from-scratch": (False, 7),
    }  # fmt: skip


def test_an_arm_from_a_flag():
    arm = ArmSpec.parse("warm-start+rounds:user-distributed:lora")
    assert (arm.title, arm.plan(BASE, 1.0).model.adapter) == ("warm start + rounds, user-distributed, lora", "lora")
    assert ArmSpec.parse("item-knn").title == "item-kNN (central)"
    for wrong in ("", "warm-start:", "nothing", "warm-start:open", "ease:layered"):
        if wrong == "warm-start:":
            assert ArmSpec.parse(wrong).mode == "none"
            continue
        with pytest.raises(SpecError):
            ArmSpec.parse(wrong)


def test_a_key_is_of_contents():
    key = key_of(BASE, "data", "")
    assert key == key_of(BASE.override({"name": "another"}), "data", "")
    others = {key_of(BASE.override({"seed": 1}), "data", ""), key_of(BASE, "other", ""), key_of(BASE, "data", "random")}
    assert len(others | {key}) == 4
