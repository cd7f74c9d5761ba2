"""Every check of the doctor on a sound machine, and on one that is broken in the way that it is there to find."""

import os
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedrec import doctor
from fedrec.doctor import examine, gradients, machine, noise, require_sound
from fedrec.doctor.finding import Finding
from fedrec.errors import PrivacyRefusal
from fedrec.exchange import flower
from fedrec.model import devices as model_devices
from fedrec.privacy.crossing import Crossing
from fedrec.privacy.device_ledger import DeviceLedger
from fedrec.privacy.ledger import Ledger
from fedrec.privacy.noise import Hardened, Research, Seeded
from fedrec.privacy.sampling import SecretCoins


def failed(check):
    return [finding.name for finding in check if not finding.ok]


def only(check):
    (finding,) = check
    return finding


# The machine.


def test_packages_are_the_ones_that_fedrec_is_made_for():
    assert failed(machine.versions()) == []


@pytest.mark.parametrize("package", ["torch", "dp-accounting", "opacus"])
def test_a_wrong_version_is_found(monkeypatch, package):
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == package else version(name))
    finding = only(machine.versions())
    assert not finding.ok and f"{package} is 0.0.1" in finding.seen


def test_a_missing_package_is_found(monkeypatch):
    version = metadata.version

    def gone(name):
        if name == "opacus":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", gone)
    assert only(machine.versions()).seen == "opacus is missing"


def test_an_installation_that_names_no_packages_is_not_sound(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: None)
    assert failed(machine.versions()) == ["versions"]


def test_switches_stand():
    assert failed(machine.switches()) == []


@pytest.mark.parametrize("name", list(flower.SWITCHES))
def test_a_switch_that_was_turned_is_found(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert name in only(machine.switches()).seen


def test_telemetry_that_was_on_before_fedrec_came_is_found(monkeypatch):
    monkeypatch.setattr("flwr.supercore.telemetry.FLWR_TELEMETRY_ENABLED", "1")
    assert "FLWR_TELEMETRY_ENABLED" in only(machine.switches()).seen


def test_devices_compute_what_they_are_asked_to():
    assert failed(machine.devices()) == []


def test_a_machine_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = only(machine.devices())
    assert finding.ok and finding.seen == f"cpu; torch {torch.__version__} sees no GPU"


def test_a_device_that_computes_in_less_is_found(monkeypatch):
    monkeypatch.setattr(model_devices, "exact", lambda device: False)
    assert "cpu: float32 is computed as float32" in only(machine.devices()).seen


def test_a_missing_gpu_that_is_not_refused_is_found(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(model_devices, "usable_device", torch.device)
    assert "not there is not refused" in only(machine.devices()).seen


def test_the_clock_is_sane():
    assert failed(machine.clock()) == []


def clock_of(monkeypatch, times, ticks=(0.0, 0.0)):
    times, ticks = iter(times), iter(ticks)
    fake = SimpleNamespace(time=lambda: next(times), monotonic=lambda: next(ticks))
    monkeypatch.setattr(machine, "time", fake)
    return only(machine.clock())


def test_a_clock_of_the_past_is_found(monkeypatch):
    assert "before the installation" in clock_of(monkeypatch, [0.0, 0.0]).seen


def test_a_clock_that_jumps_is_found(monkeypatch):
    assert "jumped by 3600.0" in clock_of(monkeypatch, [5e9, 5e9 - 3600.0]).seen


def test_files_of_another_time_are_found(monkeypatch):
    finding = clock_of(monkeypatch, [5e9, 5e9])
    assert not finding.ok and "files are dated" in finding.seen and "jumped" not in finding.seen


def test_there_is_room(tmp_path):
    assert failed(machine.disk([tmp_path, tmp_path / "not" / "yet"])) == []


def test_a_full_disk_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    assert failed(machine.disk([tmp_path])) == [f"free disk in {tmp_path}"]


def test_ledgers_can_be_kept_and_nothing_stays_behind(tmp_path):
    assert failed(machine.ledgers([tmp_path, tmp_path / "new"])) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new"]


def test_a_folder_that_cannot_be_written_is_found(tmp_path):
    (tmp_path / "file").touch()
    assert failed(machine.ledgers([tmp_path / "file", tmp_path])) == [f"ledgers in {tmp_path / 'file'}"]


def test_a_disk_that_does_not_sync_is_found(monkeypatch, tmp_path):
    def broken(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    finding = only(machine.ledgers([tmp_path]))
    assert not finding.ok and "Input/output error" in finding.seen


@pytest.mark.parametrize(
    ("ledger", "name", "forgetful"),
    [(DeviceLedger, "sent", lambda *_: None), (Ledger, "charged", property(lambda self: ()))],
)
def test_a_ledger_that_forgets_is_found(monkeypatch, tmp_path, ledger, name, forgetful):
    monkeypatch.setattr(ledger, name, forgetful)
    assert "holds what was written" in only(machine.ledgers([tmp_path])).seen


def test_keys_belong_to_their_owner(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "abc").touch(mode=0o600)
    assert only(machine.keys([tmp_path])).ok
    (tmp_path / "keys" / "abc").chmod(0o640)
    finding = only(machine.keys([tmp_path]))
    assert not finding.ok and "abc" in finding.seen


# What hides people.


def test_noise_is_as_wide_as_it_says():
    assert failed(noise.scale()) == []
    assert failed(noise.modes()) == []


@pytest.mark.parametrize("source", [Hardened, Research, Seeded])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_source_of_the_wrong_width_is_found(monkeypatch, source, factor):
    draw = source.draw
    monkeypatch.setattr(source, "draw", lambda self, sigma, dim: draw(self, factor * sigma, dim))
    assert failed(noise.scale()) == [f"noise of level {source.level}"]


def test_noise_that_a_server_leaves_out_is_found(monkeypatch):
    monkeypatch.setattr(Crossing, "release", lambda self, summed, noise: summed.total / (self.grid * self.expected))
    assert failed(noise.modes()) == ["noise of user-central"]


def test_shares_for_a_full_cohort_instead_of_the_fewest_are_found(monkeypatch):
    def small(self, source, scale, dim):
        return source.draw(scale * self.radius * (noise._LEAST / noise._CLIENTS) ** 0.5, dim)

    monkeypatch.setattr(Crossing, "_noise", small)
    assert "noise of user-distributed" in failed(noise.modes())


def test_noise_and_coins_are_fresh():
    assert failed(noise.fresh()) == []
    assert failed(noise.coins()) == []


def test_noise_that_repeats_itself_is_found(monkeypatch):
    monkeypatch.setattr(Hardened, "draw", lambda self, sigma, dim: np.arange(dim))
    (finding,) = (finding for finding in noise.fresh() if not finding.ok)
    assert "hardened" in finding.name
    assert all(where in finding.seen for where in ("twice in a row", "in two processes", "torch"))


def test_noise_from_a_generator_that_a_child_inherits_is_found(monkeypatch):
    generator = np.random.default_rng(7)
    monkeypatch.setattr(Research, "draw", lambda self, sigma, dim: generator.normal(0, sigma, dim).astype(np.int64))
    (finding,) = (finding for finding in noise.fresh() if not finding.ok)
    assert finding.seen == "the same in two processes"


def test_noise_from_the_generator_of_torch_is_found(monkeypatch):
    monkeypatch.setattr(Hardened, "draw", lambda self, sigma, dim: (torch.randn(dim) * sigma).long().numpy())
    (finding,) = (finding for finding in noise.fresh() if not finding.ok)
    assert "torch" in finding.seen and "twice in a row" not in finding.seen


def test_a_source_that_dies_in_a_child_is_found(monkeypatch):
    draw, parent = Hardened.draw, os.getpid()
    monkeypatch.setattr(
        Hardened, "draw", lambda self, sigma, dim: draw(self, sigma, dim) if os.getpid() == parent else None
    )
    assert "in two processes" in next(iter(noise.fresh())).seen


def test_coins_that_repeat_themselves_are_found(monkeypatch):
    monkeypatch.setattr(SecretCoins, "random", lambda self, size: np.zeros(size))
    assert failed(noise.coins()) == ["coins of secret cohorts, fresh"]


def test_the_accountant_is_right():
    assert failed(noise.accountant()) == []


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_wrong_accountant_is_found(monkeypatch, factor):
    epsilon = noise.epsilon
    monkeypatch.setattr(noise, "epsilon", lambda charges, *, delta: factor * epsilon(charges, delta=delta))
    assert len(failed(noise.accountant())) == 3


# Gradients.


def test_gradients_are_those_of_single_examples():
    assert failed(gradients.per_example()) == []


def mixed(found):
    """What a batch-wide gradient looks like: everybody has the mean."""
    return {parameter: rows.mean(dim=0, keepdim=True).expand_as(rows) for parameter, rows in found.items()}


def shuffled(found):
    return {parameter: rows.flip(0) for parameter, rows in found.items()}


@pytest.mark.parametrize("mistake", [mixed, shuffled, lambda found: {p: 1.001 * rows for p, rows in found.items()}])
def test_gradients_that_are_not_of_single_examples_are_found(monkeypatch, mistake):
    right = gradients.gradients
    monkeypatch.setattr(gradients, "gradients", lambda *given: mistake(right(*given)))
    assert failed(gradients.per_example()) == ["gradients of bottleneck", "gradients of lora"]


def test_gradients_that_all_vanish_prove_nothing(monkeypatch):
    nothing = lambda layer, *_: {p: torch.zeros(3, *p.shape) for p in layer.parameters()}  # noqa: E731
    monkeypatch.setattr(gradients, "gradients", nothing)
    right = gradients._layer

    def flat(adapter):
        layer = right(adapter)
        layer._loss = lambda shared, embedding, place: 0 * (shared.sum() + embedding.sum())
        return layer

    monkeypatch.setattr(gradients, "_layer", flat)
    assert len(failed(gradients.per_example())) == 2


# All together.


def test_a_check_that_cannot_run_is_a_finding(monkeypatch, tmp_path):
    def broken():
        raise ImportError("no module named opacus")
        yield

    for name in ("scale", "modes", "fresh", "accountant", "_gradients"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "coins", broken)
    (finding,) = (finding for finding in examine((tmp_path,)) if not finding.ok)
    assert finding.name == "coins" and finding.code == "P07" and "no module named opacus" in finding.seen


def test_a_refusal_names_what_failed_and_carries_its_code():
    sound = Finding(name="clock", code="P11", ok=True, seen="well", remedy="none")
    require_sound((sound,))
    wrong = Finding(name="noise", code="P07", ok=False, seen="narrow", remedy="Widen it.")
    with pytest.raises(PrivacyRefusal) as caught:
        require_sound((sound, wrong))
    assert caught.value.code == "P07" and caught.value.exit_code == 4
    assert "noise" in str(caught.value) and "clock" not in str(caught.value)
    assert (sound.public()["remedy"], wrong.public()["remedy"]) == ("", "Widen it.")
