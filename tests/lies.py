"""The lies of a server that deviates: each returns whether the device fell for it, or lets its refusal through."""

from dataclasses import replace

import numpy as np
from masked import MOST, Session, Site, bytes_of, terms_of

from fedrec.errors import PrivacyRefusal
from fedrec.exchange.secagg import Aggregation, Consents, Delivery, Masker, Roster, Survivors, keys
from fedrec.exchange.secagg.field import join
from fedrec.exchange.secagg.messages import consented
from fedrec.exchange.secagg.roll import Roll
from fedrec.exchange.secagg.seals import place_of

VICTIM, COLLUDER = 2, 7
SPARSE = terms_of(cohort=20, degree=6, least=8)
NINE = terms_of(cohort=9, degree=8, threshold=5)
TWENTY = tuple(range(20))


def alive(session, *gone):
    """All but `gone`, as survivors are told."""
    cohort = session.server._cohort
    return Survivors(cohort.flags([client for client in session.clients if client not in gone]))


def signed(session, client, survivors):
    """The consent that a client controlled by the server gives to anything."""
    said = consented(session.server._cohort.roll.root, client, survivors.alive)
    return session.site.enrol(client).sign(said)


def lifted(shares, threshold):
    """The secret behind the shares by holder, or None."""
    if len(shares) < threshold:
        return None
    return join({place_of(holder): share for holder, share in list(shares.items())[:threshold]})


def split_views(session):
    """Half of the clients hear that the victim survived, half that it dropped out; a colluder signs both."""
    seeds, mask_keys = {}, {}
    session.masked()
    held = session.maskers[COLLUDER]._secrets.held[VICTIM]
    seeds[COLLUDER], mask_keys[COLLUDER] = held
    views = {client: alive(session) for client in (0, 1, 3, VICTIM)} | dict.fromkeys((4, 5, 6), alive(session, VICTIM))
    consents = {client: session.maskers[client].consent(view).signature for client, view in views.items()}
    for client, view in views.items():
        agreed = [other for other in views if views[other] == view and other != client]
        signatures = [*(consents[other] for other in agreed), signed(session, COLLUDER, view)]
        try:
            revealed = session.maskers[client].reveal(Consents((*agreed, COLLUDER), tuple(signatures)))
        except PrivacyRefusal:
            continue
        if VICTIM in revealed.alive:
            seeds[client] = revealed.seed_shares[revealed.alive.index(VICTIM)]
        elif VICTIM in revealed.dropped:
            mask_keys[client] = revealed.key_shares[revealed.dropped.index(VICTIM)]
    key = lifted(mask_keys, session.terms.threshold)
    return lifted(seeds, session.terms.threshold) is not None and key is not None


def second_unmask(session):
    """After the sum of all, the sum of all but the victim."""
    session.total()
    view = alive(session, VICTIM)
    others = [client for client in session.clients if client != VICTIM]
    consents = {client: session.maskers[client].consent(view).signature for client in others}
    mask_keys = {}
    for client in others:
        near = [other for other in others if other != client]
        revealed = session.maskers[client].reveal(Consents(tuple(near), tuple(consents[other] for other in near)))
        mask_keys[client] = revealed.key_shares[revealed.dropped.index(VICTIM)]
    mine = session.server._cohort.adverts[VICTIM].mask_key
    return keys.public(lifted(mask_keys, session.terms.threshold)) == mine


def second_vector(session):
    """The same masks on another vector: the difference is naked."""
    delivery = session.shared()[VICTIM]
    device, zero = session.maskers[VICTIM], np.zeros(session.terms.dim, np.int64)
    first = device.mask(session.vectors[VICTIM], delivery, most=MOST)
    second = device.mask(zero, delivery, most=MOST)
    return session.terms.residues.centred(first - second).tolist() == session.vectors[VICTIM].tolist()


def rewritten(session, change):
    """The victim's roster with the cohort's adverts changed by `change`, hashed anew so that all agrees."""
    session.advertised()
    changed = change(dict(session.server._cohort.adverts))
    leaves = tuple(sorted(advert.leaf for advert in changed))
    near = Roll(session.terms, leaves).neighbours(session.maskers[VICTIM].advertise().leaf)
    return Roster.of(b"".join(leaves), [advert for advert in changed if advert.leaf in near])


def accepts(session, roster):
    """Whether the victim shares its secrets with this roster."""
    return bool(session.maskers[VICTIM].share(roster).envelopes)


def swapped_key(session):
    """A neighbour's mask key is the server's own."""
    mine = keys.public(bytes_of("server")(32))
    return accepts(session, rewritten(session, lambda all_: [
        replace(advert, mask_key=mine) if client == 4 else advert for client, advert in all_.items()
    ]))  # fmt: skip


def self_made_client(session):
    """A neighbour that never enrolled: its certificate is of another site."""
    stranger = Site("elsewhere").enrol(50)
    session = replace(session, terms=NINE)
    made = Masker(session.terms, stranger, session.site).advertise()
    return accepts(session, rewritten(session, lambda all_: [made, *all_.values()]))


def borrowed_number(session):
    """An enrolled client that signs for another's number, under the other's certificate."""
    thief = replace(session.site.enrol(4), key=session.site.enrol(COLLUDER).key)
    made = Masker(session.terms, thief, session.site).advertise()
    return accepts(session, rewritten(session, lambda all_: [*({**all_, 4: made}).values()]))


def lower_threshold(session):
    """The victim is told of a lower threshold than the others, whose adverts are for theirs."""
    session = replace(session, terms=terms_of(threshold=5))
    weak = session.masker(terms_of(threshold=4), session.site.enrol(VICTIM), session.site)
    session.maskers[VICTIM] = weak
    return accepts(session, rewritten(session, lambda all_: [*({**all_, VICTIM: weak.advertise()}).values()]))


def replayed_adverts(session):
    """The others' adverts are from the round before."""
    past = Session(replace(session.terms, round=2))
    past.advertised()
    return accepts(session, rewritten(session, lambda all_: [
        all_[VICTIM], *(advert for client, advert in past.server._cohort.adverts.items() if client != VICTIM)
    ]))  # fmt: skip


def one_as_two(session):
    """A colluder is on the roster twice, with keys for two neighbours."""
    session = replace(session, terms=NINE)
    again = Masker(session.terms, session.site.enrol(COLLUDER), session.site).advertise()
    return accepts(session, rewritten(session, lambda all_: [again, *all_.values()]))


def one_key_for_two(session):
    """Two colluders have one key."""
    twins = [Masker(session.terms, session.site.enrol(client), session.site, entropy=bytes) for client in (6, 7)]
    return accepts(session, rewritten(session, lambda all_: [
        *(advert for client, advert in all_.items() if client < 6), *(twin.advertise() for twin in twins)
    ]))  # fmt: skip


def shrunk_roster(session):
    """Four clients are left, fewer than may be summed."""
    session = replace(session, terms=terms_of(least=8, threshold=4))
    return accepts(session, rewritten(session, lambda all_: list(all_.values())[:5]))


def crowded_roster(session):
    """So many lines of nobody's that the complete graph turns into a ring."""
    session = replace(session, terms=terms_of(least=2))
    session.advertised()
    adverts = {advert.leaf: advert for advert in session.server._cohort.adverts.values()}
    mine = session.maskers[VICTIM].advertise().leaf
    for tries in range(10_000):  # the server looks for lines with which all are the victim's neighbours but one
        leaves = tuple(sorted([*adverts, bytes_of("nobody", tries)(32)]))
        near = Roll(session.terms, leaves).neighbours(mine)
        if near <= adverts.keys():
            return accepts(session, Roster.of(b"".join(leaves), [adverts[leaf] for leaf in near]))
    raise AssertionError("no such line was found")


def few_neighbours(session):
    """Everybody but three is somebody's hash; nobody can lift the victim's masks, or so it is told."""
    session = replace(session, terms=terms_of(least=2))
    return accepts(session, rewritten(session, lambda all_: list(all_.values())[:4]))


def left_out(session):
    """The victim is not on the roster."""
    return accepts(session, rewritten(session, lambda all_: [
        advert for client, advert in all_.items() if client != VICTIM
    ]))  # fmt: skip


def chosen_neighbours(session):
    """On a sparse graph the server picks whom the victim shares with."""
    session = replace(session, terms=SPARSE, clients=TWENTY)
    roster = session.advertised()[VICTIM]
    others = [client for client in TWENTY if client != VICTIM and client not in roster.clients]
    chosen = [session.server._cohort.adverts[client] for client in others[:6]]
    return accepts(session, Roster.of(roster.leaves, chosen))


def two_rosters(session):
    """Every other client is told of one client less."""
    session = replace(session, clients=tuple(range(9)), terms=NINE)
    rosters = session.advertised()
    fewer = Aggregation(session.terms, range(8), session.site)
    adverts = {client: advert for client, advert in session.server._cohort.adverts.items() if client < 8}
    rosters |= {client: roster for client, roster in fewer.roster(adverts).items() if client % 2}
    sent = {client: session.maskers[client].share(roster) for client, roster in rosters.items()}
    mail = {dealer: shares.envelopes[shares.holders.index(VICTIM)] for dealer, shares in sent.items()
            if dealer != VICTIM}  # fmt: skip
    delivery = Delivery(tuple(mail), tuple(mail.values()))
    return session.maskers[VICTIM].mask(session.vectors[VICTIM], delivery, most=MOST).size > 0


def old_envelopes(session):
    """What the neighbours wrote in the round before."""
    past = Session(replace(session.terms, round=2)).shared()[VICTIM]
    session.shared()
    return session.maskers[VICTIM].mask(session.vectors[VICTIM], past, most=MOST).size > 0


def starved(session):
    """All but three neighbours are said to be silent."""
    delivery = session.shared()[VICTIM]
    few = Delivery(delivery.dealers[-3:], delivery.envelopes[-3:])
    return session.maskers[VICTIM].mask(session.vectors[VICTIM], few, most=MOST).size > 0


def envelope_of_a_stranger(session):
    """An envelope from a number that is on no roster."""
    delivery = session.shared()[VICTIM]
    more = Delivery((*delivery.dealers, 99), (*delivery.envelopes, delivery.envelopes[0]))
    return session.maskers[VICTIM].mask(session.vectors[VICTIM], more, most=MOST).size > 0


def consents_to(session, *gone):
    """Whether the victim consents to the survival of all but `gone`."""
    session.masked()
    return bool(session.maskers[VICTIM].consent(alive(session, *gone)).signature)


def dead_myself(session):
    """The victim sent its vector, and is told that it did not."""
    return consents_to(session, VICTIM)


def too_few_survivors(session):
    """Fewer survivors than may be summed."""
    return consents_to(replace(session, terms=terms_of(least=8)), 0, 1)


def too_few_neighbours(session):
    """Enough survivors, too few of them near."""
    return consents_to(replace(session, terms=terms_of(least=2)), 0, 1, 3, 4)


def survivor_without_mask(session):
    """A neighbour that is said to be silent, and then to have survived."""
    delivery = session.shared()[VICTIM]
    few = Delivery(delivery.dealers[1:], delivery.envelopes[1:])
    session.maskers[VICTIM].mask(session.vectors[VICTIM], few, most=MOST)
    return bool(session.maskers[VICTIM].consent(alive(session)).signature)


def reveals(session, consents):
    """Whether the victim reveals shares for these consents."""
    session.maskers[VICTIM].consent(alive(session))
    return bool(session.maskers[VICTIM].reveal(consents).alive)


def no_consents(session):
    """Nobody signed anything."""
    session.masked()
    return reveals(session, Consents((), ()))


def consents_to_others(session):
    """The neighbours signed other survivors."""
    session.masked()
    near = [client for client in session.clients if client not in (VICTIM, 0)]
    signatures = tuple(session.maskers[client].consent(alive(session, 0)).signature for client in near)
    return reveals(session, Consents(tuple(near), signatures))


def one_consent_often(session):
    """One neighbour's signature, several times."""
    session.masked()
    return reveals(session, Consents((COLLUDER,) * 6, (signed(session, COLLUDER, alive(session)),) * 6))


def early_reveal(session):
    """Shares are asked for before the victim was told who survived."""
    session.masked()
    view = alive(session)
    near = tuple(client for client in session.clients if client != VICTIM)
    signatures = tuple(session.maskers[client].consent(view).signature for client in near)
    return bool(session.maskers[VICTIM].reveal(Consents(near, signatures)).alive)


def beyond_the_roster(session):
    """A survivor that is on no roster."""
    session.masked()
    return bool(session.maskers[VICTIM].consent(Survivors(b"\xff\x80")).signature)
