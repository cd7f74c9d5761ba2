"""`fedrec server` as an operator meets it, as far as nothing has to run: making a site, and what is done by hand."""

import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.deploy import presence, supervisor
from fedrec.deploy.identity import point_of
from fedrec.deploy.invitation import Invitation, digest
from fedrec.deploy.lock import held
from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site
from fedrec.deploy.view import Standing
from fedrec.exchange import superlink
from fedrec.model.pack_files import read_pack
from fedrec.spec import Plan

ITEMS = "id,text\n" + "".join(f"book-{n},A book about number {n}\n" for n in range(24))
SMALL = ["-s", "model.encoder=hash", "-s", "model.dim=4", "-s", "privacy.force=true"]


@pytest.fixture
def made(cli, tmp_path):
    """A new site, and what was said of it."""
    (tmp_path / "items.csv").write_text(ITEMS)
    answer = cli("server", "init", tmp_path / "site", "--host", "recs.example.org", "--host", "10.0.0.7", "--seats", 40,
                 "--catalogue", tmp_path / "items.csv", *SMALL)  # fmt: skip
    assert answer.code == 0, answer.err
    return Site.open(tmp_path / "site"), answer.out


def test_by_default_nothing_leaves_a_device_that_is_not_noised_and_masked(made):
    site, said = made
    plan = Plan.read(site.run / "plan.toml")
    assert (plan.privacy.mode, plan.shares.masked, plan.clients) == ("layered", True, 40)
    assert "because it sees sums only" in said and "It does not protect:" in said
    assert f"fedrec server start {site.path.name}" in said.replace(str(site.path.parent) + "/", "")


def test_a_site_is_made_once(made, cli, tmp_path):
    site, _ = made
    before = site.ca
    again = cli(
        "server", "init", site.path, "--host", "x.example", "--seats", 40, "--catalogue", tmp_path / "items.csv"
    )
    assert again.code == 5 and "a site's keys are never replaced" in again.err
    assert site.ca == before


def test_a_site_has_items_of_its_own(cli, tmp_path):
    answer = cli("server", "init", tmp_path / "site", "--host", "x.example", "--seats", 40, *SMALL)
    assert answer.code == 2 and "--catalogue" in answer.err
    assert not (tmp_path / "site" / "server.toml").exists()


def test_invitations_are_for_this_site_and_for_as_many_as_asked(made, cli):
    site, _ = made
    lines = cli("server", "invite", site.path, "--count", 3).out.split()
    offers = [Invitation.decode(line) for line in lines]
    assert {(offer.server, offer.site) for offer in offers} == {("https://recs.example.org:9443", site.id)}
    with Roster(site.roster, 40) as roster:
        assert roster.open_invitations() == 3
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        assert roster.redeem(digest(offers[0].secret), point_of(key)) == 0


def test_a_renewed_certificate_is_under_the_same_authority(made, cli):
    site, _ = made
    server, authority = site.keys / "server.pem", site.ca
    old = x509.load_pem_x509_certificate(server.read_bytes()).serial_number
    said = cli("server", "renew", site.path)
    new = x509.load_pem_x509_certificate(server.read_bytes())
    assert said.code == 0 and f"{new.not_valid_after_utc:%Y-%m-%d}" in said.out
    assert new.serial_number != old and new.not_valid_after_utc > datetime.now(UTC) and site.ca == authority
    new.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))


def test_a_model_is_published_signed_and_after_what_devices_have(made, cli):
    site, _ = made
    assert cli("server", "publish", site.path).out.split() == ["version", "1"]
    assert cli("server", "publish", site.path, "--after", 6).out.split() == ["version", "7"]
    pack = read_pack(site.packs / "7", site.signing.public_key())
    assert (len(pack.catalogue), pack.info.round, pack.info.version) == (24, 0, 7)


def test_a_seat_that_is_revoked_is_shut_out_at_the_superlink_too(made, cli, monkeypatch):
    site, _ = made
    told = []
    monkeypatch.setattr(superlink, "unregister", lambda address, authority, node: told.append((address, node)))
    with Roster(site.roster, 40) as roster:
        (secret,) = roster.issue(1, seconds=60)
        seat = roster.redeem(digest(secret), point_of(ec.generate_private_key(ec.SECP384R1()).public_key()))
        roster.bind(seat, 77)
    assert cli("server", "revoke", site.path, seat).code == 0
    assert told == [("127.0.0.1:9445", 77)]
    with Roster(site.roster, 40) as roster:
        assert roster.nodes() == {} and roster.seats()[0].revoked is not None


def test_nginx_gets_a_configuration_for_this_site(made, cli):
    site, _ = made
    said = cli("server", "nginx", site.path)
    assert said.code == 0 and "/v1/fleet/" in said.out
    assert f"{site.keys}/server.pem" in said.out and "9443" in said.out


def test_invitations_that_nobody_used_are_withdrawn(made, cli):
    site, _ = made
    cli("server", "invite", site.path, "--count", 40)
    full = cli("server", "invite", site.path)
    assert full.code == 2 and "`fedrec server withdraw`" in full.err
    assert cli("server", "withdraw", site.path).out == "withdrawn: 40\n"
    assert cli("server", "invite", site.path, "--count", 40).code == 0


def test_a_site_that_runs_and_does_not_do_its_work_fails_a_check(made, cli):
    site, _ = made
    (site.state / "restarts.json").write_text('{"door": 3}')
    with held(site.path / "server.pid", "one supervisor runs a site", ""):
        answer = cli("server", "status", site.path)
    assert answer.code == 5 and answer.out.startswith("running") and "failing: trainer silent" in answer.out
    assert "started again: door, 3 times" in answer.out


def test_a_door_that_cannot_open_is_a_failure_though_training_is_over(made, cli, monkeypatch):
    site, _ = made
    here = Standing(seats=40, enrolled=40, online=0)
    monkeypatch.setattr(presence, "standing", lambda site: here)
    (site.state / "round.json").write_text(json.dumps({"round": 20, "phase": "finished", "beat": time.time()}))
    (site.state / "children.json").write_text('{"superlink": "up", "door": "up", "trainer": "done"}')
    (site.logs / "door.out").write_text("fedrec: the port is free; got port=1. Stop what listens there.\n")
    with held(site.path / "server.pid", "one supervisor runs a site", ""):
        well = cli("server", "status", site.path)
        (site.state / "children.json").write_text('{"superlink": "up", "door": "down", "trainer": "done"}')
        down, form = (cli("server", "status", site.path, *words) for words in ([], ["--format", "json"]))
    assert well.code == 0 and "door" not in well.out
    assert down.code == 5 and "failing: process down: door ends whenever it is started" in down.out
    assert "door said: the port is free; got port=1. Stop what listens there." in down.out
    assert json.loads(form.out)["processes"]["door"] == "down" and "port=1" in json.loads(form.out)["said"]["door"]


def test_a_plan_that_was_changed_ends_the_trainer_and_another_try_is_no_use(made):
    site, _ = made
    plan = site.run / "plan.toml"
    plan.write_text(plan.read_text().replace("rounds = ", "rounds = 1", 1))
    trainer = [sys.executable, "-m", "fedrec.deploy.trainer", str(site.path)]
    with (site.logs / "trainer.out").open("wb") as out:
        done = subprocess.run(trainer, stdout=out, stderr=out, timeout=120)
    assert done.returncode == 2 and done.returncode in supervisor._HOPELESS
    said = supervisor.last_words(site, "trainer")
    assert said.startswith("a run keeps the plan it was started with") and "Put run/plan.toml back" in said


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        ([], 0.8),
        (["-s", "shares.survivors=0.9"], 0.9),
        (["--mode", "none", "-s", "shares.survivors=0.9"], 0.8),
        (["-s", "privacy.schedule=poisson"], 1.0),
        (["--begin", "0.75"], 0.75),
        (["--begin", "0.69"], None),
    ],
)
def test_training_begins_without_a_few_and_with_as_many_as_its_noise_needs(cli, tmp_path, monkeypatch, words, begin):
    (tmp_path / "items.csv").write_text(ITEMS)
    wanted = []
    monkeypatch.setattr(Site, "create", lambda path, spec, prepare: wanted.append(spec) or sys.exit(0))
    answer = cli("server", "init", tmp_path / "site", "--host", "x.example", "--seats", 40, "--catalogue",
                 tmp_path / "items.csv", *SMALL, *words)  # fmt: skip
    if begin is None:
        assert answer.code == 2 and "--begin" in answer.err and not wanted
    else:
        assert [spec.begin for spec in wanted] == [begin] and wanted[0].awaited == 40 * begin


def test_a_site_that_waits_says_for_how_many(made, cli, monkeypatch):
    site, _ = made
    here = Standing(seats=40, enrolled=31, online=29, begin=site.spec.awaited)
    monkeypatch.setattr(presence, "standing", lambda site: here)
    (site.state / "round.json").write_text(
        json.dumps({"round": 0, "phase": "waiting for devices", "beat": time.time()})
    )
    with held(site.path / "server.pid", "one supervisor runs a site", ""):
        answer = cli("server", "status", site.path)
    assert answer.code == 0 and "Waiting for devices: 29 are online, training begins with 32." in answer.out


def test_who_starts_a_site_that_runs_is_told_so_and_nothing_else(made, cli):
    site, _ = made
    with held(site.path / "server.pid", "one supervisor runs a site", ""):
        answer = cli("server", "start", site.path)
    assert answer.code == 5 and "one supervisor runs a site" in answer.err and answer.out == ""


def test_a_door_whose_port_is_taken_says_which_and_what_to_do(made):
    site, _ = made
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = site.settings.read_text().replace("port = 9443", f"port = {port}").replace('"0.0.0.0"', '"127.0.0.1"')
        site.settings.write_text(text)
        door = [sys.executable, "-m", "fedrec.deploy.doorkeeper", str(site.path)]
        done = subprocess.run(door, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and "Traceback" not in done.stderr
    assert "the port is free" in done.stderr and str(port) in done.stderr and "server.toml" in done.stderr


def test_a_site_that_does_not_run_says_so(made, cli):
    site, _ = made
    answer = cli("server", "status", site.path)
    assert answer.code == 5 and "stopped" in answer.out and "0 of 40 seats" in answer.out
    assert cli("server", "stop", site.path).out.strip() == "it does not run"
