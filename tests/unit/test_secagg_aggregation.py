"""The server's half: phases in order, dropouts down to the threshold, and a journal that survives the process."""

import base64
import hashlib

import numpy as np
import pytest
from masked import Session, terms_of

from fedrec.errors import RunError, WireError
from fedrec.exchange.secagg import Aggregation
from fedrec.randomness import stream


def left_after(**dropped):
    """The session, and the sum that is left when so many of eight drop out in each phase."""
    order = iter(stream(1, "order").permutation(8).tolist())
    gone = {phase: {next(order) for _ in range(count)} for phase, count in dropped.items()}
    session = Session(terms_of(), dropped=gone)
    return session, gone


@pytest.mark.parametrize("phase", ["advertise", "share", "mask"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_sum_is_of_those_who_sent_a_vector(phase, count):
    session, gone = left_after(**{phase: count})
    assert session.total().tolist() == session.honest(set(range(8)) - gone[phase]).tolist()
    assert session.server.refused == {}


@pytest.mark.parametrize("phase", ["consent", "reveal"])
def test_who_leaves_after_its_vector_stays_in_the_sum(phase):
    session, _ = left_after(**{phase: 3})
    assert session.total().tolist() == session.honest(range(8)).tolist()


def test_one_may_leave_in_every_phase_but_one():
    session, gone = left_after(advertise=1, mask=1, reveal=1)
    assert session.total().tolist() == session.honest(set(range(8)) - gone["advertise"] - gone["mask"]).tolist()


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        ({"advertise": 4}, "enough clients take part"),
        ({"share": 4}, "enough clients take part"),
        ({"mask": 4}, "enough clients take part"),
        ({"share": 2, "mask": 2}, "enough clients take part"),
        ({"consent": 4}, "every mask can be lifted"),
        ({"reveal": 4}, "every mask can be lifted"),
    ],
)
def test_below_the_threshold_there_is_no_sum(dropped, reason):
    session, _ = left_after(**dropped)
    with pytest.raises(WireError, match=reason):
        session.total()


def test_more_answers_finish_what_too_few_did_not():
    session = Session(terms_of())
    revealed = session.answers("reveal", session.consented())
    with pytest.raises(WireError, match="stuck=8"):
        session.server.total({client: revealed[client] for client in (0, 1)})
    assert set(session.server.refused.values()) == {"mask not lifted"}
    assert session.server.total(revealed).tolist() == session.honest(range(8)).tolist()


def test_with_too_few_near_survivors_there_is_no_sum():
    """On a ring of twenty with three neighbours on each side, one client's neighbours leave together."""
    terms = terms_of(cohort=20, degree=6, least=8)
    whole = Session(terms, clients=tuple(range(20)))
    near = whole.advertised()[2].clients
    session = Session(terms, clients=tuple(range(20)), dropped={"mask": set(near[:3])})
    with pytest.raises(WireError, match="as many surviving neighbours as lift"):
        session.total()


def test_who_has_too_few_neighbours_left_is_let_go_before_it_masks():
    """Eight of sixteen leave, so placed on the ring that no one else loses as many."""
    terms, clients = terms_of(cohort=40, degree=16, threshold=9, least=8), tuple(range(40))
    whole = Session(terms, clients=clients)
    whole.advertised()
    cohort = whole.server._cohort
    ring = [next(client for client in clients if cohort.adverts[client].leaf == leaf) for leaf in cohort.roll._ring]
    gone = {ring[place] for place in (-8, -7, -6, -1, 1, 6, 7, 8)}
    session = Session(terms, clients=clients, dropped={"share": gone})
    assert session.total().tolist() == session.honest(set(clients) - gone - {ring[0]}).tolist()
    assert session.server.refused == {ring[0]: "too few neighbours"}


def test_a_vector_counts_once_and_in_time():
    session = Session(terms_of())
    masked = session.answers("mask", session.shared())
    for client, words in [*masked.items(), (3, masked[2])]:
        session.server.add(client, words)
    session.server.add(40, masked[2])
    session.server.survivors()
    session.server.add(4, masked[4])
    assert session.server.refused == {3: "duplicate", 40: "not in the round", 4: "late"}
    consents = session.server.consents(session.answers("consent", session.server.survivors()))
    assert session.server.total(session.answers("reveal", consents)).tolist() == session.honest(range(8)).tolist()


def test_a_word_beyond_the_modulus_is_refused():
    session = Session(terms_of(bits=20))
    masked = session.answers("mask", session.shared())
    session.server.add(2, masked[2] | np.uint32(2**20))
    assert session.server.refused == {2: "out of bound"} and not session.server.alive


def test_a_cohort_is_no_larger_than_its_terms():
    with pytest.raises(WireError, match="got clients=9, cohort=8"):
        Session(terms_of(), clients=tuple(range(9)))


def test_phases_come_in_order():
    server = Session(terms_of()).server
    for early in (lambda: server.deliveries({}), server.survivors, server.journal, lambda: server.total({}),
                  lambda: server.consents({})):  # fmt: skip
        with pytest.raises(WireError, match="phases in order; got missing="):
            early()


@pytest.mark.parametrize("bits", [20, 32, 64])
@pytest.mark.parametrize("before", ["consent", "reveal", "total"])
def test_a_killed_server_ends_with_the_same_sum(bits, before):
    """The journal is written when the survivors are fixed; the process dies before one of the steps that follow."""
    session = Session(terms_of(bits=bits), dropped={"share": {1}, "mask": {6}})
    survivors = session.masked()
    journal = session.server.journal()
    sent = session.answers("consent", survivors) if before != "consent" else {}
    if before == "total":
        session.answers("reveal", session.server.consents(sent))
    session.server = Aggregation.of_journal(journal, session.site)
    assert session.server.survivors() == survivors
    assert session.server.journal() == journal
    assert session.server.alive == {0, 2, 3, 4, 5, 7}
    consents = session.server.consents(session.answers("consent", session.server.survivors()))
    assert session.server.total(session.answers("reveal", consents)).tolist() == session.honest(survivors).tolist()


def test_a_torn_journal_is_refused():
    session = Session(terms_of())
    session.masked()
    journal = session.server.journal()
    torn = [journal[:size] for size in range(0, len(journal), 97)]
    torn += [journal + b" ", journal[:40] + b"x" + journal[41:], b"x" + journal[1:]]
    for content in torn:
        with pytest.raises(RunError, match="written down whole"):
            Aggregation.of_journal(content, session.site)


def test_a_journal_of_something_else_is_refused():
    """Whole, and no journal."""
    for body in (b"[]", b"{}", b"no json", b'{"terms":{}}'):
        with pytest.raises(RunError, match="written down whole"):
            Aggregation.of_journal(hashlib.sha256(body).digest() + body, Session(terms_of()).site)


def test_a_journal_tells_no_secret():
    session = Session(terms_of(), dropped={"mask": {6}})
    session.masked()
    journal = session.server.journal()
    for masker in session.maskers.values():
        secrets = masker._secrets
        for secret in (secrets.seed, secrets.envelope_key, secrets.mask_key, *sum(secrets.held.values(), ())):
            assert secret not in journal and base64.b64encode(secret)[:40] not in journal
