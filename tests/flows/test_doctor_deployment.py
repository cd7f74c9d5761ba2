"""`fedrec doctor` on a site and on a device's folder: sound ones, and each fault that it is there to find."""

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from operations import keep_ledger, small_plan
from sites import Toy, make_site, open_door, running
from starlette.responses import PlainTextResponse

from fedrec.deploy.certificates import create_authority, issue_server, serving
from fedrec.deploy.enrol import enrol
from fedrec.deploy.listen import Listener, bind, listen
from fedrec.deploy.roster import Roster
from fedrec.deploy.status import operators
from fedrec.deploy.view import SiteView, Standing
from fedrec.device.event import Kind
from fedrec.device.store import Act, Store
from fedrec.doctor import asking, sites
from fedrec.doctor.asking import listeners
from fedrec.doctor.deployment import examine_deployment, require_ready
from fedrec.doctor.finding import Finding
from fedrec.errors import PrivacyRefusal, RunError


def run_of(site):
    """A run folder whose promises are those of a small plan."""
    plan = small_plan()
    manifest = {"privacy": plan.public(), "promises": [str(each.guarantee) for each in plan.promises], "task": "t"}
    (site.run / "run.json").write_text(json.dumps(manifest))
    (site.run / "ledger.jsonl").unlink()
    keep_ledger(site.path)


@pytest.fixture
def site(tmp_path):
    made = make_site(tmp_path / "site")
    run_of(made)
    return made


def findings(folder):
    return {finding.name: finding for finding in examine_deployment(folder)}


def failed(folder):
    return sorted(name for name, finding in findings(folder).items() if not finding.ok)


# A site.


def test_a_plan_that_is_not_what_was_signed(site):
    with (site.run / "plan.toml").open("a") as plan:
        plan.write("# somebody was here\n")
    assert failed(site.path) == ["task"]
    assert findings(site.path)["task"].seen == "not as it was signed: plan.toml"


def test_a_site_that_is_stopped(site):
    found = findings(site.path)
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert found["front door"].seen == "not asked: nobody listens"
    assert "verified" in found["ledger"].seen and "zero-out user" in found["promises"].seen
    require_ready(tuple(found.values()))


def test_a_site_that_runs_is_really_asked(site):
    toy = Toy()
    with open_door(site, toy):
        found = findings(site.path)
        assert {name: found[name].seen for name in ("door", "SuperLink's port", "front door", "loopback only")} == {
            "door": "answered by this site", "SuperLink's port": "answered by this site",
            "front door": f"{len(sites._INNER)} inner paths are closed",
            "loopback only": "no inner port listens to the outside",
        }  # fmt: skip
        assert not any("control" in path for path in toy.paths)
        assert failed(site.path) == ["operators' port"]  # the toy's operators have no /livez


def test_our_operators_are_known(site):
    app = operators(SiteView(site.path, lambda: Standing(seats=3, enrolled=0, online=0)))
    place = bind(*site.spec.operators_at)
    place.listen()
    with running(lambda stop: listen([Listener(app, place)], stop)):
        assert findings(site.path)["operators' port"].seen == "answered by this site"


def test_a_door_that_lets_operators_paths_in_is_found(site):
    async def careless(scope, receive, send):
        await PlainTextResponse("anything")(scope, receive, send)

    place = bind("127.0.0.1", site.spec.port)
    place.listen()
    with running(lambda stop: listen([Listener(careless, place, serving(site.keys))], stop)):
        finding = findings(site.path)["front door"]
    assert not finding.ok and finding.code == "P09" and "/v1/control/start-run" in finding.seen


def test_somebody_else_on_the_port(site, monkeypatch):
    with (
        socket.create_server(("127.0.0.1", site.spec.superlink)),
        socket.create_server(site.spec.operators_at) as quiet,
    ):
        quiet.listen()
        asking_patience, asking.PATIENCE = asking.PATIENCE, 0.3
        try:
            assert failed(site.path) == ["SuperLink's port", "operators' port"]
        finally:
            asking.PATIENCE = asking_patience


def test_a_superlink_that_the_outside_reaches(site):
    with socket.create_server(("0.0.0.0", site.spec.superlink)):
        assert not next(sites._loopback(site)).ok
    with socket.create_server(("127.0.0.1", site.spec.superlink)):
        assert next(sites._loopback(site)).ok


def test_the_kernels_table_is_read_in_both_families():
    with socket.create_server(("127.0.0.1", 0)) as four:
        assert listeners(four.getsockname()[1]) == {"127.0.0.1"}
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        assert listeners(six.getsockname()[1]) == {"::1"}
        assert listeners(1) == set()


def certificate_of(site, *, days=0, hosts=None):
    issue_server(site.keys, hosts or site.spec.hosts, at=datetime.now(UTC) - timedelta(days=days))


def foreign_authority(site):
    (site.keys / "ca.pem").unlink()
    create_authority(site.keys)


def foreign_key(site):
    (site.keys / "server.key").unlink()
    certificate = (site.keys / "server.pem").read_bytes()
    certificate_of(site)
    (site.keys / "server.pem").write_bytes(certificate)


def altered_ledger(site):
    path = site.run / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"charged"', b'"charges"', 1))


def other_promises(site):
    manifest = json.loads((site.run / "run.json").read_text())
    (site.run / "run.json").write_text(json.dumps(manifest | {"promises": ["(ε=0.1, δ=1e-9), against everybody"]}))


FAULTS = {
    "expired": (lambda site: certificate_of(site, days=400), "certificate of the server"),
    "soon": (lambda site: certificate_of(site, days=380), "certificate of the server"),
    "future": (lambda site: certificate_of(site, days=-3), "certificate of the server"),
    "authority": (foreign_authority, "authority"),
    "key": (foreign_key, "key of the server"),
    "open keys": (lambda site: (site.keys / "signing.pem").chmod(0o640), "keys"),
    "lost secret": (lambda site: site.executor_secret.unlink(), "keys"),
    "ledger": (altered_ledger, "ledger"),
    "lost ledger": (lambda site: ((site.run / "ledger.jsonl").unlink(), (site.run / "checkpoint.safetensors").touch()),
                    "ledger"),
    "promises": (other_promises, "promises"),
    "settings": (lambda site: site.settings.write_text("port = 'x'"), "settings"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_each_fault_of_a_site_is_found(site, fault):
    plant, name = FAULTS[fault]
    plant(site)
    assert name in failed(site.path)
    assert all(finding.remedy for finding in findings(site.path).values() if not finding.ok)


def test_one_mistake_in_the_settings_is_told_once(site):
    site.settings.write_text(site.settings.read_text().replace("port =", "prot =", 1))
    found = [finding for finding in examine_deployment(site.path) if not finding.ok]
    assert [finding.name for finding in found if "prot" in finding.seen] == ["settings"]
    others = {finding.name: finding.seen for finding in found if finding.name != "settings"}
    assert set(others) == {"certificate", "listeners", "loopback", "front door"}
    assert set(others.values()) == {"not looked at: see above"}


def test_a_host_that_the_certificate_does_not_have(tmp_path):
    made = make_site(tmp_path / "named", hosts=("server.example",))
    run_of(made)
    assert "hosts" not in failed(made.path)
    certificate_of(made, hosts=("other.example",))
    assert "hosts" in failed(made.path)


def test_no_secret_is_shown(site):
    (site.keys / "signing.pem").chmod(0o644)
    shown = json.dumps([finding.public() for finding in findings(site.path).values()])
    assert site.executor_secret.read_text() not in shown and "PRIVATE" not in shown


# What to make of findings.


def finding(ok, code=""):
    return Finding(name="it", code=code, ok=ok, seen="", remedy="Do it.")


def test_privacy_goes_before_everything_else():
    require_ready((finding(True, "P07"),))
    with pytest.raises(RunError):
        require_ready((finding(False),))
    with pytest.raises(PrivacyRefusal) as refusal:
        require_ready((finding(False), finding(False, "P09")))
    assert refusal.value.code == "P09"


def test_a_folder_that_is_neither(cli, tmp_path):
    answer = cli("doctor", tmp_path)
    assert answer.code == 5 and "Traceback" not in answer.err and "init" in answer.err


def test_the_command_tells_all_of_it(cli, site):
    answer = cli("doctor", site.path, "--format", "json")
    assert answer.code == 0 and {"front door", "ledger", "keys"} <= {each["name"] for each in json.loads(answer.out)}
    (site.keys / "server.key").chmod(0o644)
    answer = cli("doctor", site.path)
    assert answer.code == 4 and "FAIL  keys" in answer.out and "chmod 600" in answer.out


# A device.


@pytest.fixture
def device(site, tmp_path):
    with Roster(site.roster, site.spec.seats) as roster:
        (secret,) = roster.issue(1, seconds=3600)
    folder = tmp_path / "device"
    with open_door(site, None):
        enrol(folder, site.invite(secret).encode())
    return folder


TASK = {"task", "policy"}  # what the toy's plan cannot pass: it has no catalogue


def faults(folder):
    return {name for name, finding in findings(folder).items() if not finding.ok} - TASK


def test_a_sound_device_whose_server_answers(site, device):
    with Store(device / "events.sqlite") as store:
        store.append([Act(kind=Kind.CLICK, item="a")])
    with open_door(site, None):
        assert faults(device) == set()
        assert "answers, by this authority" in findings(device)["server"].seen


def test_a_device_whose_server_is_away(device):
    found = findings(device)
    assert {name for name, finding in found.items() if not finding.ok} - TASK == {"server"}
    assert "out of reach" in found["server"].seen and "status" in found["server"].remedy


def test_each_fault_of_a_device_is_found(site, device):
    card = json.loads((device / "device.json").read_text())
    with open_door(site, None):
        (device / "key.pem").chmod(0o644)
        assert faults(device) == {"secrets"}
        (device / "key.pem").chmod(0o600)
        (device / "device.json").write_text(json.dumps(card | {"seat": 1}))
        assert faults(device) == {"seat"}
        (device / "device.json").write_text(json.dumps(card | {"site": "0" * 64}))
        assert faults(device) == {"authority"}
        (device / "device.json").write_text(json.dumps(card))
        (device / "events.sqlite").write_bytes(b"no database" * 100)
        (device / "events.sqlite").chmod(0o600)
        assert faults(device) == {"events"}
        (device / "events.sqlite").unlink()
        (device / "policy.toml").write_text("least = 'many'")
        assert "policy" in {name for name, finding in findings(device).items() if not finding.ok}


def test_a_stranger_at_the_servers_address(site, device, tmp_path):
    other = make_site(tmp_path / "other")
    with running_as(site, other):
        found = findings(device)["server"]
    assert not found.ok and "not from the authority" in found.seen


def running_as(site, other):
    """Somebody with another site's certificate at the site's own port."""
    place = bind("127.0.0.1", site.spec.port)
    place.listen()
    return running(lambda stop: listen([Listener(Toy(), place, serving(other.keys))], stop))


@pytest.mark.parametrize(("ahead", "ok"), [(0, True), (50, True), (90, False), (-90, False)])
def test_clocks_that_differ(site, device, monkeypatch, ahead, ok):
    monkeypatch.setattr("fedrec.doctor.seats.time", SimpleNamespace(time=lambda: time.time() - ahead))
    with open_door(site, None):
        assert findings(device)["clocks"].ok is ok


def test_what_a_person_did_is_not_told(site, device):
    with Store(device / "events.sqlite") as store:
        store.append([Act(kind=Kind.SEARCH, text="zq-canary-1f3e")] * 3)
    path = device / "events.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    shown = json.dumps([each.public() for each in findings(device).values()])
    assert "zq-canary" not in shown
