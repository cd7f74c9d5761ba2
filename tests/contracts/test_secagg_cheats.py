"""Clients that cheat: the sum of the others comes out exact, or none does; and the server says who was dropped why."""

from dataclasses import replace

import numpy as np
import pytest
from masked import Session, bytes_of, terms_of

from fedrec.errors import WireError
from fedrec.exchange.secagg import Masker, keys
from fedrec.exchange.secagg.field import split
from fedrec.exchange.secagg.messages import Consent, advertised
from fedrec.exchange.secagg.seals import KEY, seal_of
from fedrec.exchange.secagg.unmasking import Unmasking

CHEAT = 4
CLIENTS = frozenset(range(8))
NOISE = bytes_of("noise")


def garbled(envelopes):
    return tuple(NOISE(keys.ENVELOPE) for _ in envelopes)


def swapped(envelopes):
    return envelopes[1:] + envelopes[:1]


def signing(session, advert, **keys_):
    """An advert with other keys, soundly signed."""
    changed = replace(advert, **keys_)
    said = advertised(session.terms, advert.client, changed.envelope_key, changed.mask_key)
    return replace(changed, signature=session.site.enrol(advert.client).sign(said))


def sum_after(phase, change, dropped=None):
    """The server, and the sum where one client changes what it sends in one phase."""
    session = Session(terms_of(), dropped=dropped or {})
    session.changes = {(phase, CHEAT): lambda sent: change(session, sent)}
    return session, session.total()


LEFT_OUT = [
    ("advertise", lambda _, sent: replace(sent, client=5), "not asked"),
    ("advertise", lambda _, sent: replace(sent, mask_key=NOISE(32)), "wrong signature"),
    ("advertise", lambda _, sent: replace(sent, certificate=NOISE(96)), "wrong signature"),
    ("advertise", lambda session, sent: signing(session, sent, mask_key=bytes(32)), "unusable key"),
    ("advertise", lambda session, sent: signing(session, sent, envelope_key=bytes(31) + b"\0"), "unusable key"),
    ("advertise", lambda session, sent: signing(session, sent, envelope_key=sent.mask_key), "reused key"),
    ("share", lambda _, sent: replace(sent, client=5), "not in the round"),
    ("share", lambda _, sent: replace(sent, holders=sent.holders[::-1]), "wrong shares"),
    ("share", lambda _, sent: replace(sent, seed_print=b""), "wrong shares"),
    ("share", lambda _, sent: replace(sent, envelopes=(*sent.envelopes[1:], b"")), "wrong size"),
    ("share", lambda _, sent: replace(sent, key_seals=(*sent.key_seals[1:], b"")), "wrong size"),
    ("mask", lambda _, sent: sent[1:], "wrong shape"),
    ("mask", lambda _, sent: sent.astype(np.float64), "wrong type"),
    ("mask", lambda _, sent: sent.astype(np.int64), "wrong type"),
    ("mask", lambda _, sent: sent[None], "wrong shape"),
]  # fmt: skip


@pytest.mark.parametrize(("phase", "change", "reason"), LEFT_OUT)
def test_a_client_that_sends_nonsense_is_left_out(phase, change, reason):
    session, total = sum_after(phase, change)
    assert total.tolist() == session.honest(CLIENTS - {CHEAT}).tolist()
    assert session.server.refused == {CHEAT: reason}


STAYS_IN = [
    ("share", lambda _, sent: replace(sent, envelopes=(NOISE(keys.ENVELOPE), *sent.envelopes[1:])), {}),
    ("share", lambda _, sent: replace(sent, seed_seals=(NOISE(32), *sent.seed_seals[1:])), {}),
    ("consent", lambda _, sent: replace(sent, client=5), {CHEAT: "not a survivor"}),
    ("consent", lambda _, sent: replace(sent, signature=NOISE(64)), {CHEAT: "wrong signature"}),
    ("consent", lambda session, _: session.maskers[5].consent(session.server.survivors()[5]),
     {CHEAT: "not a survivor"}),
    ("reveal", lambda _, sent: replace(sent, client=5), {CHEAT: "not a survivor"}),
    ("reveal", lambda _, sent: replace(sent, alive=sent.dropped, seed_shares=sent.key_shares, dropped=sent.alive,
                                       key_shares=sent.seed_shares), {CHEAT: "wrong shares"}),
    ("reveal", lambda _, sent: replace(sent, alive=(CHEAT, *sent.alive[1:])), {CHEAT: "wrong shares"}),
    ("reveal", lambda _, sent: replace(sent, alive=(), seed_shares=()), {}),
    ("reveal", lambda _, sent: replace(sent, seed_shares=(NOISE(33), *sent.seed_shares[1:])), {}),
    ("reveal", lambda _, sent: replace(sent, seed_shares=(b"", *sent.seed_shares[1:])), {}),
    ("reveal", lambda _, sent: replace(sent, seed_shares=swapped(sent.seed_shares)), {}),
    ("reveal", lambda _, sent: replace(sent, key_shares=tuple(NOISE(33) for _ in sent.key_shares)), {}),
]  # fmt: skip


@pytest.mark.parametrize(("phase", "change", "refused"), STAYS_IN)
def test_a_client_that_cheats_after_its_vector_changes_nothing(phase, change, refused):
    """One client dropped out, so that both kinds of shares are asked for."""
    session, total = sum_after(phase, change, {"mask": {1}})
    assert total.tolist() == session.honest(CLIENTS - {1}).tolist()
    assert session.server.refused == refused


@pytest.mark.parametrize("change", [garbled, swapped])
def test_envelopes_that_nobody_opens_end_the_sum_in_nothing(change):
    cheat = {("share", CHEAT): lambda sent: replace(sent, envelopes=change(sent.envelopes))}
    session = Session(terms_of(), changes=cheat)
    with pytest.raises(WireError, match="every mask can be lifted; got stuck=1"):
        session.total()
    assert session.server.refused == {CHEAT: "mask not lifted"}


def test_envelopes_that_nobody_opens_do_not_keep_anybody_from_masking():
    cheat = {("share", CHEAT): lambda sent: replace(sent, envelopes=garbled(sent.envelopes))}
    session = Session(terms_of(), changes=cheat)
    session.masked()
    assert session.refused == {} and session.server.alive == CLIENTS


def redealt(session, sent, shares):
    """What a client sends that deals other shares of its mask key, sealed as if they were true."""
    cohort, mine = session.server._cohort, session.maskers[CHEAT]._secrets.envelope_key
    envelopes = []
    for holder, share in zip(sent.holders, shares, strict=True):
        where = keys.place(cohort.roll.root, CHEAT, holder)
        key = keys.envelope_key(mine, cohort.adverts[holder].envelope_key, where)
        envelopes.append(keys.closed(key, (share, share), where, NOISE))
    seals = tuple(seal_of(cohort.roll.root, KEY, CHEAT, share) for share in shares)
    return replace(sent, envelopes=tuple(envelopes), key_seals=seals)


OTHER_KEYS = {
    "of another key": split(bytes(32), 4, range(1, 8), NOISE),
    "of many keys": [NOISE(32).rjust(33, b"\0") for _ in range(7)],
    "of no key": [(2**256).to_bytes(33, "big")] * 7,
    "of no field": [b"\xff" * 33] * 7,
}


@pytest.mark.parametrize("shares", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_false_shares_of_a_key_end_the_sum_in_nothing(shares):
    session = Session(terms_of(), dropped={"mask": {CHEAT}})
    session.changes = {("share", CHEAT): lambda sent: redealt(session, sent, shares)}
    with pytest.raises(WireError, match="stuck=1"):
        session.total()
    assert session.server.refused == {CHEAT: "mask not lifted"}


def test_true_shares_of_a_key_do_not():
    """The way of cheating above, without the cheat."""
    session = Session(terms_of(), dropped={"mask": {CHEAT}})
    places = [holder + 1 for holder in range(8) if holder != CHEAT]

    def same(sent):
        return redealt(session, sent, split(session.maskers[CHEAT]._secrets.mask_key, 4, places, NOISE))

    session.changes = {("share", CHEAT): same}
    assert session.total().tolist() == session.honest(CLIENTS - {CHEAT}).tolist()


def test_without_seals_a_false_share_would_stop_the_sum(monkeypatch):
    monkeypatch.setattr(Unmasking, "_true", lambda *_: True)
    with pytest.raises(WireError, match="every mask can be lifted"):
        sum_after("reveal", lambda _, sent: replace(sent, seed_shares=swapped(sent.seed_shares)))


def test_who_was_not_asked_is_not_heard():
    session = Session(terms_of())
    adverts = session.answers("advertise", dict.fromkeys(session.clients))
    stranger = Masker(session.terms, session.site.enrol(30), session.site)
    assert 30 not in session.server.roster({**adverts, 30: stranger.advertise()})
    assert session.server.refused == {30: "not asked"}


def test_a_consent_of_who_sent_nothing_counts_for_nothing():
    session = Session(terms_of(), dropped={"mask": {CHEAT}})
    survivors = session.masked()
    sent = session.answers("consent", survivors)
    assert CHEAT not in session.server.consents({**sent, CHEAT: Consent(CHEAT, NOISE(64))})
    assert session.server.refused == {CHEAT: "not a survivor"}
