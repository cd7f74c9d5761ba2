"""Servers that lie. Each lie is also told to a device without the check that catches it, and there it works: so the
check is known to be what stops it.
"""

import sys
import types
from pathlib import Path

import lies
import pytest
from lies import VICTIM
from masked import Session, terms_of

from fedrec.errors import PrivacyRefusal, WireError
from fedrec.exchange.secagg import Masker, keys, masker

NO_MEMORY = ("if step < len(self._said):", "if False:")
NO_SIGNATURE = ("if not self._witness.check(advert.client, advert.certificate, said, advert.signature):", "if False:")
NO_DISTINCT = (
    "if len({advert.client for advert in everyone}) < len(everyone) or len(public) < 2 * len(everyone):", "if False:"
)  # fmt: skip
NO_LEAST = ("if not self.terms.least <= len(roll.leaves) <= self.terms.cohort:", "if False:")
NO_SELF = ("if mine.leaf not in roll.leaves:", "if False:")
NO_GRAPH = ("if frozenset(advert.leaf for advert in adverts) != roll.neighbours(mine.leaf):", "if False:")
NO_HELD = ("if len(secrets.held) < self.terms.threshold:", "if False:")
NO_PLACE = ("keys.place(root, me, holder)", 'b""'), ("keys.place(around.roll.root, dealer, me)", 'b""')
NO_SURVIVOR = ("if mine.leaf not in alive or not near <= self._dealers:", "if False:")
NO_ENOUGH = ("if len(alive) < self.terms.least or len(near) < self.terms.threshold:", "if False:")
NO_CONSENT = ("if agreed < self.terms.threshold:", "if False:")
NO_SAME = ("return self._witness.check(advert.client, advert.certificate, said, signature)", "return True")
NO_CENSUS = (
    "sum(self._agrees(around.adverts[client], given[client]) for client in near & given.keys())",
    "sum(client in near for client in consents.clients)",
)

LIES = [
    (lies.split_views, [NO_CONSENT]),
    (lies.second_unmask, [NO_MEMORY]),
    (lies.second_vector, [NO_MEMORY]),
    (lies.swapped_key, [NO_SIGNATURE]),
    (lies.self_made_client, [NO_SIGNATURE]),
    (lies.borrowed_number, [NO_SIGNATURE]),
    (lies.lower_threshold, [NO_SIGNATURE]),
    (lies.replayed_adverts, [NO_SIGNATURE]),
    (lies.one_as_two, [NO_DISTINCT]),
    (lies.one_key_for_two, [NO_DISTINCT]),
    (lies.shrunk_roster, [NO_LEAST]),
    (lies.crowded_roster, [NO_LEAST]),
    (lies.left_out, [NO_SELF]),
    (lies.chosen_neighbours, [NO_GRAPH]),
    (lies.two_rosters, NO_PLACE),
    (lies.old_envelopes, [NO_HELD]),
    (lies.starved, [NO_HELD]),
    (lies.dead_myself, [NO_SURVIVOR]),
    (lies.survivor_without_mask, [NO_SURVIVOR]),
    (lies.too_few_survivors, [NO_ENOUGH]),
    (lies.too_few_neighbours, [NO_ENOUGH]),
    (lies.no_consents, [NO_CONSENT]),
    (lies.consents_to_others, [NO_SAME]),
    (lies.one_consent_often, [NO_CENSUS]),
]
STOPPED_TWICE = [lies.few_neighbours, lies.envelope_of_a_stranger, lies.early_reveal, lies.beyond_the_roster]


def mutant(*edits):
    """A `Masker` with each (old, new) in its source replaced."""
    source = Path(masker.__file__).read_text(encoding="utf-8")
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = types.ModuleType("mutant")
    sys.modules["mutant"] = module  # where dataclasses look for their types
    try:
        exec(compile(source, "mutant", "exec"), module.__dict__)
    finally:
        del sys.modules["mutant"]
    return module.Masker


def works(lie, made=Masker):
    """Whether a device falls for a lie."""
    try:
        return lie(Session(terms_of(), masker=made))
    except (PrivacyRefusal, WireError):
        return False


@pytest.mark.parametrize("lie", [*(lie for lie, _ in LIES), *STOPPED_TWICE], ids=lambda lie: lie.__name__)
def test_a_device_falls_for_no_lie(lie):
    assert not works(lie)


@pytest.mark.parametrize(("lie", "edits"), LIES, ids=lambda each: getattr(each, "__name__", ""))
def test_without_its_check_a_device_falls_for_the_lie(lie, edits):
    assert works(lie, mutant(*edits))


@pytest.mark.parametrize("lie", STOPPED_TWICE, ids=lambda lie: lie.__name__)
def test_a_device_says_why_it_refuses(lie):
    with pytest.raises((PrivacyRefusal, WireError), match="neighbours|steps in order|survivors"):
        lie(Session(terms_of()))


def test_a_server_that_calls_a_client_dropped_learns_one_mask_of_two():
    """It has the victim's vector and keeps it aside: what is left on it is the self-mask, which nobody reveals."""
    session = Session(terms_of())
    masked = session.answers("mask", session.shared())
    for client in set(session.clients) - {VICTIM}:
        session.server.add(client, masked[client])
    consents = session.server.consents(session.answers("consent", session.server.survivors()))
    revealed = session.answers("reveal", consents)
    assert session.server.total(revealed).tolist() == session.honest(set(session.clients) - {VICTIM}).tolist()
    assert all(VICTIM in each.dropped and VICTIM not in each.alive for each in revealed.values())
    left = session.terms.residues.folded(masked[VICTIM] - _pairwise(session, VICTIM))
    assert session.terms.residues.centred(left).tolist() != session.vectors[VICTIM].tolist()
    seed = session.maskers[VICTIM]._secrets.seed
    self_mask = session.terms.residues.mask(keys.self_seed(seed, session.server._cohort.roll.root))
    assert session.terms.residues.centred(left - self_mask).tolist() == session.vectors[VICTIM].tolist()


def _pairwise(session, client):
    cohort, key = session.server._cohort, session.maskers[client]._secrets.mask_key
    masks = {other: session.terms.residues.mask(keys.pair_seed(key, cohort.adverts[other].mask_key, cohort.roll.root))
             for other in cohort.near[client]}  # fmt: skip
    return sum((mask if client > other else -mask) for other, mask in masks.items())


def test_whoever_is_lied_to_forgets_its_secrets():
    session = Session(terms_of())
    assert not works(lambda _: lies.second_vector(session))
    device = session.maskers[VICTIM]
    assert device._secrets is None and device._said == []
    with pytest.raises(PrivacyRefusal, match="P13: a device that left a round"):
        device.advertise()
