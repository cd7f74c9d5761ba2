"""Evaluation of a population small enough to check by hand."""

import math

import numpy as np
import pytest

from fedrec.device.history import Event, Kind
from fedrec.errors import DataError, SpecError
from fedrec.population.source import Population
from fedrec.randomness import stream
from fedrec.study import places as module
from fedrec.study.evaluate import Ranking, evaluate
from fedrec.study.splits import Holdout, ItemSets, global_time, hide_items, leave_one_out

ITEMS = 6
BARE = Ranking(k=(1, 2), negatives=0)


def likes(*lists):
    return Population.of(
        [[Event(kind=Kind.LIKE, item=item, time=t) for t, item in enumerate(items)] for items in lists]
    )


def table(rows):
    """A scorer that reads a row a client, whatever the history."""
    return lambda clients, histories: np.array(rows, np.float32)[clients]


@pytest.fixture
def population():
    """Targets of leave-one-out: 2, none (a single choice), 4. Training choices: 1, 1, 2."""
    return likes([0, 1, 2], [3], [5, 0, 3, 4])


def test_full_ranking_by_hand(population):
    # Client 0 has seen 0 and 1: they may score what they like. Its target 2 is first. Client 2 has seen 5, 0 and 3;
    # its target 4 ties with 1 and falls behind it.
    scores = [[9, 9, 5, 1, 1, 1], [0] * 6, [9, 2, 1, 9, 2, 9]]
    split = leave_one_out(population)
    result = evaluate(table(scores), population, split.test, train=split.train, ranking=BARE)
    assert result.users["client"].tolist() == [0, 2]
    assert result.users["ndcg@2"].tolist() == pytest.approx([1, 1 / math.log2(3)])
    assert result.summary["hr@1"] == result.summary["recall@1"] == 0.5
    assert result.summary["hr@2"] == 1 and result.summary["mrr@2"] == 0.75
    # Lists: 2 then 3 (tied with 4 and 5: the first row), and 1 then 4.
    assert result.summary["coverage@2"] == pytest.approx(4 / 6)
    assert result.summary["gini@2"] == pytest.approx((-1 + 1 + 3 + 5) / (6 * 4))
    # Trained on 0 by one, 3 by one, 5 and 0 by one: counts 2 0 0 1 0 1, shares of 4 + 6.
    assert result.summary["novelty@1"] == pytest.approx(math.log2(10))
    assert result.summary["novelty@2"] == pytest.approx((math.log2(10) + math.log2(5) + 2 * math.log2(10)) / 4)
    assert not any("/" in name or "diversity" in name for name in result.summary)


def test_a_summary_says_who_and_what_was_counted(population):
    result = evaluate(table([[0] * 6] * 3), population, leave_one_out(population).test, ranking=Ranking(negatives=3))
    said = result.protocol
    assert (said["evaluated"], said["not evaluated"], said["targets"]) == (2, 1, 2)
    assert said["candidates"] == "6 of 6 items" and said["fewest negatives"] == 2
    assert "past or future" in said["negatives"] and "tie" in said["ties"] and "before the cut" in said["mask"]
    assert "client" not in result.summary and "activity" not in result.summary


def test_the_scorer_sees_each_history_up_to_its_cut(population):
    calls = []

    def scorer(clients, histories):
        calls.extend(zip(clients.tolist(), [history.items.tolist() for history in histories], strict=True))
        return np.zeros((len(clients), ITEMS), np.float32)

    evaluate(scorer, population, leave_one_out(population).test, ranking=BARE)
    assert calls == [(0, [0, 1]), (2, [5, 0, 3])]


def test_many_targets_are_ranked_together():
    population = likes([0, 1, 2, 3], [4])
    split = global_time(population, 0.3, 0.35)  # five events at 0 0 1 2 3: t2 is 1
    assert split.test.targets[0].tolist() == [1, 2, 3]
    result = evaluate(table([[9, 6, 1, 5, 7, 0]] * 2), population, split.test, ranking=Ranking(k=(3,), negatives=2))
    # Order: 4 1 3 5? no: 4 (7), 1 (6), 3 (5), 2 (1), 5 (0). Found at 2 and 3 of three.
    assert result.summary["recall@3"] == pytest.approx(2 / 3) and result.summary["mrr@3"] == 0.5
    dcg, ideal = 1 / math.log2(3) + 1 / 2, 1 + 1 / math.log2(3) + 1 / 2
    assert result.summary["ndcg@3"] == pytest.approx(dcg / ideal)
    # Sampled: each target alone against the two items never chosen, 4 and 5: ranks 2, 2 (5 < 7) and 2.
    assert result.summary["mrr@3/2"] == pytest.approx(1 / 2)


def test_sampled_negatives_were_never_chosen_and_are_replayable():
    rng = stream(0, "tiny")
    population = likes(*(rng.permutation(400)[:30] for _ in range(40)))
    split = leave_one_out(population)
    scores = np.full((40, 400), 0.0, np.float32)
    for client, history in enumerate(population):
        scores[client, history.items] = 1.0  # past and future choices tie with the target
    # The validation target, too, although the test target lies in its future.
    for holdout in (split.validation, split.test):
        assert evaluate(table(scores), population, holdout).summary["mrr@10/99"] == 1.0
    noise = stream(1, "noise").random((40, 400), np.float32)
    found = [
        evaluate(table(noise), population, split.test, ranking=Ranking(seed=s)).users["mrr@10/99"] for s in (3, 3, 4)
    ]
    assert found[0].equals(found[1]) and not found[0].equals(found[2])


def test_guessing_hits_ten_of_a_hundred():
    rng = stream(5, "guess")
    population = likes(*(rng.permutation(300)[:5] for _ in range(2000)))
    noise = stream(6, "guess").random((2000, 300), np.float32)
    result = evaluate(table(noise), population, leave_one_out(population).test)
    # 2000 Bernoulli draws: four standard deviations are 0.027, and one negative too few would be 10/99.
    assert result.summary["hr@10/99"] == pytest.approx(10 / 100, abs=0.027)
    assert result.summary["hr@10"] == pytest.approx(10 / 296, abs=0.017)


def test_batches_change_nothing(monkeypatch):
    rng = stream(2, "batches")
    population, scores = likes(*(rng.permutation(60)[:4] for _ in range(9))), rng.random((9, 60), np.float32)
    split = leave_one_out(population)
    whole = evaluate(table(scores), population, split.test, ranking=Ranking(negatives=20))
    monkeypatch.setattr(module, "_BATCH", 4)
    parts = evaluate(table(scores), population, split.test, ranking=Ranking(negatives=20))
    assert whole.users.equals(parts.users) and whole.summary == parts.summary


def test_the_scores_are_not_changed(population):
    scores = stream(2, "own").random((3, ITEMS), np.float32)
    before = scores.copy()
    evaluate(lambda clients, histories: scores[: len(clients)], population, leave_one_out(population).test)
    assert (scores == before).all()


def test_candidates_limit_what_is_ranked_and_asked_for(population):
    split = leave_one_out(population)
    only = np.array([False, True, True, True, False, False])
    result = evaluate(table([[0, 9, 1, 2, 9, 9]] * 3), population, split.test, ranking=Ranking(k=(1,), candidates=only))
    assert result.users["client"].tolist() == [0]  # client 2's target may not be ranked
    assert result.summary["mrr@1"] == 0 and result.summary["coverage@1"] == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="one entry a catalogue item"):
        evaluate(table([[0] * 6] * 3), population, split.test, ranking=Ranking(candidates=only[:3]))


def test_ignored_items_stand_in_nobodys_way(population):
    targets = ItemSets.of(np.array([0]), np.array([2], np.int32), among=3)
    ignored = ItemSets.of(np.array([0, 0]), np.array([4, 5], np.int32), among=3)
    scores = table([[0, 0, 1, 0, 9, 9]] * 3)
    cuts = np.array([1, 0, 0])
    ranking = Ranking(k=(1,), negatives=3)
    assert evaluate(scores, population, Holdout(cuts, targets), ranking=ranking).summary["hr@1"] == 0
    summary = evaluate(scores, population, Holdout(cuts, targets, ignored), ranking=ranking).summary
    assert summary["hr@1"] == summary["hr@1/3"] == 1


def test_a_hidden_target_is_not_its_own_negative():
    population = likes(*([item, (item + 1) % 8, (item + 2) % 8, (item + 3) % 8] for item in range(8)))
    reduced, split = hide_items(population, 0.25, 0, 8)
    best = np.zeros((8, 8), np.float32)
    for client, targets in enumerate(split.test.targets):
        best[client, targets] = 1
    assert evaluate(table(best), reduced, split.test).summary["mrr@10/99"] == 1


def test_groups_by_hand():
    # Training choices 1, 2, 3, 4; targets 9 (nobody trains on it), 0, 0, 9.
    population = likes([0, 5, 9], [1, 2, 5, 0], [1, 2, 3, 5, 0], [0, 1, 2, 3, 5, 9])
    split = leave_one_out(population)
    scores = table([[5, 4, 3, 2, 1, 0, 0, 0, 0, 6]] * 4)
    result = evaluate(scores, population, split.test, train=split.train, ranking=Ranking(k=(1,), few=3, negatives=0))
    assert result.users["activity"].tolist() == [1, 2, 3, 4]
    assert result.users["quartile"].tolist() == [1, 2, 3, 4]
    assert result.groups["clients"].tolist() == [1, 1, 1, 1, 2, 2]
    assert result.groups["hr@1"].tolist() == [1, 0, 0, 1, 0.5, 1]
    assert list(result.groups.index[-2:]) == ["cold users", "cold items"]
    nobody = evaluate(scores, population, split.test, train=split.train, ranking=Ranking(few=0))
    assert nobody.groups.loc["cold users", "clients"] == 0 and math.isnan(nobody.groups.loc["cold users", "hr@10"])


def test_public_vectors_turn_on_diversity(population):
    ranking = Ranking(k=(2,), vectors=np.eye(ITEMS, dtype=np.float32))
    result = evaluate(table([[0] * 6] * 3), population, leave_one_out(population).test, ranking=ranking)
    assert result.summary["diversity@2"] == 1


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (lambda clients, histories: np.full((len(clients), ITEMS), np.nan, np.float32), "finite.*diverged"),
        (lambda clients, histories: np.full((len(clients), ITEMS), -np.inf, np.float32), "finite"),
        (lambda clients, histories: np.zeros((1, ITEMS), np.float32), "one row a client"),
        (lambda clients, histories: np.zeros((len(clients), 3), np.float32), "one column a catalogue item"),
        (lambda clients, histories: np.zeros(ITEMS, np.float32), "one row a client"),
    ],
)
def test_a_scorer_that_breaks_its_promise_is_refused(population, scorer, message):
    with pytest.raises(DataError, match=message):
        evaluate(scorer, population, leave_one_out(population).test)


def test_what_cannot_be_evaluated_is_refused(population):
    scorer = table([[0] * 6] * 3)
    lonely = likes([0], [1])
    with pytest.raises(DataError, match="needs a client with a held-out item"):
        evaluate(scorer, lonely, leave_one_out(lonely).test)
    test = leave_one_out(population).test
    with pytest.raises(DataError, match="every target is a candidate"):
        evaluate(scorer, population, Holdout(test.cuts + 1, test.targets))
    with pytest.raises(SpecError, match="at least one k"):
        Ranking(k=())
    with pytest.raises(SpecError, match="number of negatives"):
        Ranking(negatives=-1)
