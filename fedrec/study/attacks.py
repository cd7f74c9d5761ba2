"""What one recorded upload gives away: was this interaction in it (D4), and which items are (D5)?

Attacks only falsify. Each says how often it was right, with exact confidence bounds, beside the most that a promise
allows. They are made for uploads on which nothing was promised too: there they succeed, which is why the statement of
`user-central` says that the server learns everything.

Membership is the likelihood-ratio attack of Carlini et al. 2022, "Membership Inference Attacks From First Principles",
turned to interactions (Yuan et al. 2023, "Interaction-level Membership Inference Attack Against Federated Recommender
Systems"). Reconstruction ranks the public items with a linear decoder that was learnt on uploads of made-up people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.errors import require
from fedrec.privacy.audit.bounds import rate_lower, rate_upper, true_positive_bound
from fedrec.randomness import stream

Vectors = NDArray[np.float64]
Upload = Callable[[History, int], Vectors]  # → (count, dim): what a device may send for a history, drawn afresh
Bound = Callable[[float], float]  # false-positive rate, or prior success → the most that a promise allows

FALSE_ALARMS = (0.01, 0.001)
_PEOPLE = 400  # whom the attacker makes up to learn what uploads say
_LONGEST = 25  # how much such a person chose at most


@dataclass(frozen=True, eq=False)
class Target:
    """An `item` and a person: the history that holds it, and one that does not (the rest of it, or nothing)."""

    item: int
    present: History
    absent: History


@dataclass(frozen=True)
class Rate:
    """`count` of `trials`, and Clopper-Pearson bounds of its rate, each at 97.5 %."""

    count: int
    trials: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.trials

    @property
    def lower(self) -> float:
        """The rate is hardly less."""
        return rate_lower(self.count, self.trials, 0.025)

    @property
    def upper(self) -> float:
        """The rate is hardly more."""
        return rate_upper(self.count, self.trials, 0.025)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


@dataclass(frozen=True)
class Finding:
    """How often an attack was `right`, and how often it says the same of people of whom it is not true."""

    name: str
    right: Rate
    wrong: Rate

    def within(self, bound: Bound) -> bool:
        """Whether the attack did no better than a promise allows, as far as so many trials can tell."""
        return self.right.lower <= bound(self.wrong.upper)


@dataclass(frozen=True)
class Membership:
    """Findings at false-alarm rates of 1 % and 0.1 %, and the area under the ROC curve."""

    findings: tuple[Finding, ...]
    area: float


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """What the attacker has at home: `rehearsal` is the device's code without noise, `noise` the public deviation.

    `shadows` is how often he rehearses each history. Noise that is inside the training cannot be left out: then
    `rehearsal` is the upload itself and `noise` is 0.
    """

    rehearsal: Upload
    noise: float = 0.0
    shadows: int = 64


def gaussian_bound(mu: float) -> Bound:
    """The most that μ-Gaussian DP allows."""
    return lambda rate: true_positive_bound(rate, mu)


def pure_bound(epsilon: float, delta: float) -> Bound:
    """The most that (ε, δ) allows."""
    return lambda rate: min(1.0, math.exp(min(epsilon, 700.0)) * rate + delta)


def membership(upload: Upload, attacker: Attacker, targets: Sequence[Target], *, trials: int) -> Membership:
    """Tell `present` from `absent` by one upload, `trials` times for each of `targets`.

    The score is a likelihood ratio along the direction that tells shadow uploads apart best. Thresholds come from the
    first half of the trials and are counted on the second.
    """
    require(trials >= 2, "half of the trials set the thresholds", trials=trials)
    require(attacker.shadows >= 4, "two shadows of a half have a spread", shadows=attacker.shadows)
    pairs = [_ratios(upload, attacker, target, trials) for target in targets]
    held, out = (np.concatenate([pair[side] for pair in pairs], axis=1) for side in (0, 1))
    findings = tuple(_at(alarms, held[1], out) for alarms in FALSE_ALARMS)
    return Membership(findings, _area(held.ravel(), out.ravel()))


def reconstruction(
    upload: Upload, attacker: Attacker, targets: Sequence[Target], items: int, *, trials: int
) -> Finding:
    """Rank the catalogue of `items` by likeness to one upload: is the target among as many as the person chose?

    The finding's `wrong` is how often the target is named after an upload of the history without it: the prior.
    """
    decode, right, wrong = _decoder(attacker, items), 0, 0
    for target in targets:
        size = max(1, len(target.present.choices()))
        right += _named(decode(upload(target.present, trials)), target.item, size)
        wrong += _named(decode(upload(target.absent, trials)), target.item, size)
    every = len(targets) * trials
    return Finding("recall@|D_u|", Rate(right, every), Rate(wrong, every))


def without(history: History, item: int) -> History:
    """`history` with every event on `item` gone."""
    return History.of(event for event in _events(history) if event.item != item)


def nothing() -> History:
    """The history of somebody who did nothing."""
    return History.of([])


def clicks(items: Iterable[int]) -> History:
    """Somebody who clicked on `items`, in this order."""
    return History.of(Event(kind=Kind.CLICK, item=int(item), time=time) for time, item in enumerate(items))


def _events(history: History) -> list[Event]:
    rows = zip(
        history.kinds, history.items, history.texts, history.weights, history.ratings, history.times, strict=True
    )
    return [
        Event(kind=Kind(kind), item=int(item), text=text, weight=float(weight), rating=float(rating), time=int(time))
        for kind, item, text, weight, rating, time in rows
    ]


def _ratios(upload: Upload, attacker: Attacker, target: Target, trials: int) -> tuple[Vectors, Vectors]:
    """Log likelihood ratios of fresh uploads with the item and without it, each (2, trials / 2)."""
    shadows = [attacker.rehearsal(history, attacker.shadows) for history in (target.present, target.absent)]
    half = attacker.shadows // 2
    # One half finds the direction, the other measures along it: along a direction it chose, a sample looks too narrow.
    direction = _direction([shadow[:half] for shadow in shadows], attacker.noise)
    (mean, spread), (mean_out, spread_out) = (_moments(shadow[half:] @ direction, attacker.noise) for shadow in shadows)
    scores = []
    for history in (target.present, target.absent):
        seen = upload(history, 2 * (trials // 2)) @ direction
        ratio = ((seen - mean_out) / spread_out) ** 2 / 2 - ((seen - mean) / spread) ** 2 / 2
        scores.append((ratio + math.log(spread_out / spread)).reshape(2, -1))
    return scores[0], scores[1]


def _direction(shadows: Sequence[Vectors], noise: float) -> Vectors:
    """(dim,) Fisher's discriminant: the difference of means, less what chance and noise move anyway."""
    means = [shadow.mean(axis=0) for shadow in shadows]
    difference, away = means[0] - means[1], np.concatenate([s - m for s, m in zip(shadows, means, strict=True)])
    count = len(away)
    floor = noise**2 + 1e-3 * float(np.sum(away**2)) / count + 1e-12
    # (count·floor·I + awayᵀ away)⁻¹ by Woodbury: an upload has more numbers than there are shadows.
    inner = np.linalg.solve(away @ away.T + count * floor * np.eye(count), away @ difference)
    found = difference - away.T @ inner
    return np.asarray(found / max(float(np.linalg.norm(found)), 1e-300), np.float64)


def _moments(values: Vectors, noise: float) -> tuple[float, float]:
    mean = float(values.mean())
    # A device without chance sends the same every time: its rounding is all the spread there is.
    return mean, math.hypot(float(values.std(ddof=1)), noise, 1e-6 * (1 + abs(mean)))


def _at(alarms: float, held: Vectors, out: Vectors) -> Finding:
    cut = float(np.quantile(out[0], 1 - alarms, method="higher"))
    right, wrong = Rate(int(np.sum(held > cut)), held.size), Rate(int(np.sum(out[1] > cut)), out[1].size)
    return Finding(f"TPR at FPR {alarms:.1%}", right, wrong)


def _area(held: Vectors, out: Vectors) -> float:
    """P[an upload with the item scores above one without], ties counted half (Mann and Whitney 1947)."""
    ranks = rankdata(np.concatenate([held, out]))[: held.size]
    return float((ranks.sum() - held.size * (held.size + 1) / 2) / (held.size * out.size))


def _decoder(attacker: Attacker, items: int) -> Callable[[Vectors], Vectors]:
    """Uploads (upload, dim) → (upload, item) how likely each item: ridge regression on rehearsals of made-up people.

    Solved in the dual, since an upload has more numbers than there are rehearsals.
    """
    rng = stream(0, "made-up people")
    chosen = [rng.choice(items, int(rng.integers(2, min(items, _LONGEST) + 1)), replace=False) for _ in range(_PEOPLE)]
    uploads = np.concatenate([attacker.rehearsal(clicks(rows), 1) for rows in chosen])
    held = np.zeros((_PEOPLE, items))
    for row, mine in zip(held, chosen, strict=True):
        row[mine] = 1 / len(mine)
    centre = uploads.mean(axis=0)
    away = uploads - centre
    kernel = away @ away.T
    shrink = 0.01 * float(np.trace(kernel)) / _PEOPLE + _PEOPLE * attacker.noise**2
    weights = away.T @ np.linalg.solve(kernel + shrink * np.eye(_PEOPLE), held - held.mean(axis=0))
    return lambda seen: np.asarray((seen - centre) @ weights, np.float64)


def _named(likeness: Vectors, item: int, size: int) -> int:
    """In how many rows of `likeness` (upload, item) the item is among the best `size`; a tie is no success."""
    rivals = np.sum(likeness >= likeness[:, [item]], axis=1) - 1
    return int(np.sum(rivals < size))
