"""A plan survives TOML both ways, and overrides compose."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from fedrec.errors import SpecError
from fedrec.settings import merge
from fedrec.spec import Plan

small = some.integers(0, 10**6)
natural = some.integers(1, 10**12)
positive = some.floats(0, exclude_min=True, allow_infinity=False)
share = some.floats(0, 1)
finite = some.floats(allow_nan=False, allow_infinity=False)


def part(**names):
    return some.fixed_dictionaries({}, optional=names)


TREES = part(
    name=some.text(),
    seed=some.integers(0, 2**63 - 1),
    clients=small,
    data=part(source=some.text(), path=some.text(), options=some.dictionaries(some.text(), some.text(), max_size=3)),
    split=part(kind=some.sampled_from(["leave-one-out", "global-time", "cold-items"]), hidden=some.floats(0.01, 0.99)),
    model=part(
        encoder=some.text(), rank=natural, decays=some.lists(share, min_size=1, max_size=4), residuals=some.booleans()
    ),
    profile=part(view=finite, skip=finite, rating=finite),
    training=part(steps=natural, learning_rate=positive, hide_seen=some.booleans(), embedding_decay=share),
    federation=part(rounds=natural, optimizer=some.sampled_from(["sgd", "adam", "yogi"]), quorum=share),
    privacy=part(mode=some.sampled_from(["none", "user-central"]), epsilon=positive, clip=positive),
    evaluation=part(every=small, k=natural, baselines=some.sampled_from(["none", "fast", "all"])),
)
lawful = settings(derandomize=True, deadline=None, max_examples=150)


@lawful
@given(TREES)
def test_toml_goes_both_ways(tree):
    plan = Plan.of(tree)
    again = Plan.from_toml(plan.to_toml())
    assert again == plan
    assert again.to_toml() == plan.to_toml()
    assert again.hash == plan.hash


@lawful
@given(TREES, TREES)
def test_plans_that_differ_have_hashes_that_differ(one, other):
    first, second = Plan.of(one), Plan.of(other)
    assume(first != second)
    assert first.hash != second.hash


@lawful
@given(TREES)
def test_the_order_of_settings_does_not_matter(tree):
    assert Plan.of(backwards(tree)).hash == Plan.of(tree).hash


@lawful
@given(TREES, some.sampled_from(["", "data", "split", "model", "federation", "privacy"]), some.text(min_size=1))
def test_unknown_names_are_refused_wherever_they_are(tree, section, name):
    where = tree.setdefault(section, {}) if section else tree
    known = type(getattr(Plan(), section)) if section else Plan
    assume(name not in known.model_fields)
    where[name] = 1
    with pytest.raises(SpecError) as refusal:
        Plan.of(tree)
    assert f"{section}.{name}".removeprefix(".") in refusal.value.rule


@lawful
@given(TREES, TREES, TREES)
def test_overrides_compose(base, one, other):
    plan = Plan.of(base)
    assert plan.override({}) == plan
    assert plan.override(one).override(one) == plan.override(one)
    assert plan.override(one).override(other) == plan.override(merge(one, other))
    assert Plan().override(base) == plan


@lawful
@given(TREES, TREES, TREES)
def test_merge_is_a_monoid_and_leaves_its_arguments_alone(one, two, three):
    before = repr((one, two, three))
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, {}) == one == merge({}, one)
    assert repr((one, two, three)) == before


@lawful
@given(TREES, TREES)
def test_the_later_setting_wins(one, two):
    merged = dict(leaves(merge(one, two)))
    assert merged == dict(leaves(one)) | dict(leaves(two))


def leaves(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        elif not isinstance(value, dict):
            yield (*path, name), value


def backwards(tree):
    return {name: backwards(value) if isinstance(value, dict) else value for name, value in reversed(tree.items())}


def test_what_is_hard_to_write_in_toml():
    plan = Plan.of({"name": '"\\\x00\x1f\x7f\u2028é\n\r\'\'\'"""', "profile": {"view": 5e-324, "skip": -1.7e308}})
    again = Plan.from_toml(plan.to_toml())
    assert again == plan
    assert math.copysign(1, Plan.from_toml(Plan.of({"profile": {"view": -0.0}}).to_toml()).profile.view) == -1
