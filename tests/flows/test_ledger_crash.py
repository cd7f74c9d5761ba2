"""Whatever happens to the process or to the file, the ledger never forgets a charge that somebody was told of."""

import os
import signal
from contextlib import suppress

import pytest
from plans import plan_of

from fedrec.errors import BudgetExceeded, PrivacyRefusal
from fedrec.privacy.chain import Book
from fedrec.privacy.ledger import Ledger

PLAN = plan_of("poisson", rounds=3)
DIGEST = "d" * 64


pytestmark = pytest.mark.usefixtures("no_disk")


def run(ledger, number, told=lambda done: None):
    ledger.reserve(number)
    ledger.charge(number, DIGEST)
    told(b"c")
    ledger.release(number, DIGEST)


@pytest.fixture
def path(tmp_path):
    """A ledger with one round done and a second one charged."""
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, PLAN) as ledger:
        run(ledger, 1)
        ledger.reserve(2)
        ledger.charge(2, DIGEST)
    return path


def head_of(path):
    return path.with_name(path.name + ".head")


def refused(path):
    for look in (lambda: Ledger(path, PLAN), lambda: Book.read(path)):
        with pytest.raises(PrivacyRefusal) as refusal:
            look()
        assert refusal.value.code == "P11"


def test_a_bit_flipped_anywhere_is_noticed(path):
    for file in (path, head_of(path)):
        whole = file.read_bytes()
        for place in range(0, len(whole), 3):
            flipped = bytes([whole[place] ^ 1 << place % 8])
            file.write_bytes(whole[:place] + flipped + whole[place + 1 :])
            refused(path)
        file.write_bytes(whole)
    Ledger(path, PLAN).close()


def test_an_acknowledged_record_cut_off_anywhere_is_noticed(path):
    for file in (path, head_of(path)):
        whole = file.read_bytes()
        for length in range(0, len(whole), 3):
            file.write_bytes(whole[:length])
            refused(path)
        file.write_bytes(whole)
    Ledger(path, PLAN).close()


def test_lines_out_of_place_are_noticed(path):
    lines = path.read_bytes().splitlines(keepends=True)
    swapped = [*lines[:2], lines[3], lines[2], *lines[4:]]
    for wrong in (
        swapped,
        [*lines, lines[-1]],
        lines[1:],
        [*lines[:2], *lines[3:]],
        [*lines[:3], lines[2], *lines[3:]],
    ):
        path.write_bytes(b"".join(wrong))
        refused(path)


def test_a_lost_head_or_ledger_is_noticed(path):
    head = head_of(path).read_bytes()
    head_of(path).unlink()
    refused(path)
    head_of(path).write_bytes(head)
    path.write_bytes(b"")
    refused(path)
    path.unlink()
    with pytest.raises(PrivacyRefusal, match="P11"):
        Ledger(path, PLAN)


def test_an_append_torn_at_any_byte_is_undone_and_a_whole_one_is_kept(path):
    before, head = path.read_bytes(), head_of(path).read_bytes()
    with Ledger(path, PLAN) as ledger:
        ledger.release(2, DIGEST)
    after = path.read_bytes()
    for length in range(len(before), len(after) + 1):
        path.write_bytes(after[:length])
        head_of(path).write_bytes(head)
        with Ledger(path, PLAN) as ledger:
            assert ledger.charged == (1, 2)
            assert (ledger.pending is None) == (length == len(after))
            run(ledger, 2 if ledger.pending else 3)
        Ledger(path, PLAN).close()


def test_a_first_record_torn_at_any_byte_is_begun_again(path):
    first = path.read_bytes().splitlines(keepends=True)[0]
    head_of(path).unlink()
    for length in [*range(0, len(first), 5), len(first)]:
        path.write_bytes(first[:length])
        head_of(path).unlink(missing_ok=True)
        with Ledger(path, PLAN) as ledger:
            assert (ledger.charged, len(ledger.records)) == ((), 1)


# Killed by the system.

KILLED = {
    "poisson": PLAN,
    "warm": plan_of("layered", rounds=2, warm=True),
    "banded": plan_of("banded", rounds=3),
}


def _killed_at(path, plan, count):
    """Run rounds in a fork that SIGKILLs itself at its `count`-th disk operation; return what it had said."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        with suppress(BaseException):
            _work(path, plan, count, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    return told, os.waitpid(child, 0)[1]


def _work(path, plan, count, writer):
    left, write = [count], os.write

    def fatal(name):
        whole = getattr(os, name)

        def operation(*arguments):
            left[0] -= 1
            if left[0] == 0:
                if name == "write":  # half a line reaches the disk
                    write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*arguments)

        return operation

    for name in ("write", "fsync", "replace", "ftruncate"):
        setattr(os, name, fatal(name))
    with Ledger(path, plan) as ledger:
        for number in (1, 2, 3):
            run(ledger, number, told=lambda done: write(writer, done))


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", KILLED)
def test_kill_minus_nine_at_every_disk_operation(tmp_path, kind):
    plan = KILLED[kind]
    assert all(promise.guarantee.epsilon > 0 for promise in plan.promises)  # accounted before the forks inherit it
    count, killed = 0, True
    while killed:
        count += 1
        path = tmp_path / f"{count}.jsonl"
        told, status = _killed_at(path, plan, count)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        _resumes_safely(path, plan, told.count(b"c"))
    assert count == 61  # ten records of six operations each, and one run that nothing killed
    assert told == b"ccc"


def _resumes_safely(path, plan, told):
    with Ledger(path, plan) as ledger:
        assert told <= len(ledger.charged) <= told + 1
        charged = len(ledger.charged)
        with suppress(BudgetExceeded):
            last = ledger.records[-1]
            again = last.state not in ("released", "planned")
            for number in range(last.round if again else max(last.round, 0) + 1, 9):
                run(ledger, number)
                charged += 1
        assert len(ledger.charged) == charged <= plan.rounds
        assert plan.spent(ledger.charged) <= plan.epsilon
        assert not plan.affords(ledger.charged, ledger.records[-1].round + (ledger.pending is None))
    assert Book.read(path).position.charged == ledger.charged
