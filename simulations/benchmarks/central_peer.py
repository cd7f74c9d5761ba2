"""The same examples in one place: an ordinary PyTorch loop, `python central_peer.py FOLDER OUT --batch N`.

Minibatch SGD over the shuffled examples of one cohort: autograd, softmax over the whole catalogue, no clip. Data are
prepared before the clock starts, as a loader's workers would: for each example the entries it builds on (items and free
texts) with their decayed weights. `--batch 0` takes the whole cohort as one batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from workload import WARM_UP, Workload, report

from fedrec.model.adapter import TowerInputs
from fedrec.model.ranking import Parameters
from fedrec.randomness import stream


@dataclass(frozen=True, eq=False)
class Example:
    """A choice, and what lies before it. `entries` (mention,) are items, or `items` + rows of the cohort's texts."""

    entries: Tensor
    weights: Tensor  # (decay, mention)
    seen: Tensor  # (seen,) items that are no rivals
    target: int


@dataclass(frozen=True, eq=False)
class Minibatch:
    """Examples side by side, without padding."""

    entries: Tensor
    weights: Tensor
    starts: Tensor
    seen: tuple[Tensor, Tensor]
    targets: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Minibatch:
        """What a loader's collate function does."""
        sizes = torch.tensor([0, *(len(each.entries) for each in examples)])
        rows = torch.cat([torch.full_like(each.seen, row) for row, each in enumerate(examples)])
        return cls(
            torch.cat([each.entries for each in examples]), torch.cat([each.weights for each in examples], dim=1),
            sizes.cumsum(0)[:-1], (rows, torch.cat([each.seen for each in examples])),
            torch.tensor([each.target for each in examples]),
        )  # fmt: skip


def examples_of(work: Workload, client: int, texts: int) -> list[Example]:
    """The examples of one client, whose own texts begin at row `texts` of the cohort's."""
    events, picks = work.events[client], work.picks[client]
    entries = torch.cat([events.rows, len(work.model) + texts + torch.arange(len(events.text_at))])
    at, weights = torch.cat([events.row_at, events.text_at]), torch.cat([events.row_weights, events.text_weights])
    decays = torch.tensor(work.model.spec.decays)[:, None]
    made = []
    for choice in picks.tolist():
        cut, target = int(events.choices[choice]), int(events.chosen[choice])
        before = torch.nonzero(at < cut)[:, 0]
        aged = decays ** (cut - 1 - at[before]) * weights[before]
        rivals = events.chosen[:choice]
        made.append(Example(entries[before], aged, rivals[rivals != target], target))
    return made


def loss(work: Workload, parameters: Parameters, texts: TowerInputs, batch: Minibatch) -> Tensor:
    """Mean cross-entropy of a minibatch; only the texts that it mentions go through the tower."""
    model, items = work.model, len(work.model)
    rows, own = torch.unique(batch.entries[batch.entries >= items] - items, return_inverse=True)
    entries = batch.entries.clone()
    entries[batch.entries >= items] = items + own
    table = model.item_vectors(parameters)
    known = torch.cat([table, model.text_vectors(parameters, texts[rows])])
    views = torch.stack([
        functional.embedding_bag(entries, known, batch.starts, mode="sum", per_sample_weights=weights)
        for weights in batch.weights
    ])  # fmt: skip
    queries = model.queries(parameters, functional.normalize(views, dim=-1, eps=1e-6))
    logits = (queries @ table.T + model.prior(parameters)).index_put(batch.seen, torch.tensor(-1e9))
    return functional.cross_entropy(logits, batch.targets)


def pool(work: Workload, clients: NDArray[np.int64]) -> tuple[list[Example], TowerInputs]:
    """Everything that a cohort may learn from."""
    examples, texts, begun = [], [], 0
    for client in clients:
        examples += examples_of(work, int(client), begun)
        texts.append(work.events[int(client)].texts)
        begun += len(texts[-1])
    return examples, reduce(TowerInputs.concat, texts)


def epoch(
    work: Workload, parameters: dict[str, Tensor], data: tuple[list[Minibatch], TowerInputs], optimizer: torch.optim.SGD
) -> float:
    """Seconds of one pass."""
    batches, texts = data
    began = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        loss(work, parameters, texts, batch).backward()
        optimizer.step()
    return time.perf_counter() - began


def run(folder: Path, out: Path, size: int, threads: int) -> None:
    """As many passes as a federated engine has rounds, each over the examples of one cohort."""
    torch.set_num_threads(threads)
    work = Workload.open(folder)
    views = work.model.layout.views(torch.from_numpy(work.start))
    parameters = {name: view.clone().requires_grad_() for name, view in views.items()}
    optimizer, seconds = torch.optim.SGD(parameters.values(), lr=0.01), []
    for number in range(work.size.rounds):
        rng = stream(0, "benchmark", "central", number)
        examples, texts = pool(work, rng.choice(work.size.clients, work.size.cohort, replace=False))
        order = rng.permutation(len(examples))
        pieces = [order[at : at + (size or len(order))] for at in range(0, len(order), size or len(order))]
        batches = [Minibatch.of([examples[row] for row in piece]) for piece in pieces]
        seconds.append(epoch(work, parameters, (batches, texts), optimizer))
    assert len(seconds) > WARM_UP
    report(out, seconds)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=0, help="examples a step; 0 for all")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    run(given.folder, given.out, given.batch, given.threads)


if __name__ == "__main__":
    main()
