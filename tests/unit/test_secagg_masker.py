"""The device's half: five answers, each once, in order; and what it refuses by itself."""

from dataclasses import replace

import numpy as np
import pytest
from masked import MOST, Session, terms_of

from fedrec.errors import PrivacyRefusal, WireError
from fedrec.exchange.secagg import Consents, Survivors


@pytest.fixture
def session():
    return Session(terms_of())


def test_the_same_request_gets_the_same_answer(session):
    asked = {}
    keep = session.ask

    def twice(phase, client, request):
        first, second = keep(phase, client, request), keep(phase, client, request)
        asked[phase] = np.array_equal(first, second) if phase == "mask" else first == second
        return first

    session.ask = twice
    assert session.total().tolist() == session.honest(range(8)).tolist()
    assert asked == dict.fromkeys(("advertise", "share", "mask", "consent", "reveal"), True)


def test_a_server_that_lost_signatures_may_ask_with_others(session):
    """Which four neighbours agreed does not matter; what they agreed on does."""
    shown = session.consented()[2]
    fewer = Consents(shown.clients[:4], shown.signatures[:4])
    others = Consents(shown.clients[3:], shown.signatures[3:])
    assert session.maskers[2].reveal(fewer) == session.maskers[2].reveal(others) == session.maskers[2].reveal(shown)


def test_steps_come_in_order(session):
    delivery = session.shared()[2]
    fresh = Session(terms_of()).maskers
    everybody = Survivors(b"\xff")
    late = [
        lambda: fresh[0].share(session.server._cohort.rosters()[0]),
        lambda: fresh[1].mask(session.vectors[1], delivery, most=MOST),
        lambda: fresh[2].consent(everybody),
        lambda: fresh[3].reveal(Consents((), ())),
        lambda: session.maskers[2].consent(everybody),
    ]
    for step in late:
        with pytest.raises(PrivacyRefusal, match="P13: a round has its steps in order"):
            step()


def test_after_the_end_nothing_is_told(session):
    shown = session.consented()
    device = session.maskers[2]
    device.reveal(shown[2])
    device.close()
    for ask in (device.advertise, lambda: device.reveal(shown[2])):
        with pytest.raises(PrivacyRefusal, match="P13: "):
            ask()
    assert device._secrets is None and device._around is None and device._said == []


def test_secrets_are_not_shown(session):
    session.masked()
    secrets = session.maskers[2]._secrets
    assert repr(secrets) == "_Secrets()"
    assert not hasattr(session.maskers[2], "seed")


@pytest.mark.parametrize(
    ("vector", "most", "error", "reason"),
    [
        (np.full(6, 1001), MOST, PrivacyRefusal, "within the bound"),
        (np.full(6, -1001), MOST, PrivacyRefusal, "within the bound"),
        (np.full(6, np.iinfo(np.int64).min), MOST, PrivacyRefusal, "within the bound"),
        (np.zeros(6, np.int64), 2**31, PrivacyRefusal, "fits the modulus"),
        (np.zeros(6, np.int64), -1, PrivacyRefusal, "fits the modulus"),
        (np.zeros(5, np.int64), MOST, WireError, "one size"),
        (np.zeros((6, 1), np.int64), MOST, WireError, "one size"),
        (np.zeros(6), MOST, WireError, "one size"),
        (np.zeros(6, np.int32), MOST, WireError, "one size"),
    ],
)
def test_a_vector_that_may_overflow_is_not_masked(session, vector, most, error, reason):
    delivery = session.shared()[2]
    with pytest.raises(error, match=reason):
        session.maskers[2].mask(vector, delivery, most=most)
    assert session.maskers[2]._secrets is None


@pytest.mark.parametrize("most", [1000, 2**31 - 1])
def test_a_vector_at_its_bound_is_masked(session, most):
    session.vectors = {client: np.full(6, most * (-1) ** client) for client in range(8)}
    delivery = session.shared()
    for client in range(8):
        session.server.add(client, session.maskers[client].mask(session.vectors[client], delivery[client], most=most))
    consents = session.server.consents(session.answers("consent", session.server.survivors()))
    assert session.server.total(session.answers("reveal", consents)).tolist() == [0] * 6


def test_what_was_sent_cannot_be_changed_behind_the_devices_back(session):
    sent = session.maskers[2].mask(session.vectors[2], session.shared()[2], most=MOST)
    with pytest.raises(ValueError, match="read-only"):
        sent += 1


def test_errors_name_numbers_and_no_keys(session):
    roster = replace(session.advertised()[2], leaves=b"")
    with pytest.raises(PrivacyRefusal) as refused:
        session.maskers[2].share(roster)
    assert refused.value.code == "P13" and refused.value.got == {}
    assert refused.value.remedy == "The round goes on without this device."
