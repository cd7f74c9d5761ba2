"""What one secure sum costs: `python simulations/benchmarks/secagg.py --clients 100 --dim 50000`.

Runs a whole round in this process, with the graph for 5 % colluders and 10 % dropouts, and drops that many after they
shared their secrets. Prints seconds of one client (median) and of the server, and the bytes that each client sends and
receives, phase by phase, beside the vector itself. Identities are P-384 keys, as on devices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field
from statistics import median
from typing import Any, TypeVar

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from fedrec.exchange.secagg import Advert, Aggregation, Masker, Survivors, Terms, degree_for
from fedrec.exchange.secagg.residues import Words
from fedrec.randomness import stream

Answer = TypeVar("Answer")
COLLUDERS, DROPOUTS, MOST = 0.05, 0.1, 2**20
SIGNED = ec.ECDSA(SHA384())


@dataclass(frozen=True)
class Person:
    """An identity that vouches for itself: enrolment is not measured here."""

    client: int
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate(self) -> bytes:
        """As long as a real one."""
        return bytes(64) + self.client.to_bytes(49, "big")

    def sign(self, message: bytes) -> bytes:
        """A signature on P-384."""
        return self.key.sign(message, SIGNED)


@dataclass(frozen=True)
class Registry:
    """Knows everybody's key."""

    keys: dict[int, ec.EllipticCurvePublicKey]

    def check(self, client: int, certificate: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this client's."""
        try:
            self.keys[client].verify(signature, message, SIGNED)
        except InvalidSignature:
            return False
        return True


@dataclass
class Costs:
    """Seconds and bytes of each phase: the median client's and the server's, and the longest message each way."""

    client: dict[str, float] = field(default_factory=dict)
    server: dict[str, float] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)

    def ask(self, phase: str, asked: Iterable[int], answer: Callable[[int], Answer]) -> dict[int, Answer]:
        """What each client answers."""
        took, answers = [], {}
        for client in asked:
            began = time.perf_counter()
            answers[client] = answer(client)
            took.append(time.perf_counter() - began)
        self.client[phase] = median(took)
        self.up[phase] = max(map(size, answers.values()))
        return answers

    def serve(self, phase: str, work: Callable[[], dict[int, Answer]]) -> dict[int, Answer]:
        """What the server tells each client after a phase."""
        began = time.perf_counter()
        told = work()
        self.server[phase] = time.perf_counter() - began
        self.down[phase] = max(map(size, told.values()), default=0)
        return told


def size(message: Any) -> int:  # noqa: ANN401  (any message, or a vector)
    """Bytes of its contents, eight for a number; how they are framed is the transport's business."""
    if isinstance(message, np.ndarray):
        return int(message.nbytes)
    if isinstance(message, tuple):
        return sum(map(size, message))
    if isinstance(message, bytes | str):
        return len(message)
    return 8 if isinstance(message, int) else size(astuple(message))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--dim", type=int, default=50_000)
    parser.add_argument("--bits", type=int, default=32)
    given = parser.parse_args()
    graph = degree_for(given.clients, int(COLLUDERS * given.clients), DROPOUTS)
    terms = Terms(task="benchmark", round=1, nonce="", dim=given.dim, bits=given.bits, cohort=given.clients,
                  degree=graph.degree, threshold=graph.threshold, least=graph.least)  # fmt: skip
    costs = run(terms, given.clients)
    print(
        f"{given.clients} clients, {graph.degree} neighbours each, {graph.threshold} lift a mask, {given.dim:,} numbers"
    )
    print(f"  {'':10}{'client, ms':>12}{'server, ms':>12}{'sends, B':>12}{'is told, B':>12}")
    for phase, seconds in costs.client.items():
        print(f"  {phase:10}{1000 * seconds:12.2f}{1000 * costs.server[phase]:12.2f}"
              f"{costs.up[phase]:12,}{costs.down[phase]:12,}")  # fmt: skip


def run(terms: Terms, count: int) -> Costs:
    """The costs of one round, whose sum is checked. A tenth of the clients leave before they send a vector."""
    rng, costs = stream(0, "benchmark"), Costs()
    people = {client: Person(client, ec.generate_private_key(ec.SECP384R1())) for client in range(count)}
    registry = Registry({client: person.key.public_key() for client, person in people.items()})
    vectors = {client: rng.integers(-MOST, MOST + 1, terms.dim) for client in people}
    server, devices = Aggregation(terms, range(count), registry), {}

    def advert(client: int) -> Advert:
        devices[client] = Masker(terms, people[client], registry)
        return devices[client].advertise()

    adverts = costs.ask("advertise", people, advert)
    rosters = costs.serve("advertise", lambda: server.roster(adverts))
    shares = costs.ask("share", rosters, lambda client: devices[client].share(rosters[client]))
    mail = costs.serve("share", lambda: server.deliveries(shares))
    stay = sorted(mail)[: count - int(DROPOUTS * count)]
    masked = costs.ask("mask", stay, lambda client: devices[client].mask(vectors[client], mail[client], most=MOST))
    survivors = costs.serve("mask", lambda: _added(server, masked))
    consents = costs.ask("consent", survivors, lambda client: devices[client].consent(survivors[client]))
    shown = costs.serve("consent", lambda: server.consents(consents))
    revealed = costs.ask("reveal", shown, lambda client: devices[client].reveal(shown[client]))
    total = costs.serve("reveal", lambda: {0: server.total(revealed)})[0]
    costs.down["reveal"] = 0
    if not np.array_equal(total, sum(vectors[client] for client in stay)):
        raise RuntimeError("the sum is not exact")
    return costs


def _added(server: Aggregation, masked: dict[int, Words]) -> dict[int, Survivors]:
    for client, words in masked.items():
        server.add(client, words)
    return server.survivors()


if __name__ == "__main__":
    main()
