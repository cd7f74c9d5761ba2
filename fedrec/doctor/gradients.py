"""Per-example gradients by Opacus against one example at a time, for every adapter that devices train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch

from fedrec.device.event import Event, Kind
from fedrec.device.examples import Examples
from fedrec.device.history import History
from fedrec.device.private_training import Losses, PrivateTraining, gradients
from fedrec.doctor.finding import Finding
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.privacy.interaction import Blocks, InteractionTerms
from fedrec.privacy.noise import Level
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

_ITEMS, _EVENTS, _PIECE = 12, 9, 4
_WITHIN = 1e-4  # of a gradient's length: float32
_TERMS = InteractionTerms(rate=0.5, steps=1, clip=1.0, multiplier=1.0, examples=4, blocks=Blocks(seconds=100, span=3))


def per_example() -> Iterator[Finding]:
    """Whether no example's gradient has anything of another's in it."""
    for adapter in ("bottleneck", "lora"):
        worst = _worst(adapter)
        yield Finding(
            name=f"gradients of {adapter}", code="P14", ok=worst <= _WITHIN,
            seen=f"off by {worst:.1e} of their length at most",
            remedy="Install the versions of torch, opacus and peft that fedrec names.",
        )  # fmt: skip


def _worst(adapter: Literal["bottleneck", "lora"]) -> float:
    """The largest distance from the truth, over its length; infinite where there is no gradient to compare."""
    layer = _layer(adapter)
    places = np.arange(_EVENTS // 3)
    found = gradients(layer, places, _PIECE)
    worst = 0.0
    for parameter in layer.parameters():
        for place in places:
            truth = torch.autograd.grad(layer(torch.tensor([place]))[0], parameter)[0]
            length = float(truth.norm())
            if not length:
                return float("inf")
            worst = max(worst, float((found[parameter][place] - truth).norm()) / length)
    return worst


def _layer(adapter: Literal["bottleneck", "lora"]) -> Losses:
    """A loss of few examples, away from the public start, where some gradients are zero."""
    catalogue = Catalogue([f"i{n}" for n in range(_ITEMS)], [f"word{n} word{n // 2} more" for n in range(_ITEMS)])
    spec = ModelSpec(encoder="tiny", adapter=adapter, rank=2, dim=4)
    model = Model.build(catalogue, open_encoder("tiny"), spec, seed=0)
    training = PrivateTraining(model, TrainingSpec(negatives=0), _TERMS, level=Level.TEST)
    events = [Event(kind=Kind.CLICK, item=(5 * n) % _ITEMS, time=40 * n) for n in range(_EVENTS)]
    examples = Examples.of(History.of(events), ProfileSpec(), model.adapter.prepare, _TERMS.blocks)
    rng, rivals = stream(0, "doctor", "gradients"), torch.arange(_ITEMS)
    shared = model.initial + 0.1 * rng.normal(size=model.initial.size).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(shared))
    own = torch.nn.Parameter(torch.from_numpy(rng.normal(size=spec.dim).astype(np.float32)))
    return Losses(theirs, own, lambda s, e, place: training.loss(s, e, examples, place, rivals))
