"""A plan is strict about its settings, and says which one is wrong."""

import tomllib

import pytest
from pydantic import ValidationError

from fedrec.device.event import Kind
from fedrec.errors import SpecError
from fedrec.settings import Section, merge
from fedrec.spec import Plan


def test_the_defaults_are_a_plan():
    plan = Plan()
    assert Plan.from_toml("") == plan
    assert (plan.privacy.mode, plan.model.encoder) == ("none", "minilm")


def test_settings_are_read_from_toml():
    plan = Plan.from_toml(
        'name = "mine"\nclients = 7\n[federation]\nrounds = 3\nlearning_rate = 1\n'
        '[model]\ndecays = [0.5]\n[data]\nsource = "table"\n[data.options]\nusers = 40\nitems = "a.csv"\n'
    )
    assert (plan.name, plan.clients, plan.federation.rounds, plan.model.decays) == ("mine", 7, 3, (0.5,))
    assert plan.data.options == {"items": "a.csv", "users": "40"}
    assert plan.federation.cohort == Plan().federation.cohort


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        ("colour = 1", "colour", "1"),
        ("[federation]\nround = 3", "federation.round", "3"),
        ("[federation]\nrounds = -1", "federation.rounds", "-1"),
        ("[federation]\nrounds = 0", "plan: a run has a round", "'rounds': 0"),
        ("[warm]\nopinions = 0.2", "plan: opinions are statistics of a warm start", "'opinions': 0.2"),
        ("[warm]\nenabled = true\nopinions = 1.0", "warm.opinions", "1.0"),
        ("[federation]\nrounds = 2.5", "federation.rounds", "2.5"),
        ('[federation]\nrounds = "many"', "federation.rounds", "'many'"),
        ("[federation]\nmomentum = 1.0", "federation.momentum", "1.0"),
        ("[federation]\nquorum = 1.1", "federation.quorum", "1.1"),
        ("[federation]\nlearning_rate = nan", "federation.learning_rate", "nan"),
        ("[training]\nlearning_rate = inf", "training.learning_rate", "inf"),
        ('[model]\nadapter = "tuner"', "model.adapter", "'tuner'"),
        ("[model]\ndecays = [0.5, 1.5]", "model", "1.5"),
        ("[model]\ndecays = []", "model", r"\[\]"),
        ("[model]\nrank = 0", "model.rank", "0"),
        ("[profile]\nlike = inf", "profile.like", "inf"),
        ('[privacy]\nepsilon = "small"', "privacy.epsilon", "'small'"),
        ('[privacy]\nmode = "off"', "privacy.mode", "'off'"),
        ("[privacy]\nclip = 0", "privacy.clip", "0"),
        ('[split]\nkind = "random"', "split.kind", "'random'"),
        ("federation = 3", "federation", "3"),
        ("seed = -1", "seed", "-1"),
        ("seed = 9223372036854775808", "seed", "9223372036854775808"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(text, setting, value):
    with pytest.raises(SpecError, match=rf"^{setting}: .*; got value=.*{value}") as refusal:
        Plan.from_toml(text)
    assert refusal.value.exit_code == 2


def test_the_decays_rule_is_explained():
    with pytest.raises(SpecError, match=r"decays are numbers in \[0, 1\]: 0 keeps only the last event"):
        Plan.of({"model": {"decays": [-0.1]}})


@pytest.mark.parametrize("text", ["rounds", "[federation]\nrounds = 3\nrounds = 4", "[model", "name = 'a\nb'\n"])
def test_what_is_not_toml_is_refused(text):
    with pytest.raises(SpecError, match=r"the plan is not valid TOML: .*\(at (line|end)"):
        Plan.from_toml(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.toml").write_bytes('name = "caf\xe9"'.encode("latin-1"))
    for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(SpecError, match="cannot read the plan; got path=.*reason="):
            Plan.read(path)


def test_read_is_from_toml(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('name = "café"\n', encoding="utf-8")
    assert Plan.read(path).name == "café"


def test_the_written_plan_spells_every_setting_out():
    written = tomllib.loads(Plan().to_toml())
    assert set(written) == set(Plan.model_fields)
    for name, section in Plan():
        if isinstance(section, Section):
            assert set(written[name]) == set(type(section).model_fields)


def test_a_plan_cannot_be_changed_in_place():
    plan = Plan()
    with pytest.raises(ValidationError, match="frozen"):
        plan.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        plan.federation.rounds = 3


def test_override_keeps_what_it_does_not_name():
    plan = Plan.of({"seed": 5, "federation": {"rounds": 7, "cohort": 9}})
    changed = plan.override({"federation": {"rounds": 8}, "name": "other"})
    assert (changed.seed, changed.federation.cohort, changed.federation.rounds, changed.name) == (5, 9, 8, "other")
    assert plan.federation.rounds == 7


def test_override_is_as_strict_as_a_file():
    with pytest.raises(SpecError, match=r"^federation.round: "):
        Plan().override({"federation": {"round": 8}})
    with pytest.raises(SpecError, match=r"^model.dim: .*value=0"):
        Plan().override({"model": {"dim": 0}})


def test_merge_by_hand():
    mine = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merge(mine, {"b": {"c": 9}, "e": 4}) == {"a": 1, "b": {"c": 9, "d": 3}, "e": 4}
    assert merge(mine, {"b": 5}) == {"a": 1, "b": 5}
    assert merge(mine, {"a": {"f": 6}}) == {"a": {"f": 6}, "b": {"c": 2, "d": 3}}
    assert mine == {"a": 1, "b": {"c": 2, "d": 3}}


def test_kind_weights_are_in_the_order_of_kinds():
    profile = Plan().profile
    named = [getattr(profile, kind.name.lower()) for kind in sorted(Kind)]
    assert list(profile.kinds()) == named
