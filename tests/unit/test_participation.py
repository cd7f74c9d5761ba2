"""A device spends before it trains, sends once, and tells nobody that it failed."""

import logging
import time

import numpy as np
import pytest

from fedrec.device.participation import Exit, Participation
from fedrec.errors import BudgetExceeded, PrivacyRefusal
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Limits, Span, Terms

LIMITS = Limits(participations=100)
PLANNED = (4, np.dtype(np.int32))
SECRET = "a sentence that a person wrote"


@pytest.fixture
def ledger(tmp_path):
    with DeviceLedger(tmp_path / "device.ledger", LIMITS, fast=True) as ledger:
        span = Span(first=1, rounds=10, participations=3, separation=2)
        ledger.enrol("me", Terms(task="task", statement="plan", spans=(span,), most=LIMITS))
        yield ledger


@pytest.fixture
def me(ledger):
    return Participation(ledger=ledger, device="me", task="task", deadline=0.2)


class Doing:
    """Work that remembers what was done, with noise that is never the same twice."""

    def __init__(self, train=lambda: np.full(4, 2.0)):
        self.done, self.given, self._train = [], [], train

    def train(self):
        self.done.append("train")
        return self._train()

    def cross(self, update):
        self.done.append("cross")
        self.given.append(update)
        return (update + len(self.given) * 100).astype(np.int32)

    def work(self, sent=PLANNED, idle=None):
        return self.train, self.out(sent, idle)

    def out(self, sent=PLANNED, idle=None):
        return Exit(cross=self.cross, size=4, sent=sent, idle=idle)


def test_in_this_order(ledger, me):
    def spends():
        assert ledger.standing("me").used == 1
        assert not ledger.standing("me").seats["task"].digest
        return np.arange(4.0)

    doing = Doing(spends)
    sent = me.take_part(1, *doing.work())
    assert doing.done == ["train", "cross"]
    assert sent.dtype == np.int32 and sent.tolist() == [100, 101, 102, 103]
    assert ledger.sent("me", "task", 1) == sent.tobytes()


def test_a_repeated_request_gets_the_same_bytes_and_no_second_training(me):
    doing = Doing()
    first = me.take_part(1, *doing.work())
    again = me.take_part(1, *doing.work())
    assert doing.done == ["train", "cross"]
    assert first.tobytes() == again.tobytes()


def test_a_refused_round_trains_nothing(me):
    doing = Doing()
    me.take_part(1, *doing.work())
    for number in (2, 11, -1):
        with pytest.raises(BudgetExceeded):
            me.take_part(number, *doing.work())
    me.take_part(3, *doing.work())
    with pytest.raises(BudgetExceeded):
        me.take_part(1, *doing.work())
    with pytest.raises(PrivacyRefusal, match="P11"):
        me.take_part(5, *doing.work(), echoed=99)
    assert doing.done == ["train", "cross"] * 2


def fails():
    raise ValueError(SECRET)


def sleeps():
    time.sleep(0.3)
    return np.ones(4)


@pytest.mark.parametrize(
    "train",
    [fails, sleeps, lambda: np.array([1.0, np.nan, 1.0, 1.0]), lambda: np.array([1.0, np.inf, 1.0, 1.0]),
     lambda: np.ones(5), lambda: np.ones((2, 2)), lambda: None, lambda: SECRET],
    ids=["fails", "sleeps", "nan", "inf", "long", "square", "nothing", "text"],
)  # fmt: skip
def test_a_failure_is_a_zero_like_any_other_vector(me, ledger, train, caplog):
    doing = Doing(train)
    with caplog.at_level(logging.DEBUG):
        sent = me.take_part(1, *doing.work())
    assert np.array_equal(doing.given[0], np.zeros(4))
    assert sent.tolist() == [100] * 4
    assert ledger.standing("me").used == 1
    assert "without data" in caplog.text and SECRET not in caplog.text


def test_where_training_adds_the_noise_a_failure_has_noise_too(me):
    doing = Doing(fails)
    assert me.take_part(1, *doing.work(idle=lambda: np.full(4, 3.0))).tolist() == [103] * 4


def test_an_update_that_succeeds_is_not_replaced(me):
    assert me.take_part(1, *Doing().work(idle=fails)).tolist() == [102] * 4


def test_a_healthy_round_says_nothing(me, caplog):
    with caplog.at_level(logging.DEBUG):
        me.take_part(1, *Doing().work())
    assert caplog.text == ""


def test_a_round_broken_off_in_training_is_tried_again_at_no_cost(me, ledger):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        me.take_part(1, *Doing(stopped).work())
    assert ledger.standing("me").used == 1
    assert me.take_part(1, *Doing().work()).tolist() == [102] * 4
    assert ledger.standing("me").used == 1


def test_the_parts_of_a_round_may_lie_apart(me, ledger):
    """Many devices enter, train in one computation, and leave one by one."""
    doing = Doing()
    assert me.enter(1, doing.out()) is None
    assert (ledger.standing("me").used, doing.done) == (1, [])
    assert me.enter(1, doing.out()) is None  # nothing has left: again at no cost
    sent = me.leave(1, np.arange(4, dtype=np.float32), doing.out())
    assert sent.tolist() == [100, 101, 102, 103] and doing.given[0].dtype == np.float64
    assert me.enter(1, doing.out()).tobytes() == sent.tobytes()
    assert me.leave(1, np.ones(4), doing.out()).tobytes() == sent.tobytes()  # the first that was sealed
    assert ledger.standing("me").used == 1


@pytest.mark.parametrize("update", [None, np.full(4, np.nan), np.ones(5), np.ones((2, 2))])
def test_an_update_that_failed_elsewhere_leaves_like_any_other(me, caplog, update):
    me.enter(1, Doing().out())
    with caplog.at_level(logging.WARNING):
        assert me.leave(1, update, Doing().out()).tolist() == [100] * 4
    assert ("without data" in caplog.text) == (update is not None)  # whoever gives none has told why


def test_nothing_leaves_that_has_not_entered(me, ledger):
    with pytest.raises(BudgetExceeded, match="P10: a round is sealed once"):
        me.leave(1, np.ones(4), Doing().out())
    assert ledger.sent("me", "task", 1) is None


def test_another_process_that_was_faster_decides_what_is_sent(me, ledger):
    def overtaken():
        ledger.seal("me", "task", 1, np.full(4, 7, np.int32).tobytes())
        return np.ones(4)

    assert me.take_part(1, *Doing(overtaken).work()).tolist() == [7] * 4


@pytest.mark.parametrize("sent", [(5, np.dtype(np.int32)), (4, np.dtype(np.int64))])
def test_p09_one_form_for_everyone(me, ledger, sent):
    with pytest.raises(PrivacyRefusal, match="P09: .*same form"):
        me.take_part(1, *Doing().work(sent=sent))
    assert ledger.sent("me", "task", 1) is None
    assert ledger.standing("me").used == 1
