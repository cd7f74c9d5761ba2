"""One round's way out, worked by hand: what a device does to its vector, and what the server does to the sum."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from plans import CLIENTS, COHORT, GRID, KINDS, LEAST, Z, plan_of

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.crossing import Crossing, Summed
from fedrec.privacy.noise import Hardened, Level, Research, Seeded

CENTRAL = plan_of("poisson").crossing(1)
SHARES = plan_of("shares").crossing(1)
LOCAL = plan_of("local").crossing(1)
OPEN = plan_of("inside").crossing(1)  # users are promised nothing here
FOLLOWING = plan_of("poisson", adaptive=Adaptive(spread=10.0, least=0.5, most=4.0)).crossing(1)


class Silence:
    """Noise that is none, to see the arithmetic. Notes how wide it was asked to be."""

    level = Level.HARDENED

    def __init__(self):
        self.asked = []

    def draw(self, sigma, dim):
        self.asked.append(sigma)
        return np.zeros(dim, np.int64)


def refused(make, code, says):
    with pytest.raises(PrivacyRefusal, match=f"{code}: .*{says}") as refusal:
        make()
    assert refusal.value.code == code
    assert refusal.value.remedy


# The device's half.


def test_where_the_server_adds_the_noise_a_device_sends_its_clipped_integers():
    assert CENTRAL.send(np.array([3.0, -4.0]), None).tolist() in ([614, -819], [614, -818])  # 0.6 and −0.8 of 1024
    assert CENTRAL.send(np.array([0.5, -0.25]), None).tolist() == [512, -256]


def test_a_share_is_drawn_in_grid_steps_of_its_width():
    quiet = Silence()
    assert SHARES.send(np.array([0.5, -0.25]), quiet).tolist() == [512, -256]
    assert LOCAL.send(np.array([0.5, -0.25]), quiet).tolist() == [512, -256]
    assert quiet.asked == pytest.approx([Z / math.sqrt(LEAST) * GRID, Z * GRID])


@pytest.mark.parametrize("poison", [[np.nan, 1.0], [np.inf, 0.0], [-np.inf, np.nan]])
def test_what_is_not_finite_is_sent_as_noise_alone(poison):
    assert not CENTRAL.send(np.array(poison), None).any()
    assert not SHARES.send(np.array(poison), Silence()).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warm", [False, True])
def test_every_vector_of_a_round_has_one_type_and_length(kind, warm):
    crossing = plan_of(kind, warm=warm).crossing(1)
    source = Hardened()
    for update in (np.zeros(7), np.full(7, 1e9), np.full(7, np.nan), default_rng(1).normal(size=7)):
        sent = crossing.send(update, source)
        assert (sent.dtype, sent.shape) == (crossing.dtype, (crossing.width(7),))
        assert crossing.accepts(sent)


def test_p06_refuses_a_share_without_a_source_and_p07_one_of_another_level():
    refused(lambda: SHARES.send(np.zeros(2), None), "P06", "no noise share is missing.*leave it out of the cohort")
    refused(lambda: LOCAL.send(np.zeros(2), None), "P06", "no noise share is missing")
    for wrong in (Research(), Seeded(default_rng(0))):
        refused(lambda w=wrong: SHARES.send(np.zeros(2), w), "P07", "the level that is stated")


def test_a_bit_says_whether_an_update_was_clipped():
    assert FOLLOWING.bit == int(GRID * FOLLOWING.rest / 20)
    assert FOLLOWING.send(np.array([0.5, 0.0]), None).tolist() == [512, 0, FOLLOWING.bit]
    assert FOLLOWING.send(np.array([9.0, 0.0]), None).tolist() == [1024, 0, -FOLLOWING.bit]
    assert FOLLOWING.send(np.array([np.nan, 0.0]), None).tolist() == [0, 0, FOLLOWING.bit]
    assert (FOLLOWING.width(2), CENTRAL.width(2)) == (3, 2)


def test_a_clipped_update_and_its_bit_together_cost_what_was_accounted():
    """(clip² + bit²)^½ over the noise on each coordinate is 1/z, of which the bit's rounding down leaves a little."""
    cost = math.hypot(GRID, FOLLOWING.bit) / (FOLLOWING.rest * GRID)
    assert 0.999 / Z < cost <= 1 / Z


@pytest.mark.parametrize(
    ("clip", "share", "dtype"),
    [(1.0, 0.0, np.int32), (2.0**20, 0.0, np.int32), (2.0**21, 0.0, np.int64), (2.0**20, 1.0, np.int64)],
)
def test_the_type_holds_whatever_an_honest_client_sends(clip, share, dtype):
    """At 2^10 steps per unit: 2^30 fits an int32; 2^31 does not, nor do 18 standard deviations of 2^30."""
    assert replace(CENTRAL, clip=clip, share=share).dtype == dtype


def test_a_bit_longer_than_the_clip_norm_is_reckoned_with():
    """Close to z = 2·spread next to all noise is spent on the bit, which grows beyond the clip norm."""
    tight = replace(FOLLOWING, bit=3 * GRID, rest=1.0)
    sent = [tight.send(np.array([0.5]), None) for _ in range(CLIENTS)]
    assert tight.release(tight.total(sent, 2), Silence()) * tight.expected == pytest.approx([20, 3 * CLIENTS])
    assert replace(tight, bit=2**31).dtype == np.int64


# What the server accepts.


def test_without_noise_the_server_accepts_exactly_the_ball():
    for inside in ([1024, 0], [-1024, 0], [724, 724], [0, 0]):
        assert CENTRAL.accepts(np.array(inside, np.int32))
    for beyond in ([1025, 0], [1024, 1], [725, 724], [-(2**31), 0]):
        assert not CENTRAL.accepts(np.array(beyond, np.int32))


def test_a_bit_is_one_of_two_numbers():
    bit = FOLLOWING.bit
    assert FOLLOWING.accepts(np.array([1024, 0, bit]))
    assert FOLLOWING.accepts(np.array([0, 0, -bit]))
    for wrong in (bit + 1, 0, 1, -bit - 1, 2**40):
        assert not FOLLOWING.accepts(np.array([0, 0, wrong]))


def test_a_noised_vector_may_be_as_long_as_its_noise_and_no_longer():
    dim = 1000
    usual = SHARES.share * GRID * math.sqrt(dim)
    assert SHARES.accepts(np.full(dim, int(usual / math.sqrt(dim)), np.int32))
    assert not SHARES.accepts(np.full(dim, int(1.5 * usual / math.sqrt(dim)), np.int32))
    assert not SHARES.accepts(np.full(dim, 2**31 - 1, np.int32))
    assert not SHARES.accepts(np.full(dim, -(2**63), np.int64))  # whose square is beyond any integer type


@pytest.mark.parametrize("vector", [np.array(3), np.zeros((2, 2), np.int32)])
@pytest.mark.parametrize("crossing", [CENTRAL, SHARES])
def test_a_vector_is_flat(crossing, vector):
    assert not crossing.accepts(vector)


# The server's half.


def test_a_release_divides_the_exact_sum_by_the_public_cohort():
    quiet = Silence()
    sent = [CENTRAL.send(np.array(update), None) for update in ([0.5, 0.0], [0.25, -0.75])]
    total = CENTRAL.total(sent, 2)
    assert (total.total.tolist(), total.count) == ([768, -768], 2)
    assert CENTRAL.release(total, quiet).tolist() == [0.75 / COHORT, -0.75 / COHORT]
    assert quiet.asked == [Z * GRID]


def test_the_server_adds_nothing_to_whole_shares():
    total = SHARES.total([SHARES.send(np.array([0.5]), Silence()) for _ in range(LEAST)], 1)
    assert SHARES.release(total, None).tolist() == [0.5 * LEAST / COHORT]
    assert LOCAL.release(LOCAL.total([], 1), None).tolist() == [0.0]
    assert OPEN.release(OPEN.total([OPEN.send(np.array([0.5]), None)], 1), None).tolist() == [0.5 / COHORT]


def test_nobody_came_and_the_noise_is_as_large():
    for count in (0, 3):
        sent = [CENTRAL.send(np.zeros(10_000), None)] * count
        released = CENTRAL.release(CENTRAL.total(sent, 10_000), Hardened())
        assert released.std() * COHORT == pytest.approx(Z, rel=0.05)


@pytest.mark.parametrize("count", [0, LEAST - 1])
def test_p06_refuses_fewer_shares_than_the_plan_counts_on(count):
    sent = [SHARES.send(np.zeros(2), Hardened()) for _ in range(count)]
    refused(
        lambda: SHARES.release(SHARES.total(sent, 2), None),
        "P06",
        f"arrived={count}, least={LEAST}. Nothing was released",
    )


@pytest.mark.parametrize("vector", [np.array([2**20, 0]), np.array([0]), np.zeros(3, np.int64)])
def test_p08_refuses_a_summand_that_no_honest_client_sends(vector):
    refused(lambda: CENTRAL.total([vector], 2), "P08", "every summand is within the clip norm")


@pytest.mark.parametrize("total", [np.array([np.nan]), np.array([1.0]), np.zeros((2, 2), np.int64)])
def test_p08_refuses_an_aggregate_that_is_not_integers(total):
    refused(lambda: CENTRAL.release(Summed(total, 1), Hardened()), "P08", "an aggregate is one int64 vector")


@pytest.mark.parametrize("entry", [2**62, -(2**63), CLIENTS * GRID + 1])
def test_p08_refuses_an_aggregate_that_no_cohort_can_have(entry):
    refused(lambda: CENTRAL.release(Summed(np.array([entry, 0]), 1), Hardened()), "P08", "nothing was released")
    assert CENTRAL.release(Summed(np.array([CLIENTS * GRID, 0]), CLIENTS), Silence())[0] == CLIENTS / COHORT


def test_p06_refuses_a_release_without_the_server_s_noise_and_p07_one_of_another_level():
    refused(lambda: CENTRAL.release(Summed(np.zeros(2, np.int64), 1), None), "P06", "no noise share is missing")
    for wrong in (Research(), Seeded(default_rng(0))):
        refused(lambda w=wrong: CENTRAL.release(Summed(np.zeros(2, np.int64), 1), w), "P07", "the level that is stated")


@pytest.mark.parametrize("half", ["share", "rest"])
def test_p18_refuses_noise_narrower_than_five_steps(half):
    refused(lambda: replace(CENTRAL, **{half: 4.9 / GRID}), "P18", "noise spans at least 5 grid steps")
    assert isinstance(replace(CENTRAL, **{half: 5 / GRID}), Crossing)


def test_the_spread_is_the_noise_on_a_mean_of_all_who_are_expected():
    assert CENTRAL.spread == pytest.approx(Z / COHORT)
    assert SHARES.spread == pytest.approx(Z * math.sqrt(COHORT / LEAST) / COHORT)
    assert LOCAL.spread == pytest.approx(Z * math.sqrt(COHORT) / COHORT)
    assert OPEN.spread == 0.0
