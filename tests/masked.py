"""A site, its enrolled clients and a whole secure sum in memory, shared by the tests of fedrec.exchange.secagg."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedrec.errors import PrivacyRefusal, WireError
from fedrec.exchange.secagg import Aggregation, Masker, Terms
from fedrec.randomness import stream

PHASES = ("advertise", "share", "mask", "consent", "reveal")
MOST = 1000


def bytes_of(*path):
    """An entropy that can be replayed: SHA-256 of a path and a counter."""
    drawn = iter(range(10**9))

    def entropy(count):
        blocks = (count + 31) // 32
        raw = b"".join(hashlib.sha256(repr((path, next(drawn))).encode()).digest() for _ in range(blocks))
        return raw[:count]

    return entropy


@dataclass
class Person:
    """One enrolled client, with a key that the site certified."""

    client: int
    key: Ed25519PrivateKey
    certificate: bytes

    def sign(self, message):
        return self.key.sign(message)


class Site:
    """Certifies keys, and checks its own certificates."""

    def __init__(self, name="site"):
        self.key = Ed25519PrivateKey.from_private_bytes(bytes_of(name)(32))

    def enrol(self, client):
        key = Ed25519PrivateKey.from_private_bytes(bytes_of("person", client)(32))
        public = key.public_key().public_bytes_raw()
        return Person(client, key, public + self.key.sign(_seat(client, public)))

    def check(self, client, certificate, message, signature):
        try:
            self.key.public_key().verify(certificate[32:], _seat(client, certificate[:32]))
            Ed25519PublicKey.from_public_bytes(certificate[:32]).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def _seat(client, public):
    return b"seat" + client.to_bytes(8, "big") + public


def terms_of(**changes):
    """Eight clients in a complete graph: four lift a mask, five must survive."""
    usual = {
        "task": "t",
        "round": 3,
        "nonce": "n",
        "dim": 6,
        "bits": 32,
        "cohort": 8,
        "degree": 7,
        "threshold": 4,
        "least": 5,
    }
    return Terms(**{**usual, **changes})


@dataclass
class Session:
    """One secure sum among `clients`, step by step. `changes` edits what one client sends, by (phase, client)."""

    terms: Terms
    clients: tuple[int, ...] = tuple(range(8))
    seed: str = ""
    masker: type = Masker
    dropped: dict[str, set[int]] = field(default_factory=dict)
    changes: dict[tuple[str, int], Callable] = field(default_factory=dict)

    def __post_init__(self):
        self.site = Site()
        self.maskers = {
            client: self.masker(
                self.terms, self.site.enrol(client), self.site, entropy=bytes_of(self.seed, self.terms.round, client)
            )
            for client in self.clients
        }
        rng = stream(7, self.seed, "vectors")
        self.vectors = {client: rng.integers(-MOST, MOST + 1, self.terms.dim) for client in self.clients}
        self.server = Aggregation(self.terms, self.clients, self.site)
        self.refused = {}

    def answers(self, phase, requests):
        """What those who are asked and still there send back; a client that refuses is gone from then on."""
        gone = set().union(*(self.dropped.get(past, ()) for past in PHASES[: PHASES.index(phase) + 1]))
        answers = {}
        for client in requests.keys() - gone - self.refused.keys():
            try:
                answer = self.ask(phase, client, requests[client])
            except (PrivacyRefusal, WireError) as error:
                self.refused[client] = error
            else:
                change = self.changes.get((phase, client))
                answers[client] = change(answer) if change else answer
        return answers

    def ask(self, phase, client, request):
        masker = self.maskers[client]
        if phase == "advertise":
            return masker.advertise()
        if phase == "mask":
            return masker.mask(self.vectors[client], request, most=MOST)
        return getattr(masker, phase)(request)

    def advertised(self):
        return self.server.roster(self.answers("advertise", dict.fromkeys(self.clients)))

    def shared(self):
        return self.server.deliveries(self.answers("share", self.advertised()))

    def masked(self):
        """Everything up to the survivors: who is told what."""
        for client, masked in self.answers("mask", self.shared()).items():
            self.server.add(client, masked)
        return self.server.survivors()

    def consented(self):
        return self.server.consents(self.answers("consent", self.masked()))

    def total(self):
        return self.server.total(self.answers("reveal", self.consented()))

    def honest(self, clients):
        """The sum that `clients` have."""
        return sum((self.vectors[client] for client in clients), np.zeros(self.terms.dim, np.int64))
