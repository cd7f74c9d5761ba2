"""What a person wrote, and who wrote it, stays where it was written: not on the wire, not on disk, not in a log."""

import logging

import numpy as np
import pandas as pd
import pytest
from flwr.common.serde import message_to_proto, recorddict_to_proto

from fedrec.device.training import LocalTraining
from fedrec.exchange import wire
from fedrec.population.grid import LocalGrid
from fedrec.population.simulate import Simulation
from fedrec.population.updates import Updates
from fedrec.speed import Engine, Speed
from fedrec.task import Task

PEOPLE = ["canary-anna", "canary-bert", "canary-carl", "canary-once", "canary-late"]
WRITTEN = ["zebrafish canary of the search", "quokka canary in a review"]
CANARIES = ["canary", "zebrafish", "quokka"]
OPEN = {"privacy.mode": "none"}
PRIVATE = {"privacy.mode": "user-central", "privacy.force": "true", "privacy.epsilon": 8}


def events(search=WRITTEN[0], review=WRITTEN[1]):
    """Three people with a past, one with a single event, and one who comes when training is over."""
    lines = ["user,item,time,kind,text"]
    for n, person in enumerate(PEOPLE[:3]):
        lines += [f"{person},i{(n + 3 * k) % 12},{1000 + k},click," for k in range(8)]
        lines += [f"{person},,{1003 + n},search,{search}", f"{person},i{n},{1006},review,{review}"]
    lines += [f"{PEOPLE[3]},i5,1001,review,{review}"]
    lines += [f"{PEOPLE[4]},i{k},{2000 + k},click," for k in range(8)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def wired(monkeypatch):
    """Every message that crosses the grid, in both directions."""
    crossed, whole = [], LocalGrid.send_and_receive

    def recording(self, messages, *, timeout=None):
        messages = list(messages)
        crossed.extend(messages)
        for reply in whole(self, messages, timeout=timeout):
            crossed.append(reply)
            yield reply

    monkeypatch.setattr(LocalGrid, "send_and_receive", recording)
    return crossed


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def simulate(cli, home, tmp_path):
    """A tiny federation of everybody, in every round."""

    def run(mode, *, name="run", log=None, engine="loop"):
        (tmp_path / "items.csv").write_text("id,text\n" + "".join(f"i{k},Public book {k}\n" for k in range(12)))
        (tmp_path / f"{name}.csv").write_text(log or events())
        settings = {
            "data.options.items": tmp_path / "items.csv", "split.kind": "global-time", "model.encoder": "tiny",
            "model.dim": 8, "federation.rounds": 2, "federation.cohort": len(PEOPLE), "evaluation.every": 1,
            "training.embedding_rate": 0.5,
        }  # fmt: skip
        words = [word for key, value in (settings | mode).items() for word in ("--set", f"{key}={value}")]
        data = ["--data", f"table:{tmp_path / f'{name}.csv'}"]
        answer = cli("simulate", *data, *words, "--out", tmp_path / name, "--engine", engine)
        assert answer.code == 0, answer.err
        return answer, tmp_path / name

    return run


def leaks(content):
    """Which canaries sing in `content`."""
    text = content.decode("latin-1") if isinstance(content, bytes) else content
    return [canary for canary in CANARIES if canary in text.casefold()]


def read(path):
    """A file's bytes, and for Parquet what was packed in them."""
    unpacked = pd.read_parquet(path).to_csv().encode() if path.suffix == ".parquet" else b""
    return path.read_bytes() + unpacked


def files(*folders):
    return [file for folder in folders for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("mode", [OPEN, PRIVATE], ids=["open", "private"])
def test_no_text_and_no_name_is_in_a_message_a_file_a_log_or_on_the_screen(
    simulate, wired, home, tmp_path, caplog, mode, engine
):
    caplog.set_level(logging.DEBUG)
    answer, path = simulate(mode, engine=engine)
    assert leaks((tmp_path / "run.csv").read_text()) == CANARIES  # they would be heard
    assert {file.name for file in tmp_path.iterdir()} == {"home", "items.csv", "run", "run.csv"}
    nodes = len(PEOPLE) if engine == "loop" else 1
    assert len(wired) == 2 * (nodes + 2 * nodes)
    for message in wired:
        assert leaks(message_to_proto(message).SerializeToString()) == []
    written = files(path, home)
    assert len(written) > 15
    assert {str(file): found for file in written if (found := leaks(read(file)))} == {}
    assert not [file for file in written if leaks(file.name)]
    assert leaks(answer.out) == leaks(answer.err) == leaks(caplog.text) == []


def test_reprs_say_how_much_and_never_what(simulate):
    _, path = simulate(OPEN)
    simulation = Simulation.resume(path)
    fleet, world = simulation.fleet, simulation.world
    assert set(WRITTEN) == set(world.words) and world.population.names == tuple(PEOPLE)
    held = [simulation, fleet, world, world.dataset, world.population, world.split, world.split.test.targets]
    stacked = Updates(fleet, Speed())
    held += [
        stacked.cohort(1, np.arange(3)),
        stacked.cohort(1, np.arange(3)).batch,
        world.population[0],
        fleet.events(0, 5),
        fleet.rounds,
        fleet.holding(0, 5),
        fleet.ledger,
        fleet.states,
        fleet.task,
        fleet.tower(WRITTEN),
    ]
    held += [simulation.test("zeros", lambda clients, histories: np.zeros((len(clients), 12), np.float32))]
    assert {type(each).__name__: found for each in held if (found := leaks(repr(each)))} == {}


def test_what_public_texts_leave_in_the_cache_is_all_that_is_there(simulate, home):
    simulate(OPEN, name="silent", log=events(search="", review=""))
    before = {file.name: file.read_bytes() for file in files(home)}
    assert before
    simulate(OPEN, name="talking")
    assert {file.name: file.read_bytes() for file in files(home)} == before


@pytest.mark.parametrize("mode", [OPEN, PRIVATE], ids=["open", "private"])
def test_a_reply_is_a_header_and_a_vector_of_one_length_for_everybody(simulate, wired, mode):
    """With no event, with one and with many: who reads sizes learns nothing."""
    _, path = simulate(mode)
    task = Task.open(path)
    replies = [message for message in wired if message.metadata.reply_to_message_id and "train" in _kind(message)]
    assert len(replies) == 2 * len(PEOPLE)
    simulation = Simulation.resume(path, speed=Speed(engine=Engine.LOOP))
    cuts = dict(zip(PEOPLE, simulation.world.cuts, strict=True))
    assert (cuts["canary-late"], cuts["canary-once"], cuts["canary-anna"]) == (0, 1, 10)
    assert {len(recorddict_to_proto(reply.content).SerializeToString()) for reply in replies} == {_size(replies[0])}
    for reply in replies:
        assert set(reply.content) == {"header", "vector"}
        assert not reply.content.metric_records
        header = dict(reply.content["header"])
        assert header.pop("round") in (1, 2)
        assert (len(header.pop("nonce")), len(header.pop("model"))) == (16, 64)  # the server's own, handed back
        assert header == {"version": wire.VERSION, "task": task.hash, "client": -1, "hosts": 1, "clip": 0.0}
        [vector] = [array.numpy() for array in reply.content["vector"].values()]
        assert vector.shape == (task.model.layout.size,)
        assert vector.dtype == (np.float32 if task.privacy is None else np.int32)
    still = [reply for reply in replies if not reply.content["vector"]["vector"].numpy().any()]
    assert len(still) >= 2  # the one without a past moved nothing, and sent as much


def _kind(message):
    return message.metadata.message_type


def _size(message):
    return len(recorddict_to_proto(message.content).SerializeToString())


def test_a_request_is_the_same_for_everybody(simulate, wired):
    simulate(OPEN)
    requests = [message for message in wired if _kind(message) == "train" and not message.metadata.reply_to_message_id]
    assert len(requests) == 2 * len(PEOPLE)
    for number in (1, 2):
        sent = [r for r in requests if r.content["header"]["round"] == number]
        assert len({recorddict_to_proto(request.content).SerializeToString() for request in sent}) == 1


def test_a_device_that_fails_says_that_it_failed_and_not_on_what(simulate, wired, monkeypatch):
    """Flower sends the text of an exception to the server."""
    whole, calls = LocalTraining.round, []

    def failing(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise ValueError(f"cannot read {WRITTEN[0]!r}")
        return whole(self, *arguments)

    monkeypatch.setattr(LocalTraining, "round", failing)
    simulate(OPEN)
    [failed] = [message for message in wired if message.has_error()]
    assert "ValueError" in failed.error.reason
    assert leaks(failed.error.reason) == leaks(message_to_proto(failed).SerializeToString()) == []
