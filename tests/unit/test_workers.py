"""Chunks side by side: in order, bounded, on one thread each, and nothing of that is left behind."""

import importlib
import subprocess
import sys
import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info

from fedrec.population import workers
from fedrec.population.workers import one_thread, results


def pools():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(count):
    jobs = [lambda job=job: (time.sleep(0.002 * (7 - job)), job)[1] for job in range(7)]
    assert list(results(jobs, count)) == list(range(7))


def test_no_more_jobs_are_begun_than_workers_and_one():
    begun, lock, most = set(), threading.Lock(), []

    def job(number):
        with lock:
            begun.add(number)
            most.append(len(begun))
        time.sleep(0.002)
        return number

    for done in results((lambda n=n: job(n) for n in range(12)), 2):
        begun.discard(done)
    assert len(most) == 12 and max(most) <= 3


def test_a_job_that_fails_is_heard_of():
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(results([int, broken, int], 2))


def test_whoever_stops_listening_leaves_nobody_at_work():
    begun, ended = [], []

    def job(number):
        begun.append(number)
        time.sleep(0.05)
        ended.append(number)
        return number

    listening = results((lambda n=n: job(n) for n in range(9)), 2)
    assert next(listening) == 0
    listening.close()
    assert sorted(begun) == sorted(ended) and len(begun) < 9


def test_threads_stay_for_the_next_jobs():
    first, second = (set(results([threading.get_ident] * 6, 2)) for _ in range(2))
    assert len(first | second) <= 2


COPIED = """
import os
from fedrec.population.workers import results
assert list(results([int] * 3, 2)) == [0] * 3
child = os.fork()
if not child:
    os._exit(list(results([int] * 3, 2)) != [0] * 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_copied_process_has_threads_of_its_own():
    assert subprocess.run([sys.executable, "-c", COPIED], timeout=60).returncode == 0


def test_jobs_have_a_thread_each_and_hand_the_interpreter_over_soon():
    before, interval, torchs = pools(), sys.getswitchinterval(), torch.get_num_threads()
    seen = list(results([lambda: (set(pools().values()), torch.get_num_threads(), sys.getswitchinterval())] * 4, 2))
    assert all(threads == {1} and of_torch == 1 and waits <= 1e-4 for threads, of_torch, waits in seen)
    assert (pools(), sys.getswitchinterval(), torch.get_num_threads()) == (before, interval, torchs)


def test_a_library_that_came_later_is_found(monkeypatch):
    with one_thread():
        first = workers._pools(len(sys.modules))
    monkeypatch.setitem(sys.modules, "a library of a later hour", importlib)
    with one_thread():
        assert workers._pools(len(sys.modules)) is not first
