"""Evaluation of a population small enough to check by hand."""

import math

import numpy as np
import pytest

from fedrec.device.event import Event, Kind
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
    # 2 and 4 were chosen by nobody, 3 by one of three people, 1 by nobody.
    assert result.users["popularity@2"].tolist() == pytest.approx([1 / 6, 0])
    assert not any("/" in name or "diversity" in name or "miscal" in name for name in result.summary)


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
    ranking = Ranking(negatives=20, tags=[(f"t{item % 7}",) * (item % 5 > 0) for item in range(60)])
    whole = evaluate(table(scores), population, split.test, ranking=ranking)
    monkeypatch.setattr(module, "_BATCH", 4)
    parts = evaluate(table(scores), population, split.test, ranking=ranking)
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
    # Chosen in training by: 0 one, 1 two, 2 three, 3 two, 5 two. Means 1, 5/2, 7/3 and 8/4.
    assert result.users["taste"].tolist() == [1, 3, 2, 1]
    assert result.groups["clients"].tolist() == [1, 1, 1, 1, 2, 1, 1, 2, 2]
    assert result.groups["hr@1"].tolist() == [1, 0, 0, 1, 1, 0, 0, 0.5, 1]
    assert list(result.groups.index[4:7]) == ["niche taste", "mixed taste", "mainstream taste"]
    assert list(result.groups.index[-2:]) == ["cold users", "cold items"]
    nobody = evaluate(scores, population, split.test, train=split.train, ranking=Ranking(few=0))
    assert nobody.groups.loc["cold users", "clients"] == 0 and math.isnan(nobody.groups.loc["cold users", "hr@10"])


def test_public_vectors_turn_on_diversity(population):
    ranking = Ranking(k=(2,), vectors=np.eye(ITEMS, dtype=np.float32))
    result = evaluate(table([[0] * 6] * 3), population, leave_one_out(population).test, ranking=ranking)
    assert result.summary["diversity@2"] == 1


def test_equals_share_a_taste_and_who_chose_nothing_has_none():
    # Trained on nothing, 0, 0, 1, 1, 2 3 and 2 3: counts 2 2 2 2, so that all who chose have mean 2.
    population = likes([9, 8], [0, 8], [0, 8], [1, 8], [1, 8], [2, 3, 8], [2, 3, 8])
    cuts, targets = np.array([0, 1, 1, 1, 1, 2, 2]), ItemSets.of(np.arange(7), np.full(7, 8, np.int32), 7)
    found = evaluate(table([[0] * 10] * 7), population, Holdout(cuts, targets), ranking=BARE)
    assert found.users["taste"].tolist() == [0, 1, 1, 1, 1, 1, 1]
    assert found.groups.loc[["niche taste", "mainstream taste"], "clients"].tolist() == [6, 0]
    # Alone with one choice or with three: equal means, also where a tenth and three tenths over three are not.
    population, cuts = likes([0, 8], [1, 2, 3, 8], *[[9, 8]] * 8), np.array([1, 3, *[0] * 8])
    targets = ItemSets.of(np.arange(10), np.full(10, 8, np.int32), 10)
    found = evaluate(table([[0] * 10] * 10), population, Holdout(cuts, targets), ranking=BARE)
    assert found.users["taste"].tolist() == [1, 1, *[0] * 8]
    nobody = evaluate(table([[0] * 10] * 10), population, Holdout(0 * cuts, targets), ranking=BARE)
    assert set(nobody.users["taste"]) == {0} and nobody.summary["popularity@1"] == 0


TAGS = (("fact",), ("fact", "new", "new"), ("tale",), ("fact",), ("tale",), ())
"""Of items 0 … 5."""


def test_public_tags_turn_on_miscalibration(population):
    # Clients 0 and 2 trained on 0 (fact), and on 5 (untagged) and 0. Lists: 1 then 2, and 3 then 1.
    cuts = np.array([1, 1, 2])
    holdout = Holdout(cuts, ItemSets.of(np.array([0, 2]), np.array([2, 4], np.int32), 3))
    scores = table([[0, 9, 8, 0, 0, 0], [0] * 6, [0, 8, 0, 9, 0, 0]])
    found = evaluate(scores, population, holdout, ranking=Ranking(k=(1, 2), negatives=0, tags=TAGS)).users
    # Shown: half fact, half new; a quarter fact, a quarter new, half tale. Then fact; three quarters fact, one new.
    assert found["miscalibration@1"].tolist() == pytest.approx([-math.log2(0.99 / 2 + 0.01), 0])
    assert found["miscalibration@2"].tolist() == pytest.approx(
        [-math.log2(0.99 / 4 + 0.01), -math.log2(0.99 * 3 / 4 + 0.01)]
    )


def test_without_a_tagged_item_there_is_no_miscalibration(population):
    split, scores = leave_one_out(population), table([[0, 0, 0, 0, 0, 9], [0] * 6, [0, 9, 0, 0, 0, 0]])
    ranking = Ranking(k=(1,), negatives=0, tags=TAGS)
    # Client 0 is shown the untagged 5 alone; client 2 was trained on 5 and 0, so it has a taste.
    found = evaluate(scores, population, split.test, train=split.train, ranking=ranking)
    assert math.isnan(found.users["miscalibration@1"][0])
    assert found.summary["miscalibration@1"] == found.users["miscalibration@1"][1] > 0
    early = evaluate(scores, population, split.test, train=np.array([1, 1, 1]), ranking=ranking)  # on 5 alone
    assert math.isnan(early.users["miscalibration@1"][1])
    bare = Ranking(k=(1,), negatives=0, tags=[()] * ITEMS)
    assert math.isnan(evaluate(scores, population, split.test, ranking=bare).summary["miscalibration@1"])
    with pytest.raises(DataError, match="one list a catalogue item"):
        evaluate(scores, population, split.test, ranking=Ranking(tags=TAGS[:3]))


def test_a_calibrated_list_is_near_and_a_list_of_one_tag_is_far():
    # Two hundred items of two tags in turn; everybody chose nine of the first and three of the second.
    tags, rng = [("song",) if item % 2 else ("story",) for item in range(200)], stream(7, "mixed")
    population = likes(*(np.append(2 * rng.permutation(99)[:9], [1, 3, 5, 199]) for _ in range(20)))
    cuts, mixed, one_tag = np.full(20, 12), np.zeros((20, 200), np.float32), np.zeros((20, 200), np.float32)
    for client, history in enumerate(population):
        unread = np.setdiff1d(np.arange(199), history.items)
        mixed[client, unread[unread % 2 == 0][:6]] = mixed[client, unread[unread % 2 == 1][:2]] = 1
        one_tag[client, unread[unread % 2 == 1][:8]] = 1
    holdout = Holdout(cuts, ItemSets.of(np.arange(20), np.full(20, 199, np.int32), 20))
    ranking = Ranking(k=(8,), negatives=0, tags=tags)
    near, far = (
        evaluate(table(s), population, holdout, ranking=ranking).users["miscalibration@8"] for s in (mixed, one_tag)
    )
    assert near.tolist() == pytest.approx([0] * 20, abs=1e-12)
    assert far.tolist() == pytest.approx([0.75 * math.log2(100) + 0.25 * math.log2(0.25 / 0.9925)] * 20)


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
