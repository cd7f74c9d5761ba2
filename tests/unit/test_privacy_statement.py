"""A statement says what is protected from whom, and does not stop there."""

import json
from dataclasses import replace

import pytest
from plans import CLIENTS, KINDS, LEAST, plan_of

from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.inside import InteractionPromise
from fedrec.privacy.interaction import Blocks
from fedrec.privacy.masking import Masking, Neighbours
from fedrec.privacy.noise import Level
from fedrec.privacy.statement import statements
from fedrec.privacy.terms import Adversary, Budget, Unit

PLAN = plan_of("poisson")
HEAD = "ab" * 32
READER, SERVER = statements(PLAN, ledger_head=HEAD, simulated=True)
MASKS = Masking(bits=40, neighbours=(Neighbours(11, 8),))

# Beyond what every statement says: words of each mode's own about sampling, mechanism and what is left out.
TURN, SHARE = "4 public groups in turn, k=2", f"noise of z·C/√{LEAST} on each update"
WORDS = {
    "poisson": ("Poisson with q=0.25", "noise of z·C on the sum", "does not protect a user's updates from the server"),
    "min-sep": (TURN, "noise of z·C on the sum", "the server is trusted"),
    "banded": (TURN, "3 bands", "the server is trusted"),
    "fixed": ("10 clients without replacement", "noise of z·C on the sum", "each round's cohort is kept secret"),
    "shares": (TURN, SHARE, "no masks hide single updates"),
    "sampled shares": ("Poisson with q=0.25", SHARE, "no masks hide single updates"),
    "local": (TURN, "noise of z·C on each update", "because the device adds all the noise"),
    "inside": (TURN, "DP-SGD on the device, each example clipped", "nothing about a user as a whole"),
    "layered": (TURN, SHARE, "no masks hide single updates"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_every_promise_is_stated_with_all_that_it_means(kind, warm):
    plan = plan_of(kind, warm=warm)
    said = statements(plan, ledger_head=HEAD, simulated=False)
    for statement, promise in zip(said, plan.promises, strict=False):
        given, text = promise.guarantee, statement.text()
        assert statement.guarantee == given
        for word in (f"[{plan.mode}]", f"{given.relation} {given.unit}", str(given.adversary)[1:],
                     statement.sampling,
                     f"ε={given.epsilon:.4g}", f"δ={given.delta:.2g}", statement.mechanism, "training: ",
                     f"N={CLIENTS}",
                     "Accounted by", "RDP", "ChaCha20", HEAD, "It assumes:", "It does not protect:"):  # fmt: skip
            assert word in text, word
        assert ("warm start: " in text) == warm
        assert statement.assumptions and statement.not_protected
        assert any(line.startswith("The unit is ") for line in statement.assumptions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mode_is_stated_in_words_of_its_own(kind):
    text = statements(plan_of(kind), simulated=False)[0].text()
    for word in WORDS[kind]:
        assert word in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_json_has_every_field_of_the_template(kind, warm):
    plan = plan_of(kind, warm=warm)
    for statement in statements(plan, ledger_head=HEAD, simulated=False):
        content = json.loads(statement.json())
        assert {"mode", "label", "unit", "relation", "adversary", "sampling", "mechanism", "delta", "epsilon", "plan",
                "accountants", "noise", "assumptions", "not_protected", "ledger_head", "sentence", "k_max",
                } == set(content)  # fmt: skip
        assert content["plan"] == plan.public()
        for phase in content["plan"]["phases"]:
            assert {"clip", "multiplier", "rounds", "schedule", "bands", "grid", "adaptive"} <= set(phase)
        assert set(content["noise"]) == {"level", "kind", "rng"}
        assert content["ledger_head"] == HEAD
        if statement.guarantee is None:
            assert [content[name] for name in ("unit", "relation", "epsilon", "delta")] == [None] * 4
        else:
            assert content["epsilon"] == content["accountants"][0]["epsilon"] == statement.guarantee.epsilon
            assert {"name", "version", "interval"} <= set(content["accountants"][0])


def test_the_second_opinion_is_the_looser_one():
    first, second = READER.accountants
    assert (first["name"], first["interval"]) == ("dp_accounting PLD", 1e-4)
    assert first["epsilon"] < second["epsilon"]


# Who gets nothing.


def test_the_server_of_central_noise_gets_no_promise():
    assert "no protection at all" in SERVER.text()
    assert SERVER.label == "non-private"
    assert SERVER.guarantee is None
    assert "ε=" not in SERVER.text()
    assert "Each round's cohort was drawn at random and kept secret." in READER.assumptions
    assert not any("secret" in line for line in statements(plan_of("min-sep"), simulated=False)[0].assumptions)


def test_users_get_no_promise_where_interactions_do():
    inside, users = statements(plan_of("inside"), simulated=False)
    assert inside.guarantee.unit is Unit.INTERACTION
    assert users.guarantee is None and "ε=" not in users.text()
    assert "About a user as a whole nothing is promised" in users.text()


@pytest.mark.parametrize("kind", ["shares", "sampled shares", "layered"])
def test_without_masks_the_server_s_epsilon_is_printed_however_large(kind):
    plan = plan_of(kind)
    (seen,) = (each for each in statements(plan, simulated=False) if each.adversary is Adversary.SERVER)
    assert seen.guarantee.epsilon > 2 * plan.epsilon
    assert f"ε={seen.guarantee.epsilon:.4g}" in seen.text()
    assert "next to nothing: without masks the server sees each update" in seen.text()


def test_behind_masks_nothing_is_said_of_missing_ones():
    for statement in statements(replace(plan_of("shares"), masking=MASKS), simulated=False):
        assert "without masks" not in statement.text() and "no masks" not in statement.text()
    assert "because it sees sums only" in statement.text()
    assert "nobody breaks the masks" in statement.text()


def test_layers_are_stated_apart():
    said = statements(plan_of("layered"), simulated=False)
    assert [(each.guarantee.unit, each.adversary) for each in said] == [
        (Unit.USER, Adversary.READER), (Unit.INTERACTION, Adversary.ANYONE), (Unit.USER, Adversary.SERVER),
    ]  # fmt: skip
    for statement in said:
        others = {f"ε={each.guarantee.epsilon:.4g}" for each in said} - {f"ε={statement.guarantee.epsilon:.4g}"}
        assert len(others) == 2
        assert not any(other in statement.text() for other in others)
    both = sum(each.guarantee.epsilon for each in said[:2])
    assert not any(f"{both:.4g}" in each.text() for each in said)


def test_windows_of_a_clock_are_the_unit_where_they_are_what_is_hidden():
    plan = plan_of("inside")
    windows = replace(plan.interaction.terms, blocks=Blocks(seconds=3600, span=8))
    promise = InteractionPromise(budget=19.0, participations=2, terms=windows)
    text = statements(replace(plan, interaction=promise), simulated=False)[0].text()
    assert "replace-one interaction" in text
    assert "everything that happens on a device within one window of the public clock" in text
    assert "one recorded interaction" in statements(plan, simulated=False)[0].text()


# How it was run.


def test_a_simulation_says_that_it_is_one():
    for statement in (READER, SERVER):
        assert "whoever runs the simulation" in statement.text()
        assert "accuracy figures" in statement.text()
        assert "hyper-parameters" in statement.text()
    deployed = statements(PLAN, simulated=False)[0].text()
    assert "simulation" not in deployed
    assert "hyper-parameters" in deployed


@pytest.mark.parametrize("kind", KINDS)
def test_replayable_noise_is_labelled_non_private(kind):
    plan = plan_of(kind, level=Level.TEST)
    said = statements(plan, simulated=True)
    assert [each.adversary for each in said] == [
        each.adversary for each in statements(plan_of(kind), simulated=True)
    ]  # as many as would be said of noise that cannot be replayed
    for statement in said:
        assert statement.label == "non-private"
        assert statement.guarantee is None
        assert "ε=" not in statement.text()
    assert all("replayed from its seed" in each.text() for each in said[: len(plan.promises)])


def test_research_noise_is_called_floating_point():
    text = statements(replace(PLAN, level=Level.RESEARCH), simulated=False)[0].text()
    assert "floating-point" in text
    assert "not a cipher" in text


def test_without_a_plan_everything_is_in_clear():
    (statement,) = statements(None, simulated=False)
    assert statement.label == "non-private"
    assert "sends its update to the server in clear" in statement.text()
    assert json.loads(statement.json())["mode"] == "none"


def test_an_adaptive_clip_norm_is_called_so():
    plan = plan_of("poisson", adaptive=Adaptive(spread=10.0, least=0.5, most=4.0))
    assert "C=1 at first, adaptive" in statements(plan, simulated=False)[0].text()


def test_an_overridden_cap_is_part_of_the_statement_that_it_concerns():
    generous = replace(PLAN, budget=Budget.of(30.0, CLIENTS, over_cap=True))
    assert "on purpose" in statements(generous, simulated=False)[0].text()
    assert "on purpose" not in READER.text()
    plan = plan_of("layered")
    inner = replace(plan, interaction=replace(plan.interaction, budget=30.0, over_cap=True))
    assert ["on purpose" in each.text() for each in statements(inner, simulated=False)] == [False, True, False]
