"""Attacks on whole runs and recorded uploads: they succeed where nothing is promised, and not beyond a promise."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from fedrec.cli import app
from fedrec.device.event import Event, Kind
from fedrec.device.history import History
from fedrec.errors import AuditFailed, SpecError
from fedrec.privacy.audit.canaries import Canaries, Estimate, estimate
from fedrec.privacy.audit.faults import Scaled, no_noise
from fedrec.privacy.audit.mechanism import Verdict
from fedrec.privacy.audit.one_run import Game, one_run, single_run, summed_run
from fedrec.privacy.noise import Hardened
from fedrec.privacy.terms import Mode, Unit
from fedrec.randomness import stream
from fedrec.study import audits, exposure
from fedrec.study.attacks import (
    Attacker,
    Finding,
    Rate,
    Target,
    gaussian_bound,
    membership,
    nothing,
    pure_bound,
    reconstruction,
    without,
)
from fedrec.study.audits import Outcome
from fedrec.study.exposure import Scale, Scene

GAME = Game(canaries=60, guesses=30)


def told(mu, trials=400, targets=6, seed=0):
    """The attack on scalar uploads N(μ·[holds the item], 1), where the best test is known."""
    rng, event = stream(seed, "told"), Event(kind=Kind.CLICK, item=0)
    present, absent = History.of([event]), nothing()

    def clean(history, count):
        return np.full((count, 2), [mu * len(history), 0.0])

    def upload(history, count):
        return clean(history, count) + rng.normal(size=(count, 2))

    people = [Target(0, present, absent)] * targets
    return membership(upload, Attacker(rehearsal=clean, noise=1.0), people, trials=trials)


def test_the_attack_on_one_number_is_the_best_test():
    found = told(2.0)
    assert found.area == pytest.approx(0.921, abs=0.02)  # Φ(2/√2)
    first = found.findings[0]
    assert first.right.lower <= gaussian_bound(2.0)(first.wrong.upper)
    assert first.right.upper >= gaussian_bound(2.0)(first.wrong.lower)  # and no weaker than it


def test_a_false_claim_is_falsified_by_membership():
    found = told(3.0)
    assert all(finding.within(gaussian_bound(3.0)) for finding in found.findings)
    assert not found.findings[0].within(gaussian_bound(1.0))
    assert not found.findings[0].within(pure_bound(1.0, 1e-6))


def test_rates_carry_their_bounds():
    rate = Rate(5, 100)
    assert rate.lower < rate.value == 0.05 < rate.upper and str(rate) == "0.050 [0.016, 0.113]"
    assert Finding("x", Rate(99, 100), Rate(0, 100)).within(gaussian_bound(6.0))
    assert pure_bound(1000.0, 0.0)(0.5) == 1.0


def test_a_history_without_an_item():
    acts = [Event(kind=Kind.CLICK, item=item, time=time, text="t") for time, item in enumerate((3, 1, 3, 2))]
    rest = without(History.of(acts), 3)
    assert rest.items.tolist() == [1, 2] and rest.times.tolist() == [1, 3] and rest.texts == ["t", "t"]


def test_too_few_trials_are_refused():
    with pytest.raises(SpecError):
        told(1.0, trials=1)


@pytest.fixture(scope="module")
def scene():
    return Scene(Scale(people=16, items=64, targets=4))


@pytest.fixture(scope="module")
def recorded(scene):
    found = scene.recorded()
    return {each.name: each for each in (next(found) for _ in range(4))}


def found_by(scene, recorded, *, upload=None):
    """Both attacks on a few people."""
    upload = upload or recorded.upload
    who = membership(upload, replace(recorded.attacker, shadows=8), scene.targets, trials=60)
    targets = [Target(target.item, target.present, nothing()) for target in scene.targets]
    what = reconstruction(upload, recorded.attacker, targets, scene.items, trials=15)
    return [who.findings[0], what]


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.USER_CENTRAL])
def test_the_server_reads_an_upload_without_noise(scene, recorded, mode):
    who, what = found_by(scene, recorded[mode])
    assert who.right.value >= exposure.SEEN and what.right.value >= max(exposure.NAMED, what.wrong.value + 0.2)


def test_local_noise_hides_what_it_claims_to_hide(scene, recorded):
    here = recorded[Mode.USER_LOCAL]
    assert here.unit is Unit.USER
    assert all(finding.within(here.bound) for finding in found_by(scene, here))


def test_an_upload_with_too_little_noise_is_caught(scene, recorded):
    here = recorded[Mode.USER_LOCAL]
    who, _ = found_by(scene, here, upload=recorded[Mode.USER_CENTRAL].upload)
    assert not who.within(here.bound)


NARROW = gaussian_bound(1.0)


def outcome(right, wrong, *, mode=Mode.USER_LOCAL, bound=NARROW, works=True):
    unused = Attacker(rehearsal=lambda history, count: np.zeros((count, 1)))
    here = exposure.Recorded(str(mode), "server", unused.rehearsal, unused, Unit.USER, bound=bound)
    finding = Finding("recall", Rate(right, 100), Rate(wrong, 100))
    return exposure._row("D5", here, (finding,), "", works=works).verdict


def test_a_row_says_what_became_of_a_claim():
    assert outcome(10, 5) is Outcome.HELD
    assert outcome(90, 5) is Outcome.FALSIFIED
    assert outcome(10, 5, works=False) is Outcome.BLIND
    assert outcome(90, 5, works=False) is Outcome.FALSIFIED  # even a poor attack can falsify
    assert outcome(90, 5, bound=gaussian_bound(9.0)) is Outcome.UNINFORMATIVE


def test_success_where_nothing_is_promised_must_be_stated(monkeypatch):
    assert outcome(90, 5, mode=Mode.USER_CENTRAL, bound=None) is Outcome.SUCCEEDS
    assert outcome(10, 5, mode=Mode.USER_CENTRAL, bound=None, works=False) is Outcome.BLIND
    monkeypatch.setattr(exposure, "statements", lambda plan, simulated: ())
    assert outcome(90, 5, mode=Mode.USER_CENTRAL, bound=None) is Outcome.UNSTATED


def test_an_epsilon_that_is_claimed_is_told_with_its_delta(monkeypatch):
    found = Verdict(mu_lower=0.5, mu_claimed=1.0, epsilon_lower=0.4, epsilon_ceiling=5.0, runs=10, alpha=0.05)
    monkeypatch.setattr(audits, "audit", lambda mechanism, claim, *, runs: found)
    claim = claim_and_phase(Mode.USER_CENTRAL)[0]
    row = audits._released(claim, (no_noise,))
    assert row.claim == f"μ ≤ 1.00 (ε {claim.epsilon:.2f}, δ {claim.delta:.2g})"


def claim_and_phase(mode):
    plan = audits._run_plan(mode, audits.Cyclic(1), 3, clients=GAME.canaries)
    return audits.claims(plan)[0], plan.phases[0], plan


@pytest.mark.parametrize("mode", [Mode.USER_CENTRAL, Mode.USER_LOCAL])
def test_one_run_bounds_a_run(mode):
    claim, phase, plan = claim_and_phase(mode)
    ends = {}
    for noise in (Hardened(), Scaled(0.0)):
        run = summed_run(claim, noise, schedule=phase.schedule, rounds=3)
        run = single_run(claim, noise, rounds=3) if mode is Mode.USER_LOCAL else run
        ends[type(noise)] = one_run(run, GAME, epsilon=plan.epsilon, delta=claim.delta)
    assert ends[Hardened].passed and ends[Scaled].correct == GAME.guesses
    assert ends[Scaled].epsilon_lower == ends[Scaled].ceiling and "not informative" in str(ends[Hardened])


def test_a_one_run_audit_says_what_it_found():
    found = one_run(lambda taken: taken * 1.0, Game(canaries=200, guesses=100), epsilon=1.0, delta=1e-4)
    assert found.epsilon_lower > audits.ONE_RUN_POWER and found.informative and not found.passed
    assert "FALSIFIED" in str(found)
    with pytest.raises(SpecError):
        Game(canaries=10, guesses=5)


def test_canaries_estimate_the_noise():
    canaries = Canaries(count=300, dim=6000)
    posted, rng = canaries.directions("posted"), stream(1, "release")
    quiet, loud = (
        estimate(iter([posted.sum(axis=0) + rng.normal(0.0, z, canaries.dim)]), canaries, epsilon=2.0, delta=1e-4)
        for z in (2.0, 0.2)
    )
    assert not quiet.suspicious and loud.suspicious and loud.final > 10
    assert isinstance(quiet, Estimate) and "an estimate, not a bound" in str(quiet)


def row(verdict):
    return audits.Row(
        audit="D1", mode="user-local", adversary="anyone", claim="ε ≤ 1", shown="ε ≥ 0.5", ceiling="ε 5",
        power="6 of 6 faults found", verdict=verdict,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_command_prints_every_audit_and_that_passing_is_not_proof(monkeypatch, form):
    monkeypatch.setattr(audits, "quick", lambda: iter([row(Outcome.HELD)]))
    done = CliRunner().invoke(app, ["audit", "--format", form])
    assert done.exit_code == 0 and "Passing is not proof" in done.output and "user-local" in done.output
    if form == "json":
        (shown,) = json.loads(done.stdout)["audits"]
        assert shown["verdict"] == "not falsified" and shown["ok"] is True


@pytest.mark.parametrize("verdict", [outcome for outcome in Outcome if not outcome.ok])
def test_the_command_fails_with_the_audit(monkeypatch, verdict):
    monkeypatch.setattr(audits, "quick", lambda: iter([row(Outcome.HELD), row(verdict)]))
    done = CliRunner().invoke(app, ["audit"])
    assert isinstance(done.exception, AuditFailed) and done.exception.exit_code == 4
    assert verdict in done.output and verdict in str(done.exception)


@pytest.mark.slow
def test_every_release_path_and_its_faults():
    rows = list(audits.quick())
    assert len(rows) == 8 and all(row.verdict.ok for row in rows), rows


@pytest.mark.slow
def test_whole_runs():
    rows = list(audits.whole_runs())
    assert len(rows) == 5 and all(row.verdict.ok for row in rows), rows


@pytest.mark.slow
def test_recorded_uploads_of_every_mode():
    rows = list(exposure.exposed(Scale()))
    assert len(rows) == 12 and all(row.verdict.ok for row in rows), rows
    assert {row.mode for row in rows} == {str(mode) for mode in Mode}
