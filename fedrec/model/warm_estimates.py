"""What a warm start estimates from noised sums: pure functions of public numbers that no noise can break."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LOGS = np.linspace(-5.0, 4.0, 73)  # log of an item's popularity over what was expected of it
_WIDTHS = (0.15, 0.3, 0.5, 0.7, 0.9, 1.2, 1.5, 2.0)  # of the log-normal prior
_SHIFTS = np.arange(-1.4, 0.3, 0.2)
_TINY = 1e-300
_LEAST = 0.5  # of the mean: what text alone may make of an item's popularity

_CHANCE = 0.05  # how far class means lie from their regression on text: a squared share of the width of one class
_SMOOTH = 3.0  # ridge of that regression, per axis
_RIDGE = 0.05  # of the maps
_CAUTION = 10.0  # standard deviations of noise that are added to it
_NARROW = 0.1  # of the mean width: the narrowest direction that is believed


def popularity(counts: Floats, sd: float, vectors: Floats, users: float) -> Floats:
    """(item,) posterior means, all positive, of popularities seen through noise of `sd` on each of `counts`.

    The prior is log-normal around one mean, or around what a ridge regression on the public `vectors` foretells;
    of the two, the one under which `counts` are likelier. Its width and shift are fitted to them as well. `counts` are
    means over `users`, each of whom has a vector of length 1; of shorter vectors there are as many more.
    """
    # Sums of squares over people are 1: so this is the mean weight of one choice, over the number of people.
    one = 1 / (users * max(float(counts.sum()), 1.0))
    level = max(float(counts.mean()), sd / len(counts) ** 0.5, one / len(counts))
    even = np.full(len(counts), level)
    foretold = np.maximum(_foretold(counts, vectors), _LEAST * level)
    estimates = [_deconvolved(counts, (sd, one), prior) for prior in (even, foretold)]
    return max(estimates, key=lambda estimate: estimate[1])[0]


def _deconvolved(counts: Floats, noise: tuple[float, float], prior: Floats) -> tuple[Floats, float]:
    """Posterior means under prior · log-normal, and their log-likelihood under the best log-normal of the grid.

    `noise` is the standard deviation of what was added, and the weight of one person's choice in a count.
    """
    (sd, one), truths = noise, np.exp(_LOGS) * prior[:, None]
    # What was added, who happened to come, and the step of the grid: a count must not fall between two points.
    variance = sd**2 + one * truths + one**2 / 4 + (0.4 * (_LOGS[1] - _LOGS[0]) * truths) ** 2
    likelihood = np.exp(-((counts[:, None] - truths) ** 2) / (2 * variance)) / np.sqrt(variance / variance.min())
    likelihood += _TINY
    shapes = [np.exp(-(((_LOGS - shift) / width) ** 2) / 2) for width in _WIDTHS for shift in _SHIFTS]
    weights = np.array([shape / shape.sum() for shape in shapes])
    evidence = np.log(likelihood @ weights.T + _TINY).sum(axis=0)
    best = int(evidence.argmax())
    posterior = likelihood * weights[best] + _TINY
    posterior /= posterior.sum(axis=1, keepdims=True)
    return prior * (posterior @ np.exp(_LOGS)), float(evidence[best])


def _foretold(values: Floats, vectors: Floats) -> Floats:
    """Ridge regression of `values` on `vectors`; the ridge is the one of greatest evidence."""
    mean, centred = values.mean(), vectors - vectors.mean(axis=0)
    squares, axes = np.linalg.eigh(centred.T @ centred)
    squares = np.maximum(squares, 1e-12)
    along = (centred @ axes).T @ (values - mean) / np.sqrt(squares)
    rest = max(float(((values - mean) ** 2).sum() - (along**2).sum()), 0.0)

    def evidence(ratio: float) -> float:
        spread = 1 + ratio * squares
        residual = (along**2 / spread).sum() + rest + _TINY
        return -float(np.log(spread).sum() + len(values) * np.log(residual / len(values))) / 2

    ratio = max(np.geomspace(1e-3, 10.0, 25), key=evidence)
    coefficients = axes @ (along * np.sqrt(squares) / (squares + 1 / ratio))
    fitted: Floats = mean + centred @ coefficients
    return fitted


@dataclass(frozen=True, eq=False)
class Views:
    """How the decayed views of a history agree and foretell: means over people, with the noise on each.

    `agreement` (decay, decay), `foresight` (decay,) and `means` (decay, axis) carry noise of standard deviation
    `noise`, (first, second and third); the diagonal of `agreement` is 1, because views have length 1.
    """

    agreement: Floats
    foresight: Floats
    means: Floats
    noise: tuple[float, float, float]

    def centres(self, centre: Floats) -> Floats:
        """(decay, dim) mean views: multiples of the popular `centre` (dim,), from the axes that were measured."""
        axes = self.means.shape[1]
        length = float((centre[:axes] ** 2).sum()) + axes * self.noise[2] ** 2 + 1e-4
        multiples: Floats = np.clip(self.means @ centre[:axes] / length, 0.0, 3.0)
        return multiples[:, None] * centre

    def scales(self, centre: Floats, start: float) -> Floats:
        """(decay,) coefficients of the views in the regression of the next item's vector on them.

        Ridge towards equal coefficients, and these towards `start` each; the more noise, the more ridge.
        """
        decays, centres = len(self.foresight), self.centres(centre)
        within = _positive(self.agreement - centres @ centres.T, 1e-2)
        towards = self.foresight - centres @ centre
        ridge = _RIDGE + _CAUTION * (self.noise[0] + self.noise[1])
        shared = (towards.sum() + decays * ridge * start) / (within.sum() + decays * ridge)
        even = np.full(decays, max(float(shared), 0.0))
        return np.asarray(np.linalg.solve(within + ridge * np.eye(decays), towards + ridge * even))


@dataclass(frozen=True, eq=False)
class Classes:
    """What preceded each item: `sums` (item, axis) of directions over people, with noise of `sums_sd` on each.

    `mass` (item,) is the sum of the weights, positive; `centre` (axis,) and `spread` (axis, axis) are the mean and the
    second moments of all directions, the latter with noise of `spread_sd`.
    """

    sums: Floats
    mass: Floats
    centre: Floats
    spread: Floats
    sums_sd: float
    spread_sd: float

    def deviations(self, vectors: Floats, users: float) -> Floats:
        """(item, axis) discriminant coefficients of what precedes an item, beyond what its text foretells.

        Posterior means under a normal prior whose width is `_CHANCE`; an item without mass stays at zero.
        """
        whiten = _whitening(_shrunk(self.spread - np.outer(self.centre, self.centre), self.spread_sd))
        sums = (self.sums - self.mass[:, None] * self.centre) @ whiten
        # Chance of who came, then the noise that was added: both per whitened axis.
        chance = self.mass / (self.mass.sum() * users)
        noise = self.sums_sd**2 * (whiten**2).sum(axis=0) + chance[:, None]
        beyond = sums - self.mass[:, None] * _regressed(sums, self.mass, noise, vectors)
        mean = _CHANCE * self.mass[:, None] * beyond / (_CHANCE * self.mass[:, None] ** 2 + noise)
        return np.asarray(mean @ whiten.T)


def _regressed(sums: Floats, mass: Floats, noise: Floats, vectors: Floats) -> Floats:
    """(item, axis) class means foretold from `vectors` (item, axis): weighted ridge, one axis at a time."""
    ridge = _SMOOTH * vectors.shape[1] * np.eye(vectors.shape[1])
    columns = []
    for column, variance in zip(sums.T, noise.T, strict=True):
        weights = mass / variance
        normal = (vectors * (weights * mass)[:, None]).T @ vectors + ridge
        columns.append(vectors @ np.linalg.solve(normal, vectors.T @ (weights * column)))
    return np.stack(columns, axis=1)


def _shrunk(covariance: Floats, sd: float) -> Floats:
    """`covariance` drawn towards a ball by its noise (Ledoit and Wolf 2004, section 2, with a known error)."""
    axes = len(covariance)
    ball = max(float(np.trace(covariance)) / axes, 0.02) * np.eye(axes)
    error, apart = axes * sd**2, float(((covariance - ball) ** 2).sum()) / axes
    share = error / (error + apart + _TINY)
    return np.asarray((1 - share) * covariance + share * ball)


def _whitening(covariance: Floats) -> Floats:
    """T with TᵀΣT = I, where no direction is taken to be narrower than `_NARROW` of the mean."""
    widths, axes = np.linalg.eigh(covariance)
    floor = _NARROW * max(float(np.trace(covariance)) / len(covariance), 1e-3)
    return np.asarray(axes / np.sqrt(np.maximum(widths, floor)))


def triangle(matrix: Floats) -> Floats:
    """The upper triangle of symmetric matrices (…, n, n), off-diagonals times √2: its length is the matrix's."""
    rows, columns, weights = _upper(matrix.shape[-1])
    return np.asarray(matrix[..., rows, columns] * weights)


def square(entries: Floats, width: int) -> Floats:
    """The symmetric matrix that `triangle` took apart."""
    rows, columns, weights = _upper(width)
    matrix = np.zeros((width, width))
    matrix[rows, columns] = entries / weights
    return np.asarray(np.triu(matrix) + np.triu(matrix, 1).T)


@lru_cache(maxsize=4)
def _upper(width: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Rows and columns of an upper triangle, and what its entries are multiplied with; made once for all people."""
    rows, columns = np.triu_indices(width)
    return rows, columns, np.where(rows == columns, 1.0, 2**0.5)


def unit_square(entries: Floats, width: int) -> Floats:
    """The symmetric matrix with a diagonal of ones whose upper triangle, without it, is `entries`."""
    matrix = np.eye(width)
    matrix[np.triu_indices(width, 1)] = entries
    return np.asarray(np.triu(matrix) + np.triu(matrix, 1).T)


def _positive(matrix: Floats, least: float) -> Floats:
    values, axes = np.linalg.eigh(matrix)
    return np.asarray((axes * np.maximum(values, least)) @ axes.T)
