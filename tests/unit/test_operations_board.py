"""The words of the status page, worked by hand."""

from collections import Counter

import pytest

from fedrec.deploy import board
from fedrec.deploy.glances import Claim, Condition, Course
from fedrec.deploy.view import Look, Machine, Standing, Training

AT = 1_800_000_000.0


def seen(now=None, rows=(), planned=20, **training):
    return Look(at=AT, now=now, training=Training(planned=planned, rows=tuple(rows), **training))


def course(**told):
    return Course(**{"round": 3, "phase": "updates", "beat": AT, **told})


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (seen(), "The trainer has not reported yet."),
        (seen(course(round=0, phase="waiting for devices")), "Waiting for devices."),
        (seen(course()), "Round 3 of 20: updates."),
        (seen(course(attempt=2)), "Round 3 of 20: updates, attempt 2."),
        (seen(course(), planned=None), "Round 3: updates."),
        (seen(course(phase="finished"), rows=[{"round": 20}]), "All is done: 20 rounds."),
    ],
)
def test_the_headline(look, words):
    assert board.headline(look) == words


def test_a_site_that_waits_says_for_how_many():
    now = course(round=0, phase="waiting for devices")
    here = Standing(seats=1250, enrolled=1100, online=998, begin=1000)
    assert board.headline(Look(at=AT, now=now, standing=here)) == (
        "Waiting for devices: 998 are online, training begins with 1,000."
    )
    ended = Machine(children={"trainer": Condition.GIVEN_UP})
    assert board.headline(Look(at=AT, now=now, standing=here, machine=ended)) == (
        "The trainer has given up, after 0 rounds."
    )
    later = course(round=0, phase="starting")
    assert board.headline(Look(at=AT, now=later, standing=here)) == "Starting."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (54, "54 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172_800, "2 days"),
    ],
)
def test_lengths_of_time(seconds, words):
    assert board.span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB"), (2**50, "1,024.0 TiB")]
)  # fmt: skip
def test_bytes(count, words):
    assert board.size(count) == words


@pytest.mark.parametrize(("unix", "words"), [(0, "1970-01-01 00:00:00 UTC"), (1e300, ""), (-1e18, "")])
def test_moments(unix, words):
    assert board.moment(unix) == words


def test_the_time_to_come_is_the_median_of_late_rounds_and_only_where_rounds_have_a_length():
    rows = [{"round": n + 1, "seconds": s} for n, s in enumerate([1000, 4, 2, 6, 4, 4])]
    assert ("All rounds will take about", "56 s more") in board.facts(seen(rows=rows))
    assert not [name for name, _ in board.facts(seen(rows=[{"round": 1}])) if "take" in name]
    assert not [name for name, _ in board.facts(seen(rows=rows, planned=6)) if "about" in name]


def test_a_bar_ends_where_the_whole_does_and_says_what_is_true():
    claim = Claim(adversary="a", unit="user", relation="zero-out", epsilon=2.0, delta=1e-5)
    spent = claim.model_copy(update={"epsilon": 3.0})
    (account,) = board.accounts(Training(claims=(claim,), spent=spent))
    assert (account.bar.percent, account.bar.said) == (100.0, "ε = 3 of 2 is spent (150 %)")


def test_an_account_counts_only_what_is_about_the_same_thing():
    claim = Claim(adversary="a", unit="user", relation="zero-out", epsilon=2.0, delta=1e-5)
    for other in ({"unit": "interaction"}, {"relation": "replace-one"}, {"adversary": "b"}):
        (account,) = board.accounts(Training(claims=(claim,), spent=claim.model_copy(update=other)))
        assert account.spent is None and account.bar is None


def test_restarts_and_refusals_are_counts():
    look = Look(at=AT, machine=Machine(restarts={"trainer": 2}), training=Training(refused=Counter(stale=1)))
    assert ("Restarts", "trainer 2") in board.facts(look)
