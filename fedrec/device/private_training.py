"""One client's round by DP-SGD: no interaction shows in what comes out, neither in the update nor in the embedding.

Opacus computes the gradient of every example and drives the steps; the clip is exact, on the integer grid, and the
noise comes from `fedrec.privacy.noise`, never from torch's global generator.

One thing is taken as exact that is not: examples computed side by side share matrix products, so the last bits of one
gradient (some 1e-8 of its length) may depend on which others came. The account knows nothing of that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedrec.device.examples import Examples
from fedrec.device.profile import contexts
from fedrec.device.training import Outcome
from fedrec.model.ranking import Model
from fedrec.privacy.interaction import InteractionTerms, Practice, bounded_sum
from fedrec.privacy.noise import Level, Noise, noise_source
from fedrec.privacy.sampling import SecretCoins
from fedrec.spec import TrainingSpec

_LOG = logging.getLogger(__name__)
# Examples at a time: each takes its own gradient back through every rival's text, a vector or whole hidden states.
_PIECE, _DEEP_PIECE = 32, 4

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # shared (size,), embedding (dim,), place (1,) → ()
Gradients = dict[nn.Parameter, Tensor]  # each (example, …)


class PrivateTraining:
    """The work of one client on its own examples, from the shared vector to an update that hides each interaction.

    `terms.steps`, `terms.rate` and `terms.clip` take the places of the `steps` and `examples` of `spec`. An
    `embedding_rate` of 0 freezes the user embedding at zero; otherwise it is trained in the same noisy steps, and the
    one that a round starts from must come from such a round, or be zero.
    """

    def __init__(
        self,
        model: Model,
        spec: TrainingSpec,
        terms: InteractionTerms,
        *,
        hidden: NDArray[np.bool_] | None = None,
        level: Level = Level.HARDENED,
    ) -> None:
        """`hidden` (item,) marks items that are not yet public: they are no rivals while the model trains."""
        self.practice = Practice(
            embedding="inside" if spec.embedding_rate else "frozen",
            normalises=any(isinstance(part, _BatchNorm) for part in model.adapter.modules()),
        )
        self.model, self.spec, self.terms, self.level = model, spec, terms, level
        self._open = np.arange(len(model)) if hidden is None else np.flatnonzero(~hidden)

    def round(
        self, shared: NDArray[np.float32], embedding: NDArray[np.float32], examples: Examples, rng: Generator
    ) -> Outcome:
        """`terms.steps` noisy steps, whatever and however much there is to learn from.

        `rng` draws the rivals, which are public. Coins and noise are fresh and secret, except at level `test`.
        """
        start = torch.from_numpy(np.array(shared, np.float32))
        theirs, own = nn.Parameter(start.clone()), self._embedding(embedding)
        optimizer = GridOptimizer(self._descent(theirs, own), self.terms, self._noise(rng))
        for _ in range(self.terms.steps):
            picked = self.terms.sampler.draw(len(examples), rng if self.level is Level.TEST else SecretCoins())
            layer = Losses(theirs, own, self._loss(examples, self._rivals(rng)))
            optimizer.descend(gradients(layer, picked, _DEEP_PIECE if self.model.adapter.blocks else _PIECE))
        return Outcome((theirs.detach() - start).numpy(), own.detach().numpy())

    def loss(self, shared: Tensor, embedding: Tensor, examples: Examples, place: Tensor, rivals: Tensor) -> Tensor:
        """Mean cross-entropy of the items chosen in example `place` (1,), given the example's events before each.

        `rivals` are public catalogue rows. Those chosen earlier in the example are no rivals if `hide_seen`.
        """
        parameters = self.model.layout.views(shared)
        rows, weights, targets = (part[place][0] for part in (examples.rows, examples.weights, examples.targets))
        own, table = self.model.item_vectors(parameters, rows), self.model.item_vectors(parameters, rivals)
        vectors = own * weights[:, None]
        if len(examples.texts):
            written = self.model.text_vectors(parameters, examples.texts[examples.text_rows[place][0]])
            vectors = vectors + written * examples.text_weights[place][0][:, None]
        past = contexts(vectors, torch.arange(len(rows)), self.model.spec.decays)
        queries = self.model.queries(parameters, past) + embedding
        mine = (queries * own).sum(1) + self.model.prior(parameters, rows)
        others = queries @ table.T + self.model.prior(parameters, rivals)
        others = others.masked_fill(self._no_rivals(rows, targets, rivals), -1e9)
        surprise = torch.logsumexp(torch.cat([mine[:, None], others], dim=1), dim=1) - mine
        return (surprise * targets).sum() / targets.sum().clamp(min=1)

    def rivals(self, examples: Examples, rng: Generator) -> NDArray[np.int64]:
        """Catalogue rows with which one target competes, drawn and masked as in `round` and `loss`. For leak checks."""
        at = examples.targets.nonzero()
        if not len(at):
            return np.zeros(0, np.int64)
        (place, slot), drawn = at[int(rng.integers(len(at)))], self._rivals(rng)
        shut = self._no_rivals(examples.rows[place], examples.targets[place], drawn)[slot]
        return np.asarray(drawn[~shut].numpy())

    def _no_rivals(self, rows: Tensor, targets: Tensor, rivals: Tensor) -> Tensor:
        """(slot, rival) True where a rival is the slot's own item, or was chosen before it within the example."""
        same = rows[:, None] == rivals[None, :]
        if not self.spec.hide_seen:
            return same
        return same | ((same & targets[:, None]).cumsum(dim=0) > 0)

    def _loss(self, examples: Examples, rivals: Tensor) -> Loss:
        return lambda shared, embedding, place: self.loss(shared, embedding, examples, place, rivals)

    def _rivals(self, rng: Generator) -> Tensor:
        if not self.spec.negatives:
            return torch.from_numpy(self._open)
        return torch.from_numpy(np.unique(self._open[rng.integers(len(self._open), size=self.spec.negatives)]))

    def _embedding(self, kept: NDArray[np.float32]) -> nn.Parameter:
        frozen = self.practice.embedding == "frozen"
        start = np.zeros_like(kept, np.float32) if frozen else np.array(kept, np.float32)
        return nn.Parameter(torch.from_numpy(start), requires_grad=not frozen)

    def _descent(self, shared: nn.Parameter, embedding: nn.Parameter) -> torch.optim.SGD:
        """Steps along noisy sums over a public batch size; the embedding decays by its own rate."""
        expected, spec = self.terms.expected, self.spec
        groups = [{"params": [shared], "lr": spec.learning_rate / expected}]
        if embedding.requires_grad:
            pace, decay = spec.embedding_rate / expected, spec.embedding_decay * expected
            groups.append({"params": [embedding], "lr": pace, "weight_decay": decay})
        return torch.optim.SGD(groups)

    def _noise(self, rng: Generator) -> Noise:
        return noise_source(self.level, rng if self.level is Level.TEST else None)


class GridOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
    """Opacus's optimiser with an exact clip and noise of our own.

    All parameters together have one norm. The sum is made of integers and noisy before it becomes a float.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, terms: InteractionTerms, noise: Noise) -> None:
        super().__init__(
            optimizer, noise_multiplier=terms.multiplier, max_grad_norm=terms.clip, expected_batch_size=None,
            loss_reduction="sum",
        )  # fmt: skip
        self.terms, self.noise = terms, noise

    def descend(self, found: Gradients) -> None:
        """One step on the gradients (example, …) of the examples that came, if any."""
        for parameter in self.params:
            parameter.grad_sample = found[parameter]
        self.step()
        self.zero_grad()

    def clip_and_accumulate(self) -> None:
        """Clip each example and sum, in grid steps."""
        rows = torch.cat([sample.flatten(1) for sample in self.grad_samples], dim=1)
        total = bounded_sum(rows.double().numpy(), self.terms)
        for parameter, part in zip(self.params, self._parts(total), strict=True):
            parameter.summed_grad = torch.from_numpy(part)

    def add_noise(self) -> None:
        """Make the sum noisy, and only then a gradient."""
        total = np.concatenate([parameter.summed_grad.numpy() for parameter in self.params])
        noisy = (total + self.noise.draw(self.terms.sigma, len(total))) / self.terms.grid
        for parameter, part in zip(self.params, self._parts(noisy), strict=True):
            parameter.grad = torch.from_numpy(part.astype(np.float32)).view_as(parameter)

    def _parts(self, vector: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        return np.split(vector, np.cumsum([parameter.numel() for parameter in self.params])[:-1])


class Losses(nn.Module):
    """All parameters in one layer that maps the place of an example to its loss.

    Opacus's functorch then differentiates the whole model example by example. Its hooks on inner layers would not: a
    table of items belongs to all examples at once, and the batch dimension of those layers is items.
    """

    def __init__(self, shared: nn.Parameter, embedding: nn.Parameter, loss: Loss) -> None:
        super().__init__()
        self.shared, self.embedding, self._loss = shared, embedding, loss

    def forward(self, places: Tensor) -> Tensor:
        """(1,) → (1,): Opacus passes one example at a time, under vmap."""
        return self._loss(self.shared, self.embedding, places.long())[None]


def gradients(layer: Losses, picked: NDArray[np.int64], piece: int) -> Gradients:
    """The gradient (example, …) of each parameter for each of the `picked` examples, `piece` at a time."""
    found = [_gradients(layer, torch.from_numpy(picked[at : at + piece])) for at in range(0, len(picked), piece)]
    return _joined([_zeros(layer, 0), *found])


def _gradients(layer: Losses, places: Tensor) -> Gradients:
    """Examples that fail are zero, and they alone: were others lost with one, it would move the sum by more than C."""
    try:
        # A float, because Opacus takes no integers as input; exact up to 2²⁴ examples.
        found: Gradients = ft_compute_per_sample_gradient(layer, [places.float()], torch.ones(len(places), 1))
        return found
    except Exception:
        if len(places) > 1:
            return _joined([_gradients(layer, place) for place in places[:, None]])
        _LOG.exception("an example failed and counts as zero")
        return _zeros(layer, 1)


def _zeros(layer: Losses, examples: int) -> Gradients:
    return {parameter: torch.zeros(examples, *parameter.shape) for parameter in layer.parameters()}


def _joined(parts: Sequence[Gradients]) -> Gradients:
    return {parameter: torch.cat([part[parameter].detach() for part in parts]) for parameter in parts[0]}
