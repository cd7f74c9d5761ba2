"""Enrolment, end to end: an invitation buys one seat, whatever happens, and nobody is believed for nothing."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from shelf import encoder
from sites import TASK, make_site, open_door

from fedrec.deploy.application import Application
from fedrec.deploy.certificates import issue_server, trusting
from fedrec.deploy.enrol import enrol, fetch
from fedrec.deploy.identity import Identity, Witness, point_of
from fedrec.deploy.invitation import Invitation
from fedrec.deploy.roster import Roster
from fedrec.errors import DataError, RunError, SpecError, WireError
from fedrec.model.encoder_files import place_encoder

NODE = 2**64 - 7


def invite(site, **changes) -> str:
    with Roster(site.roster, site.spec.seats) as roster:
        (secret,) = roster.issue(1, seconds=3600)
    return Invitation(**{"server": site.spec.url, "site": site.id, "secret": secret} | changes).encode()


def seats(site):
    with Roster(site.roster, site.spec.seats) as roster:
        return roster.seats()


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site", seats=40)


@pytest.fixture
def register():
    def register(key) -> int:
        register.known.append(key)
        if register.away:
            raise RunError("the SuperLink answers", remedy="Start it.")
        return NODE

    register.known, register.away = [], False
    return register


@pytest.fixture
def door(site, register):
    with open_door(site, None, register):
        yield


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_a_device(site, register, door, tmp_path):
    folder = tmp_path / "device"
    enrol(folder, invite(site))
    assert set(files(folder)) == {"device.json", "key.pem", "ca.pem", "task/plan.toml", "task/catalogue.parquet",
                                  "task/statement.txt"}  # fmt: skip
    card = json.loads((folder / "device.json").read_text())
    assert (card["server"], card["seat"], card["site"], card["task"]) == (site.spec.url, 0, site.id, TASK)
    identity = Identity.read(folder)
    witness = Witness(bytes.fromhex(card["roster_key"]))
    assert witness == Witness(site.roster_key)
    assert witness.check(0, identity.certificate, b"words", identity.sign(b"words"))
    (seat,) = seats(site)
    assert (seat.key, seat.node) == (point_of(identity.key.public_key()), NODE)
    assert register.known == [identity.key.public_key()]
    assert (folder / "task" / "plan.toml").read_bytes() == (site.run / "plan.toml").read_bytes()
    assert (folder.stat().st_mode | (folder / "key.pem").stat().st_mode) & 0o077 == 0


def test_once_is_enough_and_nothing_is_asked_twice(site, register, tmp_path):
    text, folder = invite(site), tmp_path / "device"
    with open_door(site, None, register):
        enrol(folder, text)
    before = files(folder)
    enrol(folder, text)  # the door is closed
    assert files(folder) == before


class Crash(BaseException):
    pass


class Steps:
    """Counts what an enrolment does to the world, and crashes at one of them: before a file changes, after a request
    was answered. The other halves are the next step's."""

    def __init__(self, patch, crash_at=None):
        self.done, self._crash_at = 0, crash_at
        for owner, name in ((os, "replace"), (Path, "rename"), (shutil, "rmtree"), (httpx.Client, "send")):
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, act):
        def step(*args, **named):
            mine, self.done = self.done, self.done + 1
            crashes = mine == self._crash_at
            if crashes and act.__name__ != "send":
                raise Crash
            outcome = act(*args, **named)
            if crashes:
                outcome.close()
                raise Crash
            return outcome

        return step


def test_a_crash_between_any_two_steps_costs_no_seat(site, register, door, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        steps = Steps(patch)
        enrol(tmp_path / "whole", invite(site))
    assert steps.done >= 11
    for n in range(steps.done):
        folder, text = tmp_path / f"device{n}", invite(site)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            Steps(patch, n)
            enrol(folder, text)
        enrol(folder, text)
        assert Identity.read(folder).seat == n + 1
        assert not [name for name in files(folder) if name.split("/")[-1].startswith(".")]
    assert len(seats(site)) == steps.done + 1


def test_an_invitation_is_good_for_one_device(site, register, door, tmp_path):
    text = invite(site)
    enrol(tmp_path / "first", text)
    with pytest.raises(WireError, match="cannot be used.*ask for another"):
        enrol(tmp_path / "second", text)
    assert not (tmp_path / "second" / "device.json").exists() and len(seats(site)) == 1


def test_a_stranger_is_told_nothing(site, register, tmp_path):
    stranger = make_site(tmp_path / "stranger")
    text = invite(site, server=stranger.spec.url)
    with open_door(stranger, None, register), pytest.raises(WireError, match="Somebody else answers"):
        enrol(tmp_path / "device", text)
    assert files(tmp_path / "device") == {} and seats(stranger) == [] and register.known == []


def test_a_stranger_with_our_certificate_but_not_our_key_is_told_nothing(site, register, tmp_path):
    """Anybody can hand over the authority's certificate; only the site has a server certificate from it."""
    stranger = make_site(tmp_path / "stranger")
    text = invite(site, server=stranger.spec.url)
    (stranger.keys / "ca.pem").write_bytes(site.ca)
    with open_door(stranger, None, register), pytest.raises(WireError, match="not from the authority"):
        enrol(tmp_path / "device", text)
    assert seats(stranger) == [] and register.known == []


def test_enrolment_goes_where_rounds_go_and_through_no_proxy(site, door, tmp_path, monkeypatch):
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody is
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    enrol(tmp_path / "device", invite(site))
    assert b"".join(fetch(tmp_path / "device", "ca")) == site.ca


def test_a_folder_keeps_its_first_enrolment(site, register, door, tmp_path):
    other = make_site(tmp_path / "other")
    with open_door(other, None, register):
        enrol(tmp_path / "device", invite(site))
        before = files(tmp_path / "device")
        with pytest.raises(RunError, match="new folder"):
            enrol(tmp_path / "device", invite(other))
        assert files(tmp_path / "device") == before
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "ca.pem").write_bytes(site.ca)
        with pytest.raises(RunError, match="new folder"):
            enrol(tmp_path / "half", invite(other))
    assert seats(other) == []


CHANGES = (lambda old: old[:-1], lambda old: old + b" ", lambda old: bytes([old[0] ^ 1]) + old[1:])


def test_a_file_that_is_not_the_signed_one_is_refused(site, register, door, tmp_path):
    text, folder = invite(site), tmp_path / "device"
    paths = [site.run / "catalogue.parquet", site.run / "plan.toml"]
    paths += [site.task / name for name in ("statement.txt", "manifest.json", "manifest.sig")]
    for path in paths:
        for change in CHANGES:
            whole = path.read_bytes()
            path.write_bytes(change(whole))
            with pytest.raises(WireError):
                enrol(folder, text)
            assert not (folder / "device.json").exists() and not (folder / "task").exists()
            path.write_bytes(whole)
    enrol(folder, text)


def test_a_server_that_is_late_for_its_certificate_is_refused(site, register, tmp_path):
    issue_server(site.keys, site.spec.hosts, at=datetime.now(UTC) - timedelta(days=500))
    with open_door(site, None, register), pytest.raises(WireError, match="expired.*clock"):
        enrol(tmp_path / "device", invite(site))
    assert seats(site) == []


def test_a_server_under_another_name_or_away_is_told_apart(site, register, door, tmp_path):
    elsewhere = f"https://127.0.0.2:{site.spec.port}"
    with pytest.raises(RunError, match="out of reach"):
        enrol(tmp_path / "device", invite(site, server=elsewhere))
    with pytest.raises(RunError, match="out of reach"):
        enrol(tmp_path / "device", invite(site, server="https://127.0.0.1:1"))
    with pytest.raises(SpecError, match="one string"):
        enrol(tmp_path / "device", "no invitation")
    assert files(tmp_path / "device") == {}


def test_a_superlink_that_is_away_costs_no_seat(site, register, door, tmp_path):
    text = invite(site)
    register.away = True
    with pytest.raises(WireError, match="Try again"):
        enrol(tmp_path / "device", text)
    assert seats(site)[0].node is None
    register.away = False
    enrol(tmp_path / "device", text)
    assert [seat.node for seat in seats(site)] == [NODE] and Identity.read(tmp_path / "device").seat == 0


def test_a_folder_that_cannot_be_written_is_said(site, register, door, tmp_path):
    (tmp_path / "device").write_text("a file")
    with pytest.raises(RunError, match="can be written"):
        enrol(tmp_path / "device", invite(site))


@pytest.fixture
def desk(site, door):
    with httpx.Client(base_url=site.spec.url + "/fedrec/v1", verify=trusting(site.ca)) as client:
        yield client


def application(site, secret, **changes) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP384R1())
    return {**Application.of(key, site.id, secret).model_dump(), **changes}


def test_all_refusals_look_the_same(site, desk):
    with Roster(site.roster, 40) as roster:
        used, withdrawn = roster.issue(2, seconds=3600)
        (expired,) = roster.issue(1, seconds=-1)
        assert desk.post("/enrol", json=application(site, used)).status_code == 200
        roster.withdraw()
        (unsigned,) = roster.issue(1, seconds=3600)
    wrong = [application(site, secret) for secret in (used, expired, withdrawn, "f" * 64)]
    wrong.append(application(site, unsigned, signature="00" * 100))
    answers = [desk.post("/enrol", json=body) for body in wrong]
    seen = {(a.status_code, a.content, tuple(n for n in a.headers if n != "date")) for a in answers}
    assert len(seen) == 1 and answers[0].status_code == 403


SECRET, KEY, SIGNATURE = "0" * 64, "0" * 98, "0" * 64
NONSENSE = (
    b"", b"{}", b"[]", b"\xff\xfe", b"[" * 5000, b"x" * 16_384,
    json.dumps({"secret": SECRET, "key": KEY, "signature": SIGNATURE, "more": 1}).encode(),
    json.dumps({"secret": SECRET, "key": KEY[2:], "signature": SIGNATURE}).encode(),
    json.dumps({"secret": SECRET, "key": KEY, "signature": SIGNATURE[1:]}).encode(),
    json.dumps({"secret": float("nan"), "key": KEY, "signature": SIGNATURE}).encode(),
)  # fmt: skip


def test_words_that_are_no_application_are_refused(desk):
    assert [desk.post("/enrol", content=body).status_code for body in NONSENSE] == [400] * 10


def test_a_long_application_is_not_read(desk):
    assert desk.post("/enrol", content=b"x" * 16_385).status_code == 413


def test_who_is_wrong_too_often_has_to_wait(site, desk):
    tries = [desk.post("/enrol", content=b"{}", headers={"x-forwarded-for": f"10.0.0.{n}"}) for n in range(11)]
    assert [answer.status_code for answer in tries] == [400] * 10 + [429]
    with Roster(site.roster, 40) as roster:
        (secret,) = roster.issue(1, seconds=3600)
    answer = desk.post("/enrol", json=application(site, secret))
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0 and seats(site) == []


def test_who_is_right_may_come_as_often_as_there_are_invitations(site, desk):
    with Roster(site.roster, 40) as roster:
        secrets = roster.issue(30, seconds=3600)
    assert {desk.post("/enrol", json=application(site, secret)).status_code for secret in secrets} == {200}
    assert len(seats(site)) == 30


def test_the_log_knows_reasons_but_nobody(site, desk, caplog):
    caplog.set_level("DEBUG")
    secret = "c" * 64
    desk.post("/enrol", json=application(site, secret))
    assert "unknown" in caplog.text
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("fedrec"))
    assert secret not in ours and "127.0.0.1" not in ours


def test_packs_are_plain_files_and_nothing_else(site, desk, door, register, tmp_path):
    content = os.urandom(200_000)
    (site.packs / "1" / "folder").mkdir(parents=True)
    (site.packs / "1" / "model.safetensors").write_bytes(content)
    (site.packs / "1" / "link").symlink_to(site.keys / "ca.key")
    (site.packs / "2").symlink_to(site.keys)
    assert desk.get("/pack/latest").status_code == 404
    (site.packs / "latest").write_text("1")
    assert desk.get("/pack/latest").content == b"1"
    assert desk.get("/pack/1/model.safetensors").content == content
    for name in ("1/link", "1/folder", "1/nothing", "2/ca.key", "2/ca.pem", "3/model.safetensors"):
        assert desk.get(f"/pack/{name}").status_code == 404
    assert desk.get("/pack/1/model.safetensors", headers={"range": "bytes=0-3"}).content == content

    digest = place_encoder(site.packs, encoder(tmp_path / "exported"))
    words = (tmp_path / "exported" / "vocab.txt").read_bytes()
    assert desk.get(f"/pack/encoders/{digest}/vocab.txt").content == words
    for name in (f"{digest}/nothing", f"{digest}/", digest, f"{'0' * 64}/vocab.txt"):
        assert desk.get(f"/pack/encoders/{name}").status_code == 404

    enrol(tmp_path / "device", invite(site))
    assert b"".join(fetch(tmp_path / "device", "pack/1/model.safetensors")) == content
    assert b"".join(fetch(tmp_path / "device", f"pack/encoders/{digest}/vocab.txt")) == words
    with pytest.raises(WireError, match="published"):
        list(fetch(tmp_path / "device", "pack/9/model.safetensors"))
    with pytest.raises(DataError, match="Enrol"):
        list(fetch(tmp_path / "nowhere", "pack/latest"))


def test_a_download_that_breaks_off_is_an_error(site, desk, register, tmp_path):
    enrol(tmp_path / "device", invite(site))
    card = json.loads((tmp_path / "device" / "device.json").read_text())
    (tmp_path / "device" / "device.json").write_text(json.dumps(card | {"server": "https://127.0.0.1:1"}))
    with pytest.raises(RunError, match="out of reach"):
        list(fetch(tmp_path / "device", "pack/latest"))
