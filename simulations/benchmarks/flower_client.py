"""The plainest Flower client: one clipped step. A module of its own, so that Ray's actors import it by its name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from workload import Workload

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """The model that the server sent, moved by the client's clipped update."""
    client = int(context.node_config["partition-id"])
    shared = message.content["arrays"]["shared"].numpy()
    moved = shared + _workload(str(message.content["config"]["folder"])).update(client, shared)
    metrics = MetricRecord({"num-examples": 1, "client": client, "threads": torch.get_num_threads()})
    return Message(RecordDict({"arrays": ArrayRecord({"shared": Array(moved)}), "metrics": metrics}), reply_to=message)


@lru_cache(maxsize=1)
def _workload(folder: str) -> Workload:
    """Opened once for each actor: Flower is charged neither for our data nor for our model."""
    return Workload.open(Path(folder))
