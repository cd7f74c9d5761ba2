"""One client's round: init, step, finish. The loop over clients is the specification of every faster way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedrec.device.profile import Events, contexts
from fedrec.model.ranking import Model, Parameters
from fedrec.spec import TrainingSpec


@dataclass(frozen=True, eq=False)
class State:
    """Where a client stands within its round. `embedding` (dim,) never leaves the device."""

    shared: Tensor
    embedding: Tensor
    start: Tensor


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a round leaves behind: `delta` (size,) to be clipped and sent, `embedding` (dim,) to be kept."""

    delta: NDArray[np.float32]
    embedding: NDArray[np.float32]


class LocalTraining:
    """The work of one client on its own events, from the shared vector to an update."""

    def __init__(self, model: Model, spec: TrainingSpec, *, hidden: NDArray[np.bool_] | None = None) -> None:
        """`hidden` (item,) marks items that are not yet public: they are no rivals while the model trains."""
        self.model, self.spec = model, spec
        shut = np.zeros(len(model), bool) if hidden is None else hidden
        self._shut, self._open = torch.from_numpy(shut), np.flatnonzero(~shut)

    def round(
        self, shared: NDArray[np.float32], embedding: NDArray[np.float32], events: Events, rng: Generator
    ) -> Outcome:
        """`init`, `steps` × `step`, `finish`. A history without a usable choice moves nothing."""
        state = self.init(shared, embedding)
        if len(trainable(events)):
            for _ in range(self.spec.steps):
                state = self.step(state, events, rng)
        return self.finish(state)

    def init(self, shared: NDArray[np.float32], embedding: NDArray[np.float32]) -> State:
        """Start from the shared vector and the embedding that the device kept."""
        start = torch.from_numpy(np.array(shared, np.float32))
        return State(start, torch.from_numpy(np.array(embedding, np.float32)), start)

    def step(self, state: State, events: Events, rng: Generator) -> State:
        """One step of gradient descent on shared parameters and local embedding together."""
        choices, negatives = self._drawn(events, rng)
        shared, embedding = state.shared.clone().requires_grad_(), state.embedding.clone().requires_grad_()
        loss = self.loss(shared, embedding, events, choices, negatives)
        to_shared, to_embedding = torch.autograd.grad(loss, (shared, embedding))
        kept = embedding - self.spec.embedding_rate * (to_embedding + self.spec.embedding_decay * embedding)
        return State((shared - self.spec.learning_rate * to_shared).detach(), kept.detach(), state.start)

    def finish(self, state: State) -> Outcome:
        """The difference that the round made."""
        return Outcome((state.shared - state.start).numpy(), state.embedding.numpy())

    def loss(
        self, shared: Tensor, embedding: Tensor, events: Events, choices: Tensor, negatives: Tensor | None
    ) -> Tensor:
        """Mean cross-entropy of the chosen items, given the events before each of `choices`.

        `negatives` are public catalogue rows, or None for a softmax over the whole catalogue. Items
        that the person had already chosen are no rivals if `hide_seen`; items chosen later always are.
        """
        parameters = self.model.layout.views(shared)
        cuts, targets = events.choices[choices], events.chosen[choices]
        rows = None if negatives is None else torch.unique(torch.cat([negatives, events.rows, targets]))
        table = self.model.item_vectors(parameters, rows)
        prior = self.model.prior(parameters, rows)
        queries = queries_at(self.model, parameters, (events, cuts), (table, rows)) + embedding
        logits = queries @ table.T + prior
        own = targets if rows is None else torch.searchsorted(rows, targets)
        return functional.cross_entropy(logits.masked_fill(self._hidden(events, choices, rows, negatives), -1e9), own)

    def _hidden(self, events: Events, choices: Tensor, rows: Tensor | None, negatives: Tensor | None) -> Tensor:
        """(example, candidate) True where a candidate is no rival of the target."""
        cuts, targets = events.choices[choices], events.chosen[choices]
        mask = self._shut.expand(len(cuts), -1)
        if self.spec.hide_seen:
            mask = mask | events.seen(cuts, len(self.model))
        if negatives is not None:
            # Own items are in the table for their vectors; only public draws compete with the target.
            public = torch.zeros(len(self.model), dtype=torch.bool)
            public[negatives] = True
            mask = mask | ~public
        mask = mask.scatter(1, targets[:, None], False)  # noqa: FBT003
        return mask if rows is None else mask[:, rows]

    def draw(self, usable: NDArray[np.int64], rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """The examples of a step, some of the `usable` choices, and public rivals; None for the whole catalogue."""
        if not self.chooses(len(usable)):
            return usable, None
        picked = usable[np.sort(rng.choice(len(usable), min(self.spec.examples, len(usable)), replace=False))]
        if not self.spec.negatives:
            return picked, None
        # From the whole catalogue, whatever this person chose: held-out items are drawn like any other.
        return picked, np.unique(self._open[rng.integers(len(self._open), size=self.spec.negatives)])

    def rivals(self, events: Events, rng: Generator) -> NDArray[np.int64]:
        """Catalogue rows with which one target of a step competes, drawn and masked as in `step` and `loss`.

        For leak checks, who must see what training does. Without a usable choice there are none.
        """
        choices, negatives = self._drawn(events, rng)
        if not len(choices):
            return np.zeros(0, np.int64)
        one = choices[int(rng.integers(len(choices)))][None]
        compete = ~self._hidden(events, one, None, negatives)[0]
        compete[events.chosen[one]] = False
        return np.flatnonzero(compete.numpy())

    def _drawn(self, events: Events, rng: Generator) -> tuple[Tensor, Tensor | None]:
        picked, rivals = self.draw(trainable(events), rng)
        return torch.from_numpy(picked), None if rivals is None else torch.from_numpy(rivals)

    def chooses(self, usable: int) -> bool:
        """Whether a step draws anything for someone with so many usable choices: not if all of everything is taken."""
        return self.spec.negatives > 0 or usable > self.spec.examples


def trainable(events: Events) -> NDArray[np.int64]:
    """Which choices have something before them to be predicted from."""
    return np.flatnonzero(events.choices.numpy() > 0)


def queries_at(
    model: Model, parameters: Parameters, at: tuple[Events, Tensor], items: tuple[Tensor, Tensor | None]
) -> Tensor:
    """(example, dim) what the person looks for after the first `cuts` events, without the local embedding.

    `at` is (events, cuts); `items` is a table of item vectors with its sorted rows, None for all.
    """
    (events, cuts), (table, rows) = at, items
    own = events.rows if rows is None else torch.searchsorted(rows, events.rows)
    vectors = events.vectors(table[own], model.text_vectors(parameters, events.texts))
    return model.queries(parameters, contexts(vectors, cuts, model.spec.decays))
