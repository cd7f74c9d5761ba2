"""A published model: enough to rank with, whole or not there, and nothing of a person in it."""

import hashlib
import json
from math import erf, sqrt

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from fedrec.datasets.synthetic import generate
from fedrec.device.event import NO_ITEM
from fedrec.device.weights import signed_weights
from fedrec.model import pack
from fedrec.model.catalogue_files import read_catalogue
from fedrec.model.encoder import open_encoder
from fedrec.model.pack import write_pack
from fedrec.model.pack_files import read_pack, verify_pack
from fedrec.model.parameters import Layout
from fedrec.population.states import DeviceStates
from fedrec.population.world import Fleet, World
from fedrec.privacy.statement import statements
from fedrec.randomness import stream
from fedrec.spec import Plan, ProfileSpec
from fedrec.task import Task

CLAIMS = statements(None, simulated=True)
FILES = {"README.md", "catalogue.jsonl", "items.safetensors", "model.safetensors", "privacy.json"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    dataset = generate(users=12, items=64)
    plan = Plan.of({"clients": 12, "model": {"encoder": "hash", "dim": 8, "rank": 3}, "profile": {"rating": 0.5}})
    world, task = World.of(dataset, plan), Task(plan, dataset.catalogue)
    return Fleet(task, world, DeviceStates(tmp_path_factory.mktemp("devices"), 12, 8))


def shared_of(task, seed=0):
    away = stream(seed, "shared").normal(0.0, 0.3, task.model.layout.size)
    return (task.model.initial + away).astype(np.float32)


@pytest.fixture
def published(fleet, tmp_path):
    write_pack(tmp_path / "pack", fleet.task, shared_of(fleet.task), CLAIMS)
    return tmp_path / "pack"


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def text_vectors(texts, tensors, items):
    """Free text → item space in numpy: bottleneck, centre, projection."""
    z = open_encoder("hash").encode(texts).astype(np.float64)
    bent = z @ tensors["adapter.body.down"].T
    bent = bent * (1 + np.vectorize(erf)(bent / sqrt(2))) / 2
    moved = z + bent @ tensors["adapter.body.up"].T / sqrt(len(tensors["adapter.body.down"]))
    return (unit(moved - items["centre"]) * z.any(axis=1, keepdims=True)) @ items["projection"]


def rank_with(folder, history, embedding):
    """What a device makes of a pack, from its files alone."""
    tensors, items = load_file(folder / "model.safetensors"), load_file(folder / "items.safetensors")
    about = json.loads((folder / "pack.json").read_text())
    profile = ProfileSpec(**about["plan"]["profile"])
    events = np.zeros((len(history), items["vectors"].shape[1]))
    own = history.items != NO_ITEM
    events[own] = items["vectors"][history.items[own]]
    written = np.array([bool(text) for text in history.texts])
    if written.any():
        beside = np.where(own[written], profile.text, 1.0)[:, None]
        texts = [text for text in history.texts if text]
        events[written] += beside * text_vectors(texts, tensors, items)
    events *= signed_weights(history, profile)[:, None]
    age = np.arange(len(history))[::-1]
    wanted = sum(
        unit((np.float64(decay) ** age) @ events) @ mapping
        for decay, mapping in zip(about["ranking"]["decays"], tensors["maps"], strict=True)
    )
    return (wanted + embedding) @ items["vectors"].T + items["prior"]


def test_a_device_ranks_from_the_pack_alone_like_the_model(fleet, published):
    shared, embedding = shared_of(fleet.task), stream(1, "embedding").normal(size=8).astype(np.float32)
    kinds = set()
    for client in range(6):
        history = fleet.world.population[client]
        expected = fleet.scores(shared, embedding[None], np.array([client]), [len(history)])[0]
        found = rank_with(published, history, embedding)
        assert found == pytest.approx(expected, abs=1e-4)
        kinds.add(any(history.texts))
        assert found != pytest.approx(rank_with(published, history.before(len(history) - 1), embedding), abs=1e-4)
    assert True in kinds  # private text took part


def test_an_empty_history_gets_the_embedding_and_the_prior(fleet, published):
    expected = fleet.scores(shared_of(fleet.task), np.zeros((1, 8), np.float32), np.array([0]), [0])[0]
    items = load_file(published / "items.safetensors")
    assert expected == pytest.approx(items["prior"], abs=1e-6)


def test_what_is_inside_and_what_is_not(fleet, published):
    assert {path.name for path in published.iterdir()} == FILES | {"pack.json"}
    tensors, items = load_file(published / "model.safetensors"), load_file(published / "items.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == dict(fleet.task.model.layout.shapes)
    shapes = {name: value.shape for name, value in items.items()}
    assert shapes == {"vectors": (64, 8), "prior": (64,), "centre": (256,), "projection": (256, 8)}
    flat = np.concatenate([tensors[name].ravel() for name, _ in fleet.task.model.layout.shapes])
    assert (flat == shared_of(fleet.task)).all()


def test_the_parameters_in_order_of_the_layout_are_the_shared_vector(fleet, published):
    pack = read_pack(published, None)
    flat = np.concatenate([pack.parameters[name].ravel() for name, _ in pack.info.layout])
    assert (flat == shared_of(fleet.task)).all()
    assert Layout(pack.info.layout) == fleet.task.model.layout


def test_nothing_of_an_older_pack_or_of_a_killed_writer_stays(fleet, published):
    torn = (".pack.json.17", ".model.safetensors.9")
    for name in ("pack.sig", *torn):
        (published / name).touch()
    write_pack(published, fleet.task, shared_of(fleet.task), CLAIMS, round=4)
    assert verify_pack(published, None).round == 4


def test_the_manifest_names_what_it_was_made_from(fleet, published):
    about, task = json.loads((published / "pack.json").read_text()), fleet.task
    catalogue = read_catalogue(published / "catalogue.jsonl")
    assert (about["task"], about["catalogue"]) == (task.hash, {"items": 64, "hash": catalogue.hash})
    assert catalogue.hash == task.catalogue.hash
    assert about["encoder"] == {"name": "hash", "hash": open_encoder("hash").hash, "dim": 256}
    assert Plan.of(about["plan"]) == task.plan
    with safe_open(published / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"task": task.hash}
    assert json.loads((published / "privacy.json").read_text())[0]["label"] == "non-private"
    assert "non-private" in (published / "README.md").read_text()


def test_the_manifest_holds_the_hash_of_every_other_file(fleet, published):
    digests = json.loads((published / "pack.json").read_text())["files"]
    content = {name: (published / name).read_bytes() for name in FILES}
    assert digests == {
        name: {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held)} for name, held in content.items()
    }
    write_pack(published, fleet.task, shared_of(fleet.task, seed=1), CLAIMS)
    newer = json.loads((published / "pack.json").read_text())["files"]
    assert {name for name in FILES if newer[name] != digests[name]} == {"items.safetensors", "model.safetensors"}


@pytest.mark.parametrize("torn", sorted(FILES))
def test_a_crash_leaves_no_manifest(fleet, published, monkeypatch, torn):
    """Whichever file cannot be written, and whatever pack lay there before, the folder is seen to be incomplete."""
    write = pack.write_atomic

    def fail(path, content):
        if path.name == torn:
            raise OSError("no space left on device")
        write(path, content)

    monkeypatch.setattr(pack, "write_atomic", fail)
    with pytest.raises(OSError, match="no space"):
        write_pack(published, fleet.task, shared_of(fleet.task, seed=1), CLAIMS)
    assert not (published / "pack.json").exists()


def test_writing_changes_no_parameter(fleet, tmp_path):
    shared = shared_of(fleet.task)
    shared.flags.writeable = False
    write_pack(tmp_path / "pack", fleet.task, shared, CLAIMS)
    assert (shared == shared_of(fleet.task)).all()
