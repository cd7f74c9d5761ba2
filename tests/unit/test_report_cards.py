"""Guarantee cards: every ε with everything without which it means nothing, and no difference hidden."""

import json
from dataclasses import replace
from functools import cache

import pytest
from plans import KINDS, plan_of
from studies import broken, cell_of, made_up

from fedrec.privacy.statement import statements
from fedrec.privacy.terms import Adversary, Unit
from fedrec.study.findings import Findings, Point
from fedrec.study.reports.cards import cards, promised, uneven

CENTRAL = "warm start, user-central"
STUDY = made_up(seeds=(0, 1), epsilons=(0.5, 2.0))


@cache
def said(kind):
    """What a plan of that kind states, as a run's statement.json has it."""
    return tuple(json.loads(each.json()) for each in statements(plan_of(kind, rounds=3), simulated=True))


def stating(told, *, epsilon=2.0, seeds=(0, 1)):
    """A study of one arm whose cells state `told`, or by seed `told(seed)`."""
    cells = [cell_of("arm", epsilon, seed, 0.1, mode="user-central") for seed in seeds]
    by_seed = told if callable(told) else lambda seed: told
    mine = [replace(cell, measured=replace(cell.measured, statements=by_seed(cell.seed))) for cell in cells]
    return Findings(name="one", metric="ndcg@10", reference="federated", cells=tuple(mine))


def spending(statement, epsilon):
    """The statement with another ε, in its number and in its sentence."""
    sentence = statement["sentence"].replace(f"ε={statement['epsilon']:.4g}", f"ε={epsilon:.4g}")
    return {**statement, "epsilon": epsilon, "sentence": sentence}


def fact(card, name):
    return dict(card.facts)[name]


def test_a_card_for_each_promise_of_each_private_arm_then_those_without_one():
    titles = [card.title for card in cards(STUDY)]

    assert titles == [
        f"“{CENTRAL}”: users against {Adversary.READER}",
        f"“{CENTRAL}”: nothing against {Adversary.SERVER}",
        f"“warm start, layered”: users against {Adversary.READER}",
        f"“warm start, layered”: interactions against {Adversary.ANYONE}",
        f"“warm start, layered”: users against {Adversary.SERVER}",
        f"“federated”, “{CENTRAL}”, “warm start, layered”: nothing against {Adversary.SERVER}",
        "“random”, “popularity”, “EASE (central)”",
    ]
    assert [card.label for card in cards(STUDY)][-2:] == ["non-private", "non-private"]


def test_a_card_has_everything_a_promise_needs():
    card = cards(STUDY)[0]

    assert dict(card.facts) == {
        "models": "ε asked for: 0.5, 2; every seed",
        "trusted": "the server: it sees every update, adds the noise to their sum, and forgets them (central model)",
        "unit": "user", "neighbours differ by": "add-or-remove-one", "promise": "(ε = 0.8649, δ = 0.0001)",
        "clip norm C": "warm start 0.5, training 1", "noise multiplier z": "warm start 4, training 4",
        "amplification": "warm start: none: everybody is asked; training: assumed, and done: secret coins decide for "
                         "each client by itself (Poisson)",
        "accountant": fact(card, "accountant"), "second opinion": fact(card, "second opinion"),
        "mechanism": "L2 clip, integers, noise of z·C on the sum, public denominator", "shared parameters": "1,000",
        "population": "40",
        "who takes part": "warm start: Poisson with q=1, T=1 rounds, N=40 (public); training: Poisson with q=0.25, T=3 "
                          "rounds, N=40 (public)",
        "rounds": "warm start 1, training 3", "most rounds of one client": "4",
        "noise": "discrete Gaussian on the integer grid; ChaCha20, 32 bytes from the operating system for each release",
        "ledger heads": "none",
    }  # fmt: skip
    statement = STUDY.of(Point(CENTRAL, 2.0))[0].measured.statements[0]
    first, second = statement["accountants"]
    assert first["name"] in fact(card, "accountant")
    assert f"ε = {first['epsilon']:.4g}" in fact(card, "accountant")
    assert second["name"] in fact(card, "second opinion")
    assert f"ε = {second['epsilon']:.4g}" in fact(card, "second opinion")
    assert list(card.assumptions) == statement["assumptions"]
    assert list(card.not_protected) == statement["not_protected"]


@pytest.mark.parametrize(
    ("kind", "amplified"),
    [
        ("poisson", "assumed, and done: secret coins decide"),
        ("fixed", "assumed, and done: secret coins draw"),
        ("sampled shares", "assumed, and done: secret coins decide"),
        ("min-sep", "not assumed: public groups"),
        ("banded", "not assumed: public groups"),
        ("shares", "not assumed: public groups"),
        ("local", "not assumed: public groups"),
        ("inside", "assumed, and done: each step draws"),
    ],
)
def test_amplification_is_told_as_the_account_has_it(kind, amplified):
    assert amplified in fact(cards(stating(said(kind)))[0], "amplification")


def test_nothing_is_amplified_against_a_server_that_knows_who_came():
    (card,) = [card for card in cards(stating(said("sampled shares"))) if "users against the server" in card.title]

    assert fact(card, "amplification") == "not assumed: the server knows who came"


@pytest.mark.parametrize(
    ("kind", "trusted"),
    [
        ("poisson", "the server: it sees"),
        ("shares", "6 honest clients in each round"),
        ("local", "nobody: the device adds all"),
        ("inside", "nobody: the device adds the noise inside"),
        ("layered", "6 honest clients in each round"),
    ],
)
def test_who_is_trusted_depends_on_the_mode(kind, trusted):
    assert fact(cards(stating(said(kind)))[0], "trusted").startswith(trusted)


@pytest.mark.parametrize("kind", KINDS)
def test_every_statement_of_every_mode_is_on_a_card(kind):
    shown = cards(stating(said(kind)))

    assert len(shown) == len(said(kind))
    for card, statement in zip(shown, said(kind), strict=True):
        assert card.label == statement["label"]
        assert statement["adversary"] in card.title
        if statement["unit"]:
            assert fact(card, "promise") == f"(ε = {statement['epsilon']:.4g}, δ = {statement['delta']:.2g})"
            assert fact(card, "unit") == statement["unit"]


def test_budgets_share_a_card_whose_numbers_are_told_budget_by_budget():
    told, other = said("poisson"), [spending(each, 0.5) if each["unit"] else each for each in said("poisson")]
    study = stating(told)
    both = broken(study, cells=(*stating(tuple(other), epsilon=0.5).cells, *study.cells))
    card = cards(both)[0]

    epsilon = f"{told[0]['epsilon']:.4g}"
    assert fact(card, "promise") == f"at ε = 0.5: (ε = 0.5, δ = 0.0001); at ε = 2: (ε = {epsilon}, δ = 0.0001)"
    assert "(ε, δ) as given below" in card.sentence
    assert epsilon not in card.sentence
    assert fact(card, "unit") == "user"  # what all have is told once


def test_seeds_that_promise_other_numbers_are_not_hidden():
    told = said("poisson")
    high = told[0]["epsilon"] + 0.5
    study = stating(lambda seed: told if seed == 0 else (spending(told[0], high), *told[1:]))

    assert fact(cards(study)[0], "promise") == f"(ε = {told[0]['epsilon']:.4g} to {high:.4g}, δ = 0.0001)"
    assert promised(each for cell in study.cells for each in cell.measured.statements[:1]).startswith(
        f"(ε = {told[0]['epsilon']:.4g} to {high:.4g}, δ = 0.0001), add-or-remove-one user, against anyone"
    )
    assert uneven(study) == (Point("arm", 2.0),)


def test_seeds_that_promise_in_other_words_have_cards_of_their_own():
    told = said("poisson")
    trusting = {**told[0], "assumptions": [*told[0]["assumptions"], "Nobody looks."]}
    study = stating(lambda seed: told if seed == 0 else (trusting, *told[1:]))
    first, second = [card for card in cards(study) if card.label != "non-private"]

    assert fact(first, "models") == "ε asked for: 2; of “arm, ε = 2” only seed 0"
    assert fact(second, "models") == "ε asked for: 2; of “arm, ε = 2” only seed 1"
    assert "Nobody looks." in second.assumptions
    assert "Nobody looks." not in first.assumptions


def test_ledger_heads_of_all_seeds_are_listed_and_are_no_difference():
    heads = ("a" * 64, "b" * 64)
    study = stating(lambda seed: tuple({**each, "ledger_head": heads[seed]} for each in said("poisson")))

    assert fact(cards(study)[0], "ledger heads") == f"{'a' * 12}… and {'b' * 12}…"
    many = fact(cards(made_up())[0], "ledger heads")
    assert many == "those of 5 seeds are in privacy.json"
    assert uneven(study) == ()


def test_what_promises_nothing_says_nothing_else():
    assert promised([]) == "nothing"
    (nothing,) = [card for card in cards(stating(said("poisson"))) if card.label == "non-private"]

    assert "promise" not in dict(nothing.facts)
    assert nothing.sentence == said("poisson")[1]["sentence"]
    assert said("poisson")[0]["unit"] == Unit.USER
