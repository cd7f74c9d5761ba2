"""Secure sums over many cohorts, dropouts and sizes; Shamir's secrecy; arithmetic modulo a power of two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as choose
from masked import PHASES, Session, bytes_of, terms_of

from fedrec.errors import RunError, WireError
from fedrec.exchange.secagg import Aggregation, keys
from fedrec.exchange.secagg.field import PRIME, WIDTH, join, split
from fedrec.exchange.secagg.residues import Residues

LAW = settings(derandomize=True, deadline=None, max_examples=200)
SLOW = settings(derandomize=True, deadline=None, max_examples=60)
SECRETS = choose.binary(min_size=32, max_size=32)
INTEGERS = choose.integers(-(2**63), 2**63 - 1)


@choose.composite
def sessions(draw):
    """A cohort with numbers of its own, on a complete or sparse graph, and who leaves when."""
    clients = sorted(draw(choose.sets(choose.integers(0, 10**6), min_size=4, max_size=16)))
    degree = draw(choose.one_of(choose.just(len(clients) - 1), choose.integers(2, len(clients) - 1)))
    threshold = draw(choose.integers(degree // 2 + 1, degree))
    terms = terms_of(cohort=len(clients), degree=degree, threshold=max(2, threshold), least=draw(choose.integers(2, 4)),
                     bits=draw(choose.sampled_from([16, 20, 32, 40, 64])), dim=draw(choose.integers(1, 9)))  # fmt: skip
    dropped = draw(
        choose.dictionaries(choose.sampled_from(PHASES), choose.sets(choose.sampled_from(clients), max_size=3))
    )
    return Session(terms, clients=tuple(clients), dropped=dropped, seed=draw(choose.text("ab", max_size=3)))


@SLOW
@given(sessions())
def test_a_sum_is_exact_or_is_not(session):
    try:
        total = session.total()
    except WireError:
        return
    assert total.dtype == np.int64
    assert total.tolist() == session.honest(session.server.alive).tolist()
    assert len(session.server.alive) >= session.terms.least


@SLOW
@given(sessions())
def test_with_enough_of_everybody_there_is_a_sum(session):
    """If each has `threshold` neighbours among those who stay to the end, and those are enough."""
    stay = set(session.clients) - set().union(*session.dropped.values())
    cohort = Session(session.terms, clients=session.clients, seed=session.seed, dropped={
        "advertise": session.dropped.get("advertise", set())
    })  # fmt: skip
    try:
        cohort.advertised()
    except WireError:
        return
    known = cohort.server._cohort
    if len(stay) >= session.terms.least and all(known.reachable(client, stay) for client in known.adverts):
        assert session.total().tolist() == session.honest(session.server.alive).tolist()
        assert stay <= session.server.alive


@SLOW
@given(sessions(), choose.integers(0, 10**6))
def test_a_killed_server_goes_on_where_it_was(session, cut):
    try:
        session.masked()
    except WireError:
        return
    journal = session.server.journal()
    torn = journal[: cut % len(journal)]
    with pytest.raises(RunError):
        Aggregation.of_journal(torn, session.site)
    flipped = bytearray(journal)
    flipped[cut % len(journal)] ^= 1
    with pytest.raises(RunError):
        Aggregation.of_journal(bytes(flipped), session.site)
    session.server = Aggregation.of_journal(journal, session.site)
    try:
        sent = session.server.consents(session.answers("consent", session.server.survivors()))
        total = session.server.total(session.answers("reveal", sent))
    except WireError:
        return
    assert total.tolist() == session.honest(session.server.alive).tolist()


@LAW
@given(SECRETS, choose.sets(choose.integers(1, 2**63), min_size=1, max_size=12), choose.data())
def test_as_many_shares_as_the_threshold_tell_the_secret(secret, places, data):
    threshold = data.draw(choose.integers(1, len(places)))
    shares = dict(zip(places, split(secret, threshold, list(places), bytes_of(threshold)), strict=True))
    chosen = data.draw(choose.permutations(sorted(places)))[:threshold]
    assert join({place: shares[place] for place in chosen}) == secret


@LAW
@given(SECRETS, SECRETS, choose.integers(2, 8))
def test_one_share_less_is_consistent_with_every_secret(secret, other, threshold):
    """For any other secret there is one polynomial through it and the shares that are known."""
    shares = split(secret, threshold, range(1, threshold + 1), bytes_of("known"))[:-1]
    points = {0: int.from_bytes(other, "big")} | {
        place: int.from_bytes(share, "big") for place, share in enumerate(shares, start=1)
    }
    last = interpolated(points, threshold).to_bytes(WIDTH, "big")
    assert join({**dict(enumerate(shares, start=1)), threshold: last}) == other


def interpolated(points, at):
    total = 0
    for place, value in points.items():
        weight = 1
        for rest in points.keys() - {place}:
            weight = weight * (at - rest) * pow(place - rest, -1, PRIME) % PRIME
        total += value * weight
    return total % PRIME


HALVES = choose.integers(0, 2**255 - 1)


@LAW
@given(HALVES, HALVES, choose.integers(1, 6))
def test_shares_add_up(one, other, threshold):
    """Sharing is linear: what a sum of secrets needs, and what a wrong weight would break."""
    places = range(1, threshold + 1)
    dealt = [split(secret.to_bytes(32, "big"), threshold, places, bytes_of(secret)) for secret in (one, other)]
    added = [(int.from_bytes(a, "big") + int.from_bytes(b, "big")) % PRIME for a, b in zip(*dealt, strict=True)]
    shares = {place: share.to_bytes(WIDTH, "big") for place, share in zip(places, added, strict=True)}
    assert int.from_bytes(join(shares), "big") == one + other


@LAW
@given(choose.integers(2, 64), choose.lists(INTEGERS, min_size=1, max_size=5))
def test_centred_residues_are_the_numbers_that_fit(bits, numbers):
    half = 2 ** (bits - 1)
    numbers = [(number + half) % (2 * half) - half for number in numbers]
    ring = Residues(len(numbers), bits)
    words = ring.of(np.array(numbers, np.int64))
    assert ring.fault(words) is None
    assert ring.centred(words).tolist() == numbers


@LAW
@given(choose.integers(2, 64), choose.lists(choose.tuples(INTEGERS, INTEGERS), min_size=1, max_size=5), SECRETS)
def test_masks_cancel(bits, pairs, seed):
    ring = Residues(len(pairs), bits)
    one, other = np.array(pairs, np.int64).T
    sent = ring.folded(ring.of(one) + ring.mask(seed)), ring.folded(ring.of(other) - ring.mask(seed))
    half = 2 ** (bits - 1)
    assert ring.centred(ring.folded(sent[0] + sent[1])).tolist() == [
        (a + b + half) % (2 * half) - half for a, b in pairs
    ]  # fmt: skip


@LAW
@given(SECRETS, choose.integers(0, 255))
def test_seeds_that_differ_in_a_bit_give_masks_that_share_nothing(seed, bit):
    """Of 64 words of 32 bits the same seed gives all, another seed one in a hundred million tries."""
    other = (int.from_bytes(seed, "big") ^ 1 << bit).to_bytes(32, "big")
    ring = Residues(64, 32)
    assert not (ring.mask(seed) == ring.mask(other)).any()
    assert not (ring.mask(keys.self_seed(seed, b"")) == ring.mask(keys.self_seed(other, b""))).any()
    assert ring.mask(seed).tolist() == ring.mask(seed).tolist()
