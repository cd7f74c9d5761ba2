"""`--processes`: shards in processes of this machine train the model of shards in this one, and a run outlives them."""

import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from threading import Timer

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from slices import REPLAYED, after, charged, kept, on_shards, plan, trained

from fedrec.errors import FedrecError, SpecError
from fedrec.exchange import wire
from fedrec.population.processes import process_grid
from fedrec.privacy.chain import Book
from fedrec.speed import Engine, Speed

TWO = Speed(processes=2)
PRIVATE = {
    "none": {},
    "user-central": REPLAYED,
    "user-local": {"privacy": {"mode": "user-local", "noise": "test", "force": True}},
}


@pytest.mark.parametrize("mode", PRIVATE)
def test_processes_train_what_shards_of_one_process_train(tmp_path, mode):
    trained(tmp_path / "two", plan(**PRIVATE[mode]), TWO)
    on_shards(tmp_path / "one", plan(**PRIVATE[mode]), 2)
    two, one = kept(tmp_path / "two"), kept(tmp_path / "one")
    for name, values in two.items():
        assert values.tobytes() == one[name].tobytes()
    assert (one["shared"] != one["anchor"]).any() and one["devices"].any()
    assert not multiprocessing.active_children()


def test_a_killed_process_costs_its_users_a_round_and_the_ledger_nothing_more(tmp_path, caplog):
    """Both are stopped in the middle of a round; one is killed and replaced, the other goes on."""

    def strike():
        victim, other = (process.pid for process in multiprocessing.active_children())
        for process in (victim, other):
            os.kill(process, signal.SIGSTOP)
        Timer(1.0, lambda: (os.kill(victim, signal.SIGKILL), os.kill(other, signal.SIGCONT))).start()

    ours = plan(**REPLAYED)
    with caplog.at_level(logging.WARNING):
        rows = trained(tmp_path / "killed", ours, TWO, after(1, strike))
    (place,) = (int(found) for found in re.findall(r"the process of node (\d) died", caplog.text))
    assert [row["round"] for row in rows] == [0, 1, 2, 3]

    on_shards(tmp_path / "away", ours, 2, lost=(place, 2))
    killed, away = kept(tmp_path / "killed"), kept(tmp_path / "away")
    for name in killed:
        np.testing.assert_array_equal(killed[name], away[name], err_msg=name)
    assert charged(tmp_path / "killed") == charged(tmp_path / "away")
    assert Book.read(tmp_path / "killed" / "ledger.jsonl").position.charged == (1, 2, 3)


def refusing():
    """An app that knows its place and does nothing."""
    app = ClientApp()

    @app.query("hello")
    def query(message, context):
        config = context.node_config
        raise FedrecError(f"node {config['partition-id']} of {config['num-partitions']} in {context.run_config['run']}")

    return app


def test_what_a_process_refuses_is_an_error_reply_of_its_node(tmp_path):
    with process_grid(tmp_path, refusing, 2, {}) as grid:
        replies = list(grid.send_and_receive([wire.hello(node) for node in (2, 1)]))
    assert [reply.error.reason for reply in replies] == [f"node {place} of 2 in {tmp_path}" for place in (1, 0)]


def test_a_reply_that_nobody_took_is_not_taken_for_another(tmp_path):
    with process_grid(tmp_path, refusing, 1, {}) as grid:
        next(grid.send_and_receive([wire.hello(1), wire.hello(1)]))
        (reply,) = grid.send_and_receive([message := wire.hello(1)])
    assert reply.metadata.reply_to_message_id == message.metadata.message_id


def test_processes_end_with_the_process_that_asked_for_them(tmp_path, tiny):
    """Even if it is killed: nobody is left to tell them."""
    flags = map(str, tiny(federation__rounds=4000, evaluation__every=0))
    command = [sys.executable, "-m", "fedrec", "simulate", *flags, "--mode", "none", "--processes", "2"]
    with subprocess.Popen(
        [*command, "--out", tmp_path / "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        deadline, metrics = time.monotonic() + 90, tmp_path / "run" / "metrics.jsonl"
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        children = _children(run.pid)
        run.kill()
    assert len(children) >= 2
    while any(os.path.exists(f"/proc/{child}") for child in children):  # noqa: PTH110
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _children(parent):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def test_other_engines_have_no_processes():
    with pytest.raises(SpecError, match="processes are shards of the stacked engine"):
        Speed(engine=Engine.LOOP, processes=2)
    with pytest.raises(SpecError, match="processes are counted from 1"):
        Speed(processes=0)
