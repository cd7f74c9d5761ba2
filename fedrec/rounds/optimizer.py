"""The server's optimisers over released means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedrec.spec import FederationSpec


@dataclass(frozen=True, eq=False)
class Optimum:
    """The shared vector, the optimiser's two moments, and what decay pulls towards, each (size,) float32.

    `beside` is what a warm start's release says beside the model, by name; training leaves it alone.
    """

    shared: NDArray[np.float32]
    first: NDArray[np.float32]
    second: NDArray[np.float32]
    anchor: NDArray[np.float32]
    beside: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def start(cls, shared: NDArray[np.float32], beside: Mapping[str, NDArray[np.float32]] | None = None) -> Optimum:
        """Moments of zero; decay pulls back to where training starts."""
        return cls(shared, np.zeros_like(shared), np.zeros_like(shared), shared, beside or {})


@dataclass(frozen=True, eq=False)
class ServerOptimizer:
    """SGD with momentum, Adam or Yogi over mean updates; post-processing, so it costs no privacy.

    Source: Reddi et al. 2021, Adaptive Federated Optimization, Algorithm 2, with the bias
    correction and the decoupled weight decay (on `decayed` coordinates) of AdamW. Decay pulls
    towards the anchor, as in Li et al. 2018, Explicit Inductive Bias for Transfer Learning (L2-SP):
    what was not learnt falls back to the public text model, or to the warm start that was released.
    """

    spec: FederationSpec
    decayed: NDArray[np.bool_]

    def step(self, at: Optimum, mean: NDArray[np.float64], number: int) -> Optimum:
        """The optimum after round `number` (counted from 1)."""
        rate, momentum = self.spec.learning_rate, self.spec.momentum
        shared = at.shared.astype(np.float64)
        shared -= rate * self.spec.weight_decay * self.decayed * (shared - at.anchor)
        if self.spec.optimizer == "sgd":
            first = momentum * at.first + mean
            return replace(at, shared=(shared + rate * first).astype(np.float32), first=first.astype(np.float32))
        first = momentum * at.first + (1 - momentum) * mean
        second = self._second(at.second.astype(np.float64), mean**2)
        bias = 1 - momentum**number, 1 - _SECOND**number
        shared += rate * (first / bias[0]) / (np.sqrt(second / bias[1]) + _TINY)
        return replace(
            at, shared=shared.astype(np.float32), first=first.astype(np.float32), second=second.astype(np.float32)
        )

    def _second(self, second: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.spec.optimizer == "adam":
            return _SECOND * second + (1 - _SECOND) * square
        return second - (1 - _SECOND) * np.sign(second - square) * square


_SECOND = 0.999
_TINY = 1e-8
