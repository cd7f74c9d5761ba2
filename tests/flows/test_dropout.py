"""`simulation.dropout`: the same devices fall silent in every engine, do nothing, and are missed as real ones are."""

import json
import logging
import re

import numpy as np
import pytest
from slices import REPLAYED, kept, plan, trained

from fedrec.errors import PrivacyRefusal, RunError
from fedrec.exchange.client import client_app
from fedrec.exchange.flower import engine as flower
from fedrec.exchange.serve import serve
from fedrec.population import world as world_module
from fedrec.population.engines import partition
from fedrec.population.shard import Shard
from fedrec.population.simulate import Simulation
from fedrec.population.stacked import Stacked
from fedrec.population.states import DeviceStates
from fedrec.population.world import VirtualDevice
from fedrec.privacy.chain import Book
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.randomness import stream
from fedrec.rounds.aggregate import OpenRounds, Turn
from fedrec.speed import Engine, Speed

DROPOUT, CLIENTS = 0.3, 40
LOOP, STACKED, TWO = Speed(engine=Engine.LOOP), Speed(threads=1), Speed(processes=2)
WARM = {"warm": {"enabled": True}}
SHARES = {"privacy": {"mode": "user-distributed", "noise": "test", "force": True}, "shares": {"survivors": 0.3}}
MODES = {"none": {}, "none, warm": WARM, "user-central": REPLAYED, "user-distributed": SHARES}


def silent(dropout=DROPOUT, **over):
    return plan(simulation={"dropout": dropout}, **over)


def away(number, clients, dropout=DROPOUT, seed=0):
    """Who is silent, by the coins that the documentation names."""
    return {client for client in clients if stream(seed, "dropout", number, client).random() < dropout}


def left(path):
    """The checkpoint of a run, and everybody's embedding; in which slot it lies is an engine's own business."""
    return kept(path) | {"devices": DeviceStates(path / "devices", CLIENTS, 16).after(100)}


def alike(one, other):
    """Whether two runs end at the same numbers, up to the rounding of float32 sums."""
    for name, values in left(one).items():
        near = 1e-4 * np.abs(values).max(initial=0)
        np.testing.assert_allclose(left(other)[name], values, rtol=1e-4, atol=near, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_devices_are_missed_in_every_engine(tmp_path, mode):
    ours, speeds = silent(**MODES[mode]), {"loop": LOOP, "stacked": STACKED}
    if mode in ("none, warm", "user-central"):  # a start of two processes takes seconds
        speeds["two"] = TWO
    told = {name: trained(tmp_path / name, ours, speed) for name, speed in speeds.items()}
    for name in speeds:
        alike(tmp_path / "loop", tmp_path / name)
        counts = [(row.get("clients"), row.get("refused")) for row in told[name]]
        assert counts == [(row.get("clients"), row.get("refused")) for row in told["loop"]]
    trained(tmp_path / "whole", plan(**MODES[mode]), LOOP)
    with pytest.raises(AssertionError):
        alike(tmp_path / "loop", tmp_path / "whole")


@pytest.mark.parametrize("speed", [LOOP, STACKED], ids=lambda speed: speed.engine)
def test_the_metrics_say_how_many_gave_no_reply(tmp_path, speed):
    rows = trained(tmp_path, silent(**WARM), speed)
    rounds, missed = OpenRounds(0, 10, everybody=CLIENTS), []
    for row in rows[1:]:
        cohort = rounds.cohort(row["round"], CLIENTS)
        missed.append(len(away(row["round"], cohort.tolist())))
        assert (row["clients"], row["refused"]) == (len(cohort) - missed[-1], {"no reply": missed[-1]})
    assert all(missed) and len(missed) == 4


def test_flowers_engine_misses_them_too(tmp_path):
    """Its replies pass Flower's own checks, and the run is the loop's, bit for bit."""
    ours = silent()
    rows = trained(tmp_path / "loop", ours, LOOP)
    simulation = Simulation.start(ours, tmp_path / "flower", speed=LOOP)
    app, told = client_app(lambda context: VirtualDevice(simulation.fleet, partition(context))), []

    class Answering:
        def process_message(self, message, context):
            return app(message, context), context

    with flower(Answering(), CLIENTS, abreast=1) as grid:
        serve(simulation.task, grid, tmp_path / "flower", [told.append])
    loop, other = kept(tmp_path / "loop"), kept(tmp_path / "flower")
    for name, values in loop.items():
        assert values.tobytes() == other[name].tobytes()
    assert [progress.tally.refused for progress in told] == [row["refused"] for row in rows[1:]]


def everyone(folder, mode, speed):
    """Everybody is asked in round 1: the fleet, and how many answered."""
    ours = silent(**MODES[mode], federation={"rounds": 2, "cohort": CLIENTS})
    simulation = Simulation.start(ours, folder, speed=speed)
    fleet, shared = simulation.fleet, simulation.task.model.initial
    if speed is LOOP:
        sent = [VirtualDevice(fleet, client).take_part(Turn(1), shared) for client in range(CLIENTS)]
        return fleet, sum(update is not None for update in sent)
    partial = Shard.of(Stacked(fleet, speed), 0, 1).take_part(Turn(1), shared, np.arange(CLIENTS))
    assert partial.refused == {"no reply": CLIENTS - partial.summed.count}
    return fleet, partial.summed.count


@pytest.mark.parametrize("mode", ["none", "user-central", "user-distributed"])
@pytest.mark.parametrize("speed", [LOOP, STACKED], ids=lambda speed: speed.engine)
def test_who_is_silent_spends_nothing_and_learns_nothing(tmp_path, mode, speed):
    fleet, answered = everyone(tmp_path, mode, speed)
    quiet = away(1, range(CLIENTS))
    assert answered == CLIENTS - len(quiet) and 5 < len(quiet) < 20
    if fleet.ledger is not None:
        spent = DeviceLedger.read(tmp_path / "devices" / "ledger.sqlite").standings
        assert set(map(int, spent)) == set(range(CLIENTS)) - quiet
    if fleet.accounts is not None:
        assert {client for client in range(CLIENTS) if not sum(fleet.accounts.seat(client).used)} == quiet
    assert (fleet.ledger is None and fleet.accounts is None) == (mode == "none")
    moved = set(np.flatnonzero(fleet.states.after(1).any(axis=1)))
    assert moved and not moved & quiet


def tossed(monkeypatch):
    """The paths of all streams that fleets open from now on."""
    paths = []
    monkeypatch.setattr(world_module, "stream", lambda seed, *path: paths.append(path) or stream(seed, *path))
    return paths


@pytest.mark.parametrize("speed", [LOOP, STACKED], ids=lambda speed: speed.engine)
def test_without_dropout_no_coin_is_tossed_and_no_number_changes(tmp_path, monkeypatch, speed):
    paths = tossed(monkeypatch)
    trained(tmp_path / "none", plan(), speed)
    assert not any(path[0] == "dropout" for path in paths)
    rows = trained(tmp_path / "rare", silent(1e-9), speed)  # coins, but nobody falls silent
    assert sum(path[0] == "dropout" for path in paths) == 30
    assert all(row["refused"] == {} for row in rows[1:])
    none, rare = kept(tmp_path / "none"), kept(tmp_path / "rare")
    for name, values in none.items():
        assert values.tobytes() == rare[name].tobytes()


@pytest.mark.parametrize("speed", [LOOP, STACKED], ids=lambda speed: speed.engine)
def test_a_resumed_run_misses_whom_an_uninterrupted_one_misses(tmp_path, speed):
    class Stopped(Exception):
        pass

    def stop(row):
        if row["round"] == 2:
            raise Stopped

    ours = silent()
    rows = trained(tmp_path / "whole", ours, speed)
    with pytest.raises(Stopped):
        trained(tmp_path / "torn", ours, speed, stop)
    again = Simulation.resume(tmp_path / "torn", speed=speed)
    again.train(lambda row: None)
    assert [row["refused"] for row in again.run.metrics()[1:]] == [row["refused"] for row in rows[1:]]
    whole, torn = kept(tmp_path / "whole"), kept(tmp_path / "torn")
    for name, values in whole.items():
        assert values.tobytes() == torn[name].tobytes()


@pytest.mark.parametrize("engine", [Engine.LOOP, Engine.STACKED])
def test_too_few_shares_of_noise_are_a_refusal_in_words(tmp_path, cli, tiny, caplog, engine):
    """A round is asked again, of the same devices: who is away is not called back by asking."""
    path, flags = tmp_path / "run", tiny(simulation__dropout=0.9, privacy__force="true", federation__cohort=20)
    with caplog.at_level(logging.WARNING, "fedrec"):
        answer = cli("simulate", *flags, "--mode", "user-distributed", "--engine", engine, "--out", path)
    assert answer.code == 4
    assert "P06: as many noise shares arrive" in answer.err and "shares.survivors" in answer.err
    assert "Traceback" not in answer.err
    arrived = [re.search(r"arrived=(\d+)", record.message)[1] for record in caplog.records if "P06" in record.message]
    assert len(arrived) >= 2 and len(set(arrived)) == 1
    assert not Book.read(path / "ledger.jsonl").position.charged
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [0] and not any("refused" in row for row in rows)


@pytest.mark.parametrize("speed", [LOOP, STACKED], ids=lambda speed: speed.engine)
def test_shares_are_whole_when_enough_answer(tmp_path, speed):
    """Survivors are counted: the round goes on with as many as it needs, and not with one less."""
    federation = {"rounds": 1, "cohort": CLIENTS}
    there = CLIENTS - len(away(1, range(CLIENTS)))
    for name, survivors in (("enough", there), ("short", there + 1)):
        ours = silent(**SHARES | {"shares": {"survivors": survivors / CLIENTS}}, federation=federation)
        if name == "enough":
            assert [row["round"] for row in trained(tmp_path / name, ours, speed)] == [0, 1]
            continue
        with pytest.raises(PrivacyRefusal, match=f"P06.*arrived={there}, least={there + 1}"):
            trained(tmp_path / name, ours, speed)


@pytest.mark.parametrize("speed", [LOOP, STACKED], ids=lambda speed: speed.engine)
def test_a_quorum_holds_in_every_engine(tmp_path, speed):
    federation = {"rounds": 2, "cohort": 20}
    with pytest.raises(RunError, match=r"quorum.*accepted=\d, asked=20, refused={'no reply': 1\d}"):
        trained(tmp_path / "half", silent(0.8, federation=federation), speed)
    rows = trained(tmp_path / "any", silent(0.999, federation=federation | {"quorum": 0.0}), speed)
    assert [row["refused"] for row in rows[1:]] == [{"no reply": 20}] * 2  # nobody at all, and the run goes on


def test_a_share_of_silence_is_below_one(cli, tiny, tmp_path):
    answer = cli("simulate", *tiny(simulation__dropout=1.0), "--out", tmp_path / "run")
    assert answer.code == 2 and "simulation.dropout" in answer.err and "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()
