"""Where bytes leave: nothing goes out after a withdrawal has returned, from whichever process it came."""

import multiprocessing
import socket
import threading
import time
from contextlib import nullcontext
from itertools import count

import pytest

from fedrec.device.store import Store
from fedrec.embed.consent import Consent
from fedrec.errors import PrivacyRefusal
from fedrec.exchange.outlet import PIECE, Outlet


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "events.sqlite") as store:
        yield store


class Sender:
    """Sends as fast as it can, until it is refused."""

    def __init__(self, permit):
        self.ours, self.theirs = socket.socketpair()
        self.outlet, self.refused, self.stop = Outlet(permit), None, threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        try:
            while not self.stop.is_set():
                for _ in self.outlet.write(self.ours, b"x" * 100, lambda: 5.0):
                    pass
        except PrivacyRefusal as refusal:
            self.refused = refusal

    def __enter__(self):
        self.drain = threading.Thread(target=self.swallow)
        self.drain.start()
        self.thread.start()
        return self

    def swallow(self):
        while self.theirs.recv(1 << 16):
            pass

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()
        self.ours.close()
        self.drain.join()
        self.theirs.close()


def sent_after_withdrawal(store, permit, rounds):
    """How many of `rounds` senders sent something after the withdrawal had returned."""
    consent, late = Consent(store), 0
    for _ in range(rounds):
        consent.grant("contribute")
        with Sender(permit) as sender:
            while sender.outlet.sent < 500:
                time.sleep(0)
            consent.withdraw("contribute")
            before = sender.outlet.sent
            time.sleep(0.02)
            late += sender.outlet.sent > before
    return late


def test_nothing_is_sent_after_a_withdrawal_has_returned(store):
    assert sent_after_withdrawal(store, lambda: Consent(store).ticket().permit(), 30) == 0


def test_without_asking_something_would_be(store):
    assert sent_after_withdrawal(store, nullcontext, 5) > 0


def test_one_look_before_a_long_message_would_not_do(store):
    """The permission is for a piece, not for a message: the rest of a long one is not sent either."""
    consent = Consent(store)
    consent.grant("contribute")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet, sent = Outlet(consent.ticket().permit), count()
        pieces = outlet.write(ours, bytes(3 * PIECE), lambda: 5.0)
        theirs.setblocking(False)
        assert 0 < next(pieces) <= PIECE
        consent.withdraw("contribute")
        before = outlet.sent
        with pytest.raises(PrivacyRefusal):
            for _ in pieces:
                next(sent)
        assert (next(sent), outlet.sent) == (0, before)


def test_a_withdrawal_does_not_wait_for_a_line_that_takes_nothing(store):
    consent = Consent(store)
    consent.grant("contribute")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet, refused = Outlet(consent.ticket().permit), threading.Event()

        def stall():
            try:
                for _ in outlet.write(ours, bytes(100 * PIECE), lambda: 60.0):
                    pass
            except PrivacyRefusal:
                refused.set()

        thread = threading.Thread(target=stall)
        thread.start()
        while not outlet.sent:
            time.sleep(0.01)
        began = time.monotonic()
        consent.withdraw("contribute")
        assert time.monotonic() - began < 5
        thread.join(10)
        assert refused.is_set()


def _withdraw(path):
    with Store(path) as store:
        Consent(store).withdraw("contribute")


def test_another_process_may_withdraw(store):
    consent = Consent(store)
    consent.grant("contribute")
    with Sender(consent.ticket().permit) as sender:
        while not sender.outlet.sent:
            time.sleep(0)
        process = multiprocessing.get_context("spawn").Process(target=_withdraw, args=(store.path,))
        process.start()
        process.join()
        before = sender.outlet.sent
        time.sleep(0.05)
        assert (process.exitcode, sender.outlet.sent) == (0, before)
        sender.thread.join(5)
        assert sender.refused


def test_bytes_are_counted_and_pieces_come_out_whole():
    ours, theirs = socket.socketpair()
    content = bytes(range(256)) * 1000
    with ours, theirs:
        outlet, got = Outlet(), bytearray()

        def read():
            while len(got) < len(content):
                got.extend(theirs.recv(1 << 16))

        thread = threading.Thread(target=read)
        thread.start()
        assert sum(outlet.write(ours, content, lambda: 5.0)) == len(content) == outlet.sent
        thread.join()
    assert bytes(got) == content
