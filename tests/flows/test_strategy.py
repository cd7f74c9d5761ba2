"""Rounds over a grid with clients that lie, stay silent, or are not who they should be."""

import numpy as np
import pytest
from federation import (
    CLIENTS,
    HEADER,
    INITIAL,
    LEARNER,
    OPEN,
    SERVER,
    SIZE,
    SPEC,
    TASK,
    Tampered,
    Toy,
    grid_of,
    local,
    partition,
    saved,
    train,
    vector_of,
)
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedrec.errors import RunError
from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.grid import in_process
from fedrec.rounds.learner import Learner
from fedrec.rounds.optimizer import Optimum, ServerOptimizer
from fedrec.spec import FederationSpec

# One round, worked by hand.


def by_hand(cohort):
    """The shared vector after round 1 with the updates of `cohort`, over the plan's six."""
    total = np.sum([local(client, 1, INITIAL).astype(np.float64) for client in cohort], axis=0)
    return SERVER.step(Optimum.start(INITIAL), total / 6, 1).shared


COHORT = OPEN.cohort(1, CLIENTS).tolist()


def test_a_round_is_the_sum_of_the_cohort_over_the_planned_size(tmp_path):
    shared, told = train(tmp_path, rounds=1)
    np.testing.assert_array_equal(shared, by_hand(COHORT))
    assert (told[0].round, told[0].tally.asked, told[0].tally.accepted) == (1, 6, 6)
    assert (told[0].bytes_down, told[0].bytes_up) == (4 * SIZE, 4 * SIZE)
    assert told[0].seconds >= 0
    np.testing.assert_array_equal(told[0].shared, shared)


def test_the_result_does_not_depend_on_which_node_a_client_is_on_or_who_answers_first(tmp_path):
    scattered = grid_of(client_of=lambda place: (5 * place + 3) % CLIENTS)
    backwards = Tampered(scattered, lambda requests, replies: replies[::-1])
    assert train(tmp_path / "a")[0].tobytes() == train(tmp_path / "b", grid=backwards)[0].tobytes()


def test_updates_are_added_in_the_order_of_clients(tmp_path):
    """Where rounding makes the order visible: (1e20 − 1e20) + 1 is 1, and (1 − 1e20) + 1e20 is 0."""
    pulls = dict(zip(COHORT, [1e20, -1e20, 1, 0, 0, 0], strict=True))
    moves = []
    for turn in (1, -1):

        def forge(requests, replies, turn=turn):
            sent = [
                vector_of(lambda v, node=reply.metadata.src_node_id: np.full(SIZE, pulls[node - 1], np.float32))
                for reply in replies
            ]
            return [lie(*pair) for lie, pair in zip(sent, zip(requests, replies, strict=True), strict=True)][::turn]

        shared, _ = train(tmp_path / str(turn), grid=Tampered(grid_of(), forge), rounds=1)
        moves.append(shared)
    one = SERVER.step(Optimum.start(INITIAL), np.full(SIZE, 1 / 6), 1).shared
    np.testing.assert_array_equal(moves, [one, one])


def test_the_next_round_starts_from_the_last(tmp_path):
    seen = []

    def look(requests, replies):
        seen.append({wire.read_train(request).shared.tobytes() for request in requests})
        return replies

    _, told = train(tmp_path, grid=Tampered(grid_of(), look), rounds=3)
    assert seen == [{INITIAL.tobytes()}, {told[0].shared.tobytes()}, {told[1].shared.tobytes()}]


# Hostile replies: the first client asked lies, the others do not.


def forged(request, reply, **records):
    """The reply with other records in place of its own, or beside them."""
    return Message(RecordDict({**reply.content, **records}), reply_to=request)


def fields(**change):
    return lambda request, reply: forged(request, reply, header=ConfigRecord({**reply.content["header"], **change}))


def put(value):
    def change(vector):
        return np.concatenate([[np.float32(value)], vector[1:]])

    return change


def undecodable(request, reply):
    broken = Array(dtype="float32", shape=(SIZE,), stype="numpy.ndarray", data=b"\x93NUMPY\x01\x00nonsense")
    return forged(request, reply, vector=ArrayRecord({"vector": broken}))


def without_vector(request, reply):
    return Message(RecordDict({"header": reply.content["header"]}), reply_to=request)


def extra_array(request, reply):
    two = ArrayRecord({"vector": Array(INITIAL), "more": Array(INITIAL)})
    return forged(request, reply, vector=two)


LIES = {
    "nan": (vector_of(put(np.nan)), "not finite"),
    "infinite": (vector_of(put(np.inf)), "not finite"),
    "double": (vector_of(lambda v: v.astype(np.float64)), "a vector is no longer than its kind"),
    "half": (vector_of(lambda v: v.astype(np.float16)), "wrong type"),
    "integers": (vector_of(lambda v: v.astype(np.int32)), "wrong type"),
    "broadcastable": (vector_of(lambda v: v[:1]), "wrong shape"),
    "broadcastable row": (vector_of(lambda v: v[None, :]), "wrong shape"),
    "too long": (vector_of(lambda v: np.append(v, np.float32(0))), "a vector is no longer than its kind"),
    "empty": (vector_of(lambda v: v[:0]), "wrong shape"),
    "no vector": (without_vector, "an array record holds exactly one vector"),
    "extra array": (extra_array, "an array record holds exactly one vector"),
    "extra record": (
        lambda request, reply: forged(request, reply, metrics=MetricRecord({"loss": 0.1})),
        "a message holds a header and at most one vector",
    ),
    "extra field": (
        fields(examples=3),
        "a header names version, task, round, client, hosts, clip, nonce, model and nothing else",
    ),
    "other version": (fields(version=wire.VERSION + 1), "both sides speak one protocol version"),
    "later round": (fields(round=2), "an update belongs to the round that asked for it"),
    "other task": (fields(task="other"), "an update belongs to the round that asked for it"),
    "undecodable": (undecodable, "the vector cannot be decoded"),
    "error": (
        lambda request, reply: Message(Error(code=1, reason="x"), reply_to=request),
        "the node answered with an error",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_counted_and_the_model_is_that_of_the_others(tmp_path, name):
    lie, reason = LIES[name]
    liar = Tampered(grid_of(), lambda requests, replies: [lie(requests[0], replies[0]), *replies[1:]])
    shared, told = train(tmp_path, grid=liar, rounds=1)
    assert (told[0].tally.asked, told[0].tally.accepted) == (6, 5)
    assert told[0].tally.refused == {reason: 1}
    np.testing.assert_array_equal(shared, by_hand(COHORT[1:]))


def test_a_device_that_raises_is_one_reply_less(tmp_path):
    victim = COHORT[2]

    class Broken(Toy):
        def take_part(self, turn, shared):
            if self.client == victim:
                raise RunError("this device is broken")
            return super().take_part(turn, shared)

    grid = in_process(client_app(lambda context: Broken(partition(context))), CLIENTS)
    shared, told = train(tmp_path, grid=grid, rounds=1)
    assert told[0].tally.refused == {"the node answered with an error": 1}
    np.testing.assert_array_equal(shared, by_hand([client for client in COHORT if client != victim]))


def test_a_second_answer_is_not_counted_twice(tmp_path):
    def twice(requests, replies):
        loud = vector_of(lambda v: 100 * v)(requests[0], replies[0])
        return [*replies, replies[1], loud]

    shared, told = train(tmp_path, grid=Tampered(grid_of(), twice), rounds=1)
    assert (told[0].tally.accepted, told[0].tally.refused) == (6, {"duplicate": 2})
    np.testing.assert_array_equal(shared, by_hand(COHORT))


def test_nobody_answers_unasked(tmp_path):
    outsider = next(client for client in range(CLIENTS) if client not in COHORT)
    honest = grid_of()

    def intrude(requests, replies):
        extra = wire.train(outsider + 1, HEADER, wire.arrays(INITIAL))
        return [*honest.send_and_receive([extra]), *replies]

    shared, told = train(tmp_path, grid=Tampered(honest, intrude), rounds=1)
    assert (told[0].tally.accepted, told[0].tally.refused) == (6, {"not asked": 1})
    np.testing.assert_array_equal(shared, by_hand(COHORT))


def test_silence_is_a_zero(tmp_path):
    shared, told = train(tmp_path, grid=Tampered(grid_of(), lambda requests, replies: replies[2:]), rounds=1)
    assert (told[0].tally.asked, told[0].tally.accepted, told[0].tally.refused) == (6, 4, {})
    np.testing.assert_array_equal(shared, by_hand(COHORT[2:]))


def test_a_device_of_another_task_does_not_take_part():
    grid = in_process(client_app(lambda context: Toy(0, task="other")), 1)
    asked = wire.train(1, HEADER, wire.arrays(INITIAL))
    (reply,) = grid.send_and_receive([asked])
    assert reply.error.reason.startswith("server and device were set up for one task")


# Quorum.


def only(count):
    return Tampered(grid_of(), lambda requests, replies: replies[:count])


def test_a_quorum_is_enough(tmp_path):
    shared, _ = train(tmp_path, grid=only(3), rounds=1)
    np.testing.assert_array_equal(shared, by_hand(COHORT[:3]))


def test_below_the_quorum_the_run_stops_and_can_be_resumed(tmp_path):
    train(tmp_path, rounds=2)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(RunError, match="needs a quorum.*round=3, accepted=2, asked=6, refused={}.*unchanged"):
        train(tmp_path, grid=only(2))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert train(tmp_path)[0].tobytes() == train(tmp_path / "calm")[0].tobytes()


def test_the_quorum_says_why_replies_were_refused(tmp_path):
    lie = LIES["nan"][0]
    liars = Tampered(grid_of(), lambda requests, replies: list(map(lie, requests, replies)))
    with pytest.raises(RunError, match="refused={'not finite': 6}"):
        train(tmp_path, grid=liars)
    assert saved(tmp_path) is None


def test_a_model_that_diverged_is_not_saved(tmp_path):
    huge = np.float32(3e38)
    shout = vector_of(lambda v: np.full(SIZE, huge))
    spec = FederationSpec(rounds=1, cohort=6, optimizer="sgd", learning_rate=1e9)
    learner = Learner(ServerOptimizer(spec, SERVER.decayed), SIZE, 1)
    strategy = FederatedTraining(spec, OPEN, learner, task=TASK, folder=tmp_path)
    grid = Tampered(grid_of(), lambda requests, replies: list(map(shout, requests, replies)))
    strategy.join(grid, CLIENTS)
    with pytest.raises(RunError, match="diverged.*Lower the learning rate"), np.errstate(over="ignore"):
        strategy.start(grid, wire.arrays(INITIAL))
    assert saved(tmp_path) is None


def test_a_checkpoint_of_another_task_is_refused(tmp_path):
    train(tmp_path, rounds=1)
    strategy = FederatedTraining(SPEC, OPEN, LEARNER, task="other", folder=tmp_path)
    with pytest.raises(RunError, match="a checkpoint belongs to one task"):
        strategy.start(grid_of(), wire.arrays(INITIAL))


def test_no_metric_leaves_a_device(tmp_path):
    strategy = FederatedTraining(SPEC, OPEN, LEARNER, task=TASK, folder=tmp_path)
    assert strategy.configure_evaluate(1, wire.arrays(INITIAL), ConfigRecord(), grid_of()) == []
    assert strategy.aggregate_evaluate(1, []) is None
