"""Consent: said by the person, kept with their events, and asked again before every piece that goes out."""

import json
import threading
from dataclasses import asdict

import pytest

from fedrec.device.store import Store
from fedrec.embed.consent import SETTING, Consent, ConsentState
from fedrec.errors import FedrecError, PrivacyRefusal, RunError, SpecError


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "events.sqlite") as store:
        yield store


@pytest.fixture
def consent(store):
    return Consent(store)


def test_at_first_the_app_may_personalise_and_nothing_may_leave(consent):
    state = consent.state()
    assert (state.personalizes, state.records, state.contributes, state.max_epsilon) == (True, True, False, None)
    with pytest.raises(PrivacyRefusal, match="P10: nothing leaves a device without its owner's consent"):
        consent.ticket().check()


def test_what_is_granted_is_allowed_until_it_is_withdrawn(consent):
    consent.grant("contribute", max_epsilon=4)
    assert consent.state() == ConsentState(contribute=True, max_epsilon=4.0)
    consent.ticket().check()
    consent.withdraw("contribute")
    assert consent.state() == ConsentState(withdrawals=1)
    with pytest.raises(PrivacyRefusal):
        consent.ticket().check()


def test_a_later_grant_does_not_bring_back_what_was_withdrawn(consent):
    consent.grant("contribute")
    before = consent.ticket()
    consent.pause()
    consent.resume()
    before.check()
    consent.withdraw("contribute")
    consent.grant("contribute")
    consent.ticket().check()
    with pytest.raises(PrivacyRefusal), before.permit():
        pass


def test_a_new_grant_says_all_of_its_terms(consent):
    consent.grant("contribute", max_epsilon=4)
    consent.grant("contribute")
    assert consent.state().max_epsilon is None


def test_the_two_uses_do_not_touch_each_other(consent):
    consent.grant("contribute", max_epsilon=2)
    consent.withdraw("personalize")
    assert consent.state() == ConsentState(personalize=False, contribute=True, max_epsilon=2.0)
    consent.grant("personalize")
    assert consent.state().contribute


def test_it_outlives_the_process_and_is_one_for_all_who_have_the_file_open(store, consent):
    consent.grant("contribute", max_epsilon=3)
    with Store(store.path) as other:
        assert Consent(other).state() == consent.state()
        Consent(other).withdraw("contribute")
    assert not consent.state().contributes


def test_a_pause_stops_both_and_ends_when_it_was_said_to(store):
    now = [1000.0]
    consent = Consent(store, clock=lambda: now[0])
    consent.grant("contribute")
    consent.pause(until=1060)
    state = consent.state()
    assert (state.records, state.contributes, state.personalizes) == (False, False, True)
    now[0] = 1059.9
    assert not consent.state().contributes
    now[0] = 1060.0
    assert consent.state() == ConsentState(contribute=True)


def test_a_pause_without_an_end_lasts_until_it_is_ended(store):
    consent = Consent(store, clock=lambda: 1e12)
    consent.grant("contribute")
    consent.pause()
    assert not consent.state().records
    consent.resume()
    assert consent.state() == ConsentState(contribute=True)


@pytest.mark.parametrize("cap", [0, -1, float("nan"), float("inf")])
def test_a_cap_is_a_number_above_0(consent, cap):
    with pytest.raises(SpecError, match="a cap on epsilon is positive"):
        consent.grant("contribute", max_epsilon=cap)
    assert not consent.state().contribute


@pytest.mark.parametrize("mistake", [
    lambda consent: consent.grant("personalize", max_epsilon=1), lambda consent: consent.grant("everything"),
    lambda consent: consent.withdraw("CONTRIBUTE"), lambda consent: consent.pause(until=float("inf")),
])  # fmt: skip
def test_mistakes_are_said_and_change_nothing(consent, mistake):
    with pytest.raises(FedrecError):
        mistake(consent)
    assert consent.state() == ConsentState()


@pytest.mark.parametrize("damage", [
    "", "[]", "{}", '{"contribute": true}', '{"personalize": "yes"}', "null",
    *(json.dumps(asdict(ConsentState(contribute=True)) | wrong) for wrong in (
        {"contribute": 1}, {"max_epsilon": "4"}, {"until": "never"}, {"withdrawals": None}, {"more": True},
    )),
])  # fmt: skip
def test_what_cannot_be_read_allows_nothing(store, consent, damage):
    store.set(SETTING, damage)
    state = consent.state()
    assert not (state.personalizes or state.records or state.contributes)


def test_changes_from_many_hands_are_not_lost(store):
    """A withdrawal that another thread's pause wrote over would be a consent that nobody gave."""
    consent = Consent(store)
    consent.grant("contribute")

    def pauses():
        for _ in range(20):
            consent.pause()
            consent.resume()

    threads = [threading.Thread(target=pauses) for _ in range(4)]
    for thread in threads:
        thread.start()
    consent.withdraw("contribute")
    for thread in threads:
        thread.join()
    assert consent.state() == ConsentState(withdrawals=1)


def test_a_withdrawal_holds_even_where_the_disk_does_not_take_it(store, monkeypatch):
    consent = Consent(store)
    consent.grant("contribute", max_epsilon=1)
    ticket, keep = consent.ticket(), store.set

    def full(name, value):
        raise RunError("the disk has room")

    monkeypatch.setattr(store, "set", full)
    with pytest.raises(RunError):
        consent.withdraw("contribute")
    assert not consent.state().contribute
    with pytest.raises(PrivacyRefusal):
        ticket.check()
    monkeypatch.setattr(store, "set", keep)
    consent.withdraw("contribute")
    Consent(store).grant("contribute")
    consent.ticket().check()
    with pytest.raises(PrivacyRefusal):
        ticket.check()
