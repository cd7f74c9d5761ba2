import pytest

from fedrec.deploy.limits import Misses, network


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_some_wrong_tries_are_free_and_more_take_time():
    clock = Clock()
    misses = Misses(3, refill=10.0, clock=clock)
    for _ in range(3):
        assert not misses.blocked("10.0.0.1")
        misses.note("10.0.0.1")
    assert misses.blocked("10.0.0.1") and not misses.blocked("10.0.0.2")
    clock.now += 10.1
    assert not misses.blocked("10.0.0.1")
    misses.note("10.0.0.1")
    assert misses.blocked("10.0.0.1")
    clock.now += 1000
    for _ in range(3):  # a full bucket is not fuller for having waited
        misses.note("10.0.0.1")
    assert misses.blocked("10.0.0.1")


def test_it_remembers_no_more_than_it_may():
    misses = Misses(1, most=100, clock=Clock())
    for n in range(1000):
        misses.note(f"10.0.{n // 256}.{n % 256}")
    assert len(misses._full_at) == 100 and misses.blocked("10.0.3.231") and not misses.blocked("10.0.0.0")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "nonsense", True),
    ],
)
def test_who_is_counted_as_one(one, other, same):
    assert (network(one) == network(other)) == same
