"""A federation of devices without people, for tests of what the server does."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict

from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.grid import LocalGrid
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Level
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.sampling import Poisson
from fedrec.privacy.terms import Budget
from fedrec.randomness import stream
from fedrec.rounds.aggregate import CentralRounds, OpenRounds, ServerOptimizer
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.spec import FederationSpec

CLIENTS, SIZE, TASK = 12, 5, "the task"
SPEC = FederationSpec(rounds=4, cohort=6, learning_rate=0.1, weight_decay=0.01, quorum=0.5)
SERVER = ServerOptimizer(SPEC, np.array([True, True, True, True, False]))
INITIAL = np.arange(SIZE, dtype=np.float32)
OPEN = OpenRounds(seed=0, size=6)
PLAN = PrivacyPlan(
    budget=Budget.of(8.0, CLIENTS), rounds=4, sampler=Poisson(0.5), clip=1.0, grid=2**10, multiplier=2.5,
    level=Level.TEST,
)  # fmt: skip


def local(client, number, shared):
    """What a client learns: its own pull, and a little back to zero."""
    pull = stream(0, "toy", client, number).normal(size=SIZE)
    return (0.1 * pull - 0.05 * shared).astype(np.float32)


@dataclass
class Toy:
    """A device without a person: `private` ones clip to the grid."""

    client: int
    private: bool = False
    task: str = TASK

    def take_part(self, number, shared):
        delta = local(self.client, number, shared)
        return PLAN.clip_update(delta.astype(np.float64)).vector.astype(np.int32) if self.private else delta


def partition(context):
    return int(context.node_config["partition-id"])


def grid_of(*, private=False, client_of=lambda place: place, nodes=CLIENTS):
    return LocalGrid(client_app(lambda context: Toy(client_of(partition(context)), private)), nodes)


class Tampered:
    """A grid on which `tamper` gets every request with its honest reply, and says what arrives instead."""

    def __init__(self, grid, tamper):
        self.grid, self.tamper = grid, tamper

    def get_node_ids(self):
        return self.grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        requests = list(messages)
        replies = list(self.grid.send_and_receive(requests, timeout=timeout))
        return replies if requests[0].metadata.message_type == wire.HELLO else self.tamper(requests, replies)


@contextmanager
def strategy_of(folder, *, private=False):
    folder.mkdir(exist_ok=True)
    if not private:
        yield FederatedTraining(SPEC, OPEN, SERVER, task=TASK, folder=folder)
        return
    with Ledger(folder / "ledger.jsonl", PLAN) as ledger:
        rounds = CentralRounds(PLAN, ledger, 0, Conduct(sampler=PLAN.sampler))
        yield FederatedTraining(SPEC, rounds, SERVER, task=TASK, folder=folder)


def train(folder, *, private=False, grid=None, rounds=0, observers=()):
    """Run until `rounds` from whatever is in `folder`: the shared vector, and what was told."""
    told = []
    with strategy_of(folder, private=private) as strategy:
        strategy.observers.extend([told.append, *observers])
        grid = grid or grid_of(private=private)
        strategy.join(grid, CLIENTS)
        result = strategy.start(grid, wire.arrays(INITIAL), num_rounds=rounds)
    return wire.vector(result.arrays), told


def saved(folder):
    return Checkpoint.load(folder / "checkpoint.safetensors", TASK)


def vector_of(change):
    """Forge a reply: the same but for its vector."""

    def forge(request, reply):
        vector = wire.arrays(change(wire.vector(reply.content["vector"])))
        return Message(RecordDict({**reply.content, "vector": vector}), reply_to=request)

    return forge
