"""The graph, and the terms it stands on."""

import pytest
from masked import terms_of

from fedrec.errors import PrivacyRefusal, WireError
from fedrec.exchange.secagg.messages import Advert, Consent, Consents, Delivery, Revealed, Roster, Shares, Survivors
from fedrec.exchange.secagg.roll import Roll
from fedrec.exchange.secagg.terms import digest

LEAVES = tuple(sorted(digest("leaf", number) for number in range(20)))
SPARSE = terms_of(cohort=20, degree=6, threshold=4)


def test_neighbours_are_the_nearest_on_a_ring():
    roll = Roll(SPARSE, LEAVES)
    ring = sorted(LEAVES, key=lambda leaf: digest("ring", roll.root, leaf))
    assert roll.neighbours(ring[0]) == {ring[-3], ring[-2], ring[-1], ring[1], ring[2], ring[3]}
    assert all(len(roll.neighbours(leaf)) == 6 for leaf in LEAVES)
    assert all(leaf in roll.neighbours(other) for leaf in LEAVES for other in roll.neighbours(leaf))


@pytest.mark.parametrize("count", [5, 6, 7])
def test_few_are_all_neighbours(count):
    some = LEAVES[:count]
    assert all(Roll(SPARSE, some).neighbours(leaf) == set(some) - {leaf} for leaf in some)


def test_every_advert_and_every_term_moves_the_graph():
    roll = Roll(SPARSE, LEAVES)
    moved = [
        Roll(terms_of(cohort=20, degree=6, threshold=4, nonce="m"), LEAVES),
        Roll(terms_of(cohort=20, degree=6, threshold=4, round=4), LEAVES),
        Roll(SPARSE, tuple(sorted((*LEAVES[1:], digest("leaf", 20))))),
    ]
    for other in moved:
        assert other.root != roll.root
        assert any(other.neighbours(leaf) != roll.neighbours(leaf) for leaf in LEAVES[1:])


def test_survivors_are_one_bit_a_leaf():
    roll = Roll(SPARSE, LEAVES[:10])
    assert roll.flags([LEAVES[0], LEAVES[9]]) == b"\x80\x40"
    assert roll.flagged(b"\x80\x40") == {LEAVES[0], LEAVES[9]}
    with pytest.raises(WireError, match="survivors are on the roster"):
        roll.flagged(b"\x80\x20")
    with pytest.raises(WireError, match="one bit per advert"):
        roll.flagged(b"\x80\x40\x00")


def test_a_roster_lists_everybody_once():
    assert Roll.read(SPARSE, b"".join(LEAVES)).leaves == LEAVES
    for wrong in ((LEAVES[0], LEAVES[0]), LEAVES[::-1]):
        with pytest.raises(WireError, match="every advert once, in order"):
            Roll.read(SPARSE, b"".join(wrong))
    with pytest.raises(WireError, match="hashes of 32 bytes"):
        Roll.read(SPARSE, LEAVES[0][1:])


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 0},
        {"bits": 1},
        {"bits": 65},
        {"round": -1},
        {"threshold": 1},
        {"threshold": 8},
        {"least": 1},
        {"least": 9},
        {"degree": 8},
        {"dim": "6"},
        {"bits": True},
        {"task": 3},
        {"nonce": "\ud800"},
        {"least": 2**63},
    ],
)
def test_terms_that_mean_nothing_are_refused(changes):
    with pytest.raises(WireError):
        terms_of(**changes)


def test_p13_refuses_a_threshold_that_half_of_the_neighbours_reach():
    assert terms_of(degree=7, threshold=4)
    with pytest.raises(PrivacyRefusal, match=r"P13: .*got threshold=4, degree=8\. Take the terms of") as refused:
        terms_of(cohort=20, degree=8, threshold=4)
    assert refused.value.code == "P13"


HASH, KEY = bytes(32), bytes(32)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (Advert, (1, b"", KEY, KEY[1:], b"")),
        (Advert, (1, b"", KEY, KEY, bytes(5000))),
        (Advert, (-1, b"", KEY, KEY, b"")),
        (Advert, (2**63, b"", KEY, KEY, b"")),
        (Advert, (True, b"", KEY, KEY, b"")),
        (Advert, ("1", b"", KEY, KEY, b"")),
        (Advert, (1, "", KEY, KEY, b"")),
        (Roster, (b"", (1, 2), (b"",), (KEY,), (KEY,), (b"",))),
        (Roster, (b"", [1], (b"",), (KEY,), (KEY,), (b"",))),
        (Shares, (1, (2,), (b"", b""), (HASH,), (HASH,), HASH)),
        (Delivery, ((1, 1), (b"", b""))),
        (Delivery, ((1, 2), (b"",))),
        (Survivors, ((1, 2),)),
        (Consent, (1, bytes(5000))),
        (Consents, ((1,), ())),
        (Revealed, (1, (2,), (), (), ())),
        (Revealed, (1, (2,), (b"",), (2,), (b"",))),
        (Revealed, (1, (2, 2), (b"", b""), (), ())),
        (Revealed, (1, (2,), ("",), (), ())),
    ],
)
def test_a_message_of_another_form_cannot_be_made(message, fields):
    with pytest.raises(WireError):
        message(*fields)
