"""Many devices at once send what each would have sent, bit for bit; and partial sums add up to the whole."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as choose
from hypothesis.extra.numpy import arrays
from plans import CLIENTS, GRID, plan_of

from fedrec.errors import PrivacyRefusal
from fedrec.privacy.adaptive import Adaptive
from fedrec.privacy.clipping import check_bounded, squared_norm
from fedrec.privacy.crossing import Summed
from fedrec.privacy.noise import Hardened, Level
from fedrec.randomness import stream

LAW = settings(derandomize=True, deadline=None, max_examples=300)
CENTRAL, SHARES, LOCAL = (plan_of(kind).crossing(1) for kind in ("poisson", "shares", "local"))
FOLLOWING = plan_of("poisson", adaptive=Adaptive(spread=10.0, least=0.5, most=4.0)).crossing(1)
# Like updates, like anything, and like what has nothing to do with either.
ENTRIES = choose.one_of(
    choose.floats(-2, 2, width=32), choose.floats(width=32), choose.sampled_from([0.0, 1.0, -1.0, 2.0**-10, 1e-45])
)
UPDATES = arrays(np.float32, choose.tuples(choose.integers(0, 5), choose.integers(0, 12)), elements=ENTRIES)
NORMS = choose.one_of(choose.floats(1e-2, 1e3), choose.sampled_from([1.0, 2.0**26, 9.4e7, 9.5e7, 1e9]))
GRIDS = choose.one_of(choose.integers(7, 20).map(lambda power: 2**power), choose.sampled_from([1000, 3000]))


def one_by_one(crossing, updates):
    return [crossing.send(update.astype(np.float64), None) for update in updates]


def same(crossing, updates):
    """That the sum of many at once is that of single sends; and what these are."""
    sent = one_by_one(crossing, updates)
    width = crossing.width(updates.shape[1])
    alone = [crossing.add_all(updates[place : place + 1]).total.tolist() for place in range(len(updates))]
    assert alone == [vector.tolist() for vector in sent]
    summed = crossing.add_all(updates)
    assert summed.total.dtype == np.int64 and summed.count == len(updates)
    assert summed.total.tolist() == sum(map(np.int64, sent), np.zeros(width, np.int64)).tolist()
    return np.array(sent).reshape(len(sent), width)


@LAW
@given(UPDATES, NORMS, GRIDS, choose.booleans())
def test_many_at_once_are_many_one_by_one(updates, clip, grid, follows):
    given_ones = updates.copy()
    crossing = replace(FOLLOWING if follows else CENTRAL, clip=clip, grid=grid, rest=0.0)
    for vector in same(crossing, updates):
        update = vector[: updates.shape[1]].astype(np.int64)
        assert check_bounded(update, clip, grid) and crossing.accepts(vector)
    assert np.array_equal(updates, given_ones, equal_nan=True)


@pytest.mark.parametrize("dim", [1, 33, 1000, 70_001])
@pytest.mark.parametrize("crossing", [CENTRAL, FOLLOWING, replace(CENTRAL, grid=2**20)])
def test_updates_of_every_length_round_the_ball_agree(dim, crossing):
    """Norms from far inside to far outside, and as close to the clip norm as floats come."""
    updates = stream(4, "updates", dim).normal(size=(50, dim)).astype(np.float32)
    updates /= np.linalg.norm(updates, axis=1, keepdims=True)
    near = [1 + sign * 2.0**-power for power in range(2, 24) for sign in (-1, 1)]
    updates *= crossing.clip * np.array([0.0, 1e-6, 0.5, 0.0, 30.0, 1e9, *near], np.float32)[:, None]
    updates[3] = np.nan
    assert not same(crossing, updates)[[0, 3], :dim].any()


def test_what_rounding_alone_brings_into_the_ball_is_not_shortened():
    update = np.array([[(GRID + 0.5) / GRID, 0.9 / GRID]], np.float32)
    assert same(CENTRAL, update).tolist() == [[GRID, 0]]


@pytest.mark.parametrize("high", [2.0**26, 2.0**26 - 4, 6e7, 9.4e7, 2.0**27])
def test_a_norm_that_floats_make_too_short_is_mended_alike(high):
    """Beside so high an entry its float norm does not see a 1, which rounding then keeps."""
    update = np.array([high, 1.0], np.float32)
    scaled = update.astype(np.float64) / high
    careless = np.trunc(scaled / np.sqrt(np.dot(scaled, scaled)) * high).astype(np.int64)
    assert squared_norm(careless) > int(high) ** 2
    (sent,) = same(replace(CENTRAL, clip=high, grid=1), update[None])
    assert 0 < squared_norm(sent.astype(np.int64)) <= int(high) ** 2


def test_sums_beyond_the_whole_numbers_of_floats_are_exact():
    crossing = replace(CENTRAL, clip=2.0**40, grid=2**12)  # the largest entry is 2^52
    updates = np.array([[2.0**40], [2.0**40], [2.0**-12], [2.0**40]], np.float32)
    assert crossing.add_all(updates).total.tolist() == [3 * 2**52 + 1]


def test_rows_are_never_all_integers_at_once():
    updates = np.ones((200, 20_000), np.float32)
    tracemalloc.start()
    CENTRAL.add_all(updates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * updates[0].size * 8


@pytest.mark.parametrize("crossing", [SHARES, LOCAL])
def test_p06_refuses_a_sum_without_the_shares_that_belong_to_it(crossing):
    with pytest.raises(PrivacyRefusal, match="P06: no noise share is missing"):
        crossing.add_all(np.zeros((2, 3), np.float32))


# Sums of floats that are rounded once.

LOOSE = replace(CENTRAL, level=Level.RESEARCH)


def moved(crossing, base, update):
    """By how much, in grid steps, one client more moves a rounded sum."""
    rounded = [crossing.rounded(total, np.ones(1)).total for total in (base, base + update)]
    return np.linalg.norm((rounded[1] - rounded[0]).astype(np.float64))


@LAW
@given(choose.integers(1, 400), choose.integers(0, 2**32))
def test_one_client_moves_a_rounded_sum_by_the_radius_at_most(dim, seed):
    rng = stream(seed, "sums")
    base, update = rng.normal(0, 10, dim), rng.normal(0, 1, dim)
    update *= LOOSE.reach(dim) / np.linalg.norm(update)
    assert moved(LOOSE, base, update) <= LOOSE.radius


def test_the_worst_sum_needs_the_room_that_rounding_gets():
    """Every entry of the sum waits just below a half; without the room it would be moved by more than the radius."""
    dim = 400
    base = np.full(dim, 0.499 / GRID)
    update = np.full(dim, 0.002 / GRID)
    update[0] = LOOSE.reach(dim) - 0.01 / GRID
    assert np.linalg.norm(update) <= LOOSE.reach(dim)
    assert LOOSE.reach(dim) * GRID < moved(LOOSE, base, update) <= LOOSE.radius
    update[0] = LOOSE.clip - 0.01 / GRID
    assert np.linalg.norm(update) <= LOOSE.clip and moved(LOOSE, base, update) > LOOSE.radius


def test_rounded_sums_vote_like_single_sends():
    crossing, norms = replace(FOLLOWING, level=Level.RESEARCH), np.array([0.2, 0.99, 1.01, 50.0])
    rows = np.outer(norms, [1.0, 0, 0]).astype(np.float32)
    votes = sum(int(vector[-1]) for vector in one_by_one(crossing, rows))
    assert crossing.rounded(np.zeros(3), norms).total[-1] == votes


@pytest.mark.parametrize("crossing", [CENTRAL, replace(CENTRAL, level=Level.TEST), SHARES])
def test_p07_only_floating_point_noise_hides_a_floating_point_sum(crossing):
    with pytest.raises(PrivacyRefusal, match="P07: only noise of level research hides a floating-point sum"):
        crossing.rounded(np.zeros(3), np.ones(2))


def test_p18_refuses_a_grid_whose_rounding_takes_the_whole_clip_norm():
    with pytest.raises(PrivacyRefusal, match="P18: rounding a sum moves it less than a clip norm"):
        LOOSE.reach(GRID**2)


# Partial sums.


def parts(crossing, updates, cuts):
    """What shards would send that each add up a slice."""
    bounds = [0, *sorted(cuts), len(updates)]
    return [crossing.add_all(updates[first:last]) for first, last in zip(bounds, bounds[1:], strict=False)]


@LAW
@given(UPDATES, choose.lists(choose.integers(0, 5), max_size=4), choose.sampled_from([CENTRAL, FOLLOWING]))
def test_partial_sums_are_the_sum_however_the_clients_are_cut(updates, cuts, crossing):
    width = crossing.width(updates.shape[1])
    whole = crossing.total(one_by_one(crossing, updates), width)
    joined = crossing.joined(parts(crossing, updates, [min(cut, len(updates)) for cut in cuts]), width)
    assert (joined.total.tolist(), joined.count) == (whole.total.tolist(), len(updates))


def test_noised_sums_of_honest_clients_are_accepted():
    sent = [[SHARES.send(np.full(400, 0.05), Hardened()) for _ in range(count)] for count in (1, 3, 9)]
    joined = SHARES.joined([SHARES.total(vectors, 400) for vectors in sent], 400)
    assert joined.count == 13 and np.array_equal(joined.total, np.sum(sum(sent, []), axis=0))


FAR = SHARES.share * GRID * (20 + 9)  # the length of one client's noise on 400 coordinates, at the very most


@pytest.mark.parametrize(
    ("crossing", "total", "count"),
    [
        (CENTRAL, [3 * GRID + 1, 0], 3),  # longer than three clip norms
        (CENTRAL, [3 * GRID, 1], 3),
        (CENTRAL, [1, 0], 0),  # nobody's
        (CENTRAL, [0, 0], -1),
        (CENTRAL, [0, 0], CLIENTS + 1),
        (CENTRAL, [0], 1),
        (CENTRAL, [0.0, 0.0], 1),
        (CENTRAL, [-(2**63), 0], CLIENTS),
        (FOLLOWING, [GRID, FOLLOWING.bit], 2),  # two votes are even
        (FOLLOWING, [GRID, 4 * FOLLOWING.bit], 2),
        (FOLLOWING, [GRID, 1], 1),
        (SHARES, [int(2 * GRID + 1.5 * FAR), *[0] * 399], 2),  # the shares of two are √2 times as far out as of one
    ],
)
def test_p08_refuses_a_partial_sum_that_so_many_honest_clients_do_not_have(crossing, total, count):
    with pytest.raises(PrivacyRefusal, match="P08: every summand is within the clip norm"):
        crossing.joined([Summed(np.array(total), count)], max(2, len(total)))


@pytest.mark.parametrize(
    ("crossing", "total", "count"),
    [
        (CENTRAL, [3 * GRID, 0], 3),
        (CENTRAL, [0, 0], CLIENTS),
        (FOLLOWING, [GRID, 2 * FOLLOWING.bit], 2),
        (FOLLOWING, [GRID, 0], 2),
        (SHARES, [int(2 * GRID + 1.4 * FAR), *[0] * 399], 2),
    ],
)
def test_what_is_just_possible_is_accepted(crossing, total, count):
    assert crossing.joined([Summed(np.array(total), count)], len(total)).count == count


def test_p08_refuses_more_clients_than_there_are():
    none = Summed(np.zeros(2, np.int64), CLIENTS // 2 + 1)
    assert CENTRAL.joined([none], 2).count == CLIENTS // 2 + 1
    with pytest.raises(PrivacyRefusal, match="P08"):
        CENTRAL.joined([none, none], 2)


def test_p06_counts_the_clients_of_all_parts_together():
    few = Summed(np.zeros(2, np.int64), SHARES.least - 1)
    with pytest.raises(PrivacyRefusal, match=f"P06: .*arrived={SHARES.least - 1}"):
        SHARES.release(SHARES.joined([few], 2), None)
    one = Summed(np.zeros(2, np.int64), 1)
    assert SHARES.release(SHARES.joined([few, one], 2), None).tolist() == [0, 0]
