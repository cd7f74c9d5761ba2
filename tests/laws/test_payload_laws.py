"""What leaves a device looks alike for everybody: same keys, length and type, whatever it holds, in every mode."""

from contextlib import closing

import numpy as np
import pytest
from flwr.common.serde import recorddict_to_proto
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedrec.datasets.dataset import Dataset
from fedrec.device.event import Event, Kind
from fedrec.exchange import wire
from fedrec.exchange.client import client_app
from fedrec.model.catalogue import Catalogue
from fedrec.population.grid import in_process
from fedrec.population.source import Population
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, VirtualDevice, World
from fedrec.privacy.crossing import Crossing
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.enrolment import Limit, Limits
from fedrec.privacy.noise import Hardened, Level
from fedrec.spec import Plan
from fedrec.task import Task

LAW = settings(derandomize=True, deadline=None, max_examples=200)
ITEMS, MANY = 64, 10_000
HELD = {"nothing": 0, "one item": 1, "ten thousand": MANY, "nothing, too": 0}
MODES = {
    "none": {"privacy.mode": "none"},
    "user-central": {"privacy.mode": "user-central"},
    "adaptive": {"privacy.mode": "user-central", "adaptive.quantile": 0.5, "adaptive.spread": 50.0},
    "user-distributed": {"privacy.mode": "user-distributed"},
    "user-local": {"privacy.mode": "user-local"},
    "interaction-local": {"privacy.mode": "interaction-local"},
    "layered": {"privacy.mode": "layered"},
}
TINY = {
    "clients": len(HELD), "split.kind": "global-time", "split.fit": "train+validation", "model.encoder": "hash",
    "model.dim": 4, "model.adapter": "none", "model.residuals": False, "federation.rounds": 1,
    "federation.cohort": len(HELD), "privacy.force": True, "interaction.steps": 1,
    "interaction.rate": 1.0,  # no sampling, so that calibration is a closed form
}  # fmt: skip


def plan_of(settings):
    plan = Plan()
    for name, value in settings.items():
        section, _, field = name.partition(".")
        plan = plan.override({section: {field: value} if field else value})
    return plan


def world_of(plan):
    """People with as many clicks as they hold, one in each hour, all before anything is held out."""
    catalogue = Catalogue([f"i{n}" for n in range(ITEMS)], [f"word{n} word{n % 7}" for n in range(ITEMS)])
    histories = [
        [Event(kind=Kind.CLICK, item=n % ITEMS, time=3600 * n) for n in range(count)] for count in HELD.values()
    ]
    return World.of(Dataset("payloads", catalogue, Population.of(histories)), plan)


def replies(folder, settings):
    """The answer of each device to a request for the first round."""
    plan = plan_of(settings)
    world = world_of(plan)
    task = Task(plan, world.dataset.catalogue)
    states = DeviceStates(folder, len(HELD), plan.model.dim)
    lifetime = Limits(participations=plan.rounds, user=Limit(1e6, 1e-9), interaction=Limit(1e6, 1e-9))
    with closing(DeviceLedger(folder / "ledger.sqlite", lifetime, fast=True)) as ledger:
        fleet = Fleet(task, world, states, ledger)
        app = client_app(lambda context: VirtualDevice(fleet, int(context.node_config["partition-id"])))
        grid, shared = in_process(app, len(HELD)), wire.arrays(task.model.initial)
        header = wire.Header(task.hash, 1, model=wire.digest(task.model.initial))
        requests = [wire.train(node, header, shared) for node in grid.get_node_ids()]
        return list(grid.send_and_receive(requests))


def form(reply):
    """Everything about a reply but the values of its numbers."""
    assert not reply.has_error(), reply.error
    content, vector = reply.content, wire.vector(reply.content["vector"])
    keys = {name: sorted(record.keys()) for name, record in content.items()}
    size = len(recorddict_to_proto(content).SerializeToString())
    return keys, dict(content["header"]), vector.dtype, vector.shape, size


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_payload_has_one_form_for_everybody(tmp_path, caplog, mode, warm):
    sent = replies(tmp_path, TINY | MODES[mode] | {"warm.enabled": warm})
    assert len(sent) == len(HELD)
    assert not caplog.records  # nobody failed
    forms = [form(reply) for reply in sent]
    assert all(each == forms[0] for each in forms)
    header = ["client", "clip", "hosts", "model", "nonce", "round", "task", "version"]
    assert forms[0][0] == {"header": header, "vector": ["vector"]}


@pytest.mark.parametrize("mode", ["user-central", "user-distributed"])
def test_a_device_that_fails_looks_like_the_others(tmp_path, monkeypatch, caplog, mode):
    def train(self, client, number, shared):
        if client == 2:
            raise MemoryError("ten thousand were too many")
        return np.full_like(shared, np.nan if client == 1 else 1.0)

    monkeypatch.setattr(Fleet, "trained", train)
    forms = [form(reply) for reply in replies(tmp_path, TINY | MODES[mode])]
    assert all(each == forms[0] for each in forms)
    assert len(caplog.records) == 2  # on the device, where the failures may be told


def test_people_do_differ(tmp_path):
    """The forms above are not alike because nobody learnt anything."""
    nothing, one, many, _ = (wire.vector(reply.content["vector"]) for reply in replies(tmp_path, TINY | MODES["none"]))
    assert not nothing.any() and many.any()
    assert not np.array_equal(one, many)


@pytest.mark.parametrize(
    ("mode", "alike"),
    [("user-central", True), ("user-distributed", False), ("user-local", False), ("interaction-local", False)],
)
def test_two_devices_that_hold_the_same_send_different_noise(tmp_path, mode, alike):
    first, *_, last = (wire.vector(reply.content["vector"]) for reply in replies(tmp_path, TINY | MODES[mode]))
    assert np.array_equal(first, last) is alike
    if not alike:
        assert abs(np.corrcoef(first, last)[0, 1]) * np.sqrt(first.size) < 5.3


# Payloads that tell, which the comparison must find.


@pytest.mark.parametrize("mistake", ["sparse", "compressed", "counted"])
def test_a_payload_that_tells_is_found(tmp_path, mistake):
    tellers = {
        "sparse": lambda vector: wire.arrays(vector[vector != 0]),
        "compressed": lambda vector: wire.arrays(vector.astype(np.int8 if np.abs(vector).max() < 128 else np.int64)),
    }
    forms = []
    for reply in replies(tmp_path, TINY | MODES["user-central"]):
        vector = wire.vector(reply.content["vector"])
        if mistake == "counted":
            reply.content["header"]["examples"] = int((vector != 0).sum())
        else:
            reply.content["vector"] = tellers[mistake](vector)
        forms.append(form(reply))
    assert any(each != forms[0] for each in forms)


# The crossing alone, for any update.


CROSSINGS = [
    Crossing(clip=1.0, grid=grid, share=share, rest=0.0, expected=4, least=0, population=4, level=level, bit=bit)
    for grid, share, level, bit in [
        (2**10, 0.0, Level.HARDENED, 0), (2**10, 0.0, Level.HARDENED, 99), (2**10, 3.0, Level.HARDENED, 0),
        (2**10, 3.0, Level.HARDENED, 99), (2**31, 0.5, Level.HARDENED, 0),
    ]
]  # fmt: skip


@LAW
@given(st.sampled_from(CROSSINGS), arrays(np.float64, 7, elements=st.floats(width=64)))
@example(CROSSINGS[0], np.zeros(7))
@example(CROSSINGS[3], np.full(7, np.nan))
def test_whatever_is_learnt_crosses_in_one_form(crossing, update):
    sent = crossing.send(update, Hardened() if crossing.share else None)
    assert (sent.dtype, sent.shape) == (crossing.dtype, (crossing.width(7),))
    assert crossing.accepts(sent)
