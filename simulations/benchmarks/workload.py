"""One workload for every engine: the same people, model, start, local step and clip norm. Written once, opened by all.

The model is a plan's default over the synthetic library: MiniLM vectors (computed before any clock starts), a
bottleneck adapter, a softmax over the whole catalogue. A client takes one step on at most 64 of its choices, and its
update is clipped to `CLIP`. Peers draw these choices before the clock starts; fedrec's engines draw them every round,
and keep everybody's local embedding, release noise and write a ledger and a checkpoint besides. `python workload.py
FOLDER` writes the folder; this module must load in an environment without Flower.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec.device.profile import Events
from fedrec.device.training import LocalTraining, trainable
from fedrec.model.adapter import build_adapter
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.randomness import stream
from fedrec.spec import Plan

CLIP = 1.0
WARM_UP = 1  # rounds that no clock sees: engines start, caches fill


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is to do."""

    clients: int = 1000
    cohort: int = 200
    items: int = 800
    rounds: int = 4  # of a turn
    adapter: str = "bottleneck"
    encoder: str = "minilm"
    dim: int = 64
    examples: int = 64
    text: float = 1.0

    @classmethod
    def read(cls, folder: Path) -> Size:
        """That of a workload."""
        return cls(**json.loads((folder / "size.json").read_text()))

    @property
    def plan(self) -> Plan:
        """The plan of engines that follow one. Its ε is not the subject here, so noise may drown what is learnt."""
        data = {"source": "synthetic", "options": {"users": self.clients, "items": self.items}}
        # A cohort of fixed size, like the peers': clients per second are then known, though the cohort stays a secret.
        privacy = {"mode": "user-central", "clip": CLIP, "force": True, "schedule": "fixed"}
        return Plan.of({
            "name": "benchmark", "clients": self.clients, "data": data, "privacy": privacy,
            "model": {"encoder": self.encoder, "adapter": self.adapter, "dim": self.dim},
            "training": {"examples": self.examples},
            "profile": {"text": 0.5 * self.text, "search": self.text},
            "federation": {"rounds": self.rounds, "cohort": self.cohort},
            "evaluation": {"every": 0, "baselines": "none"},
        })  # fmt: skip


@dataclass(frozen=True)
class Width:
    """What an adapter over pooled vectors asks of its encoder."""

    dim: int
    name: str = "vectors"
    hash: str = ""

    def encode(self, texts: Sequence[str], *, public: bool = False) -> NDArray[np.float32]:
        """Nothing: the workload holds every vector."""
        raise NotImplementedError("the workload holds every vector")


@dataclass(frozen=True, eq=False)
class Workload:
    """An opened folder. `events` are what each client may train on, `picks` its examples; round 1 is at `start`."""

    size: Size
    model: Model
    start: NDArray[np.float32]
    events: list[Events]
    picks: list[Tensor]

    @classmethod
    def open(cls, folder: Path) -> Workload:
        """The workload that `write` left in `folder`."""
        size = Size.read(folder)
        kept = torch.load(folder / "workload.pt", weights_only=False)  # our own file, of a minute ago
        spec = size.plan.model
        encoder = open_encoder(size.encoder) if size.adapter == "lora" else Width(kept["items"].texts.values.shape[1])
        adapter = build_adapter(spec.adapter, encoder, rank=spec.rank, blocks=spec.blocks, seed=0)
        model = Model(adapter, kept["items"], spec)
        return cls(size, model, np.load(folder / "start.npy"), kept["events"], kept["picks"])

    @cached_property
    def training(self) -> LocalTraining:
        """One client's work."""
        return LocalTraining(self.model, self.size.plan.training)

    @cached_property
    def nobody(self) -> Tensor:
        """(dim,) the local embedding with which everybody starts; no peer keeps them, which spares it work."""
        return torch.zeros(self.model.spec.dim)

    def loss(self, client: int, shared: Tensor) -> Tensor:
        """What the client minimises, by fedrec's code for one device; nothing without a usable choice."""
        if not len(self.picks[client]):
            return 0.0 * shared.sum()
        return self.training.loss(shared, self.nobody, self.events[client], self.picks[client], None)

    def update(self, client: int, shared: NDArray[np.float32]) -> NDArray[np.float32]:
        """(size,) the client's clipped update."""
        at = torch.from_numpy(shared.copy()).requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(client, at), at)
        return clipped(-self.size.plan.training.learning_rate * gradient.numpy())

    def total(self, clients: Sequence[int]) -> NDArray[np.float64]:
        """(size,) the sum of the clipped updates of `clients` in round 1, by a device's own round: the reference."""
        total = np.zeros(len(self.start))
        for client in clients:
            coins = stream(0, "client", 1, client)
            total += clipped(self.training.round(self.start, self.nobody.numpy(), self.events[client], coins).delta)
        return total


def clipped(update: NDArray[np.float32]) -> NDArray[np.float32]:
    """`update`, no longer than `CLIP`."""
    norm = float(np.linalg.norm(update))
    return update * np.float32(CLIP / norm) if norm > CLIP else update


def report(path: Path, seconds: Sequence[float], *, clients: Sequence[int] = (), total: object = None) -> None:
    """Leave what a peer measured: `seconds` of each round, and the `total` of round 1 with its `clients`."""
    path.write_text(json.dumps({"seconds": list(seconds), "clients": list(map(int, clients))}))
    if total is not None:
        np.save(path.with_suffix(".npy"), np.asarray(total, np.float64))


def write(size: Size, folder: Path) -> None:
    """Prepare `folder`. Encoding everybody's texts takes a minute."""
    from fedrec.population.world import Fleet, World
    from fedrec.task import Task

    world = World.open(size.plan)
    task = Task(size.plan, world.dataset.catalogue)
    fleet = Fleet(task, world, None)  # type: ignore[arg-type]  # nobody trains here
    events = [fleet.events(client, int(cut)) for client, cut in enumerate(world.cuts)]
    picks = [drawn(fleet.rounds.open, client, held) for client, held in enumerate(events)]
    torch.save({"items": task.model.items, "events": events, "picks": picks}, folder / "workload.pt")
    away = stream(0, "benchmark", "start").normal(0.0, 0.01, len(task.model.initial))  # no part of a gradient is zero
    np.save(folder / "start.npy", (task.model.initial + away).astype(np.float32))
    (folder / "size.json").write_text(json.dumps(size.__dict__))
    (folder / "facts.json").write_text(json.dumps(facts(size, task.model, (events, picks))))


def drawn(training: LocalTraining, client: int, events: Events) -> Tensor:
    """Which of its choices a client trains on in round 1."""
    usable = trainable(events)
    picked = training.draw(usable, stream(0, "client", 1, client))[0] if len(usable) else usable
    return torch.from_numpy(picked)


def facts(size: Size, model: Model, held: tuple[Sequence[Events], Sequence[Tensor]]) -> dict[str, float]:
    """Means over the clients of what decides their work; contexts are made of `products`, examples × events."""
    counted = [(len(picked), events.size, len(events.text_at)) for events, picked in zip(*held, strict=True)]
    choices, sizes, texts = np.array(counted, float).T
    hidden = model.items.texts.mask.shape[1] and float(model.items.texts.mask.sum(1).float().mean())
    return {
        "examples": choices.mean(), "events": sizes.mean(), "texts": texts.mean(), "products": (choices * sizes).mean(),
        "items": len(model), "width": model.items.texts.values.shape[-1],
        "dim": model.spec.dim, "rank": model.spec.rank, "decays": len(model.spec.decays), "size": model.layout.size,
        "tokens": hidden, "cohort": size.cohort,
    }  # fmt: skip


def main() -> None:
    """Write a workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, value in Size().__dict__.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write(Size(**given), folder)


if __name__ == "__main__":
    main()
