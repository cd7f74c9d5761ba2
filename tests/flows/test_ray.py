"""`--engine ray`: two machines train the model of one, and a run outlives its workers. Both machines are this one."""

import functools
import gc
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from threading import Timer

import numpy as np
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Flower's simulation engine needs Ray: pip install 'fedrec[ray]'", allow_module_level=True)

from fedrec.exchange.flower import become_local_server  # isort: skip  (before Ray and Flower: it sets their switches)
import ray
from flwr.app import Context, Message, RecordDict
from ray.cluster_utils import Cluster as Machines
from slices import REPLAYED, after, charged, kept, on_shards, plan, trained

from fedrec.errors import RunError, SpecError
from fedrec.population import machines as common
from fedrec.population import ray as engine
from fedrec.population.nodes import shards
from fedrec.privacy.chain import Book
from fedrec.spec import Plan
from fedrec.speed import Engine, Speed

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file <_io.* name='/dev/null':ResourceWarning")  # Ray's own


@pytest.fixture(scope="module")
def machines():
    """A cluster of two machines with a core each."""
    store = {"object_store_memory": 100 << 20}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_worker_niceness", "0")  # Ray is polite to the rest of a machine; tests cannot wait for that
        cluster = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
        try:
            cluster.add_node(num_cpus=1, **store)
            yield cluster
        finally:
            cluster.shutdown()
            gc.collect()


def on(machines, nodes):
    return Speed(engine=Engine.RAY, nodes=nodes, address=machines.address)


def workers():
    """Process ids of the workers of the cluster that this process is connected to."""
    return [actor["Pid"] for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"]


def within_the_next_round(count, harm):
    """Stop all `count` workers, so that each has a message and none an answer; then `harm`, and let the rest go on."""
    deadline = time.monotonic() + 90
    while len(stopped := workers()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for worker in stopped:
        os.kill(worker, signal.SIGSTOP)

    def strike():
        harm(stopped)
        for worker in stopped:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)

    Timer(1.5, strike).start()


def test_two_machines_train_the_model_of_one(machines, tmp_path, cli, tiny):
    same = [*tiny(training__embedding_rate=0.5), "--mode", "none"]
    shape = ["--engine", "ray", "--nodes", 3, "--address", machines.address, "--format", "json"]
    answer = cli("simulate", *same, "--out", tmp_path / "ray", *shape)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["run"] == str(tmp_path / "ray")  # nothing of Ray's is among it
    assert cli("simulate", *same, "--out", tmp_path / "one").code == 0
    on_shards(tmp_path / "here", Plan.read(tmp_path / "ray" / "plan.toml"), 3)

    ray_, one, here = (kept(tmp_path / name) for name in ("ray", "one", "here"))
    for name, values in ray_.items():
        assert values.tobytes() == here[name].tobytes()  # where shards are changes nothing
        np.testing.assert_allclose(values, one[name], rtol=1e-4, atol=1e-4 * np.abs(one[name]).max(), err_msg=name)
    assert np.abs(one["devices"]).max() > 0.01 and (one["shared"] != one["anchor"]).any()


def test_private_sums_are_the_same_but_for_a_step_of_the_grid_however_people_are_cut_into_shards(tmp_path):
    """Who is in a chunk with whom decides how float32 updates are rounded, and so a last step of a few coordinates."""
    for nodes in (1, 3):
        on_shards(tmp_path / str(nodes), plan(**REPLAYED), nodes)
    one, three = kept(tmp_path / "1"), kept(tmp_path / "3")
    for name in one:
        np.testing.assert_allclose(one[name], three[name], rtol=1e-4, atol=1e-5 * np.abs(one[name]).max(), err_msg=name)
    assert [entry[:3] for entry in charged(tmp_path / "1")] == [entry[:3] for entry in charged(tmp_path / "3")]


def test_a_killed_worker_costs_its_users_a_round_and_the_ledger_nothing_more(machines, tmp_path, caplog):
    """Level `test` replays coins and noise: the run is, number by number, one from which these users stayed away."""
    kill = lambda stopped: os.kill(stopped[0], signal.SIGKILL)
    ours = plan(**REPLAYED)
    with caplog.at_level(logging.WARNING):
        rows = trained(tmp_path / "ray", ours, on(machines, 2), after(1, lambda: within_the_next_round(2, kill)))
    (place,) = (int(found) for found in re.findall(r"the worker of node (\d) died", caplog.text))
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert not any("refused" in row or "clients" in row for row in rows)  # who came stays a secret

    on_shards(tmp_path / "away", ours, 2, lost=(place, 2))
    killed, away = kept(tmp_path / "ray"), kept(tmp_path / "away")
    for name in killed:
        np.testing.assert_array_equal(killed[name], away[name], err_msg=name)
    assert charged(tmp_path / "ray") == charged(tmp_path / "away")  # each round once, at its noise, with its release
    assert Book.read(tmp_path / "ray" / "ledger.jsonl").position.charged == (1, 2, 3)

    on_shards(tmp_path / "whole", ours, 2)
    assert (kept(tmp_path / "whole")["shared"] != away["shared"]).any()  # the missing users are missed


def test_a_lost_machine_costs_its_users_a_round_and_the_others_do_its_work(machines, tmp_path):
    lost = machines.add_node(num_cpus=1, object_store_memory=100 << 20)
    remove = lambda stopped: machines.remove_node(lost, allow_graceful=False)
    ours = plan(federation={"rounds": 4, "cohort": 40, "quorum": 0.1})
    rows = trained(tmp_path / "run", ours, on(machines, 3), after(1, lambda: within_the_next_round(3, remove)))
    missed = [row["refused"] for row in rows[1:]]
    assert missed[0] == missed[2] == missed[3] == {} and [row["clients"] for row in rows[3:]] == [40, 40]
    assert list(missed[1]) == ["the node answered with an error"]
    assert rows[2]["clients"] == 40 - sum(missed[1].values()) in (26, 27)  # its third of the people


def test_ctrl_c_ends_the_run_at_once_and_it_can_be_resumed(machines, tmp_path, cli, tiny):
    path = tmp_path / "run"
    flags = [*tiny(federation__rounds=40, evaluation__every=0), "--mode", "none", "--engine", "ray", "--nodes", "1"]
    command = [sys.executable, "-m", "fedrec", "simulate", *flags, "--address", machines.address, "--out", path]
    # Whatever a background script had its processes ignore, this one heeds.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=heeding) as run:
        deadline = time.monotonic() + 90
        while not (path / "checkpoint.safetensors").exists():
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert run.returncode == 130 and "Traceback" not in said, said
    assert cli("simulate", "--resume", path).code == 0
    assert json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["round"] == 40


def test_machines_that_do_not_belong_together_are_refused(machines, tmp_path, monkeypatch):
    def refused(match, **planted):
        with monkeypatch.context() as patched, pytest.raises(RunError, match=match):
            for name, value in planted.items():
                patched.setattr(common, name, value)
            common.check_machines(tmp_path)

    def ask(where):
        real = common._ask
        return lambda node, token, place: real(node, where(token), place)

    with engine._connected(machines.address):
        common.check_machines(tmp_path)
        refused(r"the same packages.*'fedrec': '0'", _versions=lambda: {"fedrec": "0"})
        refused("sees the run folder", _ask=ask(lambda token: token.with_name("elsewhere")))
        refused("see at once what one of them writes", _ask=ask(lambda token: shutil.copy(token, tmp_path / "copy")))
        refused("every machine of a Ray cluster has fedrec", _about=_only_here)
        with (
            pytest.raises(SpecError, match="has room for a worker"),
            engine.ray_grid(tmp_path, shards, cluster=engine.Cluster(cpus=2)),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def _only_here(token, place):
    """Of a module that the other machines do not have."""


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:many"])
def test_an_address_without_a_cluster_is_refused(tmp_path, address):
    with (
        pytest.raises(RunError, match="answers at its address"),
        engine.ray_grid(tmp_path, shards, cluster=engine.Cluster(address=address)),
    ):
        pass


def test_an_address_has_a_port(tmp_path):
    with (
        pytest.raises(SpecError, match="HOST:PORT, or auto"),
        engine.ray_grid(tmp_path, shards, cluster=engine.Cluster(address="somewhere")),
    ):
        pass


def test_flowers_own_pool_still_needs_ours(machines):
    """A dead actor goes back into Flower's pool and fails all that follows. When this fails, ours may go."""
    from flwr.simulation.ray_transport.ray_actor import BasicActorPool, ClientAppActor

    become_local_server()
    with engine._connected(machines.address):
        pool = BasicActorPool(ClientAppActor, {"num_cpus": 1, "num_gpus": 0}, {})
        pool.add_actors_to_pool(1)
        ray.get(pool.pool[0].__ray_ready__.remote())
        os.kill(workers()[0], signal.SIGKILL)
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        message = Message(RecordDict(), dst_node_id=1, message_type="query")
        for _ in range(3):
            run = pool.submit(lambda actor, *job: actor.run.remote(*job), (shards, message, "0", context))
            with pytest.raises(ray.exceptions.ActorDiedError):
                pool.fetch_result_and_return_actor_to_pool(run)
            pool.add_actor_back_to_pool(run)
