"""Who holds a folder, and how they are asked to end."""

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from fedrec.deploy import lock
from fedrec.deploy.lock import end, held, holder
from fedrec.errors import RunError


def be(path):
    return held(path, "one process at a time", "End the other.")


def test_one_holds_it_and_everybody_sees_who(tmp_path):
    path = tmp_path / "pid"
    assert holder(path) is None
    with be(path):
        assert holder(path) == os.getpid()
        with pytest.raises(RunError, match="one process at a time.*End the other"), be(path):
            pass
    assert holder(path) is None


def test_somebody_who_only_looks_keeps_nobody_out(tmp_path):
    path = tmp_path / "pid"
    with path.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # what `holder` does for a moment
        threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with be(path):
            assert holder(path) == os.getpid()


def test_a_holder_that_has_not_said_who_it_is_costs_nobody_their_life(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(lock.os, "kill", lambda *sending: sent.append(sending))
    with be(tmp_path / "pid"):
        os.truncate(tmp_path / "pid", 0)
        end(holder(tmp_path / "pid"))
    assert sent == []  # 0 would be this process, and all of its group


def test_a_process_ends_and_one_that_has_ended_is_no_error():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    end(process.pid)
    assert process.wait(30) == -signal.SIGTERM
    end(process.pid)


def test_somebody_elses_process_is_left_to_them(monkeypatch):
    def refuse(process, number):
        raise PermissionError

    monkeypatch.setattr(lock.os, "kill", refuse)
    with pytest.raises(RunError, match="stopped by its own user"):
        end(4711)
