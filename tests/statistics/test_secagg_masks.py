"""What the server sees of one client is uniform, whatever the client has; each test also rejects what is not.

Fresh randomness, false alarms once in a million, no retries.
"""

import os

import numpy as np
import pytest
from masked import Session, terms_of
from scipy.stats import chi2

from fedrec.exchange.secagg import keys

ALARM = 1e-6
DIM, CLIENT = 40_000, 2


def uniform_p(words, bits):
    """The smaller p-value of χ² over the 256 values of the lowest and of the highest eight bits."""
    low, high = words & words.dtype.type(255), words >> words.dtype.type(bits - 8)
    return 2 * min(fit_p(np.bincount(part.astype(np.int64), minlength=256)) for part in (low, high))


def fit_p(counts):
    expected = counts.sum() / counts.size
    return float(chi2.sf(((counts - expected) ** 2).sum() / expected, counts.size - 1))


def sent(bits, vector):
    """What one client sends for `vector`, and the session."""
    session = Session(terms_of(dim=DIM, bits=bits))
    for masker in session.maskers.values():
        masker._entropy = os.urandom
        masker._secrets.seed = os.urandom(32)
    session.vectors = dict.fromkeys(session.clients, vector)
    return session.answers("mask", session.shared())[CLIENT], session


VECTORS = [np.zeros(DIM, np.int64), np.full(DIM, 1000), np.arange(DIM) % 1000]


@pytest.mark.parametrize("bits", [16, 32, 40, 64])
@pytest.mark.parametrize("vector", VECTORS, ids=["zeros", "ones", "steps"])
def test_a_masked_vector_is_uniform(bits, vector):
    assert uniform_p(sent(bits, vector)[0], bits) > ALARM


@pytest.mark.parametrize("bits", [16, 32, 40, 64])
def test_it_stays_uniform_for_who_knows_all_masks_but_its_own(bits):
    """As the server does of a client whose vector came too late; and without its own mask it is the vector."""
    words, session = sent(bits, VECTORS[1])
    ring, cohort, secrets = session.terms.residues, session.server._cohort, session.maskers[CLIENT]._secrets
    for other in cohort.near[CLIENT]:
        mask = ring.mask(keys.pair_seed(secrets.mask_key, cohort.adverts[other].mask_key, cohort.roll.root))
        words = words - mask if other < CLIENT else words + mask
    assert uniform_p(ring.folded(words), bits) > ALARM
    bare = ring.folded(words - ring.mask(keys.self_seed(secrets.seed, cohort.roll.root)))
    assert ring.centred(bare).tolist() == VECTORS[1].tolist()
    assert uniform_p(bare, bits) < ALARM


@pytest.mark.parametrize("bits", [32, 64])
def test_a_mask_that_is_not_uniform_is_caught(bits):
    words, _ = sent(bits, VECTORS[0])
    one = words.dtype.type(1)
    lame = {"even": words << one, "short": words >> one, "one bit set": words | (one << one)}
    assert {name: uniform_p(each, bits) < ALARM for name, each in lame.items()} == dict.fromkeys(lame, True)


def test_two_clients_with_one_vector_send_unrelated_words():
    """Their difference is uniform as well; of a client with itself it is zero."""
    _, session = sent(32, VECTORS[2])
    one, other = (session.maskers[client]._said[2][1] for client in (CLIENT, CLIENT + 1))
    assert uniform_p(one - other, 32) > ALARM
    assert uniform_p(one - one, 32) < ALARM
