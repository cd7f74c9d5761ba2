"""The benchmarks measure one thing: every peer's sum of clipped updates is that of the devices' own rounds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedrec.population.grid import in_process
from fedrec.speed import Engine, Speed

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "simulations" / "benchmarks"
CLIENTS, COHORT = 24, 6


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """The folder on the path, as Python puts it there for a script."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))
    for path in SCRIPTS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def folder(scripts, tmp_path_factory):
    from workload import Size, write

    place = tmp_path_factory.mktemp("workload")
    write(Size(clients=CLIENTS, cohort=COHORT, items=64, rounds=2, encoder="hash"), place)
    return place


@pytest.fixture(scope="module")
def work(folder):
    from workload import Workload

    return Workload.open(folder)


def test_a_peer_takes_the_step_that_a_device_takes(work):
    sums = np.sum([work.update(client, work.start) for client in range(CLIENTS)], axis=0, dtype=np.float64)
    np.testing.assert_allclose(sums, work.total(range(CLIENTS)), atol=1e-5)
    norms = [np.linalg.norm(work.update(client, work.start)) for client in range(CLIENTS)]
    assert max(norms) == pytest.approx(1.0, abs=1e-6)  # the clip is at work


def test_a_client_without_a_usable_choice_sends_zeros(work):
    lazy = replace(work, picks=[torch.zeros(0, dtype=torch.int64)] * CLIENTS)
    assert not lazy.update(0, work.start).any()


def test_the_central_loop_minimises_the_mean_of_the_same_losses(work):
    from central_peer import Minibatch, loss, pool

    clients = np.array([3, 1, 4])
    shared = torch.from_numpy(work.start)
    examples, texts = pool(work, clients)
    found = loss(work, work.model.layout.views(shared), texts, Minibatch.of(examples))
    sizes = np.array([len(work.picks[client]) for client in clients])
    own = np.array([float(work.loss(int(client), shared)) for client in clients])
    assert float(found) == pytest.approx(float(sizes @ own / sizes.sum()), rel=1e-5)


@pytest.mark.parametrize("batch", [0, 8])
def test_the_central_loop_runs(folder, tmp_path, batch):
    from central_peer import run

    run(folder, tmp_path / "out.json", batch, 1)
    assert len(json.loads((tmp_path / "out.json").read_text())["seconds"]) == 2


@pytest.mark.parametrize("engine", [Engine.LOOP, Engine.STACKED])
@pytest.mark.parametrize("noise", ["hardened", "research"])
def test_our_engines_do_what_the_peers_do(folder, work, tmp_path, engine, noise):
    from engines import STEP, difference
    from fedrec_engine import run

    out = tmp_path / "out.json"
    run(folder, out, Speed(engine=engine), rounds=2, noise=noise)
    found = json.loads(out.read_text())
    assert len(found["seconds"]) == 2 and len(found["clients"]) == COHORT
    assert difference(folder, found["clients"], out.with_suffix(".npy")) <= STEP * COHORT


def test_flowers_own_strategy_arrives_at_the_same_sum(folder, work):
    from flower_client import app
    from flower_peer import train

    seen = train(in_process(app, CLIENTS), folder)
    assert len(seen.stamps) == 3 and all(len(set(clients)) == COHORT for clients in seen.clients)
    np.testing.assert_allclose(seen.total, work.total(seen.clients[0]), atol=1e-4)


def _unclipped(work, clients):
    from fedrec.randomness import stream

    coins = (stream(0, "client", 1, client) for client in clients)
    rounds = [
        work.training.round(work.start, work.nobody.numpy(), work.events[client], rng).delta
        for client, rng in zip(clients, coins, strict=True)
    ]
    return np.sum(rounds, axis=0, dtype=np.float64)


@pytest.mark.parametrize(
    "fault",
    [
        lambda work, clients: _unclipped(work, clients),
        lambda work, clients: work.total(clients[:-1]),
        lambda work, clients: work.total([*clients[:-1], CLIENTS - 1]),
        lambda work, clients: np.full(len(work.start), np.nan),
    ],
    ids=["no clip", "one client less", "another client", "not a number"],
)
def test_a_peer_that_computes_something_else_is_refused(folder, work, tmp_path, fault):
    from engines import difference

    clients = [client for client, picked in enumerate(work.picks) if len(picked)][:COHORT]
    np.save(tmp_path / "peer.npy", work.total(clients))
    assert difference(folder, clients, tmp_path / "peer.npy") < 1e-6
    np.save(tmp_path / "peer.npy", fault(work, clients))
    with pytest.raises(SystemExit, match="peer computes something else"):
        difference(folder, clients, tmp_path / "peer.npy")


def test_the_floor_of_a_model_worked_by_hand():
    from floor import Floor, Rates

    facts = {
        "examples": 2.0, "events": 3.0, "texts": 1.0, "products": 6.0, "items": 5.0, "width": 4.0, "dim": 2.0,
        "rank": 1.0, "decays": 1.0, "size": 7.0, "tokens": 0.0, "cohort": 10.0,
    }  # fmt: skip
    text = 3 * 2 * 4 * 2 + 5 * 2 * 4  # projection; adapter down twice, up three times
    head = 2 * 2 * 3 * 2 + 3 * 2 * 2 * 4 + 3 * 2 * 2 * 5 * 2  # contexts, maps, scores
    assert Floor.of(facts, passes=10).operations == 6 * text + head
    assert Floor.of(facts, passes=1).operations == pytest.approx(1.5 * text + head)
    assert Floor.of(facts, passes=10).bytes == 4 * (2 * 5 * 4 + 2 * 7) + 4 * 4 * 2 * 5
    floor = Floor(operations=3e6, bytes=1e6)
    assert floor.milliseconds(Rates(product=1e9, copy=1e9)) == pytest.approx(3.0)
    assert floor.milliseconds(Rates(product=1e9, copy=1e8)) == pytest.approx(10.0)


def test_slopes_and_lines_are_recovered():
    from scaling import Point, line, slope

    points = [Point(1000, cohort, [0.25 + 0.002 * cohort], 1.0, 1.0) for cohort in (10, 100, 1000)]
    assert line(points) == pytest.approx((0.25, 0.002))
    linear = [Point(size, 10, [3.0 * size], 1.0, 1.0) for size in (10, 100, 1000)]
    assert slope([10, 100, 1000], linear) == pytest.approx(1.0)
    assert slope([10, 100, 1000], points[:1] * 3) == pytest.approx(0.0)


@pytest.mark.parametrize(("stacked", "verdict"), [(400.0, "met."), (399.0, "not met.")])
def test_the_table_says_whether_what_was_asked_for_is_there(stacked, verdict):
    from tables import engines_table

    def row(name, rate, later):
        return {
            "name": name, "turns": [[10 / rate], [10 / later]], "cohort": 10, "floor": 0.1, "peak": 1.0, "tree": 1.0,
            "difference": None, "clients a second": rate, "by turn": [rate, later],
        }  # fmt: skip

    rows = [row("fedrec stacked", stacked, 90.0), row("Flower, slow", 5.0, 4.0), row("Flower, fast", 10.0, 2.0)]
    size = {"adapter": "bottleneck", "cohort": 10, "clients": 20, "items": 5, "width": 4, "encoder": "hash", "size": 7}
    document = {
        "machine": {}, "workload": size | {"examples": 1.0, "events": 1.0}, "rates": {"product": 1e9, "copy": 1e9},
        "rows": rows,
    }  # fmt: skip
    text = engines_table(document).rstrip()
    assert text.endswith(f"({stacked / 10:.2f}, 22.50 by turn); 40 × were asked for: {verdict}")
    assert "Contenders took turns, 2 each;" in text
    rows[1] |= {"turns": [[2.0]], "by turn": [5.0]}
    text = engines_table(document).rstrip()
    assert text.endswith(f"({stacked / 10:.2f}, 45.00 by turn); 40 × were asked for: {verdict}")
    assert "Contenders took turns, 2 each, but 1 of Flower, slow;" in text


def test_turns_of_a_contender_become_one_row():
    from engines import Measured

    first = Measured("a", [[1.0, 2.0, 9.0]], 10, 0.1, 5.0, 7.0, None)
    both = first.then(replace(first, turns=[[4.0, 4.0]], peak=6.0, tree=3.0, difference=1e-4))
    assert (both.rates, both.rate, both.peak, both.tree, both.difference) == ([5.0, 2.5], 2.5, 6.0, 7.0, 1e-4)


def test_a_contender_that_is_slow_runs_once():
    from engines import Contender, Measured, in_turns

    ran = []

    def measure(contender, command):
        ran.append((contender.name, *command))
        return Measured(contender.name, [[float(len(ran))]], 10, 0.1, 5.0, 7.0, None)

    contenders = [(Contender("fast", ""), ["a"]), (Contender("slow", "", once=True), ["b"])]
    rows = in_turns(iter(contenders), 3, measure)
    assert ran == [("fast", "a"), ("slow", "b"), ("fast", "a"), ("fast", "a")]
    assert {row.name: row.turns for row in rows} == {"fast": [[1.0], [3.0], [4.0]], "slow": [[2.0]]}


def test_a_point_of_the_scaling_runs_over_people_on_disk(tmp_path, monkeypatch):
    import point

    from fedrec.cli import app

    people, out = tmp_path / "people", tmp_path / "out.json"
    shard = ["data", "shard", str(people), "-o", "users=60", "-o", "items=64", "-o", "phrases=1"]
    assert CliRunner().invoke(app, shard).exit_code == 0
    options = ["--clients=40", "--cohort=8", "--rounds=2", "--encoder=hash", "--evaluate"]
    monkeypatch.setattr(sys, "argv", ["point.py", str(people), str(out), *options])
    point.main()
    found = json.loads(out.read_text())
    assert len(found["seconds"]) == 2 and found["opened"] > 0 and 0 <= found["summary"]["hr@10"] <= 1
    assert found["statement"][0]["mode"] == "user-central"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["people"]  # the run is gone


@pytest.mark.skipif(not Path("/usr/bin/time").exists(), reason="GNU time is not here")
def test_gnu_time_sees_the_memory_of_a_command_and_a_failure_shows_its_end(tmp_path):
    from measure import watched

    small = watched([sys.executable, "-c", "pass"], tmp_path / "small.log")
    large = watched([sys.executable, "-c", "b = bytearray(1 << 28)"], tmp_path / "large.log")
    assert 200 < large.peak - small.peak < 300
    with pytest.raises(RuntimeError, match="the last thing it said"):
        watched([sys.executable, "-c", "raise SystemExit('the last thing it said')"], tmp_path / "failed.log")


def test_what_is_measured_exists():
    from engines import CONTENDERS

    for contender in (each for row in CONTENDERS.values() for each in row):
        assert (SCRIPTS / contender.script).is_file()
