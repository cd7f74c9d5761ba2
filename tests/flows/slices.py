"""Runs whose people are cut into slices, wherever these are worked on, and what such runs leave."""

import numpy as np
from safetensors.numpy import load_file

from fedrec.exchange.client import shard_app
from fedrec.exchange.crew import Shards
from fedrec.exchange.flower import crashed
from fedrec.exchange.serve import serve
from fedrec.population.engines import partition
from fedrec.population.grid import LocalGrid, in_process
from fedrec.population.shard import Shard
from fedrec.population.simulate import Simulation
from fedrec.population.stacked import Stacked
from fedrec.privacy.chain import Book
from fedrec.spec import Plan
from fedrec.speed import Speed

ONE = Speed(threads=1)
WHOLE = {
    "data": {"options": {"users": "40", "items": "64"}},
    "model": {"encoder": "hash", "dim": 16},
    "training": {"embedding_rate": 0.5},
    "federation": {"rounds": 3, "cohort": 10},
    "evaluation": {"every": 0, "baselines": "none"},
}
REPLAYED = {"privacy": {"mode": "user-central", "noise": "test", "force": True}}


def plan(**over):
    return Plan().override(WHOLE).override(over)


def trained(path, plan, speed, told=lambda row: None):
    """A whole run: the rows of its metrics."""
    simulation = Simulation.start(plan, path, speed=speed)
    simulation.train(told)
    return simulation.run.metrics()


def after(number, do):
    """What a run is told with: `do` once round `number` is over."""
    return lambda row: do() if row["round"] == number else None


def kept(path):
    """What a run leaves: everything in the checkpoint, and what the devices hold."""
    return {**load_file(path / "checkpoint.safetensors"), "devices": np.load(path / "devices" / "embeddings.npy")}


def charged(path):
    """What the ledger says of each round, but for the time of day."""
    return [
        (record.state, record.round, record.event, record.digest) for record in Book.read(path / "ledger.jsonl").records
    ]


def on_shards(path, plan, nodes, *, lost=None):
    """The same run on shards in this process; the reply of node `lost[0]` in round `lost[1]` does not come."""
    simulation = Simulation.start(plan, path, speed=ONE)
    stacked = Stacked(simulation.fleet, ONE)
    whole = in_process(shard_app(lambda context: Shard.of(stacked, partition(context), nodes)), nodes)

    def answers(messages):
        for message in messages:
            if lost and (message.metadata.dst_node_id - 1, message.metadata.group_id) == (lost[0], str(lost[1])):
                yield crashed(message, "lost")
            else:
                yield from whole.send_and_receive([message])

    serve(simulation.task, LocalGrid(answers, nodes), path, crew=Shards(nodes))
