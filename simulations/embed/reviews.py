"""The sentiment head on Amazon reviews: learnt from some people's, tried on other people's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.encoder import PortableEncoder
from fedrec.model.adapter import build_adapter
from fedrec.model.encoder import open_encoder
from fedrec.model.encoder_files import ENCODER, EncoderInfo
from fedrec.model.portable import PortableInfo
from fedrec.model.sentiment import Survey, public_head, read
from fedrec.privacy.conduct import Conduct
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.plan import PrivacyPlan
from fedrec.randomness import stream
from fedrec.rounds.aggregate import OpenRounds, PrivateRounds
from fedrec.rounds.survey import learn, promise
from fedrec.spec import Plan

FILE = Path("amazon-musical-instruments") / "reviews_Musical_Instruments_5.json.gz"
SEEDS = range(3)
TEST = 0.2  # of the people
BUDGETS = (8.0, 1.0)
LIKED = 0.7  # between three stars and four

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reviews:
    """Everybody's reviews: `people` (review,) are numbers of their writers, `ratings` lie in [0, 1]."""

    vectors: Floats
    ratings: Floats
    people: NDArray[np.int64]

    def of(self, people: NDArray[np.int64]) -> Reviews:
        """Those of some people."""
        return self.rows(np.flatnonzero(np.isin(self.people, people)))

    def each(self) -> list[Reviews]:
        """One for each person."""
        order = np.argsort(self.people, kind="stable")
        ends = np.flatnonzero(np.diff(self.people[order])) + 1
        return [self.rows(rows) for rows in np.split(order, ends)]

    def rows(self, rows: NDArray[np.int64]) -> Reviews:
        """Some of them, by position."""
        return Reviews(self.vectors[rows], self.ratings[rows], self.people[rows])


def reviews(data: Path, keep: Path) -> Reviews:
    """The reviews in the shared data, read by MiniLM as devices read it: exported, in int8."""
    with gzip.open(data / FILE, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    names = {name: number for number, name in enumerate(sorted({row["reviewerID"] for row in rows}))}
    ratings = np.array([(row["overall"] - 1) / 4 for row in rows], np.float32)
    vectors = _vectors([row["reviewText"] for row in rows], keep)
    whole = Reviews(vectors, ratings, np.array([names[row["reviewerID"]] for row in rows]))
    return whole.rows(np.flatnonzero(vectors.any(axis=1)))  # of a text without words every head says nothing


def _vectors(texts: list[str], keep: Path) -> Floats:
    kept = keep / "reviews.npy"
    if not kept.exists():
        np.save(kept, _encoder(keep / "encoder").encode(texts))
    return np.asarray(np.load(kept))


def _encoder(folder: Path) -> PortableEncoder:
    if not (folder / ENCODER).exists():
        from fedrec.model.onnx_export import export_encoder

        export_encoder(build_adapter("none", open_encoder("minilm"), rank=1, blocks=1, seed=0), folder, seed=0)
    content = (folder / ENCODER).read_bytes()
    return PortableEncoder(folder, PortableInfo.of(content), EncoderInfo.of(content), {})


@dataclass(frozen=True)
class Figures:
    """Of one head on the reviews of people whom it was not learnt from."""

    auc: float  # four and five stars before three and fewer
    clear: float  # five stars before one and two
    error: float  # mean absolute, of ratings in [0, 1]
    balanced: float  # accuracy, mean of both classes, split where the training people's median prediction lies

    @classmethod
    def of(cls, predicted: Floats, ratings: Floats, threshold: float) -> Figures:
        """`predicted` (review,) against `ratings` (review,)."""
        liked, up = ratings > LIKED, predicted > threshold
        best, worst = ratings > 0.9, ratings < 0.3
        balanced = (up[liked].mean() + (~up[~liked]).mean()) / 2
        return cls(
            auc(predicted[liked], predicted[~liked]), auc(predicted[best], predicted[worst]),
            float(np.abs(predicted - ratings).mean()), float(balanced),
        )  # fmt: skip


def auc(higher: Floats, lower: Floats) -> float:
    """How often one of `higher` is above one of `lower`; ties count half."""
    below = np.searchsorted(np.sort(lower), higher, "left") + np.searchsorted(np.sort(lower), higher, "right")
    return float(below.mean() / (2 * len(lower)))


def central(taught: Reviews, seed: int) -> Callable[[Floats], Floats]:
    """Ridge regression where all reviews lie in one place; its ridge is chosen on a fifth of the people."""
    fit, tried = parted(taught, TEST, seed, "validation")
    ridges = 10.0 ** np.arange(-3, 3)
    losses = [float(np.square(_ridge(fit, ridge)(tried.vectors) - tried.ratings).mean()) for ridge in ridges]
    return _ridge(taught, float(ridges[int(np.argmin(losses))]))


def _ridge(taught: Reviews, ridge: float) -> Callable[[Floats], Floats]:
    centre, mean = taught.vectors.mean(axis=0), taught.ratings.mean()
    away = (taught.vectors - centre).astype(np.float64)
    weights = np.linalg.solve(away.T @ away + ridge * np.eye(away.shape[1]), away.T @ (taught.ratings - mean))
    return lambda vectors: np.clip((vectors - centre) @ weights + mean, 0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Taught:
    """The people of one drawing, with the moments that each of them would send."""

    survey: Survey
    moments: list[NDArray[np.float64]]

    @classmethod
    def of(cls, known: Reviews, start: Floats) -> Taught:
        """Everybody's moments."""
        people = known.each()
        survey = Survey(known.vectors.shape[1], len(people), start)
        return cls(survey, [survey.statistics(one.vectors, one.ratings) for one in people])

    def head(self, plan: PrivacyPlan | None) -> Callable[[Floats], Floats]:
        """What one round teaches; `plan` None: without noise."""
        weights = self._open() if plan is None else self._private(plan)
        return lambda vectors: read(weights, vectors)

    def _open(self) -> Floats:
        rounds = OpenRounds(0, self.survey.users, everybody=self.survey.users)
        return learn(self.survey, rounds, lambda client: self.moments[client].astype(np.float32)).weights

    def _private(self, plan: PrivacyPlan) -> Floats:
        with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.jsonl", plan) as ledger:
            rounds, crossing = PrivateRounds(plan, ledger, 0, Conduct(schedules=plan.schedules)), plan.crossing(1)
            learnt = learn(self.survey, rounds, lambda client: crossing.send(self.moments[client], None))
            rounds.published(1, learnt.release.digest)
        return learnt.weights


def parted(whole: Reviews, share: float, seed: int, purpose: str) -> tuple[Reviews, Reviews]:
    """The reviews of most people, and those of a share of them."""
    people = stream(seed, "reviews", purpose).permutation(np.unique(whole.people))
    cut = round(share * len(people))
    return whole.of(np.sort(people[cut:])), whole.of(np.sort(people[:cut]))


def measured(data: Path, keep: Path) -> Iterator[str]:
    """The section about reviews."""
    whole, start = reviews(data, keep), public_head(_encoder(keep / "encoder").encode)
    splits = [parted(whole, TEST, seed, "test") for seed in SEEDS]
    users, asked = len(np.unique(splits[0][0].people)), min(len(tried.ratings) for _, tried in splits)
    promised = {epsilon: _promised(users, epsilon) for epsilon in BUDGETS}
    rows: dict[str, list[Figures]] = {}
    for seed, (known, strange) in enumerate(splits):
        for name, head in _heads(known, start, promised, seed):
            threshold = float(np.median(head(known.vectors)))
            rows.setdefault(name, []).append(Figures.of(head(strange.vectors), strange.ratings, threshold))
    yield (
        f"{len(whole.ratings)} reviews with words, of {len(np.unique(whole.people))} people; {users} teach, "
        f"the others ({asked} reviews or more) are asked; {len(SEEDS)} drawings of who is who, mean ± standard "
        f"deviation over them. {float((whole.ratings > LIKED).mean()):.0%} of the reviews have four or five stars."
    )
    yield from ("", "| head | AUC liked | AUC 5 against 1–2 | balanced accuracy | mean absolute error |")
    yield "|---|---|---|---|---|"
    for name, found in rows.items():
        yield f"| {name} | {_row(found)} |"
    yield from ("", _terms(promised[BUDGETS[0]]))


def _heads(
    known: Reviews, start: Floats, promised: dict[float, PrivacyPlan], seed: int
) -> Iterator[tuple[str, Callable[[Floats], Floats]]]:
    taught = Taught.of(known, start)
    yield "majority: everybody is as pleased as the mean", _constant(known)
    yield "public sentences alone, nobody's reviews", lambda vectors: read(start, vectors)
    for epsilon, plan in sorted(promised.items()):
        yield f"federated, ε = {epsilon:g}", taught.head(plan)
    yield "federated, ε = ∞", taught.head(None)
    yield "central, ridge chosen on validation people", central(known, seed)


def _promised(users: int, epsilon: float) -> PrivacyPlan:
    privacy = {"mode": "user-central", "epsilon": epsilon}
    plan = promise(Plan.of({"clients": users, "privacy": privacy, "federation": {"cohort": users}}), Survey(384, users))
    assert plan is not None
    return plan


def _terms(plan: PrivacyPlan) -> str:
    noise = plan.phases[0].multiplier
    return f"The promise at ε = 8, in full: {plan.promises[0].guarantee}; noise multiplier {noise:.3f}."


def _constant(known: Reviews) -> Callable[[Floats], Floats]:
    return lambda vectors: np.full(len(vectors), known.ratings.mean(), np.float32)


def _row(found: list[Figures]) -> str:
    columns = [[getattr(one, name) for one in found] for name in ("auc", "clear", "balanced", "error")]
    return " | ".join(f"{np.mean(column):.3f} ± {np.std(column):.3f}" for column in columns)
