"""A statement says what is protected from whom, and does not stop there."""

import json
from dataclasses import replace

import pytest

from fedrec.privacy.noise import Level
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.statement import statements
from fedrec.privacy.terms import Budget

PLAN = PrivacyPlan.within(Budget.of(8.0, 943), rounds=10, rate=0.1, clip=1.3)
READER, SERVER = statements(PLAN, ledger_head="ab" * 32, simulated=True)


def test_the_readers_statement_is_complete():
    text = READER.text()
    for word in ("[user-central]", "add-or-remove-one user", "ever enrolled", f"ε={PLAN.epsilon:.4g}", "δ=0.0001",
                 "q=0.1", "C=1.3", "T=10", "N=943", "dp_accounting PLD", "RDP", "ChaCha20", "discrete Gaussian",
                 "ab" * 32, "It assumes:", "independent coins", "It does not protect", "from the server"):  # fmt: skip
        assert word in text


def test_the_servers_statement_promises_nothing():
    assert "no protection at all" in SERVER.text()
    assert SERVER.label == "non-private"
    assert SERVER.guarantee is None
    assert "ε=" not in SERVER.text()


def test_a_simulation_says_that_it_is_one():
    for statement in (READER, SERVER):
        assert "whoever runs the simulation" in statement.text()
        assert "accuracy figures" in statement.text()
        assert "hyper-parameters" in statement.text()
    deployed = statements(PLAN, simulated=False)[0].text()
    assert "simulation" not in deployed
    assert "hyper-parameters" in deployed


def test_json_has_every_field_of_the_template():
    content = json.loads(READER.json())
    assert content["epsilon"] == PLAN.epsilon
    assert content["delta"] == PLAN.delta
    assert (content["unit"], content["relation"], content["mode"]) == ("user", "add-or-remove-one", "user-central")
    assert content["plan"] == PLAN.public()
    assert content["accountants"][0]["interval"] == 1e-4
    assert content["accountants"][0]["epsilon"] < content["accountants"][1]["epsilon"]
    assert content["noise"]["grid"] == PLAN.grid
    assert {"adversary", "sampling", "mechanism", "assumptions", "not_protected", "ledger_head"} <= set(content)
    assert json.loads(SERVER.json())["epsilon"] is None


@pytest.mark.parametrize("statement", statements(replace(PLAN, level=Level.TEST), simulated=True))
def test_replayable_noise_is_labelled_non_private(statement):
    assert statement.label == "non-private"
    assert statement.guarantee is None
    assert "ε=" not in statement.text()


def test_research_noise_is_called_floating_point():
    text = statements(replace(PLAN, level=Level.RESEARCH), simulated=False)[0].text()
    assert "floating-point" in text
    assert "not a cipher" in text


def test_without_a_plan_everything_is_in_clear():
    (statement,) = statements(None, simulated=False)
    assert statement.label == "non-private"
    assert "sends its update to the server in clear" in statement.text()
    assert json.loads(statement.json())["mode"] == "none"


def test_an_overridden_cap_is_part_of_the_statement():
    generous = replace(PLAN, budget=Budget.of(30.0, 943, over_cap=True))
    assert "on purpose" in statements(generous, simulated=False)[0].text()
    assert "on purpose" not in READER.text()
