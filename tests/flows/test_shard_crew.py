"""Shards under the strategy: the rounds that devices have, and what happens when one is lost, lies or is misplaced."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from federation import (
    CLIENTS,
    HEADER,
    INITIAL,
    LEARNER,
    OPEN,
    PLAN,
    SIZE,
    SPEC,
    TASK,
    Tampered,
    Toy,
    grid_of,
    partition,
    saved,
    strategy_of,
    train,
    vector_of,
)
from flwr.app import ConfigRecord, Error, Message, RecordDict
from plans import plan_of

from fedrec.errors import RunError, WireError
from fedrec.exchange import wire
from fedrec.exchange.client import shard_app
from fedrec.exchange.crew import Shards
from fedrec.exchange.flower import become_local_server
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.grid import in_process
from fedrec.privacy.chain import Book
from fedrec.privacy.crossing import Summed
from fedrec.privacy.noise import Level

become_local_server()


@dataclass
class Slice:
    """Toy clients behind one node, added up there."""

    first: int
    hosts: int
    plan: object = None
    task: str = TASK

    def take_part(self, turn, shared, clients):
        sent = [Toy(int(client), self.plan, self.task).take_part(turn, shared) for client in clients]
        kind = np.int64 if self.plan else np.float64
        width = self.plan.crossing(turn.number, turn.clip).width(SIZE) if self.plan else SIZE
        total = sum((row.astype(kind) for row in sent), np.zeros(width, kind))
        return wire.Partial(Summed(total, len(sent)), Counter())


def shards_of(*hosts, plan=None, firsts=None):
    """A grid of shards that host so many clients each."""
    firsts = np.cumsum([0, *hosts[:-1]]).tolist() if firsts is None else firsts
    slices = [Slice(first, count, plan) for first, count in zip(firsts, hosts, strict=True)]
    return in_process(shard_app(lambda context: slices[partition(context)]), len(hosts))


def trained(folder, grid, plan=None, rounds=0):
    told = []
    with strategy_of(folder, plan) as strategy:
        strategy.crew = Shards(len(list(grid.get_node_ids())))
        strategy.observers.append(told.append)
        strategy.join(grid, plan.population if plan else CLIENTS)
        strategy.start(grid, wire.arrays(INITIAL), num_rounds=rounds)
    return saved(folder).optimum.shared, told


def test_shards_and_devices_train_one_model(tmp_path):
    alone, _ = train(tmp_path / "devices")
    for hosts in ((12,), (5, 7), (1, 1, 10)):
        shared, told = trained(tmp_path / str(hosts), shards_of(*hosts))
        np.testing.assert_allclose(shared, alone, atol=1e-6)
        assert told[0].tally.asked == told[0].tally.accepted == 6


@pytest.mark.parametrize("kind", ["poisson", "shares", "local", "fixed"])
def test_private_sums_are_the_same_whole_numbers(tmp_path, kind):
    plan = plan_of(kind, rounds=3, level=Level.TEST)
    alone, _ = train(tmp_path / "devices", plan)
    shared, _ = trained(tmp_path / "shards", shards_of(15, 25, plan=plan), plan)
    assert shared.tobytes() == alone.tobytes()


def lost(place, number):
    """Shard `place` is gone in round `number`."""

    def tamper(requests, replies):
        if int(requests[0].metadata.group_id) != number:
            return replies
        gone = [request for request in requests if request.metadata.dst_node_id == place + 1]
        kept = [reply for reply in replies if reply.metadata.src_node_id != place + 1]
        return kept + [Message(Error(code=1, reason="a worker died"), reply_to=request) for request in gone]

    return tamper


def test_a_lost_shard_costs_its_clients_one_round(tmp_path):
    _, told = trained(tmp_path / "lost", Tampered(shards_of(2, 10), lost(1, 2)))
    tally = told[1].tally
    assert tally.asked == 6 and tally.accepted + sum(tally.refused.values()) == 6
    assert list(tally.refused) == ["the node answered with an error"] and tally.accepted < 3 < 6
    assert told[2].tally.accepted == 6 and len(told) == 4


def test_without_any_shard_a_round_is_not_released(tmp_path):
    dead = Tampered(shards_of(12), lost(0, 2))
    with pytest.raises(RunError, match="quorum"):
        trained(tmp_path, dead)
    assert saved(tmp_path).round == 1


def test_a_lost_shard_of_a_private_round_is_charged_like_any_round(tmp_path):
    grid = Tampered(shards_of(20, 20, plan=PLAN), lost(1, 2))
    trained(tmp_path / "lost", grid, PLAN)
    trained(tmp_path / "whole", shards_of(20, 20, plan=PLAN), PLAN)
    books = [Book.read(tmp_path / name / "ledger.jsonl") for name in ("lost", "whole")]
    assert books[0].position.charged == books[1].position.charged == (1, 2, 3, 4)
    kept, other = (saved(tmp_path / name).optimum for name in ("lost", "whole"))
    assert (kept.shared != other.shared).any()


def miscounting(change):
    """A shard that says something else of how many it added."""

    def forge(request, reply):
        content = dict(reply.content)
        content["partial"] = ConfigRecord({**content["partial"], **change})
        return Message(RecordDict(content), reply_to=request)

    return forge


LIES = {
    "one more": (miscounting({"count": 7}), "a shard answers once for whom it was asked"),
    "nobody": (miscounting({"count": 0}), "a shard answers once for whom it was asked"),
    "count in words": (miscounting({"count": "6"}), "a shard counts whom it accepted and whom it refused"),
    "another field": (miscounting({"norm": 1.0}), "a shard counts whom it accepted and whom it refused"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_shard_that_lies_about_its_clients_is_left_out(tmp_path, lie):
    forge, reason = LIES[lie]
    grid = Tampered(shards_of(12), lambda requests, replies: list(map(forge, requests, replies)))
    with pytest.raises(RunError, match=f"quorum.*{reason}"):
        trained(tmp_path, grid)


def test_a_second_answer_is_not_added(tmp_path):
    plain, _ = trained(tmp_path / "plain", shards_of(5, 7))
    shared, told = trained(tmp_path / "twice", Tampered(shards_of(5, 7), lambda _, replies: replies + replies))
    assert shared.tobytes() == plain.tobytes()
    assert told[0].tally.refused == {"a shard answers once for whom it was asked": 2}


def test_a_sum_that_no_cohort_has_is_refused(tmp_path):
    forge = vector_of(lambda vector: vector + 2**40)
    grid = Tampered(shards_of(40, plan=PLAN), lambda requests, replies: list(map(forge, requests, replies)))
    with pytest.raises(Exception, match="P08: every summand is within the clip norm"):
        trained(tmp_path, grid, PLAN)
    assert saved(tmp_path) is None


@pytest.mark.parametrize(
    ("hosts", "firsts"), [((6, 6), [0, 5]), ((6, 5), [0, 6]), ((7, 6), [0, 6]), ((6, 6), [6, 13]), ((12, 0, 1), None)]
)
def test_slices_that_do_not_make_up_the_clients_end_the_join(tmp_path, hosts, firsts):
    with pytest.raises(WireError, match="shards cut the clients of the plan into slices"):
        trained(tmp_path, shards_of(*hosts, firsts=firsts))


def test_devices_are_never_asked_as_shards_nor_shards_as_devices(tmp_path):
    strategy = FederatedTraining(SPEC, OPEN, LEARNER, task=TASK, folder=tmp_path)
    with pytest.raises(WireError, match="a device answers for itself alone"):
        strategy.join(in_process(shard_app(lambda context: Slice(partition(context), 2)), CLIENTS), CLIENTS)
    asked = wire.train(1, HEADER, wire.arrays(INITIAL), np.arange(3))
    [reply] = grid_of().send_and_receive([asked])
    assert reply.has_error() and "a device answers for itself alone" in reply.error.reason
    plain = wire.train(1, HEADER, wire.arrays(INITIAL))
    [reply] = shards_of(12).send_and_receive([plain])
    assert reply.has_error() and "a shard is asked for some of its clients" in reply.error.reason


def test_a_request_names_clients_by_whole_numbers():
    asked = wire.train(1, HEADER, wire.arrays(INITIAL), np.arange(3.0))
    [reply] = shards_of(12).send_and_receive([asked])
    assert reply.has_error() and "clients are named by their numbers" in reply.error.reason
    with pytest.raises(WireError):
        wire.read_update(reply, HEADER)


def test_a_partial_is_read_as_it_was_said():
    said = wire.Partial(Summed(np.arange(SIZE), 3), Counter({"not finite": 2, "P10": 1}))
    again = wire.partial(wire.train(1, HEADER, wire.arrays(INITIAL)), HEADER, said)
    heard = wire.read_partial(again, HEADER)
    assert heard.summed.total.tolist() == list(range(SIZE)) and heard.summed.count == 3
    assert heard.refused == said.refused
