"""Shamir's sharing, worked by hand."""

import pytest
from masked import bytes_of

from fedrec.errors import WireError
from fedrec.exchange.secagg.field import PRIME, WIDTH, element, join, split

SECRET = (41).to_bytes(32, "big")


def drawing(*elements):
    """An entropy that makes `element` draw these."""
    drawn = iter(elements)
    return lambda count: (next(drawn) << 7).to_bytes(count, "big")


def test_the_modulus_is_prime_and_the_first_above_every_secret():
    """Miller and Rabin, with sixty-four bases; Fermat finds every odd number between composite."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 66):
        powers = [pow(base, odd * 2**power, PRIME) for power in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers
    assert all(pow(3, number - 1, number) != 1 for number in range(2**256 + 1, PRIME, 2))


def test_shares_lie_on_the_polynomial():
    """41 + 5x + 2x² at 1, 2 and 10."""
    shares = split(SECRET, 3, [1, 2, 10], drawing(5, 2))
    assert [int.from_bytes(share, "big") for share in shares] == [48, 59, 291]
    assert {len(share) for share in shares} == {WIDTH}


def test_values_wrap_around_the_prime():
    shares = split((2**256 - 1).to_bytes(32, "big"), 2, [1, 2], drawing(300))
    assert [int.from_bytes(share, "big") for share in shares] == [2**256 + 299 - PRIME, 2**256 + 599 - PRIME]
    assert join({1: shares[0], 2: shares[1]}) == (2**256 - 1).to_bytes(32, "big")


def test_too_few_or_false_shares_tell_something_else():
    shares = dict(zip([1, 2, 3], split(SECRET, 3, [1, 2, 3], bytes_of("field")), strict=True))
    assert join(shares) == SECRET
    for wrong in ({1: shares[1], 2: shares[2]}, {**shares, 3: shares[2]}, {1: shares[1], 2: shares[2], 4: shares[3]}):
        assert _joined(wrong) != SECRET


def _joined(shares):
    try:
        return join(shares)
    except WireError:
        return None


def test_a_draw_beyond_the_prime_is_drawn_again():
    assert element(drawing(PRIME, 2**257 - 1, PRIME - 1)) == PRIME - 1


@pytest.mark.parametrize(
    ("secret", "threshold", "places"),
    [(SECRET[1:], 2, [1, 2]), (SECRET, 3, [1, 2]), (SECRET, 0, [1]), (SECRET, 2, [1, 1]), (SECRET, 2, [0, 1]),
     (SECRET, 2, [1, PRIME])],
)  # fmt: skip
def test_no_secret_is_given_away_by_its_shares(secret, threshold, places):
    with pytest.raises(WireError, match="shared among at least"):
        split(secret, threshold, places, bytes_of("field"))


@pytest.mark.parametrize(
    "shares",
    [{}, {0: bytes(WIDTH)}, {1: bytes(32)}, {1: b"\xff" * WIDTH}, {1: (2**256 + 1).to_bytes(WIDTH, "big")}],
)
def test_what_is_no_share_is_refused(shares):
    with pytest.raises(WireError):
        join(shares)
