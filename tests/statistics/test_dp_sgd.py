"""DP-SGD adds the noise that is accounted, samples as it is accounted, and tells no more than is accounted.

Fresh randomness, false alarms once in a million, no retries; every test also meets a wrong answer, which it rejects.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from scipy.stats import beta, chi2, norm
from torch import nn

from fedrec.device import private_training
from fedrec.device.event import Event, Kind
from fedrec.device.examples import Examples
from fedrec.device.history import History
from fedrec.device.private_training import GridOptimizer, PrivateTraining
from fedrec.model.catalogue import Catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.privacy.interaction import InteractionTerms
from fedrec.privacy.noise import Hardened, Level, Research
from fedrec.spec import ModelSpec, ProfileSpec, TrainingSpec

ALARM = 1e-6
TERMS = InteractionTerms(rate=0.3, steps=400, clip=0.5, multiplier=1.5, examples=40)
SIGMA = 1.5 * 0.5


@dataclass(frozen=True)
class Scaled:
    """A mutant source: `factor` times the noise that is asked for."""

    factor: float

    def draw(self, sigma, dim):
        return Hardened().draw(self.factor * sigma, dim)


@dataclass(frozen=True)
class Repeated:
    """A mutant source: the same noise at every step."""

    seed: int = 3

    def draw(self, sigma, dim):
        return np.rint(default_rng(self.seed).normal(0.0, sigma, dim)).astype(np.int64)


def steps(noise, rows, count=1, terms=TERMS):
    """(step, dim) noisy sums of the gradients `rows` (example, dim), of two parameters side by side."""
    dim, seen = rows.shape[1], []
    left, right = nn.Parameter(torch.zeros(dim // 2)), nn.Parameter(torch.zeros(dim - dim // 2))
    optimizer = GridOptimizer(torch.optim.SGD([left, right], lr=1.0), terms, noise)
    whole = torch.from_numpy(rows.astype(np.float32))
    before = np.zeros(dim)
    for _ in range(count):
        optimizer.descend({left: whole[:, : dim // 2], right: whole[:, dim // 2 :]})
        after = -torch.cat([left, right]).detach().double().numpy()
        seen.append(after - before)
        before = after
    return np.stack(seen)


def variance_p(noise, sigma):
    """Two-sided p-value of Σx²/σ² under χ²."""
    statistic = float((noise**2).sum()) / sigma**2
    return 2 * min(chi2.cdf(statistic, noise.size), chi2.sf(statistic, noise.size))


def correlated(first, second):
    """Whether two noise vectors correlate beyond chance (4.9σ is one in a million)."""
    return abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(first.size) > 4.9


EMPTY = np.zeros((0, 400_000))


@pytest.mark.parametrize("source", [Hardened(), Research()])
def test_an_empty_batch_gives_the_accounted_noise(source):
    (noise,) = steps(source, EMPTY)
    assert variance_p(noise, SIGMA) > ALARM
    for factor in (1 / np.sqrt(2), 0.98, 1.02):
        assert variance_p(steps(Scaled(factor), EMPTY)[0], SIGMA) < ALARM
    assert variance_p(noise * TERMS.rate, SIGMA) < ALARM  # noise on a mean instead of a sum


def test_the_noise_does_not_depend_on_the_batch():
    rows = default_rng().normal(0, 1e-4, (30, 100_000))
    rows -= rows.mean(0)  # they cancel, up to rounding
    (noise,) = steps(Hardened(), rows)
    assert variance_p(noise, SIGMA) > ALARM
    assert variance_p(noise * len(rows) / TERMS.expected, SIGMA) < ALARM  # in proportion to what came


def test_parameters_and_steps_have_noise_of_their_own():
    first, second = steps(Hardened(), EMPTY, 2)
    half = len(first) // 2
    assert not correlated(first, second)
    assert not correlated(first[:half], first[half:])
    again, repeated = steps(Repeated(), EMPTY, 2)
    assert correlated(again, repeated)


# Sampling.

CATALOGUE = Catalogue([f"i{n}" for n in range(6)], [f"word{n}" for n in range(6)])
MODEL = Model.build(CATALOGUE, open_encoder("hash"), ModelSpec(adapter="none", dim=2, projection=False), seed=0)
EXAMPLES = Examples.of(
    History.of(Event(kind=Kind.CLICK, item=n % 6, time=n) for n in range(40)), ProfileSpec(), MODEL.adapter.prepare,
    TERMS.blocks,
)  # fmt: skip


def batches(monkeypatch):
    """(step, example) who came, in one round."""
    came = []

    def spied(layer, picked, piece):
        came.append(np.isin(np.arange(len(EXAMPLES)), picked))
        return {parameter: torch.zeros(0, *parameter.shape) for parameter in layer.parameters()}

    monkeypatch.setattr(private_training, "gradients", spied)
    training = PrivateTraining(MODEL, TrainingSpec(), TERMS, level=Level.RESEARCH)
    training.round(MODEL.initial, np.zeros(2, np.float32), EXAMPLES, default_rng())
    return np.stack(came)


def poisson_p(came, rate):
    """The smaller p-value, twice: of all inclusions together, and of the spread of the batch sizes."""
    count, size = came.size, came.shape[1]
    total = (came.sum() - count * rate) / np.sqrt(count * rate * (1 - rate))
    spread = ((came.sum(axis=1) - size * rate) ** 2).sum() / (size * rate * (1 - rate))
    return 2 * min(2 * norm.sf(abs(total)), 2 * min(chi2.cdf(spread, len(came)), chi2.sf(spread, len(came))))


def test_every_example_tosses_a_coin_at_every_step(monkeypatch):
    came = batches(monkeypatch)
    assert len(came) == TERMS.steps
    assert poisson_p(came, TERMS.rate) > ALARM
    assert not correlated(came[1:].ravel(), came[:-1].ravel())
    fixed = default_rng().permuted(np.arange(came.size).reshape(came.shape) % 40 < 12, axis=1)  # 12 of 40 in each step
    assert poisson_p(fixed, TERMS.rate) < ALARM
    assert poisson_p(came, 0.25) < ALARM


# An attack on single steps.

RUNS = 1200  # so many that both mutants are found: of 800, one in 600 went unnoticed
OTHERS = np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 0.1]])
CANARY = np.array([[9.0, 0.0, 0.0]])  # far above the clip norm


def shown(noise, clip=TERMS.clip):
    """The Gaussian-DP μ that an attacker proves who looks for the canary in single steps, at confidence 1 − ALARM."""
    terms = replace(TERMS, clip=clip, multiplier=TERMS.multiplier * TERMS.clip / clip)
    scores = [steps(noise, rows, RUNS, terms)[:, 0] / TERMS.clip for rows in (OTHERS, np.concatenate([OTHERS, CANARY]))]
    best = 0.0
    for cut in (0.5, 0.5 + 0.8 * TERMS.multiplier):
        false = [int((scores[0] > cut).sum()), int((scores[1] <= cut).sum())]
        upper = [beta.ppf(1 - ALARM / 4, count + 1, RUNS - count) if count < RUNS else 1.0 for count in false]
        best = max(best, -norm.ppf(upper[0]) - norm.ppf(upper[1]))
    return best


def test_a_step_tells_no_more_of_an_example_than_is_accounted():
    assert shown(Hardened()) <= 1 / TERMS.multiplier
    assert shown(Scaled(0.5)) > 1 / TERMS.multiplier
    assert shown(Hardened(), clip=4 * TERMS.clip) > 1 / TERMS.multiplier  # equal noise, but a wider clip
