"""Devices and precisions: what is refused, what changes a vector, and what does not. A real GPU: tests/gpu."""

from __future__ import annotations

import numpy as np
import pretend
import pytest
import torch
from pretend import GPU
from torch.func import functional_call, grad, vmap

from fedrec.errors import SpecError
from fedrec.model import devices
from fedrec.model.adapter import build_adapter
from fedrec.model.catalogue import Catalogue
from fedrec.model.devices import exact, usable_device
from fedrec.model.encoder import open_encoder
from fedrec.model.ranking import Model
from fedrec.model.transformer import TransformerEncoder
from fedrec.randomness import stream
from fedrec.spec import ModelSpec, Plan
from fedrec.task import Task

TEXTS = ["Star Wars (1977)", "", "star wars: the empire strikes back", " \n", "Cinderella", "naïve café 東京"]
CATALOGUE = Catalogue([f"i{n}" for n in range(12)], [f"word{n} of star {n % 3}" for n in range(12)])

second_device = pytest.mark.skipif(not pretend.AVAILABLE, reason="this torch cannot pretend a device")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU called cuda, pretended."""
    monkeypatch.setattr(devices, "usable_device", lambda name: GPU if name == "cuda" else torch.device(name))
    with pretend.Pretending():
        yield


def numbers(count, path):
    return torch.from_numpy(stream(0, "test devices", path).normal(size=count).astype(np.float32))


# Names.


def test_the_cpu_is_always_there():
    assert usable_device("cpu") == torch.device("cpu") and exact(torch.device("cpu"))


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "meta", "cpu:0", " cuda", "cuda\n"])
def test_other_names_are_refused(name):
    with pytest.raises(SpecError, match=r"a device is cpu, cuda or cuda:N; got device=.*Use cpu, cuda or cuda:0"):
        usable_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpecError, match=f"where torch sees one; got device='{name}', torch='.*Use cpu, or install"):
        usable_device(name)
    with pytest.raises(SpecError, match="where torch sees one"):
        open_encoder("tiny", device=name)


def test_gpus_are_counted_from_zero(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "exact", lambda device: True)
    assert [str(usable_device(name)) for name in ("cuda", "cuda:0", "cuda:1")] == ["cuda:0", "cuda:0", "cuda:1"]
    with pytest.raises(SpecError, match=r"numbered from 0; got device='cuda:2', seen=2\. Use cuda:1 or less"):
        usable_device("cuda:2")


def test_a_device_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "exact", lambda device: False)
    with pytest.raises(SpecError, match="float32 is computed as float32.*set_float32_matmul_precision"):
        usable_device("cpu")


@second_device
@pytest.mark.parametrize(("dtype", "kept"), [(None, True), (torch.float16, False), (torch.bfloat16, False)])
def test_the_arithmetic_itself_is_asked(dtype, kept):
    with pretend.Pretending(dtype):  # float16 has the 11 bits of TF32
        assert exact(GPU) is kept


# The second device finds what it is there to find.


@second_device
def test_tensors_on_two_devices_do_not_meet():
    with pretend.Pretending():
        here, there = torch.ones(2, 2), torch.ones(2, 2, device=GPU)
        for meet in (
            lambda: here @ there, lambda: there[torch.tensor([0])], lambda: torch.where(here > 0, there, there),
            lambda: there.index_add_(0, torch.tensor([0, 1]), there), lambda: there.numpy(),
        ):  # fmt: skip
            with pytest.raises(RuntimeError):
                meet()
        there[0] = torch.tensor([1.0, 2.0], device=GPU)
        assert (there @ here.to(GPU)).cpu().tolist() == [[3, 3], [2, 2]]


@second_device
def test_an_encoder_that_leaves_its_mask_behind_is_found(gpu, monkeypatch):
    def forgetful(encoder, tokens):
        from fedrec.model.transformer import _batches

        for rows, ids, mask in _batches(tokens, 4):
            yield rows, ids.to(GPU), mask

    monkeypatch.setattr(TransformerEncoder, "_passes", forgetful)
    with pytest.raises(RuntimeError, match="two devices"):
        open_encoder("tiny", device="cuda").encode(TEXTS)


# An encoder on a device.


@second_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_device_changes_no_vector_and_no_hash(gpu, precision):
    near, far = (open_encoder("tiny", precision=precision, device=device) for device in ("cpu", "cuda"))
    assert next(far._placed.parameters()).device == GPU and far.hash == near.hash
    assert np.allclose(far.encode(TEXTS), near.encode(TEXTS), atol=1e-6 if precision == "float32" else 1e-2)
    for one, other in zip(far.hidden(TEXTS, 1).padded(), near.hidden(TEXTS, 1).padded(), strict=True):
        assert one.dtype == other.dtype and np.allclose(one, other, atol=1e-6 if precision == "float32" else 5e-2)


@second_device
def test_the_states_of_a_text_are_its_own_on_a_device_too(gpu):
    far = open_encoder("tiny", device="cuda")
    together, alone = far.hidden(TEXTS, 2), [far.hidden([text], 2).states for text in TEXTS]
    assert np.array_equal(np.diff(together.starts), [len(states) for states in alone])
    assert np.allclose(together.states, np.concatenate(alone), atol=1e-6)


@second_device
def test_a_vector_in_the_cache_needs_no_device(gpu, tmp_path, monkeypatch):
    vectors = open_encoder("tiny", cache=tmp_path, device="cuda").encode(TEXTS, public=True)
    again = open_encoder("tiny", cache=tmp_path, device="cuda")
    assert np.array_equal(again.encode(TEXTS, public=True), vectors) and "_placed" not in vars(again)


@second_device
@pytest.mark.parametrize("kind", ["none", "bottleneck", "lora"])
def test_a_model_on_a_device_scores_and_learns_as_on_the_cpu(gpu, kind):
    spec = ModelSpec(encoder="tiny", adapter=kind, dim=6, rank=3)
    near = Model.build(CATALOGUE, open_encoder("tiny", device="cuda"), spec, seed=0)
    shared = torch.from_numpy(near.initial) + 0.1 * numbers(near.layout.size, "shared")

    def gradients(model, device):
        def loss(shared, query, row):
            parameters = model.layout.views(shared)
            scores = model.item_vectors(parameters) @ query + model.prior(parameters)
            return torch.logsumexp(scores, 0) - scores.gather(0, row[None])[0]

        queries, rows = numbers((3, 6), "queries").to(device), torch.tensor([0, 5, 11], device=device)
        return vmap(grad(loss), in_dims=(None, 0, 0))(shared.to(device), queries, rows)

    expected, found = gradients(near, torch.device("cpu")), gradients(near.to(GPU), GPU)
    assert found.device == GPU and expected.abs().sum() > 0
    assert torch.allclose(found.cpu(), expected, atol=1e-5)


# A precision.


def test_bfloat16_is_another_encoder(tmp_path):
    exactly, roughly = (open_encoder("tiny", cache=tmp_path, precision=p) for p in ("float32", "bfloat16"))
    assert exactly.hash != roughly.hash
    for public in (True, False):  # also from the cache that both share
        before, after = exactly.encode(TEXTS, public=public), roughly.encode(TEXTS, public=public)
        assert after.dtype == np.float32 and 0 < np.abs(after - before).max() < 2**-6
        assert np.allclose(np.linalg.norm(after, axis=1), [1, 0, 1, 0, 1, 1], atol=1e-6)
        states = roughly.hidden(TEXTS, 1, public=public).states
        assert states.dtype == np.float32 and 0 < np.abs(states - exactly.hidden(TEXTS, 1).states).max() < 0.1
    assert len(list(tmp_path.iterdir())) == 3


def test_the_frozen_part_computes_in_bfloat16_and_keeps_its_buffers():
    encoder = open_encoder("tiny", precision="bfloat16")
    encoder.trunk.register_buffer("frequencies", torch.ones(3))
    placed = encoder._placed
    assert {one.dtype for one in placed.parameters()} == {torch.bfloat16} and placed.frequencies.dtype == torch.float32
    ids, mask = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    seen = []
    placed.blocks[0].register_forward_hook(lambda block, given, found: seen.append(given[0].dtype))
    assert placed(ids, mask).dtype == torch.float32 and seen == [torch.bfloat16]


def test_what_is_trained_is_float32():
    encoder = open_encoder("tiny", precision="bfloat16")
    adapter = build_adapter("lora", encoder, rank=2, blocks=1, seed=0)
    plain = build_adapter("lora", open_encoder("tiny"), rank=2, blocks=1, seed=0)
    inputs = adapter.prepare(TEXTS)
    assert {one.dtype for one in adapter.parameters()} == {inputs.values.dtype} == {torch.float32}
    for mine, theirs in zip(adapter.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)  # the weights of the top were not rounded
    found = functional_call(adapter, adapter.trainable(), (inputs,)).detach().numpy()
    assert 0 < np.abs(found - encoder.encode(TEXTS)).max() < 2**-6


def test_an_encoder_without_a_transformer_has_no_precision():
    with pytest.raises(SpecError, match="has a precision; got encoder='hash', precision='bfloat16'. Use float32"):
        open_encoder("hash", precision="bfloat16")


def plan(**model):
    return Plan.of({"clients": 4, "model": {"encoder": "tiny", "dim": 6, **model}})


def test_precision_is_part_of_a_task_and_of_plans_written_before_it():
    exactly, roughly = Task(plan(), CATALOGUE), Task(plan(precision="bfloat16"), CATALOGUE)
    assert exactly.hash != roughly.hash and not np.array_equal(exactly.model.initial, roughly.model.initial)
    assert Plan.from_toml('[model]\nencoder = "tiny"').model.precision == "float32"
    with pytest.raises(SpecError, match="model.precision"):
        plan(precision="float16")


@second_device
def test_a_device_is_no_part_of_a_task(gpu, tmp_path, monkeypatch):
    tasks = []
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("FEDREC_HOME", str(tmp_path / device))  # each with a cache of its own
        tasks.append(Task(plan(), CATALOGUE, device))
        assert "_placed" in vars(tasks[-1].model.adapter.encoder)
    assert tasks[0].hash == tasks[1].hash
    assert np.allclose(tasks[0].model.initial, tasks[1].model.initial, atol=1e-4)
