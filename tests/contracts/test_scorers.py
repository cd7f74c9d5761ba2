"""What every scorer promises, whoever wrote it."""

import numpy as np
import pytest

from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.study.baselines import ease, frozen_text, item_knn, popularity, random_scores
from fedrec.study.evaluate import evaluate
from fedrec.study.splits import leave_one_out

ITEMS, CLIENTS = 30, 25
VECTORS = stream(0, "vectors").normal(size=(ITEMS, 4)).astype(np.float32)

BUILDERS = {
    "random": lambda population, cuts: random_scores(ITEMS, seed=1),
    "popularity": lambda population, cuts: popularity(population, cuts, ITEMS),
    "frozen text": lambda population, cuts: frozen_text(VECTORS),
    "item-kNN": lambda population, cuts: item_knn(population, cuts, ITEMS, neighbours=5, shrinkage=2.0),
    "EASE": lambda population, cuts: ease(population, cuts, ITEMS, l2=1.0),
}
every_scorer = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def people(seed):
    rng = stream(seed, "people")
    kinds = [Kind.LIKE, Kind.SKIP, Kind.RATE]
    return Population.of(
        [
            [
                Event(kind=kinds[rng.integers(3)], item=int(item), time=t)
                for t, item in enumerate(rng.permutation(ITEMS)[:9])
            ]
            for _ in range(CLIENTS)
        ]
    )


@pytest.fixture(scope="module")
def population():
    return people(0)


@pytest.fixture(scope="module")
def cuts(population):
    return leave_one_out(population).train


def ask(scorer, population, cuts, clients):
    return scorer(np.asarray(clients), [population[client].before(int(cuts[client])) for client in clients])


@every_scorer
def test_scores_have_one_row_a_client_and_are_finite(build, population, cuts):
    scores = ask(build(population, cuts), population, cuts, range(CLIENTS))
    assert scores.shape == (CLIENTS, ITEMS) and scores.dtype == np.float32 and np.isfinite(scores).all()


@every_scorer
def test_a_client_scores_the_same_in_any_company(build, population, cuts):
    scorer = build(population, cuts)
    together = ask(scorer, population, cuts, range(CLIENTS))
    for client in (0, 7, CLIENTS - 1):
        assert ask(scorer, population, cuts, [client]) == pytest.approx(together[client : client + 1], abs=1e-5)


@every_scorer
def test_a_scorer_repeats_itself_and_is_rebuilt_the_same(build, population, cuts):
    scorer = build(population, cuts)
    first = ask(scorer, population, cuts, range(CLIENTS)).copy()
    assert (ask(scorer, population, cuts, range(CLIENTS)) == first).all()
    assert (ask(build(population, cuts), population, cuts, range(CLIENTS)) == first).all()


@every_scorer
def test_an_empty_history_is_ranked_too(build, population, cuts):
    assert np.isfinite(build(population, cuts)(np.array([0]), [History.of([])])).all()


@every_scorer
def test_what_comes_after_the_cut_changes_nothing(build, population, cuts):
    past = [population.table.slice(int(start), int(cut)) for start, cut in zip(population.offsets, cuts, strict=False)]
    histories = [History(table) for table in past]
    future = people(1)
    other = Population.of([[*events_of(h), *events_of(f, 100)] for h, f in zip(histories, future, strict=True)])
    clients = np.arange(CLIENTS)
    assert (build(population, cuts)(clients, histories) == build(other, cuts)(clients, histories)).all()


def events_of(history, after=0):
    columns = zip(history.kinds, history.items, history.times, strict=True)
    return [Event(kind=Kind(kind), item=int(item), time=int(time) + after) for kind, item, time in columns]


@every_scorer
def test_a_scorer_can_be_evaluated(build, population, cuts):
    split = leave_one_out(population)
    result = evaluate(build(population, cuts), population, split.test, train=split.train)
    assert 0 <= result.summary["ndcg@10"] <= 1 and result.protocol["evaluated"] > CLIENTS / 2
