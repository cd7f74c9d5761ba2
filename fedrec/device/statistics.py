"""What a device sends in a warm start: sums over its own choices, of bounded length."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec.device.profile import Events, contexts
from fedrec.device.training import trainable
from fedrec.model.warm_estimates import triangle
from fedrec.model.warmstart import WarmStart

Floats = NDArray[np.float64]


def statistics(warm: WarmStart, events: Events) -> Floats:
    """(warm.size,) statistics of one person, not yet clipped; zeros for someone who chose and rated nothing.

    Everybody's popularity and class sums have the same length, however many choices they are about: n choices weigh
    1/√n each. In the summary and in opinions they weigh 1/n. So each part of the clip has its bound by construction:
    1 for popularity, for classes and for opinions, 2 for the summary, of which most people use little more than half.
    """
    items, chosen, usable = len(warm.model), events.chosen.numpy(), trainable(events)
    parts = {name: np.zeros(block.shape) for name, block in warm.blocks.items()}
    if len(chosen):
        parts["popularity"] = np.bincount(chosen, minlength=items) / len(chosen) ** 0.5
    if len(usable):
        views = _views(warm, events, usable)
        parts |= _summary(warm, views, chosen[usable])
        if "classes" in parts:
            directions = _directions(warm, views)
            np.add.at(parts["classes"], chosen[usable], directions / len(usable) ** 0.5)
            parts["spread"] = triangle(directions.T @ directions / len(usable))
    if "opinions" in parts:
        parts["opinions"] = warm.survey.statistics(warm.frozen(events.texts), events.text_ratings.numpy())
    return warm.pack(parts)


def _views(warm: WarmStart, events: Events, usable: NDArray[np.int64]) -> Floats:
    """(decay, choice, dim) the decayed views before each usable choice, at the model's public start."""
    model = warm.model
    with torch.no_grad():
        parameters = model.layout.views(torch.from_numpy(model.initial))
        table = torch.from_numpy(warm.scale * warm.vectors[events.rows.numpy()]).float()
        vectors = events.vectors(table, model.text_vectors(parameters, events.texts))
        views = contexts(vectors, events.choices[usable], model.spec.decays)
    return views.numpy().astype(np.float64)


def _summary(warm: WarmStart, views: Floats, targets: NDArray[np.int64]) -> dict[str, Floats]:
    decays, choices = views.shape[:2]
    agreement = np.einsum("knd,lnd->kl", views, views) / choices
    return {
        "agreement": agreement[np.triu_indices(decays, 1)],
        "foresight": np.einsum("knd,nd->k", views, warm.vectors[targets]) / choices,
        "means": views[:, :, : warm.axes].mean(axis=1),
    }


def _directions(warm: WarmStart, views: Floats) -> Floats:
    """(choice, axis) where a person stood before each choice: the mixture of views, of length 1 or 0."""
    mixed = views.mean(axis=0)[:, : warm.axes] * warm.stretch
    return np.asarray(mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-6))
