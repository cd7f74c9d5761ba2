import os

import pytest
import tomli_w
from sites import TASK, make_site, prepare

from fedrec.deploy.certificates import check_private, fingerprint
from fedrec.deploy.invitation import Invitation
from fedrec.deploy.manifest import Manifest
from fedrec.deploy.site import Prepared, Site, SiteSpec
from fedrec.errors import RunError, SpecError, WireError

SPEC = SiteSpec(hosts=("films.example", "10.0.0.7"), seats=3)


def test_a_site_has_keys_a_run_and_a_signed_task(tmp_path):
    site = Site.create(tmp_path / "site", SPEC, prepare)
    assert Site.open(site.path) == site and site.spec == SPEC
    check_private(site.keys)
    assert {path.stat().st_mode & 0o077 for path in (site.path, site.state, site.logs, site.packs)} == {0}
    assert len(site.executor_secret.read_bytes()) == 64 and len(site.roster_key) == 32
    content, signature = ((site.task / name).read_bytes() for name in ("manifest.json", "manifest.sig"))
    manifest = Manifest.read(content, signature, site.roster_key)
    assert manifest.task == TASK and manifest.files["catalogue.parquet"].bytes == 20_000
    with pytest.raises(WireError, match="signed"):
        Manifest.read(content + b" ", signature, site.roster_key)
    with pytest.raises(WireError, match="signed"):
        Manifest.read(content, site.signing.sign(content), site.roster_key)  # the key's word about something else


def test_an_invitation_names_the_site_and_where_it_is(tmp_path):
    site = Site.create(tmp_path / "site", SPEC, prepare)
    offer = Invitation.decode(site.invite("s" * 64).encode())
    assert offer == Invitation("https://films.example:9443", fingerprint(site.ca), "s" * 64)
    assert SiteSpec(hosts=("::1",), seats=1).url == "https://[::1]:9443"


def test_a_finished_site_is_left_alone(tmp_path):
    site = Site.create(tmp_path / "site", SPEC, prepare)
    before = {path: path.read_bytes() for path in site.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="never replaced"):
        Site.create(site.path, SPEC, prepare)
    assert before == {path: path.read_bytes() for path in site.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="server init"):
        Site.open(tmp_path / "nowhere")


def test_an_interrupted_one_is_gone_on_with_and_keeps_its_keys(tmp_path, monkeypatch):
    moves = []
    replace = os.replace

    def counted(source, target):
        moves.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", counted)
    Site.create(tmp_path / "whole", SPEC, prepare)
    assert moves[-1].name == "server.toml"
    for last in range(len(moves)):
        path, left = tmp_path / f"site{last}", [last]

        def crash(source, target, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            Site.create(path, SPEC, prepare)
        with pytest.raises(RunError):
            Site.open(path)
        signing = path / "keys" / "signing.pem"
        kept = signing.read_bytes() if signing.exists() else None
        monkeypatch.setattr(os, "replace", replace)
        site = Site.create(path, SPEC, prepare)
        assert kept in (None, signing.read_bytes())
        content, signature = ((site.task / name).read_bytes() for name in ("manifest.json", "manifest.sig"))
        assert Manifest.read(content, signature, site.roster_key).task == TASK


def test_a_place_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="can be written"):
        Site.create(tmp_path / "file" / "site", SPEC, prepare)

    def full(run):
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left"):
        Site.create(tmp_path / "site", SPEC, full)
    assert Site.create(tmp_path / "site", SPEC, lambda run: Prepared(prepare(run).task, "told")).spec == SPEC


@pytest.mark.parametrize(
    "settings",
    [
        {"hosts": ()},
        {"hosts": ("https://films.example",)},
        {"hosts": ("films.example:9443",)},
        {"hosts": ("films example",)},
        {"hosts": ("-films.example",)},
        {"bind": "films.example"},
        {"operators": "9444"},
        {"operators": "films.example:9444"},
        {"operators": "127.0.0.1:99999"},
        {"superlink": 9443},
        {"begin": 1.5},
        {"seats": 0},
        {"packs": 1},
        {"colour": "blue"},
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings):
    site = make_site(tmp_path / "site")
    lines = {"hosts": ("films.example",), "seats": 3} | settings
    site.settings.write_text(tomli_w.dumps({name: list(v) if isinstance(v, tuple) else v for name, v in lines.items()}))
    with pytest.raises(SpecError):
        _ = site.spec
    site.settings.write_text("hosts = [")
    with pytest.raises(SpecError, match="TOML"):
        _ = site.spec
