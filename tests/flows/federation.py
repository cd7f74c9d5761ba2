"""A federation of devices without people, for tests of what the server does."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message, RecordDict
from plans import plan_of

from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.exchange.crew import Devices
from fedrec.exchange.masked import Masked
from fedrec.exchange.masks import Disguise, Enrolled, Trusting, Unsigned
from fedrec.exchange.secagg import degree_for
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.grid import in_process
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.masking import Masking, Neighbours
from fedrec.privacy.noise import Level
from fedrec.privacy.phase import Purpose
from fedrec.privacy.plan import PrivacyPlan
from fedrec.randomness import stream
from fedrec.rounds.aggregate import OpenRounds, PrivateRounds
from fedrec.rounds.checkpoint import Checkpoint
from fedrec.rounds.learner import Learner
from fedrec.rounds.memory import NoiseMemory
from fedrec.rounds.optimizer import ServerOptimizer
from fedrec.spec import FederationSpec

CLIENTS, SIZE, ROUNDS, TASK = 12, 5, 4, "the task"
SPEC = FederationSpec(rounds=ROUNDS, cohort=6, learning_rate=0.1, weight_decay=0.01, quorum=0.5)
SERVER = ServerOptimizer(SPEC, np.array([True, True, True, True, False]))
LEARNER = Learner(SERVER, SIZE, ROUNDS)
INITIAL = np.arange(SIZE, dtype=np.float32)
HEADER = wire.Header(TASK, 1, model=wire.digest(INITIAL))
OPEN = OpenRounds(seed=0, size=6)
PLAN = plan_of("poisson", rounds=ROUNDS, level=Level.TEST)


def local(client, number, shared):
    """What a client learns: its own pull, and a little back to zero."""
    pull = stream(0, "toy", client, number).normal(size=SIZE)
    return (0.1 * pull - 0.05 * shared).astype(np.float32)


@dataclass
class Start:
    """A warm start from the first three numbers that a client has."""

    size: int = 3

    def solve(self, mean, noise):
        return np.concatenate([mean, np.full(SIZE - 3, noise)]).astype(np.float32)

    def beside(self, mean, noise):
        return {}


@dataclass
class Toy:
    """A device without a person: under a `plan` it sends what the plan says, replayably at level `test`."""

    client: int
    plan: PrivacyPlan | None = None
    task: str = TASK
    disguise: Disguise | None = None

    def revealed(self, number):
        """It keeps no ledger, and forgets."""

    def take_part(self, turn, shared):
        delta = local(self.client, turn.number, shared)
        if self.plan is None:
            return delta
        crossing, warm = self.plan.crossing(turn.number, turn.clip), is_warm(self.plan) and turn.number == 1
        noise = None
        if crossing.share:
            noise = self.plan.noise(None if self.plan.private else stream(0, "share", self.client, turn.number))
        return crossing.send(delta[: 3 if warm else SIZE].astype(np.float64), noise)


def is_warm(plan):
    return plan is not None and plan.phases[0].purpose is Purpose.WARM_START


def learner_of(plan):
    """The learner of a plan's rounds."""
    return Learner(SERVER, SIZE, plan.rounds, Start() if is_warm(plan) else None) if plan else LEARNER


@dataclass(frozen=True)
class Public:
    """What masks have to know of a task."""

    privacy: PrivacyPlan
    hash: str = TASK

    @property
    def learner(self):
        return learner_of(self.privacy)


def masked(plan, dropouts=0.4):
    """The same plan behind masks, which can be lifted if this fraction falls silent."""
    graphs = [degree_for(int(schedule.expected(plan.population)), 0, dropouts) for schedule in plan.schedules]
    neighbours = tuple(Neighbours(graph.degree, graph.threshold) for graph in graphs)
    return replace(plan, masking=Masking(bits=32, neighbours=neighbours))


def disguise_of(client, plan):
    """The masks of a client that nobody enrolled, where the plan has masks."""
    masks = plan is not None and plan.masking is not None
    return Disguise(Public(plan), Enrolled(Unsigned(client), Trusting())) if masks else None


def partition(context):
    return int(context.node_config["partition-id"])


def grid_of(plan=None, *, client_of=lambda place: place, nodes=0):
    """A grid with a node for each client, or with so many."""
    nodes = nodes or (plan.population if plan else CLIENTS)
    toys = [Toy(client_of(place), plan, disguise=disguise_of(client_of(place), plan)) for place in range(nodes)]
    return grid_with(toys)


def grid_with(toys):
    """A grid with a node for each of these devices."""
    return in_process(client_app(lambda context: toys[partition(context)]), len(toys))


class Tampered:
    """A grid on which `tamper` gets every request with its honest reply, and says what arrives instead."""

    def __init__(self, grid, tamper):
        self.grid, self.tamper = grid, tamper

    def get_node_ids(self):
        return self.grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        requests = list(messages)
        replies = list(self.grid.send_and_receive(requests, timeout=timeout))
        hello = bool(requests) and requests[0].metadata.message_type == wire.HELLO
        return replies if hello else self.tamper(requests, replies)


def memory_of(folder):
    return NoiseMemory(folder / "noise", folder / "home" / "key")


@contextmanager
def strategy_of(folder, plan=None):
    folder.mkdir(exist_ok=True)
    if plan is None:
        yield FederatedTraining(SPEC, OPEN, LEARNER, task=TASK, folder=folder)
        return
    with Ledger(folder / "ledger.jsonl", plan) as ledger:
        conduct = Conduct(schedules=plan.schedules, minimum=plan.required)
        crew = Masked(Public(plan), folder / "secagg", Trusting()) if plan.masking else Devices()
        rounds = PrivateRounds(plan, ledger, 0, conduct, memory=memory_of(folder), sums=crew.sums)
        yield FederatedTraining(SPEC, rounds, learner_of(plan), task=TASK, folder=folder, crew=crew)


def train(folder, plan=None, *, grid=None, rounds=0, observers=()):
    """Run until `rounds` from whatever is in `folder`: the shared vector, and what was told."""
    told = []
    with strategy_of(folder, plan) as strategy:
        strategy.observers.extend([told.append, *observers])
        grid = grid or grid_of(plan)
        strategy.join(grid, plan.population if plan else CLIENTS)
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
