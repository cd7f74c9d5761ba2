import hashlib
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedrec.deploy.invitation import digest
from fedrec.deploy.roster import Reason, Refused, Roster
from fedrec.errors import DataError, SpecError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "roster.sqlite"


@pytest.fixture
def roster(path):
    with Roster(path, 3) as roster:
        yield roster


def key(n: int) -> bytes:
    return bytes([n]) * 49


def invite(roster, count=1, *, seconds=60.0, at=1000.0):
    return [digest(secret) for secret in roster.issue(count, seconds=seconds, at=at)]


def refusal(roster, invitation, name, at=1001.0):
    with pytest.raises(Refused) as caught:
        roster.redeem(invitation, name, at=at)
    return caught.value.reason


def test_seats_are_given_in_order_and_once(roster):
    first, second, third = invite(roster, 3)
    assert [roster.redeem(i, key(n), at=1001.0) for n, i in enumerate((second, first, third))] == [0, 1, 2]
    assert [seat.key for seat in roster.seats()] == [key(0), key(1), key(2)]


def test_a_lost_answer_is_given_again_to_the_same_key_only(roster):
    (invitation,) = invite(roster)
    assert roster.redeem(invitation, key(1), at=1001.0) == 0
    assert roster.redeem(invitation, key(1), at=9e9) == 0  # even after the invitation expired
    assert refusal(roster, invitation, key(2)) is Reason.USED
    assert len(roster.seats()) == 1


def test_why_an_invitation_is_refused_is_known_to_the_operator(roster):
    (old,) = invite(roster, seconds=5.0)
    assert refusal(roster, digest("guess"), key(1)) is Reason.UNKNOWN
    assert refusal(roster, old, key(1), at=1006.0) is Reason.EXPIRED
    (open_one,) = invite(roster, at=2000.0)
    assert roster.withdraw() == 2 and roster.withdraw() == 0
    assert refusal(roster, open_one, key(1), at=2001.0) is Reason.WITHDRAWN
    assert list(roster.seats()) == []


def test_a_device_that_has_a_seat_does_not_get_another(roster):
    first, second = invite(roster, 2)
    assert roster.redeem(first, key(1), at=1001.0) == 0
    assert roster.redeem(second, key(1), at=1001.0) == 0
    assert roster.redeem(second, key(2), at=1001.0) == 1  # the second invitation was not used up


def test_a_revoked_seat_is_neither_asked_nor_given_again(roster):
    first, second = invite(roster, 2)
    roster.redeem(first, key(1), at=1001.0)
    roster.bind(0, 77)
    assert roster.nodes() == {0: 77}
    roster.revoke(0, at=1002.0)
    roster.revoke(0, at=1003.0)
    assert roster.nodes() == {} and roster.seats()[0].revoked == 1002.0
    assert refusal(roster, first, key(1)) is Reason.REVOKED
    assert refusal(roster, second, key(1)) is Reason.REVOKED
    assert roster.redeem(second, key(2), at=1003.0) == 1
    with pytest.raises(SpecError, match="was given"):
        roster.revoke(2)


def test_there_are_never_more_invitations_than_seats(roster):
    invite(roster, 2)
    with pytest.raises(SpecError, match="free=1"):
        invite(roster, 2)
    assert roster.open_invitations(at=1000.0) == 2 and roster.open_invitations(at=1061.0) == 0
    invite(roster, 3, at=1061.0)  # the first two have expired


def test_a_smaller_site_gives_no_seat_beyond_its_last(path, roster):
    invitations = invite(roster, 3)
    roster.redeem(invitations[0], key(1), at=1001.0)
    with Roster(path, 1) as smaller:
        assert refusal(smaller, invitations[1], key(2)) is Reason.FULL


def test_node_ids_have_no_sign(roster):
    for n, invitation in enumerate(invite(roster, 3)):
        roster.redeem(invitation, key(n), at=1001.0)
    nodes = {0: 2**64 - 1, 1: 2**63, 2: 2**63 - 1}
    for seat, node in nodes.items():
        roster.bind(seat, node)
    assert roster.nodes() == nodes and [seat.node for seat in roster.seats()] == list(nodes.values())


def test_many_at_once_get_seats_of_their_own(path):
    with Roster(path, 40) as roster:
        invitations = invite(roster, 40, seconds=1e9, at=None)

    def ask(n):
        with Roster(path, 40) as mine:
            return mine.redeem(invitations[n // 2], key(n + 1) if n % 2 else key(n // 2 + 100))

    def outcome(n):
        try:
            return ask(n)
        except Refused as refused:
            return refused.reason

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(outcome, range(80)))
    assert sorted(a for a in answers if isinstance(a, int)) == list(range(40))
    assert answers.count(Reason.USED) == 40


def test_what_was_acknowledged_survives_a_kill(path):
    code = (
        "import sys, os, signal; from pathlib import Path; from fedrec.deploy.roster import Roster\n"
        "from fedrec.deploy.invitation import digest\n"
        "roster = Roster(Path(sys.argv[1]), 3); (secret,) = roster.issue(1, seconds=60)\n"
        "seat = roster.redeem(digest(secret), bytes(49)); print(secret, seat, flush=True)\n"
        "roster._db.execute('BEGIN IMMEDIATE'); roster._db.execute('DELETE FROM seat')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    secret, seat = done.stdout.split()
    with Roster(path, 3) as roster:
        assert roster.redeem(digest(secret), bytes(49)) == int(seat) == 0


def test_a_file_of_another_kind_or_a_newer_one_is_refused(path):
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match="backup"):
        Roster(path, 3)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(DataError, match="Upgrade"):
        Roster(path, 3)


def test_the_file_is_private_and_holds_no_secret(path, roster):
    (secret,) = roster.issue(1, seconds=60)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret.encode() not in path.read_bytes() and hashlib.sha256(secret.encode()).digest() in path.read_bytes()
